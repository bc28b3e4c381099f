"""The central directory of a ZIP file, read by ranges and record by record (APPNOTE 4.3.12, 4.5).

Belongs here: its records, what each says of its member, where the member begins. Does not belong here: finding the
directory (`zipend`), reading a member (`inflate`), which members are fit to be read and how they are called
(`archives`).

The standard library's reader holds the whole directory in memory and gives up on all of it for one bad name; this one
holds a window of it, and can return to a single record by its place, so that a batch's chunks reopen members of an
archive with a million of them without reading its directory again.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from dicom_assets.landing.zipend import (
    LOCAL,
    LOCAL_MARK,
    RECORD,
    RECORD_MARK,
    UNSET,
    WRAP,
    ArchiveError,
    Span,
    directories,
    length_of,
    unreadable,
)
from dicom_assets.storage.byte_ranges import ByteSource
from dicom_assets.storage.window import Window

_ENCRYPTED = 0x0001 | 0x0040 | 0x2000
_UTF8 = 0x0800
_UNIX_SYSTEMS = (3, 19)
_DOS_SYSTEMS = (0, 6, 10, 11, 14)
"""FAT, HPFS, NTFS by either of its numbers, VFAT (APPNOTE 4.4.2): the low byte of the attributes is that of DOS."""
_DOS_FOLDER = 0x10
_ZIP64_FIELD, _TIME_FIELD, _PATH_FIELD = 0x0001, 0x5455, 0x7075


class Entry(NamedTuple):
    """One record of the directory.

    at: its place in the archive, by which it is found again. raw: its name as bytes. packed, size: bytes as stored and
    as declared inflated. headers: places where the member's local header may stand, the likeliest first. damaged: its
    extra fields lack what they promise. is_marked: its attributes say that it is a folder.
    """

    at: int
    name: str
    raw: bytes
    method: int
    flags: int
    crc: int
    packed: int
    size: int
    headers: tuple[int, ...]
    modified_at: datetime | None
    unix_mode: int
    damaged: bool
    is_marked: bool

    @property
    def is_encrypted(self) -> bool:
        """Whether it needs a password."""
        return bool(self.flags & _ENCRYPTED)

    @property
    def is_directory(self) -> bool:
        """Whether it stands for a folder: by its attributes or a slash of either kind at its end, without content."""
        return self.size == 0 and (self.is_marked or self.raw.endswith((b"/", b"\\")))


class Directory:
    """The central directory of one ZIP file, or those of several that stand one behind the other."""

    def __init__(self, source: ByteSource, begins: bytes | None = None) -> None:
        """Finds the directory; ArchiveError(ARCHIVE_UNREADABLE) when there is none, storage errors as they come.

        begins: the source's first four bytes, where they were read already.
        """
        self._window = Window(source)
        self._spans = directories(source, begins)

    def count(self, limit: int) -> int:
        """How many records there are, folders too, after walking from one to the next.

        ArchiveError: ARCHIVE_LIMIT beyond `limit`, ARCHIVE_UNREADABLE when the chain of records is broken.
        """
        total = 0
        for span in self._spans:
            at = span.start
            while at < span.end:
                at += length_of(self._fixed(at))
                total += 1
                if total > limit:
                    raise ArchiveError("ARCHIVE_LIMIT", f"more than {limit} members")
            if at != span.end:
                raise unreadable("the last record of its directory is cut short")
        return total

    def __iter__(self) -> Iterator[Entry]:
        """Every record in the directory's order; ArchiveError as `count`."""
        for span in self._spans:
            at = span.start
            while at < span.end:
                fixed = self._fixed(at)
                yield self._entry(at, fixed, span)
                at += length_of(fixed)

    def entry(self, at: int) -> Entry:
        """The record at the place that `Entry.at` gave; ArchiveError(ARCHIVE_UNREADABLE) when there is none."""
        for span in self._spans:
            if span.start <= at < span.end:
                return self._entry(at, self._fixed(at), span)
        raise unreadable("its directory is not where it was")

    def _fixed(self, at: int) -> tuple[int, ...]:
        """The part of a record that is always there, without its mark."""
        raw = self._window.read(at, RECORD.size)
        if len(raw) < RECORD.size or raw[:4] != RECORD_MARK:
            raise unreadable("a record of its directory is missing")
        return RECORD.unpack(raw)[1:]

    def _entry(self, at: int, fixed: tuple[int, ...], span: Span) -> Entry:
        (_, system, _, flags, method, time, date, crc, packed, size, names, extras, _, _, _, attributes, header) = fixed
        raw = self._window.read(at + RECORD.size, names + extras)
        if len(raw) < names + extras:
            raise unreadable("a record of its directory is cut short")
        name, damaged = raw[:names], False
        narrow = header != UNSET
        modified, path = None, None
        if extras:
            fields = dict(_extra_fields(raw[names:]))
            modified, path = _stamp(fields.get(_TIME_FIELD, b"")), _unicode_path(fields.get(_PATH_FIELD, b""), name)
            if UNSET in (size, packed, header) and _ZIP64_FIELD in fields:
                size, packed, header, damaged = _wide(fields[_ZIP64_FIELD], size, packed, header)
        mode = attributes >> 16 if system in _UNIX_SYSTEMS else 0
        return Entry(
            at,
            (_name(name, flags) if path is None else path).partition("\0")[0],
            name,
            method,
            flags,
            crc,
            packed,
            size,
            self._headers(header, span.shift, narrow),
            modified or _dos_time(date, time),
            mode,
            damaged,
            stat.S_ISDIR(mode) or (system in _DOS_SYSTEMS and bool(attributes & _DOS_FOLDER)),
        )

    def _headers(self, header: int, shift: int, narrow: bool) -> tuple[int, ...]:
        """Where a local header may stand: what is before the archive may be counted or not, and 4 GiB are lost."""
        size = self._window.size
        if size <= WRAP or not narrow:
            return (header + shift,) if shift == 0 else (header + shift, header)
        bases = dict.fromkeys((header + shift, header))
        return tuple(base + lost for base in bases for lost in range(0, size, WRAP) if 0 <= base + lost < size)


def content_at(source: ByteSource, entry: Entry) -> int | None:
    """Where a member's bytes begin, behind its local header; None where no header stands.

    Where it may stand in several places, the one that has the member's name is taken before any other.
    """
    other: int | None = None
    for at in entry.headers:
        local = source.read(at, LOCAL.size) if 0 <= at <= source.size else b""
        if len(local) < LOCAL.size or local[:4] != LOCAL_MARK:
            continue
        *_, names, extras = LOCAL.unpack(local)
        place = at + LOCAL.size + names + extras
        if len(entry.headers) == 1 or source.read(at + LOCAL.size, names) == entry.raw:
            return int(place)
        other = place if other is None else other
    return other


def _extra_fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each field (APPNOTE 4.5.1); one that reaches over the end is none, nor is what follows it."""
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<HH", extra, at)
        at += 4 + length
        if at > len(extra):
            return
        yield tag, extra[at - length : at]


def _wide(field: bytes, size: int, packed: int, header: int) -> tuple[int, int, int, bool]:
    """What does not fit into four bytes, from the ZIP64 field, which holds only that, in this order (APPNOTE 4.5.3).

    And whether the field is too short for it.
    """
    values, place = [size, packed, header], 0
    for index, value in enumerate(values):
        if value != UNSET:
            continue
        if place + 8 > len(field):
            return values[0], values[1], values[2], True
        (values[index],) = struct.unpack_from("<Q", field, place)
        place += 8
    return values[0], values[1], values[2], False


def _stamp(field: bytes) -> datetime | None:
    """Time of the last modification from Info-ZIP's extended timestamp."""
    if len(field) < 5 or not field[0] & 1:
        return None
    return datetime.fromtimestamp(struct.unpack_from("<i", field, 1)[0], UTC)


def _unicode_path(field: bytes, name: bytes) -> str | None:
    """Info-ZIP's name in UTF-8 (APPNOTE 4.6.9), unless the name was changed since it was written."""
    if len(field) < 6 or field[0] != 1 or struct.unpack_from("<I", field, 1)[0] != zlib.crc32(name):
        return None
    try:
        return field[5:].decode("utf-8")
    except UnicodeDecodeError:
        return None


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
    """UTF-8 where it is that, otherwise code page 437 (APPNOTE D.1), which takes any byte.

    A record has a flag for UTF-8, which Apple's and many other writers do not set; hardly a word of another encoding
    has the form of UTF-8.
    """
    if flags & _UTF8 or not raw.isascii():
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            pass
    return raw.decode("cp437")
