"""Opening objects of a batch once more, for checks that compare rows with what lies in the source.

Belongs here: from staged rows of raw_files to bytes, and the choice of objects where a batch has more than a check may
open. Does not belong here: what is compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from heapq import nsmallest
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.batch.checks.contract import CheckContext
from dicom_assets.lake.staging import Part
from dicom_assets.landing.archives import open_members
from dicom_assets.landing.change_windows import PageUnreadable
from dicom_assets.landing.opening import open_store
from dicom_assets.landing.store import LandingStore, ObjectError, ObjectRef, OpenObject
from dicom_assets.reading.change_entries import open_entries
from dicom_assets.schema.codes import ABSENT, Kind
from dicom_assets.settings import ArchiveLimits
from dicom_assets.storage.byte_file import ByteFile
from dicom_assets.storage.byte_ranges import ByteSource

Row = Mapping[str, Any]

COLUMNS = ["object_id", "uri", "member", "etag", "size", "container_id", "entry", "container_size", "kind", "at"]
"""The staged columns of raw_files that lead to an object's bytes."""

_BLOCK = 64 * 1024


def source_of_batch(context: CheckContext) -> LandingStore:
    """The source that the batch was claimed from. Raises SettingsError when it is not configured any more."""
    source = next(iter(context.staging.batches(Part.RAW, ["source"])))["source"][0].as_py()
    return open_store(context.settings.source(source.split("/")[0]))


def rank(batch_id: str, object_id: str) -> bytes:
    """The place of an object in the order in which a batch's checks take objects: by chance, in each run the same."""
    return hashlib.sha256(f"{batch_id}/{object_id}".encode()).digest()


def chosen(batch_id: str, ids: Sequence[str], most: int) -> list[str]:
    """At most so many of these objects, those that come first by `rank`."""
    return nsmallest(most, ids, key=lambda one: rank(batch_id, one))


def rows_of(context: CheckContext, ids: Sequence[str], *more: str) -> list[Row]:
    """The staged rows of raw_files of some objects, in COLUMNS and `more`; not of those that are known to be absent.

    Where a member lies in its archive is not known any more when that is gone, and whatever is there by now was not
    what the batch has read.
    """
    rows = context.staging.read(Part.RAW, [*dict.fromkeys([*COLUMNS, "verdict", *more])])
    rows = rows.filter(pc.is_in(rows["object_id"], pa.array(ids, pa.string())))
    absent = pc.fill_null(pc.is_in(rows["verdict"], pa.array(sorted(ABSENT))), False)
    found: list[Row] = rows.filter(pc.invert(absent)).to_pylist()
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


def bounded_file(source: ByteSource, most: int) -> ByteFile:
    """An object as a file that asks its source for blocks, and for no more than `most` bytes of it (OutOfBounds)."""
    return ByteFile(source, most=most, block=_BLOCK)
