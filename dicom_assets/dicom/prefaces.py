"""Prefaces of objects one behind the other, and the JSON of their File Meta Information (PS3.10 7.1).

Belongs here: File Meta Information as members of a DICOM JSON object, and that it need not be read anew where nothing
in it differs from that of the object before but the Media Storage SOP Instance UID: so it is within a series. Does not
belong here: what a preface is (`syntax`).
"""

from __future__ import annotations

import orjson

from dicom_assets.dicom.charset import DEFAULT
from dicom_assets.dicom.items import prefix_of
from dicom_assets.dicom.memo import Begun, Memo, MetaElement
from dicom_assets.dicom.references import inline
from dicom_assets.dicom.signature import LONG_VRS, is_usual
from dicom_assets.dicom.syntax import Preface, read_preface
from dicom_assets.dicom.values import BULK, json_element

MEDIA_SOP_INSTANCE = 0x00020003

_MARK_AT = 128  # of `DICM`
_UID = b"\2\0\3\0UI"
_GROUP = b"\2\0"  # of File Meta Information, as it is mostly written
_LONGEST_HEAD = 12  # bytes of an element before its value


def preface_of(head: bytes, size: int, memo: Memo) -> tuple[Preface, bytes]:
    """The preface of an object of `size` bytes that begins with `head`, and its File Meta Information as JSON members.

    Raises as `read_preface` does.
    """
    begun = memo.begun
    if begun is not None and _is_alike(head, begun):
        element = (MEDIA_SOP_INSTANCE, "UI", head[begun.at : begun.behind])
        preface = begun.preface._replace(meta=(*begun.before, element, *begun.after))
        return preface, b"%b%b%b" % (begun.json_before, _member(element, memo), begun.json_after)
    preface = read_preface(head, size)
    if preface.start == memo.began_at:  # two of a length in a row: a series, perhaps
        memo.begun = _begun(head, preface, memo)
    memo.began_at = preface.start
    return preface, b",".join(_member(element, memo) for element in preface.meta)


def _is_alike(head: bytes, begun: Begun) -> bool:
    """Whether the walk over File Meta Information would go the same way; it ends where another group begins."""
    start = begun.preface.start
    return (
        head.startswith(begun.front, _MARK_AT)
        and head.startswith(begun.back, begun.behind)
        and len(head) - start >= _LONGEST_HEAD
        and not head.startswith(_GROUP, start)
    )


def _begun(head: bytes, preface: Preface, memo: Memo) -> Begun | None:
    """What is remembered of an object that begins as nearly all do; None of any other."""
    start, meta = preface.start, preface.meta
    place = next((place for place, (tag, _, _) in enumerate(meta) if tag == MEDIA_SOP_INSTANCE), None)
    if place is None or not (preface.complete and is_usual(head)) or preface.flaws or len(head) - start < _LONGEST_HEAD:
        return None
    raw, before, after = meta[place][2], meta[:place], meta[place + 1 :]
    behind = start - sum(len(value) + (12 if vr.encode("ascii") in LONG_VRS else 8) for _, vr, value in after)
    at = behind - len(raw)
    if head[at - len(_UID) - 2 : behind] != _UID + len(raw).to_bytes(2, "little") + raw:
        return None  # VRs that are read as UN have other heads
    return Begun(
        front=head[_MARK_AT:at],
        at=at,
        behind=behind,
        back=head[behind:start],
        preface=preface,
        before=before,
        after=after,
        json_before=b"".join(_member(one, memo) + b"," for one in before),
        json_after=b"".join(b"," + _member(one, memo) for one in after),
    )


def _member(element: MetaElement, memo: Memo) -> bytes:
    """One element as a member of a DICOM JSON object; in front of what may be deflated, so always by value."""
    fragment = memo.meta.get(element)
    if fragment is None:
        tag, vr, raw = element
        if vr in BULK or vr == "SQ":  # a sequence has no place here, and is kept as the bytes that it is
            fragment = inline(prefix_of(tag, vr if vr in BULK else "UN"), raw)
        else:
            fragment = orjson.dumps({f"{tag:08X}": json_element(vr, raw, True, DEFAULT)[0]})[1:-1]
        memo.meta[element] = fragment
        memo.hold(2 * len(raw))
    return fragment
