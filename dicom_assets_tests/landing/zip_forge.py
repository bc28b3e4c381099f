"""Writes ZIP files record by record, so that tests can have what no writer of archives would make.

Belongs here: archives in memory, and such with a hole of gigabytes. Does not belong here: what is read from them.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

_UNSET = 0xFFFFFFFF


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
    extra64: bytes | None = None
    descriptor: bool = False
    local_mark: bytes = b"PK\x03\x04"
    dos: int = 0
    local_name: bytes | None = None
    local_extra: bytes = b""
    descriptor_form: str = "<4sIII"

    @property
    def stored(self) -> bytes:
        """The bytes as they stand in the archive."""
        if self.packed is not None:
            return self.packed
        return deflate(self.data) if self.method == 8 else self.data

    @property
    def checksum(self) -> int:
        """CRC-32 as the archive says it."""
        return zlib.crc32(self.data) if self.crc is None else self.crc

    @property
    def declared(self) -> int:
        """Size as the archive says it."""
        return len(self.data) if self.size is None else self.size

    @property
    def all_flags(self) -> int:
        """Flags, with that of a data descriptor."""
        return self.flags | (8 if self.descriptor else 0)


def deflate(data: bytes) -> bytes:
    """Raw deflate (RFC 1951)."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


DESCRIPTORS = ("<4sIII", "<III", "<4sIQQ", "<IQQ")
"""Data descriptors (APPNOTE 4.3.9): with and without signature, with sizes of four and of eight bytes."""


def forge(
    records: list[Record],
    *,
    prefix: bytes = b"",
    adjusted: bool = False,
    comment: bytes = b"",
    end64: bool = False,
    extensible: bytes = b"",
    between: bytes = b"",
    trailing: bytes = b"",
    count: int | None = None,
) -> bytes:
    """An archive of these records; one with `at` shares the local header that stands there.

    adjusted: places count from the beginning of the prefix. extensible: sector at the end of the ZIP64 end record.
    between: bytes behind the directory. count: what the end record says of it.
    """
    base = 0 if adjusted else len(prefix)
    out = bytearray(prefix)
    directory = bytearray()
    for record in records:
        at = (len(out) if record.at is None else record.at) - base
        if record.at is None:
            out += local(record)
        directory += central(record, at)
    start = len(out) - base
    out += directory + between
    out += ending(len(records), len(directory), start, len(out) - base, comment, end64, extensible, count)
    return bytes(out + trailing)


def local(record: Record) -> bytes:
    """Local header, name, bytes and data descriptor of a member."""
    stored, crc, size = record.stored, record.checksum, record.declared
    name = record.name if record.local_name is None else record.local_name
    known = (0, 0, 0) if record.descriptor else (crc, len(stored), size)
    head = struct.pack(
        "<4sHHHHHIIIHH", record.local_mark, 20, record.all_flags, record.method, record.time, record.date,
        *known, len(name), len(record.local_extra),
    )  # fmt: skip
    out = head + name + record.local_extra + stored
    if record.descriptor:
        mark = (b"PK\x07\x08",) if record.descriptor_form.startswith("<4s") else ()
        out += struct.pack(record.descriptor_form, *mark, crc, len(stored), size)
    return out


def central(record: Record, at: int) -> bytes:
    """The record of the directory; places and sizes beyond four bytes without ZIP64 lose what is above."""
    stored, size, extra = record.stored, record.declared, record.extra
    shown = (len(stored) & _UNSET, size & _UNSET, at & _UNSET)
    if record.zip64:
        whole = struct.pack("<HHQQQ", 1, 24, size, len(stored), at)
        extra = (whole if record.extra64 is None else record.extra64) + extra
        shown = (_UNSET,) * 3
    head = struct.pack(
        "<4sBBBBHHHHIIIHHHHHII", b"PK\x01\x02", 20, record.system, 20, 0, record.all_flags, record.method, record.time,
        record.date, record.checksum, shown[0], shown[1], len(record.name), len(extra), 0, 0, 0,
        record.mode << 16 | record.dos, shown[2],
    )  # fmt: skip
    return head + record.name + extra


def ending(
    records: int,
    length: int,
    start: int,
    place: int,
    comment: bytes = b"",
    end64: bool = False,
    extensible: bytes = b"",
    count: int | None = None,
) -> bytes:
    """End of the directory, with ZIP64's if asked for. place: where it is to stand."""
    count = records if count is None else count
    if not end64:
        shown = (count & 0xFFFF, count & 0xFFFF, length & _UNSET, start & _UNSET)
        return struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, *shown, len(comment)) + comment
    whole = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44 + len(extensible), 45, 45, 0, 0, count, count, length, start)
    unset = (0xFFFF, 0xFFFF, _UNSET, _UNSET)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, place, 1)
    return whole + extensible + locator + struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, *unset, len(comment)) + comment
