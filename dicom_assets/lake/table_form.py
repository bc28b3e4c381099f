"""How a Delta table differs from what this release knows of it, and adding the columns that it lacks.

Belongs here: comparing columns, and what a table's log says of columns that came later than the table. Does not belong
here: which tables there are (`schema.registry`), opening them (`tables`).

Adding a column changes the log alone: a file written before does not have it, and every reader of ours gives NULL. So
that readers of tables whose files are all alike need not look, a column that came later says so in the log.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, Field, Schema

from dicom_assets.lake import form
from dicom_assets.schema.table import Column, Table
from dicom_assets.storage.files import LakeError

ADDED = "dicom-assets.added"
"""Name, in a column's metadata in the log, of the sign that the column came later than the table."""

_SQL_TYPES = {
    "string": "VARCHAR",
    "int64": "BIGINT",
    "int32": "INTEGER",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "date32[day]": "DATE",
    "timestamp[us, tz=UTC]": "TIMESTAMPTZ",
}


class ForeignTable(LakeError):
    """A Delta table at the place of one of ours has another schema."""


@dataclass(frozen=True)
class Differences:
    """How a table that was found differs from the registered one.

    missing: columns that can be added. contrary: names of columns that have another type, or that are missing and must
    not be NULL. unknown: names of columns that this release does not know.
    """

    missing: tuple[Column, ...]
    contrary: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """All of them, sorted."""
        return sorted([*(column.name for column in self.missing), *self.contrary, *self.unknown])


def differences(table: Table, found: pa.Schema) -> Differences:
    """Compares the columns of a table's log with the registered ones."""
    actual = {field.name: normal_type(field.type) for field in found}
    missing = tuple(c for c in table.columns if c.name not in actual and c.nullable)
    contrary = [
        c.name
        for c in table.columns
        if (c.name in actual and actual[c.name] != normal_type(c.type)) or (c.name not in actual and not c.nullable)
    ]
    return Differences(missing, tuple(contrary), tuple(sorted(name for name in actual if name not in table)))


def lacking(table: Table, found: DeltaTable, lake: form.Form, promoted: Sequence[str] = ()) -> Sequence[Column]:
    """The columns that a table lacks. promoted: names of columns that it may have beside those of the registry.

    Raises ForeignTable when it is not one of ours, OtherFormat when a later release has added columns.
    """
    differing = differences(table, pa.schema(found.schema().to_arrow()))
    if differing.contrary:
        names = differing.names
        raise ForeignTable(
            f"The lake already holds a Delta table '{table.name}' that this project did not make, or that another "
            f"version made: {len(names)} columns differ ({', '.join(names[:5])}). Give an empty folder."
        )
    unknown = [name for name in differing.unknown if name not in promoted]
    if unknown:
        raise form.newer_columns(lake, table.name, unknown)
    return differing.missing


def create(table: Table, location: str, storage_options: dict[str, str] | None, checkpoint_commits: int) -> None:
    """Makes a table, unless there is one. Raises DeltaError, OSError."""
    DeltaTable.create(
        location,
        schema=table.schema,
        mode="ignore",
        name=table.name,
        description=table.description,
        configuration={
            "delta.dataSkippingStatsColumns": ",".join(statistics_columns(table)),
            "delta.checkpointInterval": str(checkpoint_commits),
        },
        storage_options=storage_options,
    )


def add_columns(found: DeltaTable, columns: Iterable[Column]) -> None:
    """Adds columns to a table, in one commit that changes its log alone. Raises DeltaError, OSError."""
    fields = Schema.from_arrow(pa.schema([column.field for column in columns])).fields
    found.alter.add_columns([Field(f.name, f.type, nullable=True, metadata={ADDED: "true"}) for f in fields])


def is_mixed(table: Table, found: str) -> bool:
    """Whether files of a table may lack columns that the table has, or have others.

    found: its columns as the log has them, in JSON (Delta protocol, schema serialization format).
    """
    return ADDED in found or names_in(found) != {*table.schema.names}


def names_in(found: str) -> set[str]:
    """Names of the columns that a log has, in JSON; none where nothing was read."""
    return {str(field["name"]) for field in json.loads(found)["fields"]} if found else set()


def statistics_columns(table: Table) -> list[str]:
    """Columns by which files are left unopened: the log holds smallest and largest value of these, and stays small."""
    return [c for c in dict.fromkeys((table.replaced_by, "batch_id", "study_key")) if c in table]


def conform(rows: Any, schema: pa.Schema) -> Any:
    """A table or a batch with the columns of a schema, in its order: NULL where there is none, and no others.

    Raises ArrowInvalid when a value does not fit.
    """
    if rows.schema.equals(schema):
        return rows
    has = {*rows.schema.names}
    arrays = [
        rows[field.name].cast(field.type) if field.name in has else pa.nulls(len(rows), field.type) for field in schema
    ]
    if isinstance(rows, pa.RecordBatch):
        return pa.RecordBatch.from_arrays(arrays, schema=schema)
    return pa.Table.from_arrays(arrays, schema=schema)


def sql_type(kind: pa.DataType) -> str:
    """DuckDB's name of an Arrow type of the registry."""
    if pa.types.is_list(kind):
        return f"{sql_type(kind.value_type)}[]"
    return _SQL_TYPES[str(kind)]


def sql_schema(columns: Iterable[Column]) -> str:
    """The option of DuckDB's `read_parquet` by which files are read by these columns: NULL where a file has none.

    Unlike `union_by_name` it opens no file to find out.
    """
    entries = [f"'{c.name}': {{name: '{c.name}', type: '{sql_type(c.type)}', default_value: NULL}}" for c in columns]
    return f", schema=MAP{{{', '.join(entries)}}}"


def normal_type(kind: Any) -> str:
    """An Arrow type in words, the same for the variants that Delta does not tell apart."""
    kind = pa.field("x", kind).type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or str(kind).startswith("list_view"):
        return f"list<{normal_type(kind.value_type)}>"
    return {"large_string": "string", "string_view": "string"}.get(str(kind), str(kind))
