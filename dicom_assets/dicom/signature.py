"""Whether bytes begin like a DICOM object, with or without preamble (PS3.10 7.1).

Belongs here: the look at the first bytes. Does not belong here: reading (`header`), other kinds of files.
"""

from __future__ import annotations

import struct

from pydicom.datadict import dictionary_has_tag, dictionary_VR

EXPLICIT_VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""VRs whose explicit length has four bytes (PS3.5 7.1.2)."""

_FIRST_GROUPS = (0x0002, 0x0008)
PREFIX = b"DICM"
_BEHIND_PREAMBLE = 132
_FARTHEST = 256  # bytes in front of `DICM` that may be anything: a preamble with something in front of it
_MOST = 4096  # bytes; first elements are short: a group length, a character set, an image type, a UID


def has_preamble(head: bytes) -> bool:
    """Whether `DICM` stands behind 128 bytes."""
    return head[128:132] == PREFIX


def looks_like_dicom(head: bytes) -> bool:
    """Whether an object whose first bytes (up to 4096) are `head` begins like DICOM, and like nothing else.

    What parses decides: behind preamble and `DICM`, or at the very beginning, two elements must be plausible, of a
    first group, known, in ascending order, of a sound VR and length, in either encoding and byte order. Text, tables
    and archives never are. An empty preamble counts whatever follows it: the object is damaged DICOM.
    """
    if is_usual(head):
        return True
    return (has_preamble(head) and (_parses(head, _BEHIND_PREAMBLE) or not any(head[:128]))) or _parses(head, 0)


def begins_at(head: bytes) -> int | None:
    """Where File Meta Information or data set begin, also where the preamble is not what it should be; None if nowhere.

    To be asked when an object is nothing else, since an archive may hold a DICOM file near its beginning: `DICM` stands
    behind too few bytes or behind zeros, and what follows parses; or it stands in its place behind bytes that are no
    text, and what follows is damaged.
    """
    if is_usual(head):
        return _BEHIND_PREAMBLE
    if looks_like_dicom(head):
        return _BEHIND_PREAMBLE if has_preamble(head) and not _parses(head, 0) else 0
    at = head.find(PREFIX)
    while at >= 0 and (at <= _FARTHEST or not any(head[:at])):
        if _parses(head, at + len(PREFIX)):
            return at + len(PREFIX)
        at = head.find(PREFIX, at + 1)
    return _BEHIND_PREAMBLE if has_preamble(head) and 0 in head[:128] else None


def is_usual(head: bytes) -> bool:
    """Whether an object begins as nearly all do: the question is asked of each."""
    return head[128:134] == b"DICM\2\0" and head[136:138] in EXPLICIT_VRS


def _parses(head: bytes, offset: int) -> bool:
    return any(_plausible(head[offset:], explicit, little) for explicit in (True, False) for little in (True, False))


def _plausible(head: bytes, explicit: bool, little: bool) -> bool:
    first = _element(head, 0, explicit, little)
    if first is None or not _may_be_first(head, first[0], explicit, little):
        return False
    tag, end = first
    if end >= len(head):
        return end <= _MOST and len(head) >= 8
    second = _element(head, end, explicit, little)
    if second is None and tag >> 16 == 2:
        # The data set may have another encoding than the File Meta Information.
        second = _element(head, end, not explicit, little) or _element(head, end, explicit, not little)
    return len(head) - end < 8 or (second is not None and second[0] > tag)


def _may_be_first(head: bytes, tag: int, explicit: bool, little: bool) -> bool:
    """Whether an object may begin with this element: by its group, or, where VRs are written, by its VR."""
    if tag >> 16 in _FIRST_GROUPS:
        return True
    if tag == 0:
        return not explicit and little and head[4:8] == b"\4\0\0\0"  # the length of a command set (PS3.7 6.3)
    if not explicit or tag >> 16 < 0x0008 or not dictionary_has_tag(tag):
        return False
    return head[4:6].decode("latin-1") in dictionary_VR(tag).split(" or ")


def _element(head: bytes, offset: int, explicit: bool, little: bool) -> tuple[int, int] | None:
    """Tag and end of a plausible element at `offset`, or None."""
    if len(head) - offset < 8:
        return None
    order = "<" if little else ">"
    group, number = struct.unpack_from(order + "HH", head, offset)
    tag = group << 16 | number
    if number and not dictionary_has_tag(tag) and group % 2 == 0:
        return None
    if explicit:
        vr = head[offset + 4 : offset + 6]
        if vr not in EXPLICIT_VRS:
            return None
        if vr in LONG_VRS:
            if len(head) - offset < 12:
                return None
            start = offset + 12
            (length,) = struct.unpack_from(order + "I", head, offset + 8)
            if vr == b"SQ" and length == 0xFFFFFFFF:
                return tag, start
        else:
            start = offset + 8
            (length,) = struct.unpack_from(order + "H", head, offset + 6)
    else:
        start = offset + 8
        (length,) = struct.unpack_from(order + "I", head, offset + 4)
    if length > _MOST or (number == 0 and length != 4):
        return None
    return tag, start + length
