"""Where pixel data lie, and whether they are cut off, by arithmetic on lengths; no pixel is decoded, none is read.

Belongs here: what follows from the lengths in Pixel Data. Does not belong here: the header's own end, elements behind
pixel data (`behind`), which part of the pixel data a frame is (`frames`).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from dicom_assets.dicom.references import placed
from dicom_assets.dicom.signature import EXPLICIT_VRS, LONG_VRS
from dicom_assets.dicom.syntax import Preface
from dicom_assets.dicom.values import BULK
from dicom_assets.storage.byte_ranges import ByteSource

PIXEL_DATA = 0x7FE00010
PIXELS = frozenset({0x7FE00008, 0x7FE00009, PIXEL_DATA})
"""Float, Double Float and Pixel Data; a header ends before them."""
OFFSET_TABLES = frozenset({0x7FE00001, 0x7FE00002})
"""Extended Offset Table and Extended Offset Table Lengths (PS3.3 C.7.6.3.1.8)."""

UNDEFINED = 0xFFFFFFFF
_TAIL = 256  # bytes at the end in which the sequence delimiter of encapsulated pixel data stands as a rule
_NEAR = 2  # fragments, the offset table among them, that are walked whatever stands at the end
_MAX_WALK = 20_000  # fragments walked one by one before the rest is believed
_ITEM, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_HEAD = {order: struct.Struct(order + "HHI").unpack for order in "<>"}
_TWO_HEADS = {order: struct.Struct(order + "HHIHHI").unpack for order in "<>"}
_DELIMITER = {order: struct.pack(order + "HHI", *_SEQUENCE_END, 0) for order in "<>"}


class PixelData:
    """The first of the elements of PIXELS in an object.

    offset, length: of its value, as far as it is there; where it is encapsulated, of its items without the delimiter.
    fragment: its JSON member. end: where its element ends, None where the object does. table_length: bytes of the Basic
    Offset Table (PS3.5 A.4), None where there is no item for it. issues: TRUNCATED_PIXEL_DATA.
    """

    __slots__ = ("encapsulated", "end", "fragment", "issues", "length", "offset", "table_length", "tag")

    def __init__(self, tag: int, offset: int, length: int, encapsulated: bool) -> None:
        """Nothing wrong so far."""
        self.tag, self.offset, self.length, self.encapsulated = tag, offset, length, encapsulated
        self.fragment = b""
        self.end: int | None = None
        self.table_length: int | None = None
        self.issues: set[str] = set()


def pixel_vr(tag: int, written: str | None, *, encapsulated: bool = False) -> str:
    """The VR of an element of PIXELS: as written, where that is one for pixels, else by PS3.5 8 and A."""
    if written in BULK and written != "UN":
        return written
    return {0x7FE00008: "OF", 0x7FE00009: "OD"}.get(tag) or ("OB" if encapsulated else "OW")


def locate_pixels(source: ByteSource, offset: int, preface: Preface, columns: Mapping[str, Any]) -> PixelData:
    """The pixel data whose element starts at `offset`.

    TRUNCATED_PIXEL_DATA: shorter than its length, without end, or, where it is native, shorter than Rows x Columns x
    SamplesPerPixel x BitsAllocated x NumberOfFrames (PS3.5 8.1.1).
    """
    order = "<" if preface.little else ">"
    try:
        tag, vr, value, length = _element(source, offset, preface.explicit, order)
    except struct.error:
        found = PixelData(PIXEL_DATA, source.size, 0, False)
        found.fragment = placed(_prefix(PIXEL_DATA, "OW"), source.size, 0)
        found.issues.add("TRUNCATED_PIXEL_DATA")
        return found
    end: int | None
    if length == UNDEFINED:
        found = PixelData(tag, value, 0, True)
        end = _encapsulated(source, found, order)
    else:
        end = value + length
        found = PixelData(tag, value, length if end <= source.size else source.size - value, False)
        expected = None if preface.encapsulated else native_bytes(columns)
        if end > source.size or (tag == PIXEL_DATA and expected is not None and length < expected):
            found.issues.add("TRUNCATED_PIXEL_DATA")
    vr = pixel_vr(tag, vr, encapsulated=found.encapsulated)
    prefix = _PREFIXES.get((tag, vr)) or _prefix(tag, vr)
    found.fragment = placed(prefix, value, found.length, encapsulated=found.encapsulated)
    found.end = end
    return found


def frame_bits(columns: Mapping[str, Any]) -> int | None:
    """Bits of one frame of native Pixel Data, or None when an attribute is missing or senseless."""
    samples = columns.get("SamplesPerPixel")
    samples = 1 if samples is None else samples
    if columns.get("PhotometricInterpretation") in ("YBR_FULL_422", "YBR_PARTIAL_422"):
        samples = 2  # chrominance is subsampled horizontally (PS3.3 C.7.6.3.1.2)
    bits = 1
    for factor in (columns.get("Rows"), columns.get("Columns"), columns.get("BitsAllocated"), samples):
        if not isinstance(factor, int) or factor <= 0:
            return None
        bits *= factor
    return bits


def frame_count(columns: Mapping[str, Any]) -> int | None:
    """How many frames an object has: what it says, 1 where it says nothing, None where that is no number of frames."""
    frames = columns.get("NumberOfFrames")
    frames = 1 if frames is None else frames
    return frames if isinstance(frames, int) and frames > 0 else None


def native_bytes(columns: Mapping[str, Any]) -> int | None:
    """Bytes that native Pixel Data needs at least, or None when an attribute is missing or senseless."""
    bits, frames = frame_bits(columns), frame_count(columns)
    return None if bits is None or frames is None else (bits * frames + 7) // 8


def _prefix(tag: int, vr: str) -> bytes:
    return f'"{tag:08X}":{{"vr":"{vr}"'.encode("ascii")


_PREFIXES = {(PIXEL_DATA, vr): _prefix(PIXEL_DATA, vr) for vr in ("OB", "OW")}


def _element(source: ByteSource, offset: int, explicit: bool, order: str) -> tuple[int, str | None, int, int]:
    """Tag, VR as written, offset of the value, length. Raises struct.error at the end of the object."""
    head = source.read(offset, 12)
    group, number = struct.unpack_from(order + "HH", head)
    tag = group << 16 | number
    if explicit and group != 0xFFFE:
        vr = head[4:6]
        if vr in LONG_VRS:
            return tag, vr.decode("ascii"), offset + 12, struct.unpack_from(order + "I", head, 8)[0]
        if vr in EXPLICIT_VRS:
            return tag, vr.decode("ascii"), offset + 8, struct.unpack_from(order + "H", head, 6)[0]
    return tag, None, offset + 8, struct.unpack_from(order + "I", head, 4)[0]


def _encapsulated(source: ByteSource, found: PixelData, order: str) -> int | None:
    """Finds the end of fragments (PS3.5 A.4): where what follows them begins; None where there is nothing to look at.

    The first ones are walked, so that of a single fragment the end is sure. Behind more of them, a delimiter at the
    object's very end is theirs; where there is none, all of them are walked.
    """
    head = _HEAD[order]
    size, start = source.size, found.offset
    found.length = max(size - start, 0)
    if found.length > 24:  # nearly always: an empty table, one fragment, and the end
        heads = _TWO_HEADS[order](source.read(start, 16))
        length = found.length - 24
        if heads == (*_ITEM, 0, *_ITEM, length) and source.read(size - 8, 8) == _DELIMITER[order]:
            found.length, found.table_length = length + 16, 0
            return None
    at, walked = start, 0
    while walked < _MAX_WALK:
        raw = source.read(at, 8)
        if len(raw) < 8:
            break
        group, number, length = head(raw)
        if (group, number) == _SEQUENCE_END:
            found.length = at - start
            return at + 8
        if (group, number) != _ITEM or at + 8 + length > size:
            break
        if walked == _NEAR and _ends(source, start, order):
            found.length = size - 8 - start
            return None
        if not walked:
            found.table_length = length
        at, walked = at + 8 + length, walked + 1
    else:
        return None
    if walked <= _NEAR and size - start >= 8 and _ends(source, start, order):
        found.length = size - 8 - start
    else:
        found.issues.add("TRUNCATED_PIXEL_DATA")
    return None


def _ends(source: ByteSource, start: int, order: str) -> bool:
    """Whether the object ends with a sequence delimiter behind `start`."""
    tail = source.read(max(start, source.size - _TAIL), _TAIL)
    return tail.endswith(_DELIMITER[order])
