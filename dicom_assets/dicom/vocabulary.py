"""How an element is read, by its first bytes: tag and, where it is written, VR (PS3.5 7.1, PS3.6).

Belongs here: one look-up from those bytes to everything that the walk must know, by pydicom's dictionaries. Does not
belong here: the walk (`elements`), values.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from pydicom.datadict import dictionary_VR, private_dictionary_VR

from dicom_assets.dicom.pixels import PIXELS, pixel_vr
from dicom_assets.dicom.signature import EXPLICIT_VRS, LONG_VRS
from dicom_assets.dicom.values import BULK, DECODERS

SHORT_LENGTH, LONG_LENGTH, IMPLICIT_LENGTH = range(3)
"""Where the length stands: 2 bytes at 6, 4 bytes at 8, 4 bytes at 4."""

VALUE = 0
"""Has a value that its VR and the character set decide."""
SEQUENCE = 1
BULK_DATA = 2
"""Bulk data, or a VR that nobody knows (UN): inline where it is short, else by its place."""
NOTED = 3
"""A value that others depend on: private creators, Pixel Representation."""
PRIVATE = 4
"""A private element whose VR the private dictionary knows by its creator, if at all."""
SIGNED = 5
"""US or SS, as Pixel Representation says."""
CHARSET = 6
PIXEL_DATA = 7
DELIMITER = 8
UNKNOWN_VR = 9
"""Written as UN, while the dictionary knows the VR: implicit and little endian, whatever its length (PS3.5 6.2.2)."""
ODD = 10
"""Left to tier 2."""

CHARACTER_SET = 0x00080005
PIXEL_REPRESENTATION = 0x00280103
_LUT_DESCRIPTORS = frozenset({0x00281101, 0x00281102, 0x00281103, 0x00283002})
_US_OR_SS = frozenset(
    {0x00280104, 0x00280105, 0x00280106, 0x00280107, 0x00280108, 0x00280109, 0x00280110, 0x00280111}
    | {0x00280120, 0x00280121, 0x00281101, 0x00281102, 0x00281103, 0x00283002, 0x00409211, 0x00409216}
    | {0x00603004, 0x00603006}
)
_WAVEFORMS = frozenset({0x54000110, 0x54000112, 0x5400100A, 0x54001010})
_MOST = 1 << 16  # look-ups kept; more only come from hostile objects


class Known(NamedTuple):
    """How to read an element: tag, where its length stands, what to do, VR, and how its JSON begins."""

    tag: int
    form: int
    action: int
    vr: str
    prefix: bytes


class Vocabulary(dict[bytes, Known]):
    """Known elements of one encoding, by their first bytes; fills itself. `width`: how many bytes those are."""

    def __init__(self, explicit: bool, little: bool) -> None:
        """Empty."""
        super().__init__()
        self.explicit = explicit
        self.width = 6 if explicit else 4
        self._tag = struct.Struct("<HH" if little else ">HH")

    def __missing__(self, head: bytes) -> Known:
        """The element that begins with these bytes. Raises struct.error when they are too few."""
        if len(head) < self.width:
            raise struct.error("the bytes end inside an element")
        group, number = self._tag.unpack_from(head)
        known = _explicit(group, number, head[4:6]) if self.explicit else _implicit(group, number)
        if len(self) >= _MOST:
            self.clear()
        self[head] = known
        return known


def _known(tag: int, form: int, action: int, vr: str) -> Known:
    return Known(tag, form, action, vr, f'"{tag:08X}":{{"vr":"{vr}"'.encode("ascii"))


def _explicit(group: int, number: int, written: bytes) -> Known:
    tag = group << 16 | number
    if group == 0xFFFE:
        return _known(tag, IMPLICIT_LENGTH, DELIMITER, "")
    if written not in EXPLICIT_VRS:
        return _known(tag, SHORT_LENGTH, ODD, "")
    form = LONG_LENGTH if written in LONG_VRS else SHORT_LENGTH
    vr = written.decode("ascii")
    if group < 8 and group % 2 == 0:
        action = ODD
    elif tag in PIXELS:
        action, vr = PIXEL_DATA, pixel_vr(tag, vr)
    elif vr == "UN":
        return _known(tag, form, *_unknown(tag, group, number))
    elif tag == CHARACTER_SET:
        action = CHARSET if vr == "CS" else ODD
    elif tag in _LUT_DESCRIPTORS and vr == "SS":
        action = ODD
    elif tag == PIXEL_REPRESENTATION:
        action = NOTED if vr == "US" else ODD
    else:
        action = _plain(group, number, vr)
    return _known(tag, form, action, vr)


def _plain(group: int, number: int, vr: str) -> int:
    if vr == "SQ":
        return SEQUENCE
    if vr in BULK:
        return BULK_DATA
    return NOTED if group % 2 and 0x10 <= number <= 0xFF else VALUE


def _unknown(tag: int, group: int, number: int) -> tuple[int, str]:
    """Action and VR of an element that is written as UN."""
    if group % 2:
        return _private(number)
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        return BULK_DATA, "UN"
    if tag == CHARACTER_SET:
        return CHARSET, vr
    return (UNKNOWN_VR, vr) if vr in DECODERS else (BULK_DATA, vr) if vr in BULK else (ODD, "UN")


def _private(number: int) -> tuple[int, str]:
    """Action and VR of a private element whose VR is not written (PS3.5 7.8.1)."""
    if 0x10 <= number <= 0xFF:
        return NOTED, "LO"
    return (PRIVATE, "UN") if number & 0xFF00 else (BULK_DATA, "UN")


def _implicit(group: int, number: int) -> Known:
    tag = group << 16 | number
    if group == 0xFFFE:
        return _known(tag, IMPLICIT_LENGTH, DELIMITER, "")
    if tag in PIXELS:
        return _known(tag, IMPLICIT_LENGTH, PIXEL_DATA, pixel_vr(tag, None))
    if group % 2:
        return _known(tag, IMPLICIT_LENGTH, *_private(number))
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        vr = "UL" if number == 0 else "UN"
    if group < 8:
        action = ODD
    elif tag == CHARACTER_SET:
        action = CHARSET
    elif tag == PIXEL_REPRESENTATION:
        action = NOTED
    elif " or " in vr:
        action, vr = _ambiguous(tag, vr)
    else:
        action = _plain(group, number, vr)
    return _known(tag, IMPLICIT_LENGTH, action, vr)


def _ambiguous(tag: int, vr: str) -> tuple[int, str]:
    if vr == "US or SS" and tag in _US_OR_SS:
        return SIGNED, "US"
    if vr == "OB or OW" and (tag in _WAVEFORMS or 0x6000 <= tag >> 16 <= 0x601E):
        return BULK_DATA, "OW"
    return ODD, vr


def private_vr(tag: int, creator: str) -> str:
    """VR of a private element by its creator; UN where the private dictionary does not know it."""
    try:
        return private_dictionary_VR(tag, creator)
    except KeyError:
        return "UN"
