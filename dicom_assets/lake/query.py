"""Reading the lake with DuckDB: its tables as views, and SQL from users locked down to them.

Belongs here: how a Delta table is read by DuckDB. Does not belong here: SQL that makes tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.files import LakeError
from dicom_assets.lake.registry import TABLES

_SQL_TYPES = {
    "string": "VARCHAR",
    "int64": "BIGINT",
    "int32": "INTEGER",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "date32[day]": "DATE",
    "timestamp[us, tz=UTC]": "TIMESTAMPTZ",
}


VIEWS = {
    "study_clinical": (
        ("study", "clinical"),
        """
-- one row per study and clinical record of its patient; an empty PatientID joins nothing, issuers must agree
SELECT
    study.source, study.StudyInstanceUID, study.study_key, study.PatientID, study.IssuerOfPatientID,
    study.StudyDate, study.StudyDescription, study.ModalitiesInStudy, study.series_count, study.instance_count,
    clinical.record_type, clinical.record_key, clinical.record, clinical.record_values
FROM study
JOIN clinical
    ON trim(clinical.PatientID) = trim(study.PatientID)
    AND coalesce(trim(clinical.IssuerOfPatientID), '') = coalesce(trim(study.IssuerOfPatientID), '')
WHERE trim(study.PatientID) <> ''
""",
    )
}
"""Views beside the tables: the tables that each needs, and its SQL."""


_EXPLAIN = re.compile(r"^(\s|--[^\n]*\n|/\*.*?\*/)*explain\b(\s+analyze\b|\s*\([^)]*\))?", re.IGNORECASE | re.DOTALL)


class QueryError(Exception):
    """A query cannot be run; the message says why."""


def existing(uri: str) -> Lake:
    """The lake that is there already. Raises LakeError when there is none: reading makes nothing."""
    if "://" not in uri and not (Path(uri) / "batches" / "_delta_log").is_dir():
        raise LakeError(f"There is no lake at {uri}. Run `dicom-assets ingest` first, or give --lake.")
    return Lake(uri, make=False)


def sql_type(kind: pa.DataType) -> str:
    """DuckDB's name of an Arrow type of the registry."""
    if pa.types.is_list(kind):
        return f"{sql_type(kind.value_type)}[]"
    return _SQL_TYPES[str(kind)]


def quoted(text: str) -> str:
    """A text as a SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def scan(lake: Lake, name: str, version: int | None = None) -> str:
    """SQL that stands for a table, for a FROM clause.

    Reads the Parquet files that the Delta log names: right because no table has deletion vectors or hive partitions.
    """
    files = [file.removeprefix("file://") for file in lake.table(name, version).file_uris()]
    if files:
        return f"read_parquet([{', '.join(map(quoted, files))}], union_by_name=true)"
    nulls = ", ".join(f'NULL::{sql_type(c.type)} AS "{c.name}"' for c in TABLES[name].columns)
    return f"(SELECT {nulls} WHERE false)"


def connect(lake: Lake, tables: Iterable[str] | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection in memory with tables of the lake as views, as they are now."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    wanted = list(tables if tables is not None else TABLES)
    for name in wanted:
        connection.execute(f'CREATE VIEW "{name}" AS SELECT * FROM {scan(lake, name)}')
    for name, (needed, sql) in VIEWS.items():
        if set(needed) <= set(wanted):
            connection.execute(f'CREATE VIEW "{name}" AS {sql}')
    return connection


def arrow(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    """The result of a query as an Arrow table, without a copy of its rows."""
    return connection.sql(sql).to_arrow_table()


def lock_down(connection: duckdb.DuckDBPyConnection, root: Path) -> None:
    """Leaves a connection no files but those below `root`, no extensions, and no way to change that."""
    connection.execute(f"SET allowed_directories = [{quoted(str(root))}]")
    for statement in (
        "SET autoinstall_known_extensions = false",
        "SET autoload_known_extensions = false",
        "SET allow_community_extensions = false",
        "SET enable_external_access = false",
        "SET lock_configuration = true",
    ):
        connection.execute(statement)


def run_read_only(lake: Lake, sql: str) -> duckdb.DuckDBPyConnection:
    """Runs one SELECT (or DESCRIBE, SHOW, EXPLAIN) of a user; the connection then holds the result.

    Raises QueryError for anything that is not one reading statement, and for what DuckDB refuses.
    """
    connection = connect(lake)
    root = lake.files.local_root
    if root is not None:
        lock_down(connection, root)
    try:
        statements = connection.extract_statements(sql)
        # EXPLAIN ANALYZE runs what it explains, so what stands behind it must be a SELECT as well.
        explained = connection.extract_statements(_EXPLAIN.sub("", statements[0].query)) if statements else []
    except duckdb.Error as error:
        raise QueryError(str(error)) from None
    if len(statements) != 1 or [one.type for one in explained] != [duckdb.StatementType.SELECT]:
        raise QueryError("Only one SELECT, DESCRIBE, SHOW or EXPLAIN at a time: the lake is read-only here.")
    try:
        return connection.execute(statements[0])
    except duckdb.Error as error:
        raise QueryError(str(error)) from None


def rows(connection: duckdb.DuckDBPyConnection) -> tuple[Sequence[str], list[tuple[object, ...]]]:
    """Column names and rows of a result."""
    names = [column[0] for column in connection.description or []]
    return names, connection.fetchall()
