"""The end of a ZIP file: which directories it has, and where they stand (APPNOTE 4.3.14 to 4.3.16).

Belongs here: end records, those of ZIP64, what stands before and behind an archive. Does not belong here: the records
of a directory (`zipdirectory`).

Archives come behind a program that unpacks them, behind other bytes or behind another archive, with bytes or a comment
behind them, and from writers that know nothing of ZIP64. So an end record is believed when a directory stands where it
says, and what it says is measured against where it stands itself.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from dicom_assets.landing.store import ObjectError
from dicom_assets.storage.byte_ranges import ByteSource
from dicom_assets.storage.window import Window

RECORD_MARK = b"PK\x01\x02"
LOCAL_MARK = b"PK\x03\x04"
_MADE_TO_BE_SPLIT = (b"PK\x07\x08", b"PK00")
"""Marks before an archive that turned out to need one part only (APPNOTE 8.5.3, 8.5.4)."""
WRAP = 1 << 32
"""What places of four bytes are counted modulo, in archives that are larger and have no ZIP64 fields."""

_END = struct.Struct("<4sHHHHIIH")
_END_MARK = re.compile(rb"PK\x05\x06")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_END64_MARK = b"PK\x06\x06"
_END64_LEAD = 12  # bytes that the record's own size leaves out: mark and size
_LOCATOR = struct.Struct("<4sIQI")
_LOCATOR_MARK = b"PK\x06\x07"
_REACH = _END.size + 65_535  # bytes: an end record with the longest comment
_AHEAD = 16 * 1024  # bytes: the directory of a small archive, read with its end
_BEFORE = 1_024  # bytes before a directory in which a record would be one that its end does not know of
_FARTHEST = 4 * 2**20
"""Bytes behind an end record within which it is looked for, in what begins like a ZIP file."""
_SECTOR = 64 * 1024  # bytes of an extensible data sector where the locator's place is shifted
_TRIES = 64  # end marks that are looked at; what is compressed has one in 2**32 bytes
_ARCHIVES = 64  # one behind the other in one file
UNSET = 0xFFFFFFFF
_UNSET_SHORT = 0xFFFF


RECORD = struct.Struct("<4sBBHHHHHIIIHHHHHII")
"""The part of a directory's record that is always there."""

LOCAL = struct.Struct("<4sHHHHHIIIHH")
"""The part of a local header that is always there."""


def length_of(fixed: tuple[int, ...]) -> int:
    """Bytes of a record; fixed: what RECORD says, without the mark."""
    return RECORD.size + fixed[10] + fixed[11] + fixed[12]


class ArchiveError(ObjectError):
    """An archive, or one member, cannot be read. Carries the reason code; the message holds no name."""


def unreadable(detail: str) -> ArchiveError:
    """ARCHIVE_UNREADABLE."""
    return ArchiveError("ARCHIVE_UNREADABLE", detail)


class Span(NamedTuple):
    """One directory. start, end: where its records stand. shift: how far the places that it names are shifted."""

    start: int
    end: int
    shift: int


class _End(NamedTuple):
    """What an end record says. before: where it stands itself, or that of ZIP64. narrow: `start` has four bytes."""

    length: int
    start: int
    before: int
    narrow: bool


def directories(source: ByteSource, begins: bytes | None = None) -> list[Span]:
    """Every directory, in the order of the archives that stand one behind the other; mostly one.

    begins: the source's first four bytes, where they were read already. ArchiveError(ARCHIVE_UNREADABLE) when there is
    none, or when it is not that of the archive at the beginning; storage errors as they come.
    """
    view = _View(source, begins)
    found = [_last(view, source.size)]
    while found[0].shift > 0 and len(found) < _ARCHIVES:
        try:
            found.insert(0, _last(view, found[0].shift, exact=True))
        except ArchiveError:
            break  # what stands before an archive may be anything
    if found[0].shift == 0 or view.begins not in (LOCAL_MARK, *_MADE_TO_BE_SPLIT):
        return found
    most = 0 if view.begins == LOCAL_MARK else len(view.begins)
    if found[0].shift <= most:
        return found
    first = _first(view, most)
    return [first, *(span for span in found if span.shift >= first.end)]


class _View(Window):
    """An object that is looked at from its end."""

    __slots__ = ("_begins",)

    def __init__(self, source: ByteSource, begins: bytes | None) -> None:
        super().__init__(source, _REACH + _AHEAD)
        self._begins = begins

    @property
    def begins(self) -> bytes:
        """Its first four bytes."""
        if self._begins is None:
            self._begins = self._source.read(0, 4)
        return self._begins

    def tail(self, limit: int) -> bytes:
        """What an end record and its comment may take before `limit`, and some bytes before it in the buffer."""
        self.read(max(limit - _REACH - _AHEAD, 0), 1)
        return self.read(max(limit - _REACH, 0), min(limit, _REACH))

    def look(self, start: int, end: int) -> bytes:
        """Some bytes from anywhere, without a look at others."""
        begin, length = start - self._start, end - start
        known = 0 <= begin <= len(self._data) - length
        return self._data[begin : begin + length] if known else self._source.read(start, length)


def _last(view: _View, limit: int, *, exact: bool = False) -> Span:
    """The directory of the archive that ends at `limit`, or before it where it need not be exact; ArchiveError.

    Behind other bytes, one whose first member is there is taken before any other.
    """
    failure: ArchiveError | None = None
    other: Span | None = None
    for end_at in _ends(view, limit, exact):
        try:
            span = _directory(view, end_at)
        except ArchiveError as error:
            failure = failure or error
            continue
        if span.shift == 0 or _has_member(view, span):
            return span
        other = other or span
    if other is not None:
        return other
    raise failure or unreadable("the end of its directory is missing")


def _first(view: _View, most: int) -> Span:
    """The directory of the archive at the very beginning, where others follow with bytes between; ArchiveError."""
    for end_at in _ends(view, view.size, False):
        try:
            span = _directory(view, end_at)
        except ArchiveError:
            continue  # another end mark may be the one
        if 0 <= span.shift <= most:
            return span
    raise unreadable("the directory of what it begins with is missing")


def _has_member(view: _View, span: Span) -> bool:
    """Whether a local header with its name stands where the first record says, or the record alone cannot say where."""
    fixed = RECORD.unpack(view.look(span.start, span.start + RECORD.size).ljust(RECORD.size))
    names, header = fixed[11], fixed[-1]
    if header == UNSET:
        return True
    name = view.look(span.start + RECORD.size, span.start + RECORD.size + names)
    for place in (base + above for base in (header + span.shift, header) for above in range(0, view.size, WRAP)):
        local = view.look(place, place + LOCAL.size + names) if 0 <= place < view.size else b""
        if local.startswith(LOCAL_MARK) and local[LOCAL.size :] == name:
            return True
    return False


def _ends(view: _View, limit: int, exact: bool) -> Iterator[int]:
    """Places of end marks, the likeliest first.

    Where the comment reaches to the end the first one holds the others in its comment; otherwise the last one counts.
    """
    tail = view.tail(limit)
    at = limit - len(tail)
    marks = _marks(tail)
    fitting = [mark for mark in marks if mark + _END.size + _comment(tail, mark) == len(tail)]
    yield from (at + mark for mark in fitting[:_TRIES])
    if exact:
        return
    others = sorted(set(marks) - set(fitting), reverse=True)
    yield from (at + mark for mark in others[:_TRIES])
    if at and view.begins[:2] == b"PK":
        farther = max(limit - _FARTHEST, 0)
        marks = _marks(view.read(farther, at + _END.size - 1 - farther))
        yield from (farther + mark for mark in marks[: -_TRIES - 1 : -1])


def _marks(data: bytes) -> list[int]:
    """Where end marks with a whole record behind them stand."""
    return [found.start() for found in _END_MARK.finditer(data) if found.start() + _END.size <= len(data)]


def _comment(tail: bytes, mark: int) -> int:
    return tail[mark + _END.size - 2] | tail[mark + _END.size - 1] << 8


def _directory(view: _View, end_at: int) -> Span:
    """The directory that an end record tells of; ArchiveError when none stands there."""
    end = _end(view, end_at)
    by_length = end.before - end.length
    if end.length == end.before == 0:
        return Span(0, 0, 0)
    if end.length == 0:
        raise unreadable("its directory is empty, and something stands before it")
    for start in (by_length, end.start):
        until = start + end.length
        if start < 0 or until > end.before:
            continue
        around = view.look(max(start - _BEFORE, 0), start + 4)
        if not around.endswith(RECORD_MARK):
            continue
        if view.look(until, until + 4) == RECORD_MARK or _ends_with_record(around[:-4]):
            raise unreadable("its directory is longer than its end says")
        shift = start - end.start
        return Span(start, until, shift % WRAP if end.narrow and shift > 0 else shift)
    raise unreadable("its directory is cut off" if by_length < 0 else "its directory is not where its end says")


def _ends_with_record(data: bytes) -> bool:
    """Whether a record of a directory reaches to the end of these bytes."""
    at = data.find(RECORD_MARK)
    while at >= 0:
        if at + RECORD.size <= len(data) and at + length_of(RECORD.unpack_from(data, at)[1:]) == len(data):
            return True
        at = data.find(RECORD_MARK, at + 1)
    return False


def _end(view: _View, end_at: int) -> _End:
    """What the end record at this place says, and that of ZIP64 before it; ArchiveError."""
    from_here = max(end_at - _LOCATOR.size, 0)
    raw = view.read(from_here, end_at + _END.size - from_here)
    _, disk, _, _, _, length, start, _ = _END.unpack(raw[-_END.size :])
    before, narrow = end_at, True
    if raw.startswith(_LOCATOR_MARK) and end_at >= _LOCATOR.size:
        place = _end64(view, from_here, _LOCATOR.unpack_from(raw)[2])
        if place is not None:
            _, _, _, _, disk, _, _, _, length64, start64 = _END64.unpack(view.read(place, _END64.size))
            before, narrow = place, start != UNSET
            length = length64 if length == UNSET else length
            start = start64 if start == UNSET else start
        elif UNSET in (length, start):
            raise unreadable("the end of its ZIP64 directory is missing")
    if disk not in (0, _UNSET_SHORT, UNSET):
        raise unreadable("it is one part of a split archive")
    return _End(length, start, before, narrow)


def _end64(view: _View, locator_at: int, said: int) -> int | None:
    """Where ZIP64's end record stands, which may have a sector of any length at its end; None where it does not."""
    for place in (said, locator_at - _END64.size):
        if 0 <= place <= locator_at - _END64.size and _fits(view.read(place, _END64.size), locator_at - place):
            return place
    at = max(locator_at - _SECTOR, 0)
    ahead = view.read(at, locator_at - at)
    mark = ahead.rfind(_END64_MARK)
    for _ in range(_TRIES):
        if mark < 0 or _fits(ahead[mark : mark + _END64.size], len(ahead) - mark):
            break
        mark = ahead.rfind(_END64_MARK, 0, mark + len(_END64_MARK) - 1)
    return at + mark if mark >= 0 and _fits(ahead[mark : mark + _END64.size], len(ahead) - mark) else None


def _fits(record: bytes, reaching: int) -> bool:
    """Whether this is an end record of ZIP64 that reaches as far as to its locator."""
    if len(record) < _END64.size or record[:4] != _END64_MARK:
        return False
    (size,) = struct.unpack_from("<Q", record, 4)
    return bool(size + _END64_LEAD == reaching)
