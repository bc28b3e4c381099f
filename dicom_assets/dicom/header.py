"""The header of one object: bytes in; DICOM JSON, typed columns and issue codes out.

Belongs here: the contract of reading, which tier reads an object, and the judgements on the whole object (identity,
File Meta Information, ends). Does not belong here: elements, values, columns, which have their modules.

The tiers: 1 is a reader that makes one pass; 2 is one that looks around, for whatever is unusual; 3 is an outcome with
a reason code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dicom_assets.dicom import elements, fallback, flaws
from dicom_assets.dicom.behind import elements_behind
from dicom_assets.dicom.frames import frames_told
from dicom_assets.dicom.heads import Encoding
from dicom_assets.dicom.items import Unusual
from dicom_assets.dicom.memo import Memo
from dicom_assets.dicom.object_digests import ObjectDigests, digest_object
from dicom_assets.dicom.parsed import Parsed
from dicom_assets.dicom.pixels import PixelData, frame_count, locate_pixels
from dicom_assets.dicom.prefaces import MEDIA_SOP_INSTANCE, preface_of
from dicom_assets.dicom.rejections import NotDicom, Unreadable
from dicom_assets.dicom.stable import says_which, stable_digest
from dicom_assets.dicom.syntax import IMPLICIT_LITTLE, MEDIA_DIRECTORY, Preface, data_set
from dicom_assets.schema.codes import CODES
from dicom_assets.settings import ReadingLimits
from dicom_assets.storage.byte_ranges import ByteSource

__all__ = ["Header", "Memo", "NotDicom", "Unreadable", "read_header"]

IDENTITY = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_LAST_IDENTITY = 0x0020000E
TRANSFER_SYNTAX = 0x00020010
_ORDER = {code: place for place, code in enumerate(CODES)}


WHOLE = "whole"
"""`header_form` of a header that has each element of its object, by value or by reference."""
RECEIVED = "received"
"""`header_form` of a header that is what a DICOM service said of an object, with its references to bulk data."""


class Pixels(NamedTuple):
    """Where pixel data lie: the columns `pixel_offset`, `pixel_length`, `frame_offsets` and `frame_lengths`."""

    offset: int
    length: int
    frame_offsets: Sequence[int] | None
    frame_lengths: Sequence[int] | None


@dataclass(slots=True)
class Header:
    """What one object says.

    json: DICOM JSON Model (PS3.18 F) of File Meta Information and data set, each element by value or by reference
    (`references`). columns: value by column of `flat_metadata`, ready for the column's Arrow type; a column that is not
    there is NULL. issues: warning codes in the registry's order. pixels: where the pixel data lie, None without any.
    form: how complete `json` is, as in the column `header_form`. stable_digest: the column, None where the object does
    not say which one it is. digests: of the whole object, None where it was not read whole. media_directory: a
    DICOMDIR; nothing else of it is read. tier: 1 or 2. fallback: why tier 1 left it, if it did.
    """

    json: bytes
    columns: dict[str, Any]
    issues: tuple[str, ...]
    pixels: Pixels | None = None
    form: str = WHOLE
    stable_digest: str | None = None
    digests: ObjectDigests | None = None
    media_directory: bool = False
    tier: int = 2
    fallback: str | None = None


_MEDIA_DIRECTORY = Header(b"{}", {}, (), media_directory=True, tier=1)


def read_header(source: ByteSource, limits: ReadingLimits, memo: Memo | None = None) -> Header:
    """Reads one object's header.

    Raises NotDicom, Unreadable (EMPTY_FILE, TOO_LARGE, TRUNCATED_HEADER, UNPARSEABLE, MISSING_IDENTITY), or what the
    source raises when its storage fails.
    """
    if source.size == 0:
        raise Unreadable("EMPTY_FILE", "no bytes")
    memo = Memo() if memo is None else memo
    ahead = _Ahead(source, memo.first_reach.length(limits.first_read_bytes))
    preface, meta = ahead.preface(memo)
    if source.size > limits.max_object_bytes:
        raise Unreadable("TOO_LARGE", "the object is larger than the bound")
    if preface.media_directory:
        return _MEDIA_DIRECTORY
    body, start, wrapping = data_set(ahead, preface, limits.max_inflated_bytes)
    window = body.read(0, limits.first_read_bytes) if preface.deflated else ahead.head
    reason: str | None = None
    try:
        found = elements.parse(body, start, window, 0, preface, limits, memo)
    except Unusual as unusual:
        reason = unusual.reason
        found = fallback.parse(body, start, preface, limits)
    found.flaws |= preface.flaws | wrapping
    columns = found.columns
    if columns.get("SOPClassUID") == MEDIA_DIRECTORY:
        return _MEDIA_DIRECTORY
    _require_identity(found)
    issues = _issues(preface, found)
    pixels: Pixels | None = None
    located: PixelData | None = None
    behind: list[bytes] = []
    if found.at_pixels and not found.truncated:
        form = _as_found(preface, found)
        located = locate_pixels(body, found.end, form, columns)
        pixels = _pixels(body, form, found, located)
        issues |= located.issues
        behind = [located.fragment]
        if located.end is not None and located.end < body.size:
            more, left = elements_behind(body, located.end, located.tag, Encoding(form.explicit, form.little))
            behind += more
            issues |= {"TRAILING_BYTES"} if left else set()
    columns["TransferSyntaxUID"] = preface.transfer_syntax
    json = b"{%b}" % b",".join([meta, found.json, *behind] if meta else [found.json, *behind])
    told = tuple(sorted(issues, key=_ORDER.__getitem__)) if issues else ()
    stable = stable_digest([*found.parts, *behind], memo) if says_which(columns) else None
    little = preface.little if found.encoding is None else found.encoding.little
    digests = digest_object(source, body, located, little, columns) if limits.pixel_digest else None
    return Header(
        json, columns, told, pixels, stable_digest=stable, digests=digests, tier=2 if reason else 1, fallback=reason
    )


def _pixels(body: ByteSource, preface: Preface, found: Parsed, located: PixelData) -> Pixels:
    """The columns of pixel data. Where frames of encapsulated ones are not told, their lists are empty, not NULL."""
    offset, length, table = located.offset, located.length, located.table_length
    if not located.encapsulated:
        return Pixels(offset, length, None, None)
    if table == 0 and length > 8 and not found.tables and frame_count(found.columns) == 1:  # nearly always
        return Pixels(offset, length, (offset + 8,), (length - 8,))
    frames = frames_told(body, located, preface.little, found.columns, found.tables)
    offsets, lengths = ((), ()) if frames is None else (frames.offsets, frames.lengths)
    return Pixels(offset, length, offsets, lengths)


class _Ahead:
    """A source whose first bytes are there already: most objects need a single read."""

    __slots__ = ("_source", "head", "size")

    def __init__(self, source: ByteSource, length: int) -> None:
        self._source = source
        self.size = source.size
        self.head = source.read(0, length)

    def read(self, offset: int, length: int) -> bytes:
        if offset + length <= len(self.head):
            return self.head[offset : offset + length]
        return self._source.read(offset, length)

    def preface(self, memo: Memo) -> tuple[Preface, bytes]:
        """Preamble and File Meta Information; reads more where they are longer than what is there."""
        while True:
            try:
                return preface_of(self.head, self.size, memo)
            except IndexError:
                self.head = self._source.read(0, 4 * max(len(self.head), 4096))


def _require_identity(found: Parsed) -> None:
    if all(map(found.columns.get, IDENTITY)):
        return
    incomplete = found.flaws & flaws.HEADER_INCOMPLETE
    if found.truncated or not (found.at_pixels or incomplete or found.last >= _LAST_IDENTITY):
        raise Unreadable("TRUNCATED_HEADER", "the object ends before its identity", found.end)
    if found.flaws & flaws.HEADER_INCOMPLETE:
        raise Unreadable("UNPARSEABLE", "what stands in the data set is no data element", found.end)
    raise Unreadable("MISSING_IDENTITY", "Study, Series or SOP Instance UID is missing")


def _issues(preface: Preface, found: Parsed) -> set[str]:
    """Everything wrong in front of pixel data that does not keep the object out."""
    columns = found.columns
    issues = set(flaws.codes(found.flaws))
    if _as_found(preface, found) is not preface and preface.text(TRANSFER_SYNTAX).startswith(IMPLICIT_LITTLE):
        issues.add("STRUCTURE_INVALID")  # PS3.10 7.1; how data in a private transfer syntax are written is not known
    if not preface.complete:
        issues.add("META_MISSING")
    if (named := preface.text(MEDIA_SOP_INSTANCE)) and named != columns["SOPInstanceUID"]:
        issues.add("SOP_INSTANCE_UID_MISMATCH")
    if not columns.get("PatientID"):
        issues.add("PATIENT_ID_MISSING")
    if found.truncated:
        issues.add("TRUNCATED_DATA_SET")
    elif found.trailing and not found.at_pixels:
        issues.add("TRAILING_BYTES")
    return issues


def _as_found(preface: Preface, found: Parsed) -> Preface:
    """The preface with the encoding that the data set has; itself where it has the declared one."""
    if found.encoding in (None, Encoding(preface.explicit, preface.little)):
        return preface
    return preface._replace(explicit=found.encoding.explicit, little=found.encoding.little)
