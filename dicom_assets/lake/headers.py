"""Rows of single objects, and their headers, read from the files of flat_metadata without holding many of them.

Belongs here: finding the row groups that hold some objects, and reading these alone. Does not belong here: what is done
with a row.

DuckDB holds two thousand headers for each of its threads, and copies them into what it gives; here they come a few at a
time from the pages in which they lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.extents import Extents, Within
from dicom_assets.lake.pack import ROW_GROUP

_NAME = ["batch_id", "object_id"]


def headers(lake: Lake, objects: pa.Table) -> Iterator[pa.RecordBatch]:
    """The rows of flat_metadata of some objects (batch_id, object_id), in these columns and `header`.

    One row group is in memory at a time. Raises LakeError.
    """
    within = {"batch_id": objects["batch_id"].unique().to_pylist()}
    return rows_of(lake, lake.extents("flat_metadata"), objects, within, [*_NAME, "header"], ROW_GROUP)


def rows_of(
    lake: Lake, known: Extents, objects: pa.Table, within: Within, columns: Sequence[str], most: int
) -> Iterator[pa.RecordBatch]:
    """Some columns of the rows of flat_metadata of some objects (batch_id, object_id), in the order of the files.

    known: the files of the version that is read. within: values that all of these rows have in some columns: other
    files and row groups are not read. most: rows that are given, and held, at a time.

    Raises LakeError, FileNotFoundError.
    """
    wanted = _names(objects)
    for path in known.paths[known.within(within)].tolist():
        with lake.open_data("flat_metadata", path) as file:
            for group in _groups(file, within):
                at = np.flatnonzero(pc.is_in(_names(file.read_row_group(group, columns=_NAME)), wanted))
                if len(at):
                    yield from _taken(file, group, at, columns, most)


def object_rows(lake: Lake, objects: pa.Table, columns: Sequence[str]) -> Iterator[tuple[pa.Table, pa.Array]]:
    """Rows of flat_metadata of some objects, a row group at a time, each with the place of its object in `objects`.

    objects: batch_id and object_id, in the order of batches, of which there may be millions. Raises LakeError.
    """
    wanted, places = _names(objects), _places(objects["batch_id"])
    known, within = lake.extents("flat_metadata"), {"batch_id": [*places]}
    for path in known.paths[known.within(within)].tolist():
        with lake.open_data("flat_metadata", path) as file:
            there = [name for name in columns if name in file.schema_arrow.names]
            for group in _groups(file, within):
                named = file.read_row_group(group, columns=_NAME)
                own = [places[batch] for batch in named["batch_id"].unique().to_pylist() if batch in places]
                if not own:
                    continue
                begin, end = min(start for start, _ in own), max(stop for _, stop in own)
                found = pc.index_in(_names(named), wanted.slice(begin, end - begin))
                at = np.flatnonzero(np.asarray(found.is_valid()))
                if len(at):
                    yield file.read_row_group(group, columns=there).take(at), pc.add(found.take(at), begin)


def _taken(
    file: pq.ParquetFile, group: int, at: npt.NDArray[np.int64], columns: Sequence[str], most: int
) -> Iterator[pa.RecordBatch]:
    """Some rows of a row group, read as far as the last of them. NULL in columns that the file does not have."""
    there = [one for one in columns if one in file.schema_arrow.names]
    begin = 0
    for batch in file.iter_batches(most, [group], there, use_threads=False):
        mine = at[(at >= begin) & (at < begin + len(batch))] - begin
        begin += len(batch)
        if len(mine):
            rows = batch if len(mine) == len(batch) else batch.take(mine)
            found = {one: rows[one] if one in there else pa.nulls(len(rows)) for one in columns}
            yield pa.RecordBatch.from_pydict(found)
        if begin > at[-1]:
            return


def _groups(file: pq.ParquetFile, within: Within) -> Iterator[int]:
    """The row groups that may hold rows with such values."""
    paths = {file.metadata.schema.column(at).path: at for at in range(len(file.metadata.schema))}
    wanted = {paths[name]: [*values] for name, values in within.items() if name in paths}
    for group in range(file.num_row_groups):
        told = {at: file.metadata.row_group(group).column(at).statistics for at in wanted}
        if all(
            told[at] is None or not told[at].has_min_max or any(told[at].min <= one <= told[at].max for one in values)
            for at, values in wanted.items()
        ):
            yield group


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
