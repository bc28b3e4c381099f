"""How a Delta table differs from what this release knows of it, and adding the columns that it lacks.

Belongs here: comparing columns, and what a table's log says of columns that came later than the table. Does not belong
here: which tables there are (`schema.registry`), opening them (`tables`).

Adding a column changes the log alone: a file written before does not have it, and every reader of ours gives NULL. So
that readers of tables whose files are all alike need not look, a column that came later says so in the log. So does
each column what it holds, as the registry has it: Spark, Databricks, Fabric and others show it as the column's comment.
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


COMMENT = "comment"
"""Name, in a column's metadata in the log, of what it holds in words: where Spark and what is made of it look."""


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


@dataclass(frozen=True)
class Lacking:
    """What a table of an earlier release lacks; false when that is nothing.

    missing: columns. undescribed: columns whose comment in the log is not what is said of them now. description: the
    table's own, where that differs.
    """

    missing: tuple[Column, ...]
    undescribed: tuple[Column, ...]
    description: str | None

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.missing or self.undescribed or self.description is not None)


def differences(table: Table, found: pa.Schema) -> Differences:
    """Compares the columns of a table's log with the registered ones."""
    actual = {field.name: field.type for field in found}
    missing = tuple(c for c in table.columns if c.name not in actual and c.nullable)
    contrary = [
        c.name
        for c in table.columns
        if (c.name in actual and not _is_same(actual[c.name], c.type)) or (c.name not in actual and not c.nullable)
    ]
    return Differences(missing, tuple(contrary), tuple(sorted(name for name in actual if name not in table)))


def lacking(table: Table, found: DeltaTable, lake: form.Form, promoted: Sequence[Column] = ()) -> Lacking:
    """What a table lacks. promoted: columns that it may have beside those of the registry.

    Raises ForeignTable when it is not one of ours, OtherFormat when a later release has added columns.
    """
    columns = pa.schema(found.schema().to_arrow())
    differing = differences(table, columns)
    if differing.contrary:
        names = differing.names
        raise ForeignTable(
            f"The lake already holds a Delta table '{table.name}' that this project did not make, or that another "
            f"version made: {len(names)} columns differ ({', '.join(names[:5])}). Give an empty folder."
        )
    names = [one.name for one in promoted]
    unknown = [name for name in differing.unknown if name not in names]
    if unknown:
        raise form.newer_columns(lake, table.name, unknown)
    said = found.metadata().description
    return Lacking(
        differing.missing,
        undescribed((*table.columns, *promoted), columns),
        None if said == table.description else table.description,
    )


def undescribed(columns: Iterable[Column], found: pa.Schema) -> tuple[Column, ...]:
    """The columns that a table has, and of which its log does not say what is said of them now."""
    said = {field.name: (field.metadata or {}).get(COMMENT.encode()) for field in found}
    return tuple(c for c in columns if c.name in said and said[c.name] != c.description.encode())


def described(columns: Iterable[Column]) -> pa.Schema:
    """The columns as a table's log is to have them: with what each of them holds."""
    return pa.schema([c.field.with_metadata({COMMENT: c.description}) for c in columns])


def create(table: Table, location: str, storage_options: dict[str, str] | None, checkpoint_commits: int) -> None:
    """Makes a table, unless there is one. Raises DeltaError, OSError."""
    DeltaTable.create(
        location,
        schema=described(table.columns),
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
    found.alter.add_columns(_added(columns))


def bring_up_to_date(found: DeltaTable, lacking: Lacking) -> None:
    """Gives a table what it lacks, in commits that change its log alone. Raises DeltaError, OSError."""
    fields = {field.name: field for field in found.schema().fields}
    there = [(c, fields[c.name]) for c in lacking.undescribed]
    # delta-rs merges a column that is there already with what is said of it here, unless the two contradict.
    silent = [
        Field(c.name, field.type, nullable=field.nullable, metadata={COMMENT: c.description})
        for c, field in there
        if COMMENT not in field.metadata
    ]
    if lacking.missing or silent:
        found.alter.add_columns([*_added(lacking.missing), *silent])
    for c, field in there:
        if COMMENT in field.metadata:
            found.alter.set_column_metadata(c.name, {COMMENT: c.description})
    if lacking.description is not None:
        found.alter.set_table_description(lacking.description)


def _added(columns: Iterable[Column]) -> list[Field]:
    fields = Schema.from_arrow(described(columns)).fields
    return [Field(f.name, f.type, nullable=True, metadata={**f.metadata, ADDED: "true"}) for f in fields]


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


def _is_same(one: pa.DataType, other: pa.DataType) -> bool:
    """Whether Delta does not tell two types apart. Most are the same, which is seen at once."""
    return one == other or normal_type(one) == normal_type(other)


def normal_type(kind: Any) -> str:
    """An Arrow type in words, the same for the variants that Delta does not tell apart."""
    kind = pa.field("x", kind).type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or str(kind).startswith("list_view"):
        return f"list<{normal_type(kind.value_type)}>"
    return {"large_string": "string", "string_view": "string"}.get(str(kind), str(kind))
