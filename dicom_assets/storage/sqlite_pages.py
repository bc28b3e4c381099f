"""Texts in the files of a SQLite database, page by page: free pages, its write-ahead log and its rollback journal too.

Belongs here: what of SQLite's file format this takes (https://sqlite.org/fileformat2.html: 1.3 header, 1.6 overflow
pages, 4.1 write-ahead log, 3 rollback journal). Does not belong here: which texts (`traces`).

A deletion leaves what was deleted in its page, or the whole page among the free ones, until something else comes there.
So no table is asked: each page is looked at as it is. A value that is too long for its page goes on in overflow pages,
each of which begins with the number of the next one; wherever four bytes of a page name a page of the file, the end
before them is looked at together with the beginning of that page.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Protocol

import numpy as np

_DATABASE = b"SQLite format 3\0"
_LOGS = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
_JOURNAL = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
PAGES, LOG, JOURNAL = "SQLite page", "SQLite write-ahead log", "SQLite journal"


class Texts(Protocol):
    """Texts that are looked for."""

    @property
    def longest(self) -> int:
        """Bytes of the longest one."""
        ...

    def lie_in(self, data: bytes) -> bool:
        """Whether one of them lies in data."""
        ...


def is_part_of_database(data: bytes) -> bool:
    """Whether a file is a database, its write-ahead log or its journal."""
    return data.startswith((_DATABASE, *_LOGS, _JOURNAL))


def places(data: bytes, texts: Texts) -> set[str]:
    """The one kind of place in which one of the texts lies; empty when in none."""
    kind = PAGES if data.startswith(_DATABASE) else LOG if data.startswith(_LOGS) else JOURNAL
    return {kind} if texts.lie_in(data) or any(texts.lie_in(joint) for joint in _joints(data, texts.longest)) else set()


def _joints(data: bytes, reach: int) -> Iterator[bytes]:
    """Ends of what goes on in another page, each with its beginning there."""
    size, pages = _pages(data)
    if size < 512 or not pages:
        return
    most = max(pages)
    for own in pages.values():
        page = data[own : own + size]
        body = np.frombuffer(page, np.uint8).astype(np.uint32)
        if len(body) < 8:
            continue
        numbers = (body[:-3] << 24) | (body[1:-2] << 16) | (body[2:-1] << 8) | body[3:]
        for at in np.flatnonzero((numbers > 0) & (numbers <= most)).tolist():
            there = pages.get(int(numbers[at]))
            if there is not None:
                before = page[-reach:] if at == 0 else page[max(0, at - reach) : at]
                yield before + data[there + 4 : there + 4 + reach]


def _pages(data: bytes) -> tuple[int, dict[int, int]]:
    """Bytes of a page, and where each page begins, by its number; of one that stands twice the last."""
    if data.startswith(_DATABASE):
        size = struct.unpack(">H", data[16:18])[0]
        size = 65_536 if size == 1 else size
        return size, {number + 1: number * size for number in range(len(data) // size)} if size >= 512 else {}
    if data.startswith(_LOGS):
        size, header = struct.unpack(">I", data[8:12])[0], 24
        starts = range(32, len(data) - header, size + header) if size >= 512 else range(0)
    else:
        sector, size = struct.unpack(">II", data[20:28]) if len(data) >= 28 else (0, 0)
        header, starts = 4, range(sector, len(data) - 4, size + 8) if size >= 512 and sector else range(0)
    return size, {struct.unpack(">I", data[at : at + 4])[0]: at + header for at in starts}
