"""The central directory of a ZIP file, read by ranges and record by record (APPNOTE 4.3.12, 4.3.14 to 4.3.16, 4.5).

Belongs here: finding the directory, its records, what each says of its member. Does not belong here: reading a
member (`inflate`), which members are fit to be read and how they are called (`archives`).

The standard library's reader holds the whole directory in memory and gives up on all of it for one bad name; this one
holds a window of it, and can return to a single record by its place, so that a batch's chunks reopen members of an
archive with a million of them without reading its directory again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from dicom_assets.dicom.source import ByteSource
from dicom_assets.landing.store import ObjectError

WINDOW_BYTES = 256 * 1024

_RECORD = struct.Struct("<4sBBHHHHHIIIHHHHHII")
_RECORD_MARK = b"PK\x01\x02"
_END = struct.Struct("<4sHHHHIIH")
_END_MARK = b"PK\x05\x06"
_END64 = struct.Struct("<4sQHHIIQQQQ")
_END64_MARK = b"PK\x06\x06"
_LOCATOR = struct.Struct("<4sIQI")
_LOCATOR_MARK = b"PK\x06\x07"
_LONGEST_COMMENT = 65_535

_ENCRYPTED = 0x0001 | 0x0040 | 0x2000
_UTF8 = 0x0800
_UNIX_SYSTEMS = (3, 19)
_UNSET = 0xFFFFFFFF
_UNSET_SHORT = 0xFFFF


class ArchiveError(ObjectError):
    """An archive, or one member, cannot be read. Carries the reason code; the message holds no name."""


class Window:
    """Reads of a source through a buffer, so that many small reads side by side become few ranges."""

    __slots__ = ("_block", "_data", "_source", "_start")

    def __init__(self, source: ByteSource, block: int = WINDOW_BYTES) -> None:
        """block: bytes fetched at once where less is asked for."""
        self._source = source
        self._block = block
        self._start = 0
        self._data = b""

    @property
    def size(self) -> int:
        """Length of the source in bytes."""
        return self._source.size

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on, fewer at the end."""
        begin = offset - self._start
        if begin < 0 or begin + length > len(self._data):
            if length >= self._block:
                return self._source.read(offset, length)
            self._data = self._source.read(offset, self._block)
            self._start = offset
            begin = 0
        return self._data[begin : begin + length]


class Entry(NamedTuple):
    """One record of the directory.

    at: its place in the archive, by which it is found again. packed, size: bytes as stored and as declared inflated.
    header_at: place of the member's local header. damaged: its extra fields contradict themselves.
    """

    at: int
    name: str
    method: int
    flags: int
    crc: int
    packed: int
    size: int
    header_at: int
    modified_at: datetime | None
    unix_mode: int
    damaged: bool

    @property
    def is_encrypted(self) -> bool:
        """Whether it needs a password."""
        return bool(self.flags & _ENCRYPTED)

    @property
    def is_directory(self) -> bool:
        """Whether it stands for a folder: its name ends with `/` and it has no content."""
        return self.name.endswith("/") and self.size == 0


class Directory:
    """The central directory of one ZIP file."""

    def __init__(self, source: ByteSource) -> None:
        """Finds the directory; ArchiveError(ARCHIVE_UNREADABLE) when there is none, storage errors as they come."""
        self._window = Window(source)
        self.start, self.length, self._shift = _locate(source)

    def count(self, limit: int) -> int:
        """How many records there are, folders too, after walking from one to the next.

        ArchiveError: ARCHIVE_LIMIT beyond `limit`, ARCHIVE_UNREADABLE when the chain of records is broken.
        """
        total = 0
        at, end = self.start, self.start + self.length
        while at < end:
            at += _length_of(self._fixed(at))
            total += 1
            if total > limit:
                raise ArchiveError("ARCHIVE_LIMIT", f"more than {limit} members")
        if at != end:
            raise _unreadable("the last record of its directory is cut short")
        return total

    def __iter__(self) -> Iterator[Entry]:
        """Every record in the directory's order; ArchiveError as `count`."""
        at, end = self.start, self.start + self.length
        while at < end:
            fixed = self._fixed(at)
            yield self._entry(at, fixed)
            at += _length_of(fixed)

    def entry(self, at: int) -> Entry:
        """The record at the place that `Entry.at` gave; ArchiveError(ARCHIVE_UNREADABLE) when there is none."""
        if not self.start <= at < self.start + self.length:
            raise _unreadable("its directory is not where it was")
        return self._entry(at, self._fixed(at))

    def _fixed(self, at: int) -> tuple[int, ...]:
        """The part of a record that is always there, without its mark."""
        raw = self._window.read(at, _RECORD.size)
        if len(raw) < _RECORD.size or raw[:4] != _RECORD_MARK:
            raise _unreadable("a record of its directory is missing")
        return _RECORD.unpack(raw)[1:]

    def _entry(self, at: int, fixed: tuple[int, ...]) -> Entry:
        (_, system, _, flags, method, time, date, crc, packed, size, names, extras, _, _, _, attributes, header) = fixed
        raw = self._window.read(at + _RECORD.size, names + extras)
        if len(raw) < names + extras:
            raise _unreadable("a record of its directory is cut short")
        modified = _dos_time(date, time)
        damaged = False
        if extras:
            try:
                packed, size, header, written = _extra(raw[names:], packed, size, header)
                modified = written or modified
            except struct.error:
                damaged = True
        mode = attributes >> 16 if system in _UNIX_SYSTEMS else 0
        return Entry(
            at,
            _name(raw[:names], flags),
            method,
            flags,
            crc,
            packed,
            size,
            header + self._shift,
            modified,
            mode,
            damaged,
        )


def _unreadable(detail: str) -> ArchiveError:
    return ArchiveError("ARCHIVE_UNREADABLE", detail)


def _length_of(fixed: tuple[int, ...]) -> int:
    return _RECORD.size + fixed[10] + fixed[11] + fixed[12]


def _locate(source: ByteSource) -> tuple[int, int, int]:
    """Start and length of the directory, and how far the places it names are shifted in this file."""
    size = source.size
    tail_at = max(size - _END.size - _LONGEST_COMMENT - _LOCATOR.size - _END64.size, 0)
    tail = source.read(tail_at, size - tail_at)
    if tail[-_END.size :][:4] == _END_MARK and tail.endswith(b"\0\0"):
        found = len(tail) - _END.size
    else:
        found = tail.rfind(_END_MARK)
    if found < 0 or found + _END.size > len(tail):
        raise _unreadable("the end of its directory is missing")
    _, disk, first_disk, _, _, length, start, _ = _END.unpack_from(tail, found)
    before = found
    if found >= _LOCATOR.size and tail[found - _LOCATOR.size :].startswith(_LOCATOR_MARK):
        place = found - _LOCATOR.size - _END64.size
        if place < 0 or not tail[place:].startswith(_END64_MARK):
            raise _unreadable("the end of its ZIP64 directory is missing")
        _, _, _, _, disk, first_disk, _, _, length, start = _END64.unpack_from(tail, place)
        before = place
    if disk not in (0, _UNSET_SHORT) or first_disk not in (0, _UNSET_SHORT):
        raise _unreadable("it is one part of a split archive")
    actual = tail_at + before - length
    if actual < 0:
        raise _unreadable("its directory is cut off")
    return actual, length, actual - start


def _extra(extra: bytes, packed: int, size: int, header: int) -> tuple[int, int, int, datetime | None]:
    """Sizes and place from the ZIP64 field (APPNOTE 4.5.3), time from the extended timestamp; struct.error."""
    modified: datetime | None = None
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<HH", extra, at)
        at += 4
        if at + length > len(extra):
            raise struct.error
        if tag == 0x0001:
            field, place = extra[at : at + length], 0
            if size == _UNSET:
                (size,), place = struct.unpack_from("<Q", field, place), place + 8
            if packed == _UNSET:
                (packed,), place = struct.unpack_from("<Q", field, place), place + 8
            if header == _UNSET:
                (header,) = struct.unpack_from("<Q", field, place)
        elif tag == 0x5455 and length >= 5 and extra[at] & 1:
            modified = datetime.fromtimestamp(struct.unpack_from("<i", extra, at + 1)[0], UTC)
        at += length
    return packed, size, header, modified


def _dos_time(date: int, time: int) -> datetime | None:
    """The time of a record, which has no zone and is taken as UTC; None when none was set."""
    if date == 0x21 and time == 0:
        return None
    try:
        return datetime(
            (date >> 9) + 1980,
            date >> 5 & 15,
            date & 31,
            time >> 11,
            time >> 5 & 63,
            min((time & 31) * 2, 59),
            tzinfo=UTC,
        )
    except ValueError:
        return None


def _name(raw: bytes, flags: int) -> str:
    """UTF-8 where the record says so and it is so, otherwise code page 437 (APPNOTE D.1), which takes any byte."""
    if flags & _UTF8:
        try:
            return raw.decode("utf-8").partition("\0")[0]
        except UnicodeDecodeError:
            pass
    return raw.decode("cp437").partition("\0")[0]
