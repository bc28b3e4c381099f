"""Rows of single objects, and their headers, read from the files of flat_metadata without holding many of them.

Belongs here: finding the row groups that hold some objects, and reading these alone. Does not belong here: what is done
with a row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dicom_assets.lake.delta import Lake

_NAME = ["batch_id", "object_id"]

KEPT_CHARACTERS = 16_000_000
"""Characters of headers that are kept for the next step of a batch."""


@dataclass
class KeptHeaders:
    """Headers that a step of a batch has read and a later one reads as well, by batch_id and object_id.

    version: of flat_metadata when they were read; as long as it is the same, so are they.
    """

    version: int
    texts: dict[tuple[str, str], str] = field(default_factory=dict)
    room: int = KEPT_CHARACTERS

    def enter(self, name: tuple[str, str], header: str) -> None:
        """Keeps a header if there is room."""
        if len(header) <= self.room:
            self.room -= len(header)
            self.texts[name] = header


def headers(lake: Lake, objects: pa.Table) -> Iterator[pa.Table]:
    """The rows of flat_metadata of some objects (batch_id, object_id), in these columns and `header`.

    One row group is in memory at a time. Raises LakeError.
    """
    for rows, _ in object_rows(lake, objects.select(_NAME).sort_by("batch_id"), [*_NAME, "header"]):
        yield rows


HEADER_BYTES = 1 << 19
"""Bytes of headers that `with_headers` gives at a time: DuckDB takes some 3.5 times as much to take them apart."""


def with_headers(lake: Lake, objects: pa.Table) -> pa.RecordBatchReader:
    """Some objects with the column `header` behind their own, one after the other, for DuckDB to run through once.

    objects: batch_id, object_id, and what else is wanted of them. HEADER_BYTES are in memory at a time, and the page of
    the file that they are from: DuckDB by itself takes a row group for each of its threads, and when it takes JSON
    apart three times as much beside it. Raises LakeError while it is read.
    """
    objects = objects.sort_by("batch_id").combine_chunks()
    schema = objects.schema.append(pa.field("header", pa.string()))
    return pa.RecordBatchReader.from_batches(schema, _with_headers(lake, objects))


def _with_headers(lake: Lake, objects: pa.Table) -> Iterator[pa.RecordBatch]:
    for file, group, places in _found(lake, objects):
        told = file.metadata.row_group(group)
        size = told.column(_column(file, "header")).total_uncompressed_size
        rows = max(HEADER_BYTES * told.num_rows // max(size, 1), 1)
        begin = 0
        for read in file.iter_batches(rows, row_groups=[group], columns=["header"]):
            own = places.slice(begin, len(read))
            begin += len(read)
            texts = read["header"].filter(own.is_valid())
            if len(texts):
                found = objects.take(own.drop_null()).append_column("header", texts.cast(pa.string()))
                yield from found.combine_chunks().to_batches()


def object_rows(lake: Lake, objects: pa.Table, columns: Sequence[str]) -> Iterator[tuple[pa.Table, pa.Array]]:
    """Rows of flat_metadata of some objects, a row group at a time, each with the place of its object in `objects`.

    objects: batch_id and object_id, in the order of batches. Raises LakeError.
    """
    for file, group, places in _found(lake, objects):
        there = [name for name in columns if name in file.schema_arrow.names]
        at = np.flatnonzero(np.asarray(places.is_valid()))
        yield file.read_row_group(group, columns=there).take(at), places.take(at)


def _found(lake: Lake, objects: pa.Table) -> Iterator[tuple[pq.ParquetFile, int, pa.Array]]:
    """The row groups that hold some of the objects: file, number, and of each row the place of its object, or NULL."""
    wanted, places = _names(objects), _places(objects["batch_id"])
    known = lake.extents("flat_metadata")
    held = known.within({"batch_id": [*places]})
    for path in known.paths[held].tolist():
        file = lake.files.open_parquet(f"flat_metadata/{path}")
        for group in _groups(file, places):
            named = file.read_row_group(group, columns=_NAME)
            own = [places[batch] for batch in named["batch_id"].unique().to_pylist() if batch in places]
            if not own:
                continue
            begin, end = min(start for start, _ in own), max(stop for _, stop in own)
            found = pc.index_in(_names(named), wanted.slice(begin, end - begin))
            if found.null_count < len(found):
                yield file, group, pc.add(found, begin)


def _groups(file: pq.ParquetFile, batches: Collection[str]) -> Iterator[int]:
    """The row groups that may hold rows of some batches."""
    column = _column(file, "batch_id")
    for group in range(file.num_row_groups):
        told = file.metadata.row_group(group).column(column).statistics
        if told is None or not told.has_min_max or any(told.min <= one <= told.max for one in batches):
            yield group


def _column(file: pq.ParquetFile, name: str) -> int:
    """The place of a column in what the footer says."""
    schema = file.metadata.schema
    return next(at for at in range(len(schema)) if schema.column(at).path == name)


def _places(batches: pa.ChunkedArray) -> dict[str, tuple[int, int]]:
    """Where the rows of each batch begin and end, of rows in the order of batches."""
    places, begin = {}, 0
    for one in pc.value_counts(batches.combine_chunks()).to_pylist():
        places[one["values"]] = (begin, begin + one["counts"])
        begin += one["counts"]
    return places


def _names(rows: pa.Table) -> pa.Array:
    """Batch and object as one text each."""
    texts = [rows[name].cast(pa.string()) for name in _NAME]
    return pc.binary_join_element_wise(*texts, "/").combine_chunks()
