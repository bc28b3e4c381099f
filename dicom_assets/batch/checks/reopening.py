"""Opening objects of a batch once more, for checks that compare rows with what lies in the source.

Belongs here: from staged rows of raw_files to bytes, and the choice of objects where a batch has more than a check may
open. Does not belong here: what is compared.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from dicom_assets.batch.checks.checks import CheckContext
from dicom_assets.lake.staging import Part
from dicom_assets.landing.archives import open_members
from dicom_assets.landing.change_windows import PageUnreadable
from dicom_assets.landing.opening import open_store
from dicom_assets.landing.store import LandingStore, ObjectError, ObjectRef, OpenObject
from dicom_assets.reading.change_entries import open_entries
from dicom_assets.schema.codes import Kind
from dicom_assets.settings import ArchiveLimits
from dicom_assets.storage.byte_ranges import ByteSource

Row = Mapping[str, Any]

COLUMNS = ["object_id", "uri", "member", "etag", "size", "container_id", "entry", "container_size", "kind", "at"]
"""The staged columns of raw_files that lead to an object's bytes."""

_BLOCK = 64 * 1024


class OutOfBounds(OSError):
    """More bytes of one object were asked for than a check reads."""


def source_of_batch(context: CheckContext) -> LandingStore:
    """The source that the batch was claimed from. Raises SettingsError when it is not configured any more."""
    source = next(iter(context.staging.batches(Part.RAW, ["source"])))["source"][0].as_py()
    return open_store(context.settings.source(source.split("/")[0]))


def rank(batch_id: str, object_id: str) -> bytes:
    """The place of an object in the order in which a batch's checks take objects: by chance, in each run the same."""
    return hashlib.sha256(f"{batch_id}/{object_id}".encode()).digest()


def chosen(batch_id: str, ids: Sequence[str], most: int) -> list[str]:
    """At most so many of these objects, those that come first by `rank`."""
    return sorted(ids, key=lambda one: rank(batch_id, one))[:most]


def rows_of(context: CheckContext, ids: Sequence[str], *more: str) -> list[Row]:
    """The staged rows of raw_files of some objects, in COLUMNS and `more`."""
    wanted, found = set(ids), []
    for batch in context.staging.batches(Part.RAW, [*COLUMNS, *more]):
        if any(one in wanted for one in batch["object_id"].to_pylist()):
            found += [row for row in batch.to_pylist() if row["object_id"] in wanted]
    return found


def located(row: Row) -> Row:
    """The row as it must be opened: at the place where the object lies now."""
    at = row["at"]
    if at is None:
        return row
    moved = {name: at[name] for name in ("uri", "etag", "member", "entry", "container_size")}
    return {**row, **moved}


def reopened(
    store: LandingStore, rows: Sequence[Row], limits: ArchiveLimits, first_bytes: int = _BLOCK
) -> Iterator[tuple[Row, ByteSource | ObjectError]]:
    """Each object with its bytes, or why it cannot be read; files first, then archive by archive.

    Bytes are valid until the next ones are asked for. An object that is not the one that was claimed any more is an
    ObjectError, and so is one that changes while it is read: whoever reads calls `verified` before a verdict.
    """
    places = [(row, located(row)) for row in rows]
    files = [(row, place) for row, place in places if not place["entry"]]
    refs = [ObjectRef(place["uri"], place["etag"], place["size"]) for _, place in files]
    for (row, _), opened in zip(files, store.open_all(refs, first_bytes), strict=True):
        yield row, opened
        if not isinstance(opened, ObjectError):
            opened.close()
    inside = sorted((pair for pair in places if pair[1]["entry"]), key=lambda pair: (pair[1]["uri"], pair[1]["entry"]))
    for _, group in groupby(inside, key=lambda pair: pair[1]["uri"]):
        yield from _inside(store, list(group), limits, first_bytes)


def _inside(
    store: LandingStore, pairs: Sequence[tuple[Row, Row]], limits: ArchiveLimits, first_bytes: int
) -> Iterator[tuple[Row, ByteSource | ObjectError]]:
    first = pairs[0][1]
    container = next(store.open_all([ObjectRef(first["uri"], first["etag"], first["container_size"])], first_bytes))
    if isinstance(container, ObjectError):
        yield from ((row, container) for row, _ in pairs)
        return
    try:
        entries = [tuple(place["entry"]) for _, place in pairs]
        if first["kind"] == Kind.CHANGE:
            yield from _entries(container, pairs)
        else:
            for (row, _), (_, member) in zip(pairs, open_members(container, entries, limits), strict=True):
                yield row, _Within(container, member) if not isinstance(member, ObjectError) else member
    finally:
        container.close()


def _entries(page: OpenObject, pairs: Sequence[tuple[Row, Row]]) -> Iterator[tuple[Row, ByteSource | ObjectError]]:
    try:
        lines = list(open_entries(page, [place["entry"][0] for _, place in pairs]))
    except PageUnreadable as error:
        yield from ((row, ObjectError(error.code, error.detail)) for row, _ in pairs)
        return
    for (row, _), line in zip(pairs, lines, strict=True):
        yield row, _Within(page, line)


class _Within:
    """Bytes in a container, which is the object that may change."""

    def __init__(self, container: OpenObject, inside: ByteSource) -> None:
        self._inside = inside
        self.size = inside.size
        self.verify = container.verify

    def read(self, offset: int, length: int) -> bytes:
        return self._inside.read(offset, length)


def verified(source: ByteSource) -> bool:
    """Whether an object is still the one that was claimed."""
    try:
        source.verify()  # type: ignore[attr-defined]
    except ObjectError:
        return False
    return True


class Reader(io.RawIOBase):
    """A seekable file over an object, which asks its source for blocks, and for no more than `most` bytes of it.

    Raises OutOfBounds beyond, and what the source raises. A length beyond the end asks for what there is: the length of
    a broken element may be gigabytes.
    """

    def __init__(self, source: ByteSource, most: int) -> None:
        """Begins at the first byte."""
        super().__init__()
        self._source, self._left, self._at = source, most, 0
        self._block, self._start = b"", 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The current place."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Goes to a place, counted from the start, from here or from the end."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._source.size}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def read(self, length: int | None = -1) -> bytes:
        """So many bytes from the current place on, all that is left without a length."""
        there = max(self._source.size - self._at, 0)
        wanted = there if length is None or length < 0 else min(length, there)
        begin = self._at - self._start
        if not 0 <= begin <= begin + wanted <= len(self._block):
            self._fetch(max(wanted, min(_BLOCK, there)))
            begin = 0
        data = self._block[begin : begin + wanted]
        self._at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer from the current place on; how many bytes there were."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def _fetch(self, length: int) -> None:
        self._left -= length
        if self._left < 0:
            raise OutOfBounds
        self._block, self._start = self._source.read(self._at, length), self._at
