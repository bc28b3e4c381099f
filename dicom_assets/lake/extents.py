"""What each file of a Delta table holds, from the statistics in its log: which files a set of values can stand in.

Belongs here: extents of files and which of them to open. Does not belong here: opening them (`query`), writing them
(`rewrite`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from deltalake import DeltaTable

from dicom_assets.lake.keys import HASHED, place

_PLACES = re.compile(r"part-([0-9a-f]{16})-([0-9a-f]{16})-[^/]*$")
PLACED = frozenset({"image_study_UID"})
"""Columns that a table is replaced by, that are no hashes, and that rows are looked up by.

The log holds ranges of columns, and a table whose columns are a standard's gets no column of ours for a hash. So the
names of its files say between which places their rows stand. A file that another writer made says nothing, and is
opened.
"""

Within = Mapping[str, Iterable[str]]
"""Values by column: rows are wanted whose columns each have one of these values."""


@dataclass(frozen=True)
class Extents:
    """The files of one version of a table, in the order of the log.

    paths: relative to the table. rows, bytes: int64 each. low, high: by column, the smallest and the largest value in
    each file, None where the log does not tell. first, last: the smallest and the largest place (`keys.place`) of the
    rows of each file of a table that is replaced by a column which is no hash, None where its name does not tell.
    """

    paths: npt.NDArray[np.object_]
    rows: npt.NDArray[np.int64]
    bytes: npt.NDArray[np.int64]
    low: Mapping[str, npt.NDArray[np.object_]]
    high: Mapping[str, npt.NDArray[np.object_]]
    first: npt.NDArray[np.object_]
    last: npt.NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.paths)

    def may_hold(self, column: str, values: Iterable[str]) -> npt.NDArray[np.bool_]:
        """For each file, whether one of the values can stand in a column; True where the log does not tell."""
        wanted = set(values)
        held = np.ones(len(self), dtype=bool)
        if column in self.low:
            held &= _may_hold(self.low[column], self.high[column], wanted)
        if column in PLACED:
            held &= _may_hold(self.first, self.last, {place(column, value) for value in wanted})
        return held

    def span(self, column: str) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.object_]]:
        """For each file, the range of places in which its rows stand, for a table that is replaced by this column."""
        if column in HASHED and column in self.low:
            return self.low[column], self.high[column]
        return self.first, self.last

    def within(self, wanted: Within) -> npt.NDArray[np.bool_]:
        """For each file, whether it can hold a row with one of the values in every column."""
        held = np.ones(len(self), dtype=bool)
        for column, values in wanted.items():
            held &= self.may_hold(column, values)
        return held


def _may_hold(low: npt.NDArray[np.object_], high: npt.NDArray[np.object_], values: set[str]) -> npt.NDArray[np.bool_]:
    wanted = np.array(sorted(values), dtype=object)
    if not len(wanted):
        return np.zeros(len(low), dtype=bool)
    told = np.array([a is not None and b is not None for a, b in zip(low, high, strict=True)], dtype=bool)
    held = np.ones(len(low), dtype=bool)
    at = np.searchsorted(wanted, low[told].astype(object), side="left")
    nearest = wanted[np.minimum(at, len(wanted) - 1)]
    held[told] = (at < len(wanted)) & (nearest <= high[told])
    return held


def extents(table: DeltaTable) -> Extents:
    """The extents of a table's files."""
    adds = pa.table(table.get_add_actions(flatten=True))
    names = adds.column_names

    def objects(name: str) -> npt.NDArray[np.object_]:
        return np.array(adds[name].to_pylist(), dtype=object)

    def numbers(name: str) -> npt.NDArray[np.int64]:
        return np.array([value or 0 for value in adds[name].to_pylist()], dtype=np.int64)

    kept = [
        name.removeprefix("min.")
        for name in names
        if name.startswith("min.") and f"max.{name[4:]}" in names and _is_text(adds.schema.field(name).type)
    ]
    paths = objects("path")
    places = [found.groups() if (found := _PLACES.search(path)) else (None, None) for path in paths]
    return Extents(
        paths,
        numbers("num_records") if "num_records" in names else np.zeros(len(adds), dtype=np.int64),
        numbers("size_bytes"),
        {name: objects(f"min.{name}") for name in kept},
        {name: objects(f"max.{name}") for name in kept},
        np.array([first for first, _ in places], dtype=object),
        np.array([last for _, last in places], dtype=object),
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or str(kind) == "string_view")
