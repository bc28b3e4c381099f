"""Whether bytes begin like a DICOM object, with or without preamble (PS3.10 7.1).

Belongs here: the look at the first bytes. Does not belong here: reading (`header`), other kinds of files.
"""

from __future__ import annotations

import struct

from pydicom._dicom_dict import DicomDictionary

EXPLICIT_VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""VRs whose explicit length has four bytes (PS3.5 7.1.2)."""

_FIRST_GROUPS = (0x0002, 0x0008)
_MOST = 4096  # bytes; first elements are short: a group length, a character set, an image type, a UID


def has_preamble(head: bytes) -> bool:
    """Whether `DICM` stands behind 128 bytes."""
    return head[128:132] == b"DICM"


def looks_like_dicom(head: bytes) -> bool:
    """Whether an object whose first bytes (up to 4096) are `head` begins like DICOM.

    Without `DICM` its first two elements must be plausible: of group 0002 or 0008, known, in ascending order, of a
    sound VR and length, in either encoding and byte order. Text, tables and archives never are.
    """
    return has_preamble(head) or any(
        _plausible(head, explicit, little) for explicit in (True, False) for little in (True, False)
    )


def _plausible(head: bytes, explicit: bool, little: bool) -> bool:
    first = _element(head, 0, explicit, little)
    if first is None or first[0] >> 16 not in _FIRST_GROUPS:
        return False
    tag, end = first
    if end >= len(head):
        return end <= _MOST and len(head) >= 8
    second = _element(head, end, explicit, little)
    if second is None and tag >> 16 == 2:
        # The data set may have another encoding than the File Meta Information.
        second = _element(head, end, not explicit, little) or _element(head, end, explicit, not little)
    return len(head) - end < 8 or (second is not None and second[0] > tag)


def _element(head: bytes, offset: int, explicit: bool, little: bool) -> tuple[int, int] | None:
    """Tag and end of a plausible element at `offset`, or None."""
    if len(head) - offset < 12:
        return None
    order = "<" if little else ">"
    group, number = struct.unpack_from(order + "HH", head, offset)
    tag = group << 16 | number
    if number and tag not in DicomDictionary and group % 2 == 0:
        return None
    if explicit:
        vr = head[offset + 4 : offset + 6]
        if vr not in EXPLICIT_VRS:
            return None
        if vr in LONG_VRS:
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
