"""Directories of ZIP files by their structure alone, for checks: records that stand one behind the other.

Belongs here: a second reading of directories that needs nothing that an end record says, so it works behind other
bytes, in any form of ZIP64 and above 4 GiB. Does not belong here: `landing.archives`, which is judged with it; they
share no code.

A chain is as long as it can be made: no record stands directly before its first one or behind its last one. So who
leaves out a record, at either end or within, has not listed a chain. But bytes of a member may look like a record that
ends exactly where a directory begins. So the end of a chain is one more chain where the end record directly behind it
tells its number of records and its number of bytes, which are two witnesses for the place where it begins.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import IO, NamedTuple

MOST_BYTES = 64 << 20
"""Bytes before the end of an archive in which chains are looked for."""

MOST_SHARED = 100_000
"""Records that stand in several chains, counted once for each chain but the first."""

_MARK = b"PK\x01\x02"
_ENDS = {b"PK\x05\x06": struct.Struct("<10xHI6x"), b"PK\x06\x06": struct.Struct("<32xQQ8x")}
"""By the mark of an end record, without and with ZIP64, where it says how many records there are, of how many bytes."""
_FIXED = 46
_LONGEST = _FIXED + 3 * 0xFFFF
_DOS = frozenset((0, 6, 10, 11, 14))
_UNIX = frozenset((3, 19))


class TooLarge(Exception):
    """The directory stands farther from the end than MOST_BYTES, or too many chains share records."""


class Record(NamedTuple):
    """One record. name: None where it is not told alike by all: beyond printable ASCII, or there is another name."""

    at: int
    size: int
    name: str | None
    is_folder: bool


def chains(file: IO[bytes], size: int, least: int) -> list[list[Record]]:
    """Every chain of records from the first one that may reach `least` on, in the order of their first records.

    Two chains may end in the same records: bytes before a directory may look like a record that ends within it, or
    where it begins. size: bytes of the file. least: place of the first record that must be looked at. Raises TooLarge.
    """
    start = max(min(least, size) - _LONGEST, 0)
    if size - start > MOST_BYTES:
        raise TooLarge
    file.seek(start)
    data = file.read(size - start)
    found: list[list[Record]] = []
    within: set[int] = set()
    shared = 0
    at = data.find(_MARK)
    while at >= 0:
        if at not in within:
            chain, end = [], at
            while data[end : end + 4] == _MARK and (following := _end(data, end)) <= len(data):
                shared += end in within
                within.add(end)
                chain.append(_record(data, end, following, start))
                end = following
            if chain:
                found += [chain, *_told_by_end(data, chain, end, start)]
            if shared > MOST_SHARED:
                raise TooLarge
        at = data.find(_MARK, at + 1)
    return sorted(found, key=lambda chain: chain[0].at)


def _told_by_end(data: bytes, chain: list[Record], end: int, start: int) -> list[list[Record]]:
    """The last records of a chain, where they are not all of it and the end record at `end` says that they are all."""
    fields = _ENDS.get(data[end : end + 4])
    if fields is None or end + fields.size > len(data):
        return []
    count, length = fields.unpack_from(data, end)
    told = chain[-count:] if 0 < count < len(chain) else []
    return [told] if told and told[0].at - start == end - length else []


def is_folder(size: int, name: str, system: int, attributes: int) -> bool:
    """Whether a record without content stands for a folder: by its name or by the attributes of its system."""
    if size:
        return False
    marked = (system in _UNIX and attributes >> 28 == 4) or (system in _DOS and attributes & 16)
    return bool(marked) or name[-1:] in ("/", "\\")


def _end(data: bytes, at: int) -> int:
    if at + _FIXED > len(data):
        return len(data) + 1
    names, extras, comment = struct.unpack_from("<HHH", data, at + 28)
    return at + _FIXED + int(names + extras + comment)


def _record(data: bytes, at: int, end: int, start: int) -> Record:
    (size,) = struct.unpack_from("<I", data, at + 24)
    names, extras = struct.unpack_from("<HH", data, at + 28)
    (attributes,) = struct.unpack_from("<I", data, at + 38)
    text = data[at + _FIXED : at + _FIXED + names].decode("latin-1")
    fields = _fields(data[at + _FIXED + names : at + _FIXED + names + extras])
    if size == 0xFFFFFFFF and len(fields.get(1, b"")) >= 8:
        (size,) = struct.unpack_from("<Q", fields[1])
    plain = text.isascii() and text.isprintable() and 0x7075 not in fields
    return Record(start + at, size, text if plain else None, is_folder(size, text, data[at + 5], attributes))


def _fields(extra: bytes) -> Mapping[int, bytes]:
    found: dict[int, bytes] = {}
    while len(extra) >= 4:
        tag, length = struct.unpack_from("<HH", extra)
        if length + 4 > len(extra):
            break
        found[tag] = extra[4 : 4 + length]
        extra = extra[4 + length :]
    return found
