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


def object_rows(lake: Lake, objects: pa.Table, columns: Sequence[str]) -> Iterator[tuple[pa.Table, pa.Array]]:
    """Rows of flat_metadata of some objects, a row group at a time, each with the place of its object in `objects`.

    objects: batch_id and object_id, in the order of batches. Raises LakeError.
    """
    wanted, places = _names(objects), _places(objects["batch_id"])
    known = lake.extents("flat_metadata")
    held = known.within({"batch_id": [*places]})
    for path in known.paths[held].tolist():
        file = lake.files.open_parquet(f"flat_metadata/{path}")
        there = [name for name in columns if name in file.schema_arrow.names]
        for group in _groups(file, places):
            named = file.read_row_group(group, columns=_NAME)
            own = [places[batch] for batch in named["batch_id"].unique().to_pylist() if batch in places]
            if not own:
                continue
            begin, end = min(start for start, _ in own), max(stop for _, stop in own)
            found = pc.index_in(_names(named), wanted.slice(begin, end - begin))
            at = np.flatnonzero(np.asarray(found.is_valid()))
            if len(at):
                yield file.read_row_group(group, columns=there).take(at), pc.add(found.take(at), begin)


def _groups(file: pq.ParquetFile, batches: Collection[str]) -> Iterator[int]:
    """The row groups that may hold rows of some batches."""
    schema = file.metadata.schema
    column = next(at for at in range(len(schema)) if schema.column(at).path == "batch_id")
    for group in range(file.num_row_groups):
        told = file.metadata.row_group(group).column(column).statistics
        if told is None or not told.has_min_max or any(told.min <= one <= told.max for one in batches):
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
