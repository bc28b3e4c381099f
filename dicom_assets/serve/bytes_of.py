"""Reading from objects for an answer: threads of their own, what rows do not tell, one frame.

Belongs here: between a row with its place (`places`) and bytes that are sent. Does not belong here: media types.

A source that hangs must not keep others from searching: bytes are read in threads apart from those that ask the lake.
"""

from __future__ import annotations

import array
import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from dicom_assets.dicom.frames import FrameError, Frames, Lack, read_frame, walk_frames
from dicom_assets.dicom.header import WHOLE, read_header
from dicom_assets.dicom.pixels import frame_bits, frame_count
from dicom_assets.dicom.rejections import NotDicom, Unreadable
from dicom_assets.dicom.syntax import EXPLICIT_BIG, EXPLICIT_LITTLE, is_encapsulated
from dicom_assets.landing.retrieval import OpenPlace
from dicom_assets.serve.call import Call
from dicom_assets.serve.decoding import swapped
from dicom_assets.serve.drawers import Drawers
from dicom_assets.serve.kept import Kept
from dicom_assets.serve.places import Found, explained, flat_source, open_found
from dicom_assets.serve.problems import Refusal
from dicom_assets.serve.questions import AT_ONCE, BODIES_AT_ONCE, Questions
from dicom_assets.serve.served import ServedLake, Snapshot
from dicom_assets.serve.turns import HAS_BEGUN
from dicom_assets.storage.byte_ranges import ByteSource

T = TypeVar("T")

READ_SECONDS = 60.0
_KEPT_BYTES = 32 << 20


class ByteReading(Questions):
    """Threads that read bytes, and what was found in objects whose rows do not tell it."""

    def __init__(self) -> None:
        """Reads nothing yet."""
        super().__init__(READ_SECONDS, AT_ONCE, BODIES_AT_ONCE)
        self.frames: Kept[Frames] = Kept(_KEPT_BYTES)
        self.pixels: Kept[Mapping[str, Any]] = Kept(_KEPT_BYTES)


async def read(call: Call, question: Callable[[], T]) -> T:
    """As `Call.ask`, for what reads bytes of objects. Raises Refusal."""
    HAS_BEGUN.get()()
    return await call.served.part(ByteReading).ask(question)


async def read_to_draw(call: Call, question: Callable[[], T]) -> T:
    """As `read`, for what waits for a process that draws (`drawers`), and keeps nobody who reads waiting meanwhile."""
    HAS_BEGUN.get()()
    return await call.served.part(ByteReading).ask_for_body(question)


async def read_on(served: ServedLake, question: Callable[[], T]) -> T:
    """As `read`, for an answer that has begun and watches its client itself."""
    return await served.part(ByteReading).ask(question)


def drawn(served: ServedLake, job: str, *arguments: Any) -> bytes:
    """What a process for it makes of a frame (`drawer.JOBS`). Raises Undecodable. Blocks."""
    return served.part(Drawers).run(served.part(ByteReading), job, arguments)


class OpenInstance:
    """An instance whose object is read; whoever makes one closes it, whatever became of opening it.

    pixels: its row, where that was written by an earlier release completed from the object. size: bytes of the object,
    once it is open.
    """

    def __init__(self, served: ServedLake, found: Found) -> None:
        """Opens nothing yet."""
        self.served, self.found = served, found
        self.pixels: Mapping[str, Any] = found.pixels
        self.size = 0
        self._opened: OpenPlace | None = None
        self._data: ByteSource | None = None
        self._closing = threading.Lock()

    def open(self) -> OpenInstance:
        """Opens the object. Raises Refusal. Blocks."""
        self._opened = open_found(self.served, self.found)
        self.size = self._opened.source.size
        if self.pixels["header_form"] != WHOLE:
            self.pixels = self._read_pixels()
        return self

    @property
    def opened(self) -> OpenPlace:
        """The object."""
        assert self._opened is not None, "open it first"
        return self._opened

    @property
    def is_open(self) -> bool:
        """Whether there is something to be closed."""
        return self._opened is not None

    def close(self) -> None:
        """Closes the object; again is harmless, by whichever thread.

        A descriptor that is closed twice may be somebody else's by then, whose bytes would come from another file.
        """
        with self._closing:
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def block(self, offset: int, length: int) -> bytes:
        """Bytes of the object, once it is sure that they are what was claimed; it is closed behind the last ones.

        Raises Refusal.
        """
        with explained():
            piece = self.opened.source.read(offset, length)
            self.opened.verify()
        if offset + len(piece) >= self.size:
            self.close()
        return piece

    def data(self) -> ByteSource:
        """What offsets count in."""
        if self._data is None:
            most = self.served.settings.reading.max_inflated_bytes
            self._data = self.opened.data(self.pixels["TransferSyntaxUID"], most)
        return self._data

    def value(self, offset: int, length: int) -> bytes:
        """A range of what offsets count in, once it is sure that it is what was claimed. Raises Refusal."""
        with explained():
            piece = self.data().read(offset, length)
            self.opened.verify()
            return piece

    def frame(self, number: int) -> bytes:
        """The bytes of one frame as they are stored, native ones in little endian. Raises Refusal, FrameError."""
        with explained():
            raw = self._native_frame(number)
            if raw is None:
                raw = read_frame(self.data(), self.pixels, number, self._walked())
            self.opened.verify()
            return raw

    def _native_frame(self, number: int) -> bytes | None:
        """A native frame that must be turned into little endian; None for any other."""
        row = self.pixels
        if row["TransferSyntaxUID"] != EXPLICIT_BIG:
            return None
        unit = (row["BitsAllocated"] or 0) // 8
        if unit > 1:
            return swapped(read_frame(self.data(), row, number), unit)
        bits = frame_bits(row)
        if bits is None or self._is_bytes():
            return None
        # Words of which each holds two pixels, or sixteen: a frame may begin in the middle of one.
        return read_frame(Words(self.data(), row["pixel_offset"], 2), row, number)

    def _is_bytes(self) -> bool:
        """Whether Pixel Data is of bytes (OB) by its header, which is read for the rare object where it matters."""
        with explained():
            header = read_header(self.opened.source, self.served.settings.reading)
        vr = json.loads(header.json).get("7FE00010", {}).get("vr")
        return bool(vr != "OW")

    def _walked(self) -> Frames | None:
        """The frames of an object whose tables tell nothing, found once."""
        row = self.pixels
        told = row.get("frame_offsets")
        if told is None or len(told) or not is_encapsulated(row["TransferSyntaxUID"]) or (frame_count(row) or 1) < 2:
            return None
        kept = self.served.part(ByteReading).frames
        frames = kept.get(self.found.name)
        if frames is None:
            found = walk_frames(self.data(), row)
            frames = Frames(array.array("q", found.offsets), array.array("q", found.lengths))
            kept.keep(self.found.name, frames, 16 * len(frames.offsets) + 200)
        return frames

    def _read_pixels(self) -> Mapping[str, Any]:
        """What the row of an earlier release does not tell, read from the object once."""
        kept = self.served.part(ByteReading).pixels
        row = kept.get(self.found.name)
        if row is None:
            row = read_pixels(self.opened.source, self.served, self.found.pixels)
            kept.keep(self.found.name, row, 2_000 + 16 * len(row.get("frame_offsets") or ()))
        return row


class Words:
    """Big-endian words of `unit` bytes from an offset on, as little endian."""

    def __init__(self, source: ByteSource, start: int, unit: int) -> None:
        """start: where the first one begins."""
        self._source, self._start, self._unit = source, start, unit
        self.size = source.size

    def read(self, offset: int, length: int) -> bytes:
        """As of a ByteSource."""
        lead = (offset - self._start) % self._unit
        whole = -(-(lead + length) // self._unit) * self._unit
        return swapped(self._source.read(offset - lead, whole), self._unit)[lead : lead + length]


def read_pixels(source: ByteSource, served: ServedLake, told: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row as today's reader would write it, from the object itself. Raises Refusal."""
    try:
        with explained():
            header = read_header(source, served.settings.reading)
    except (NotDicom, Unreadable):
        raise Refusal(410, "What lies at the source is not what the lake has read there.") from None
    where = dict.fromkeys(("pixel_offset", "pixel_length", "frame_offsets", "frame_lengths"))
    if header.pixels is not None:
        where = dict(zip(where, header.pixels, strict=True))
    return {**told, **header.columns, **where, "header_form": WHOLE}


def told_syntax(row: Mapping[str, Any]) -> str:
    """The transfer syntax that a frame of an object has when it is sent as it is stored, native ones swapped."""
    syntax = row["TransferSyntaxUID"]
    return syntax if syntax is not None and is_encapsulated(syntax) else EXPLICIT_LITTLE


def header_of(snapshot: Snapshot, found: Found) -> bytes:
    """The stored header of one instance. Blocks."""
    row = found.row
    uids = {"study": row["StudyInstanceUID"], "series": row["SeriesInstanceUID"], "instance": row["SOPInstanceUID"]}
    source = flat_source(snapshot, [row], uids, ("batch_id", "object_id", "header"))
    with snapshot.cursor() as connection:
        sql = f"SELECT encode(header) FROM {source} WHERE object_id = ? AND batch_id = ?"
        (header,) = connection.execute(sql, [row["object_id"], row["batch_id"]]).fetchone() or (b"{}",)
    return bytes(header)


def lacking(error: FrameError) -> Refusal:
    """What a client is told of a frame that cannot be given. Codes are of `dicom.frames.Lack`."""
    if error.lack in (Lack.NO_PIXELS, Lack.NO_SUCH_FRAME, Lack.UNKNOWN):
        return Refusal(404, f"{error.lack.name}: {error.lack}.")
    return Refusal(422, f"FRAME_{error.lack.name}: {error.lack}.")
