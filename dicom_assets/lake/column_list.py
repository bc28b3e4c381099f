"""The columns that a lake's tables have beyond the registry's: `{lake}/_columns.json`, which every process reads.

Belongs here: the list with how far each column is, and what the tables look like with it. Does not belong here: what a
path means (`schema.promoted`), filling columns (`batch.promotion`).

A column goes through the tables one after the other: `stage` names the one that is being filled, and a table has it for
whoever writes from its own stage on. It is seen in a table once the table's log has it, which is when all its files do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from dicom_assets.schema.attributes import Level
from dicom_assets.schema.promoted import PromotedColumn
from dicom_assets.schema.registry import TABLES
from dicom_assets.schema.table import Table
from dicom_assets.storage.files import LakeError, LakeFiles

Take = Callable[[pa.Array, Sequence[PromotedColumn]], Sequence[pa.Array]]
"""Takes the values of columns from headers, one for each; see `dicom.from_header`."""


class ColumnsChanged(LakeError):
    """A table has other columns than rows that were to come into it: they have to be made again."""


FILE = "_columns.json"
READY = "ready"
REMOVING = "removing"

_WAYS: dict[Level, tuple[str, ...]] = {
    Level.INSTANCE: ("flat_metadata", "instance"),
    Level.SERIES: ("flat_metadata", "instance", "series"),
    Level.STUDY: ("flat_metadata", "instance", "series", "study"),
}


@dataclass(frozen=True)
class Listed:
    """A promoted column and how far it is. stage: a table, READY or REMOVING. misfits: values that did not fit."""

    column: PromotedColumn
    stage: str
    misfits: int = 0

    @property
    def way(self) -> tuple[str, ...]:
        """The tables that have the column, each made from the one before."""
        return _WAYS[self.column.level]

    @property
    def written(self) -> tuple[str, ...]:
        """The tables in which whoever writes rows writes the column."""
        if self.stage == READY:
            return self.way
        return () if self.stage == REMOVING else self.way[: self.way.index(self.stage) + 1]

    @property
    def next(self) -> str:
        """The stage behind this one."""
        at = self.way.index(self.stage) + 1
        return self.way[at] if at < len(self.way) else READY


def read(files: LakeFiles) -> tuple[Listed, ...]:
    """The promoted columns of a lake, in their order. Raises LakeError when the list cannot be read."""
    try:
        told = json.loads(files.get(FILE))
        return tuple(
            Listed(PromotedColumn.from_dict(one), str(one["stage"]), int(one.get("misfits", 0)))
            for one in told["columns"]
        )
    except FileNotFoundError:
        return ()
    except (ValueError, KeyError, TypeError):
        raise LakeError(f"The file {FILE} of the lake, which lists its promoted columns, is damaged.") from None


def write(files: LakeFiles, listed: Sequence[Listed]) -> None:
    """Replaces the list. Raises LakeError."""
    columns = [one.column.to_dict() | {"stage": one.stage, "misfits": one.misfits} for one in listed]
    files.put(FILE, json.dumps({"columns": columns}, indent=1).encode() + b"\n")


def tables_with(listed: Sequence[Listed]) -> Mapping[str, Table]:
    """What the tables of a lake look like to whoever writes into them."""
    if not listed:
        return TABLES
    tables = dict(TABLES)
    for one in listed:
        for above, name in zip((None, *one.way), one.written, strict=False):
            table = tables[name]
            tables[name] = replace(table, columns=(*table.columns, one.column.column(above)))
    return tables


def complete(listed: Sequence[Listed], take: Take | None, rows: pa.RecordBatch) -> pa.RecordBatch:
    """Rows of flat_metadata with the promoted columns that they lack, taken from `header`. Raises LakeError."""
    lacking = [
        one.column for one in listed if "flat_metadata" in one.written and one.column.name not in rows.schema.names
    ]
    if not lacking:
        return rows
    if take is None:
        raise LakeError("The lake has promoted columns, and this process cannot take their values from headers.")
    columns = dict(zip([one.name for one in lacking], take(rows["header"], lacking), strict=True))
    return pa.RecordBatch.from_pydict({**{name: rows[name] for name in rows.schema.names}, **columns})


def hidden(listed: Sequence[Listed], name: str, there: Sequence[str]) -> list[str]:
    """Promoted columns of a table that are not among those that its log has: not all of its files have them."""
    return [one.column.name for one in listed if name in one.written and one.column.name not in there]
