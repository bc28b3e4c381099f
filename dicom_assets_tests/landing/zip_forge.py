"""Writes ZIP files record by record, so that tests can have what no writer of archives would make."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field


@dataclass
class Record:
    """One member. Where a field is None, what belongs there is computed."""

    name: bytes
    data: bytes = b""
    method: int = 8
    flags: int = 0
    crc: int | None = None
    size: int | None = None
    packed: bytes | None = None
    extra: bytes = b""
    mode: int = 0
    system: int = 3
    date: int = 0x5A21
    time: int = 0
    at: int | None = None
    zip64: bool = False
    descriptor: bool = False
    local_mark: bytes = b"PK\x03\x04"
    _placed: int = field(default=0, init=False)

    @property
    def stored(self) -> bytes:
        """The bytes as they stand in the archive."""
        if self.packed is not None:
            return self.packed
        return deflate(self.data) if self.method == 8 else self.data


def deflate(data: bytes) -> bytes:
    """Raw deflate (RFC 1951)."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def forge(records: list[Record], *, prefix: bytes = b"", comment: bytes = b"", end64: bool = False) -> bytes:
    """An archive of these records; one with `at` shares the local header that stands there."""
    out = bytearray(prefix)
    directory = bytearray()
    for record in records:
        stored, crc = record.stored, zlib.crc32(record.data) if record.crc is None else record.crc
        size = len(record.data) if record.size is None else record.size
        flags = record.flags | (8 if record.descriptor else 0)
        at = len(out) if record.at is None else record.at
        if record.at is None:
            known = (0, 0, 0) if record.descriptor else (crc, len(stored), size)
            out += struct.pack(
                "<4sHHHHHIIIHH", record.local_mark, 20, flags, record.method, record.time, record.date, *known,
                len(record.name), 0,
            )  # fmt: skip
            out += record.name + stored
            if record.descriptor:
                out += struct.pack("<4sIII", b"PK\x07\x08", crc, len(stored), size)
        extra, shown = record.extra, (len(stored), size, at - len(prefix))
        if record.zip64:
            extra = struct.pack("<HHQQQ", 1, 24, size, len(stored), at - len(prefix)) + extra
            shown = (0xFFFFFFFF,) * 3
        directory += struct.pack(
            "<4sBBBBHHHHIIIHHHHHII", b"PK\x01\x02", 20, record.system, 20, 0, flags, record.method, record.time,
            record.date, crc, shown[0], shown[1], len(record.name), len(extra), 0, 0, 0, record.mode << 16, shown[2],
        )  # fmt: skip
        directory += record.name + extra
    start = len(out) - len(prefix)
    out += directory
    count = min(len(records), 0xFFFF)
    if end64:
        place = len(out)
        out += struct.pack(
            "<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, len(records), len(records), len(directory), start
        )
        out += struct.pack("<4sIQI", b"PK\x06\x07", 0, place, 1)
        out += struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, len(comment))
    else:
        out += struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, count, count, len(directory), start, len(comment))
    return bytes(out + comment)
