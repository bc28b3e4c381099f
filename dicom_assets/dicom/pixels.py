"""Truncation and excess behind the header, by arithmetic on lengths; no pixel is decoded and none is read.

Belongs here: what follows from lengths at and after Pixel Data. Does not belong here: the header's own end.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from dicom_assets.dicom.signature import EXPLICIT_VRS, LONG_VRS
from dicom_assets.dicom.syntax import Preface
from dicom_assets.storage.byte_ranges import ByteSource

PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
"""Float, Double Float and Pixel Data; a header ends before them."""

UNDEFINED = 0xFFFFFFFF
_TAIL = 256  # bytes at the end in which the sequence delimiter of encapsulated pixel data stands as a rule
_MAX_WALK = 20_000  # fragments or elements walked one by one before the rest is believed


def pixel_issues(source: ByteSource, offset: int, preface: Preface, columns: Mapping[str, Any]) -> set[str]:
    """Issues of pixel data whose element starts at `offset` and of everything behind it.

    TRUNCATED_PIXEL_DATA: shorter than its length, without end, or, where it is native, shorter than Rows x Columns x
    SamplesPerPixel x BitsAllocated x NumberOfFrames (PS3.5 8.1.1). TRAILING_BYTES: what follows is no data element.
    """
    order = "<" if preface.little else ">"
    try:
        tag, value, length = _element(source, offset, preface.explicit, order)
    except struct.error:
        return {"TRUNCATED_PIXEL_DATA"}
    if length == UNDEFINED:
        return _fragments(source, value, order, preface.explicit)
    end = value + length
    if end > source.size:
        return {"TRUNCATED_PIXEL_DATA"}
    issues = _excess(source, end, order, preface.explicit, tag)
    expected = None if preface.encapsulated else native_bytes(columns)
    if tag == 0x7FE00010 and expected is not None and length < expected:
        issues.add("TRUNCATED_PIXEL_DATA")
    return issues


def native_bytes(columns: Mapping[str, Any]) -> int | None:
    """Bytes that native Pixel Data needs at least, or None when an attribute is missing or senseless."""
    factors = [columns.get(name) for name in ("Rows", "Columns", "BitsAllocated")]
    samples, frames = columns.get("SamplesPerPixel", 1), columns.get("NumberOfFrames", 1)
    if columns.get("PhotometricInterpretation") in ("YBR_FULL_422", "YBR_PARTIAL_422"):
        samples = 2  # chrominance is subsampled horizontally (PS3.3 C.7.6.3.1.2)
    bits = 1
    for factor in (*factors, samples, frames):
        if not isinstance(factor, int) or factor <= 0:
            return None
        bits *= factor
    return (bits + 7) // 8


def _element(source: ByteSource, offset: int, explicit: bool, order: str) -> tuple[int, int, int]:
    """Tag, offset of the value, length. Raises struct.error at the end of the object."""
    head = source.read(offset, 12)
    group, number = struct.unpack_from(order + "HH", head)
    tag = group << 16 | number
    if explicit and group != 0xFFFE:
        vr = head[4:6]
        if vr in LONG_VRS:
            return tag, offset + 12, struct.unpack_from(order + "I", head, 8)[0]
        if vr in EXPLICIT_VRS:
            return tag, offset + 8, struct.unpack_from(order + "H", head, 6)[0]
    return tag, offset + 8, struct.unpack_from(order + "I", head, 4)[0]


def _fragments(source: ByteSource, start: int, order: str, explicit: bool) -> set[str]:
    """Encapsulated pixel data (PS3.5 A.4) from its first item on: its delimiter at the very end is enough."""
    delimiter = struct.pack(order + "HHI", 0xFFFE, 0xE0DD, 0)
    size = source.size
    if size - start < 8:
        return {"TRUNCATED_PIXEL_DATA"}
    tail = source.read(max(start, size - _TAIL), _TAIL)
    if tail.endswith(delimiter):
        return set()
    offset = start
    for _ in range(_MAX_WALK):
        head = source.read(offset, 8)
        if len(head) < 8:
            return {"TRUNCATED_PIXEL_DATA"}
        group, number, length = struct.unpack(order + "HHI", head)
        if (group, number) == (0xFFFE, 0xE0DD):
            return _excess(source, offset + 8, order, explicit, 0x7FE00010)
        if (group, number) != (0xFFFE, 0xE000) or offset + 8 + length > size:
            return {"TRUNCATED_PIXEL_DATA"}
        offset += 8 + length
    return set()


def _excess(source: ByteSource, end: int, order: str, explicit: bool, last: int) -> set[str]:
    """What follows `end`: further data elements in ascending order up to the end of the object, or trailing bytes."""
    for _ in range(_MAX_WALK):
        if end == source.size:
            return set()
        try:
            tag, value, length = _element(source, end, explicit, order)
        except struct.error:
            return {"TRAILING_BYTES"}
        if tag <= last or length == UNDEFINED or value + length > source.size:
            return {"TRAILING_BYTES"} if tag <= last or length != UNDEFINED else set()
        last, end = tag, value + length
    return set()
