"""What each file of a Delta table holds, from the statistics in its log: which files a set of values can stand in.

Belongs here: extents of files and which of them to open. Does not belong here: opening them (`query`), writing them
(`rewrite`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from deltalake import DeltaTable

Within = Mapping[str, Iterable[str]]
"""Values by column: rows are wanted whose columns each have one of these values."""


@dataclass(frozen=True)
class Extents:
    """The files of one version of a table, in the order of the log.

    version: its number. paths: relative to the table. rows, bytes: int64 each. low, high: by column, the smallest and
    the largest value in each file, None where the log does not tell.
    """

    version: int
    paths: npt.NDArray[np.object_]
    rows: npt.NDArray[np.int64]
    bytes: npt.NDArray[np.int64]
    low: Mapping[str, npt.NDArray[np.object_]]
    high: Mapping[str, npt.NDArray[np.object_]]

    def __len__(self) -> int:
        return len(self.paths)

    def may_hold(self, column: str, values: Iterable[str]) -> npt.NDArray[np.bool_]:
        """For each file, whether one of the values can stand in a column; True where the log does not tell."""
        wanted = np.array(sorted(set(values)), dtype=object)
        if column not in self.low:
            return np.ones(len(self), dtype=bool)
        if not len(wanted):
            return np.zeros(len(self), dtype=bool)
        low, high = self.low[column], self.high[column]
        told = np.array([a is not None and b is not None for a, b in zip(low, high, strict=True)], dtype=bool)
        held = np.ones(len(self), dtype=bool)
        at = np.searchsorted(wanted, low[told].astype(object), side="left")
        nearest = wanted[np.minimum(at, len(wanted) - 1)]
        held[told] = (at < len(wanted)) & (nearest <= high[told])
        return held

    def within(self, wanted: Within) -> npt.NDArray[np.bool_]:
        """For each file, whether it can hold a row with one of the values in every column."""
        held = np.ones(len(self), dtype=bool)
        for column, values in wanted.items():
            held &= self.may_hold(column, values)
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
    return Extents(
        table.version(),
        objects("path"),
        numbers("num_records") if "num_records" in names else np.zeros(len(adds), dtype=np.int64),
        numbers("size_bytes"),
        {name: objects(f"min.{name}") for name in kept},
        {name: objects(f"max.{name}") for name in kept},
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or str(kind) == "string_view")
