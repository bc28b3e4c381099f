"""Which bytes of pixel data are one frame, native or encapsulated (PS3.5 8 and A.4, PS3.3 C.7.6.3.1.8).

Belongs here: offset tables, walking over fragments where there is no table, and cutting one frame out, by one ranged
read. Does not belong here: where the pixel data begin (`pixels`), opening the object (`landing.retrieval`), decoding.

A frame of encapsulated pixel data is a row of fragments; its offset is where the first one's item begins, its length
reaches to the end of the last one, heads of items included. So one read gives a frame however many fragments it has.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Any, NamedTuple

from dicom_assets.dicom.pixels import PixelData, frame_bits, frame_count
from dicom_assets.dicom.syntax import is_encapsulated, is_little
from dicom_assets.storage.byte_ranges import ByteSource
from dicom_assets.storage.window import Window

_EXTENDED, _EXTENDED_LENGTHS = 0x7FE00001, 0x7FE00002
_MOST_TABLE = 1 << 20
"""Bytes of an offset table that are read with a header; of a longer one frames are found when first asked for."""

_ITEM, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD
_LAST_BYTES = 10  # of a fragment, in which a codestream ends: its mark and padding
_CODESTREAM_END = b"\xff\xd9"  # EOI of JPEG and JPEG-LS, EOC of JPEG 2000
_WALK_BLOCK = 4096


class Lack(StrEnum):
    """Why there is no frame."""

    UNKNOWN = "the row was written by a release that did not note where pixel data lie; read its object again"
    NO_PIXELS = "the object has no pixel data"
    NO_SUCH_FRAME = "the object does not have so many frames"
    CUT_OFF = "the pixel data end before the frame does"
    DAMAGED = "where the frame should be, no fragments are"
    UNDIVIDED = "nothing tells which fragments are which frame"


class FrameError(ValueError):
    """A frame that cannot be given. lack: why."""

    def __init__(self, lack: Lack) -> None:
        """The message quotes nothing of the object."""
        super().__init__(str(lack))
        self.lack = lack


class Frames(NamedTuple):
    """Where each frame of encapsulated pixel data lies, in the bytes of the object."""

    offsets: Sequence[int]
    lengths: Sequence[int]


def frames_told(
    source: ByteSource,
    pixels: PixelData,
    little: bool,
    columns: Mapping[str, Any],
    tables: Mapping[int, tuple[int, int]],
) -> Frames | None:
    """The frames of encapsulated pixel data as the object itself tells them, None where it does not.

    tables: offset and length of the Extended Offset Table and its lengths. A table that cannot be right puts
    OFFSET_TABLE_INVALID into the issues of `pixels`, unless the pixel data are cut off, which says so already.
    """
    count, table_length = frame_count(columns), pixels.table_length
    if table_length is None or count is None:
        return None
    first = pixels.offset + 8 + table_length
    end = pixels.offset + pixels.length
    if _EXTENDED in tables and _EXTENDED_LENGTHS in tables:
        found = _extended(source, little, tables, count, first, end)
    elif table_length and count > 1:
        found = _basic(source, little, pixels.offset + 8, table_length, count, first, end)
    else:
        return Frames([first], [end - first]) if count == 1 and first < end else None
    if found is _TOO_LONG:
        return None
    if found is None and "TRUNCATED_PIXEL_DATA" not in pixels.issues:
        pixels.issues.add("OFFSET_TABLE_INVALID")
    return found


_TOO_LONG = Frames((), ())


def _extended(
    source: ByteSource, little: bool, tables: Mapping[int, tuple[int, int]], count: int, first: int, end: int
) -> Frames | None:
    """Frames by the Extended Offset Table, None where it cannot be right."""
    (at, size), (lengths_at, lengths_size) = tables[_EXTENDED], tables[_EXTENDED_LENGTHS]
    if size != 8 * count or lengths_size != 8 * count:
        return None
    if size > _MOST_TABLE:
        return _TOO_LONG
    form = f"{'<' if little else '>'}{count}Q"
    raw, raw_lengths = source.read(at, size), source.read(lengths_at, size)
    if len(raw) < size or len(raw_lengths) < size:
        return None
    offsets = [first + one for one in struct.unpack(form, raw)]
    lengths = [8 + one + one % 2 for one in struct.unpack(form, raw_lengths)]  # padded like any value
    is_sound = offsets[0] == first and offsets[-1] + lengths[-1] <= end
    is_sound = is_sound and all(a + length <= b for (a, b), length in zip(pairwise(offsets), lengths, strict=False))
    return Frames(offsets, lengths) if is_sound else None


def _basic(source: ByteSource, little: bool, at: int, size: int, count: int, first: int, end: int) -> Frames | None:
    """Frames by the Basic Offset Table, None where it cannot be right."""
    if size != 4 * count:
        return None
    if size > _MOST_TABLE:
        return _TOO_LONG
    raw = source.read(at, size)
    if len(raw) < size:
        return None
    offsets = [first + one for one in struct.unpack(f"{'<' if little else '>'}{count}I", raw)]
    lengths = [b - a for a, b in pairwise([*offsets, end])]
    return Frames(offsets, lengths) if offsets[0] == first and min(lengths) > 8 else None


# Finding frames when they are asked for


def walk_frames(source: ByteSource, row: Mapping[str, Any]) -> Frames:
    """The frames of encapsulated pixel data by its fragments, whatever its offset tables say.

    source, row: as for `read_frame`. Reads the head of each fragment, by ranges; who asks for more than one frame keeps
    the result. A fragment is a frame where there are as many of them; else frames end where codestreams do. Of pixel
    data that are cut off there are fewer frames. Raises FrameError (UNKNOWN, NO_PIXELS, DAMAGED, UNDIVIDED), and what
    the source raises.
    """
    offset, length = _place(row)
    count = frame_count(row) or 1
    little = is_little(row["TransferSyntaxUID"])
    fragments = list(_fragments(source, offset, offset + length, little))[1:]
    if not fragments:
        raise FrameError(Lack.DAMAGED)
    if count == 1:
        ends = [len(fragments) - 1]
    elif len(fragments) == count:
        ends = list(range(count))
    else:
        ends = [place for place, one in enumerate(fragments) if _ends_codestream(source, *one)]
        is_whole = source.read(offset + length, 4) == struct.pack("<HH" if little else ">HH", 0xFFFE, 0xE0DD)
        if not ends or len(ends) > count or (is_whole and (len(ends) < count or ends[-1] != len(fragments) - 1)):
            raise FrameError(Lack.UNDIVIDED)
    starts = [0, *(end + 1 for end in ends[:-1])]
    offsets = [fragments[start][0] for start in starts]
    lengths = [sum(fragments[end]) - start for start, end in zip(offsets, ends, strict=True)]
    return Frames(offsets, lengths)


def _fragments(source: ByteSource, at: int, end: int, little: bool) -> Iterator[tuple[int, int]]:
    """Offset and length of each item with its head, the offset table first; stops at what is none, or is cut off."""
    read, head = Window(source, _WALK_BLOCK).read, struct.Struct("<HHI" if little else ">HHI")
    while at + 8 <= end:
        raw = read(at, 8)
        if len(raw) < 8:
            return
        group, number, length = head.unpack(raw)
        if group << 16 | number != _ITEM or at + 8 + length > end:
            return
        yield at, 8 + length
        at += 8 + length


def _ends_codestream(source: ByteSource, offset: int, length: int) -> bool:
    """Whether a fragment is the last one of a codestream of the JPEG family."""
    size = min(length - 8, _LAST_BYTES)
    return _CODESTREAM_END in source.read(offset + length - size, size)


# One frame


def read_frame(source: ByteSource, row: Mapping[str, Any], number: int, frames: Frames | None = None) -> bytes:
    """The bytes of frame `number`, from 1, as they are stored: native, or the codestream without heads of items.

    source: what `pixel_offset` counts in. row: of flat_metadata, by column. frames: what `walk_frames` gave for this
    object before; without it, and where the row does not tell them, fragments are walked. One ranged read otherwise.
    Where the row names a place at which no fragments are, because an offset table lied, they are walked as well.
    A frame of single bits that does not begin at a byte is shifted to one. Raises FrameError, and what the source does.
    """
    offset, length = _place(row)
    count = frame_count(row)
    if number < 1 or (count is not None and number > count):
        raise FrameError(Lack.NO_SUCH_FRAME)
    told = row.get("frame_offsets")
    if told is None and not (is_encapsulated(row["TransferSyntaxUID"]) and (count or 1) > 1):
        return _native(source, row, number, offset, length)
    little = is_little(row["TransferSyntaxUID"])
    if frames is None and told:
        frame = _joined(source, told[number - 1], row["frame_lengths"][number - 1], little)
        if frame is not None:
            return frame
    frames = frames or walk_frames(source, row)
    if number > len(frames.offsets):
        raise FrameError(Lack.CUT_OFF)
    frame = _joined(source, frames.offsets[number - 1], frames.lengths[number - 1], little)
    if frame is None:
        raise FrameError(Lack.DAMAGED)
    return frame


def _place(row: Mapping[str, Any]) -> tuple[int, int]:
    """Offset and length of the pixel data. Raises FrameError."""
    offset, length = row.get("pixel_offset"), row.get("pixel_length")
    if offset is None or length is None:
        raise FrameError(Lack.UNKNOWN if row.get("header_form") is None else Lack.NO_PIXELS)
    if not length:
        raise FrameError(Lack.NO_PIXELS)
    return offset, length


def _native(source: ByteSource, row: Mapping[str, Any], number: int, offset: int, length: int) -> bytes:
    if is_encapsulated(row["TransferSyntaxUID"]):  # a codestream whose length is written, without any items
        return _exactly(source, offset, length)
    bits = frame_bits(row)
    if bits is None:
        raise FrameError(Lack.UNDIVIDED)
    first, shift = divmod(bits * (number - 1), 8)
    size = (shift + bits + 7) // 8
    if first + size > length:
        raise FrameError(Lack.CUT_OFF)
    raw = _exactly(source, offset + first, size)
    if not shift and not bits % 8:
        return raw
    aligned = (
        int.from_bytes(raw, "little") >> shift & (1 << bits) - 1
    )  # the first pixel is the lowest bit (PS3.5 8.1.1)
    return aligned.to_bytes((bits + 7) // 8, "little")


def _exactly(source: ByteSource, offset: int, length: int) -> bytes:
    raw = source.read(offset, length)
    if len(raw) < length:
        raise FrameError(Lack.CUT_OFF)
    return raw


def _joined(source: ByteSource, offset: int, length: int, little: bool) -> bytes | None:
    """The content of the fragments that lie from `offset` on, None where something else lies there."""
    raw = source.read(offset, length)
    head = struct.Struct("<HHI" if little else ">HHI")
    parts, at = [], 0
    while at + 8 <= len(raw):
        group, mark, size = head.unpack_from(raw, at)
        if group << 16 | mark != _ITEM:
            return None
        parts.append(raw[at + 8 : at + 8 + size])
        at += 8 + size
    return b"".join(parts) if at == length == len(raw) else None
