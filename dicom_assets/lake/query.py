"""Reading the lake with DuckDB: its tables as views, and SQL from users locked down to them.

Belongs here: how a Delta table is read by DuckDB. Does not belong here: SQL that makes tables.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from dicom_assets.lake import dataset_types as datasets
from dicom_assets.lake.database import close_off, open_alone
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.extents import Within, extents
from dicom_assets.lake.hierarchy import OVERTAKEN
from dicom_assets.lake.quoting import named, one_of
from dicom_assets.lake.quoting import quoted as quoted
from dicom_assets.lake.resolutions import RESOLUTIONS, RESOLUTIONS_NEED
from dicom_assets.lake.resource_views import RESOURCE_VIEWS
from dicom_assets.lake.subjects import STUDY_CLINICAL
from dicom_assets.lake.table_form import sql_type as sql_type
from dicom_assets.lake.tables import NoSuchVersion
from dicom_assets.lake.tag_drift import TAG_DRIFT
from dicom_assets.schema.registry import TABLES
from dicom_assets.settings import UserError
from dicom_assets.storage.files import MAY_NOT_READ, PROTOCOL, LakeError

VIEWS = {
    "study_clinical": (("study", "clinical", "patient_link"), STUDY_CLINICAL),
    "flat_metadata_versions": (
        ("flat_metadata", "overwritten"),
        f"""
-- one row per row of flat_metadata, with the object and the batch that its place was claimed for last, if it was again
SELECT flat.*, last.object_id AS replaced_by, last.batch_id AS replaced_in
FROM flat_metadata AS flat
LEFT JOIN overwritten AS last ON {OVERTAKEN}
""",
    ),
    "ingestion_error_states": (RESOLUTIONS_NEED, RESOLUTIONS),
    "tag_drift": (("tag_profile_part",), TAG_DRIFT),
}
"""Views beside the tables: the tables that each needs, and its SQL."""


SHOWN = {"clinical": "version_state IS NULL"}
"""By table, SQL for the rows that count; what publishes and checks the table reads the others by `scan`."""

_EXPLAIN = re.compile(r"^(\s|--[^\n]*\n|/\*.*?\*/)*explain\b(\s+analyze\b|\s*\([^)]*\))?", re.IGNORECASE | re.DOTALL)


class QueryError(UserError):
    """A query cannot be run; the message says why."""


def existing(uri: str) -> Lake:
    """The lake that is there already. Raises LakeError when there is none: reading makes nothing."""
    is_there(uri)
    return Lake(uri, make=False)


def is_there(uri: str) -> None:
    """Raises LakeError when there is no lake in a folder."""
    if not has_lake(uri):
        raise LakeError(f"There is no lake at {uri}. Run `dicom-assets ingest` first, or give --lake.")


def has_lake(uri: str) -> bool:
    """Whether there is a lake in a folder; of a container it is not asked, and taken for granted.

    Raises LakeError where that cannot be seen.
    """
    try:
        return "://" in uri or stat.S_ISDIR((Path(uri) / "batches" / "_delta_log").stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise LakeError(
            f"Whether there is a lake at {uri} cannot be seen ({error.strerror}). Let this user read that folder and "
            "all that is in it, or give another one."
        ) from None


def scan(
    lake: Lake,
    name: str,
    at: int | datetime | None = None,
    *,
    within: Within | None = None,
    paths: Sequence[str] | None = None,
    filename: bool = False,
    row_number: bool = False,
) -> str:
    """SQL that stands for a table, for a FROM clause.

    Reads the Parquet files that the Delta log names: right because no table has deletion vectors or hive partitions. A
    file that was written before a column came has NULL there. within: only files that can hold such rows are opened;
    the caller still filters the rows. paths: only these files of the table, as the log names them. filename: with a
    column that tells the file. row_number: with one, `file_row_number`, that tells the place in the file.
    """
    if paths is None:
        known = lake.extents(name) if at is None else extents(lake.table(name, at))
        key = lake.tables[name].replaced_by
        if within is None:
            paths = known.paths.tolist()
        elif key in within and key != "batch_id":
            paths = sorted({path for own in lake.file_keys.homes(name, known, within).values() for path in own})
        else:
            paths = known.paths[known.within(within)].tolist()
    if paths:
        more = f"{', filename=true' if filename else ''}{', file_row_number=true' if row_number else ''}"
        return lake.scan_files(name, paths, more)
    nulls = ", ".join(f'NULL::{sql_type(c.type)} AS "{c.name}"' for c in lake.tables[name].columns)
    nulls += ", NULL::VARCHAR AS filename" if filename else ""
    nulls += ", NULL::BIGINT AS file_row_number" if row_number else ""
    return f"(SELECT {nulls} WHERE false)"


def shown(lake: Lake, name: str, scope: Within | None = None, columns: str = "*") -> str:
    """SQL that stands for the rows that a view of `connect` has, for a FROM clause. columns: SQL, what of them.

    For statements that are asked once or twice: making a view costs as much as asking it.
    """
    return f"(SELECT {columns} FROM {scan(lake, name, within=scope)}{where(scope, SHOWN.get(name))})"


def connect(
    lake: Lake,
    tables: Iterable[str] | None = None,
    *,
    within: Mapping[str, Within] | None = None,
    columns: Mapping[str, Iterable[str]] | None = None,
    at: int | datetime | None = None,
    alone: bool = False,
) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection in memory with tables of the lake as views.

    within: by table, the values that its view is limited to, so that only files with such values are opened. columns:
    by table, those that its view has: each statement that names a view of 160 sets them all up. at: the tables as they
    were at a time, or those that have a version of this number in that version, instead of as they are. Without
    `tables`, those of the registry that the lake has. alone: with a database of its own, for a user to set and lock
    down.
    """
    connection = open_alone(lake.files) if alone else lake.cursor()
    wanted = list(tables if tables is not None else TABLES)
    with lake.look_once(wanted) if tables is None and at is None else nullcontext():
        for name in list(wanted):
            scope = (within or {}).get(name)
            try:
                source = scan(lake, name, at, within=scope)
            except NoSuchVersion:
                if tables is not None:
                    raise
                wanted.remove(name)
                continue
            with readable(name) if at is None else nullcontext():
                left_out = lake.hidden(name) if alone and at is None else []
                listed = f"* EXCLUDE ({', '.join(map(named, left_out))})" if left_out else "*"
                listed = ", ".join(map(named, (columns or {}).get(name, ()))) or listed
                connection.execute(
                    f'CREATE TEMP VIEW "{name}" AS SELECT {listed} FROM {source}{where(scope, SHOWN.get(name))}'
                )
    if isinstance(at, int) and not wanted:
        raise QueryError(f"No table of the lake has a version {at}. Give a lower number, or a time.")
    asked = VIEWS if tables is not None else {**VIEWS, **RESOURCE_VIEWS}
    for name, (needed, sql) in asked.items():
        if set(needed) <= set(wanted):
            connection.execute(f'CREATE TEMP VIEW "{name}" AS {sql}')
    if tables is None and "clinical" in wanted:
        for name, sql in datasets.views(lake.files).items():
            _show(connection, name, sql)
    return connection


@contextmanager
def readable(*names: str) -> Iterator[None]:
    """Turns what DuckDB says of a data file that is gone or torn into a sentence. names: tables that are read."""
    try:
        yield
    except (duckdb.IOException, duckdb.InvalidInputException) as error:
        if "permission denied" in str(error).lower():
            raise LakeError(f"Table {' or '.join(names)}: {MAY_NOT_READ}") from None
        raise LakeError(
            f"Table {' or '.join(names)}: a data file of it is missing or torn. Run `dicom-assets verify`, which names "
            "it, and `dicom-assets verify --fix`, which makes its rows again."
        ) from None


def _show(connection: duckdb.DuckDBPyConnection, name: str, sql: str) -> None:
    """Makes a view of what somebody has configured; one that cannot be made costs itself and no other query."""
    try:
        connection.execute(f"CREATE TEMP VIEW {named(name)} AS {sql}")
    except duckdb.Error as error:
        why = f"DuckDB refuses it ({type(error).__name__})"
        connection.execute(f"CREATE TEMP VIEW {named(name)} AS {datasets.broken(name, why)}")


def where(scope: Within | None, shown: str | None = None) -> str:
    """SQL that leaves only rows with these values; shown: and rows for which this SQL holds."""
    terms = [f'"{column}" IN ({one_of(values)})' for column, values in (scope or {}).items()]
    terms += [shown] if shown else []
    return f" WHERE {' AND '.join(terms)}" if terms else ""


def arrow(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    """The result of a query as an Arrow table, without a copy of its rows."""
    return connection.sql(sql).to_arrow_table()


def records(connection: duckdb.DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    """The rows of a query that gives few: `arrow` sets a statement up twice, which for a long one costs most."""
    names, found = rows(connection.execute(sql))
    return [dict(zip(names, row, strict=True)) for row in found]


def records_of(lake: Lake, name: str, scope: Within, asked: str = "*", more: str = "") -> list[dict[str, Any]]:
    """Few rows of one table, see `shown`. asked, more: SQL, what of them, and what follows. Raises LakeError."""
    with readable(name), lake.cursor() as connection:
        return records(connection, f"SELECT {asked} FROM {shown(lake, name, scope)} {more}")


def few(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    """The result of a long query that gives few rows: set up once, and its rows are copied; see `records`."""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE few AS {sql}")
    return arrow(connection, "FROM few")


def lock_down(connection: duckdb.DuckDBPyConnection, root: Path | str) -> None:
    """Leaves a connection no files but those below `root`, no extensions, and no way to change that."""
    connection.execute(f"SET allowed_directories = [{quoted(str(root))}]")
    close_off(connection)


def moment(text: str) -> int | datetime:
    """A version's number or an ISO 8601 time, in UTC where it names no zone. Raises QueryError."""
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise QueryError("Give a time such as 2026-11-20T08:00Z, or the number of a version.") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def run_read_only(lake: Lake, sql: str, at: int | datetime | None = None) -> duckdb.DuckDBPyConnection:
    """Runs one SELECT (or DESCRIBE, SHOW, EXPLAIN) of a user; the connection then holds the result.

    at: see `connect`. Raises QueryError for anything that is not one reading statement, and for what DuckDB refuses.
    """
    connection = connect(lake, at=at, alone=True)
    lock_down(connection, lake.files.local_root or f"{PROTOCOL}://")
    statement = _one_select(connection, sql)
    try:
        return connection.execute(statement)
    except duckdb.CatalogException as error:
        raise QueryError(_words(error) + _lacking(lake, at)) from None
    except duckdb.Error as error:
        raise QueryError(_words(error)) from None


def _lacking(lake: Lake, at: int | datetime | None) -> str:
    """A line of its own about tables that are not there; empty where all are. at: see `connect`."""
    if isinstance(at, int):
        return f"\nOnly tables that have a version {at} are there: SHOW TABLES lists them."
    lost = []
    for name in TABLES if at is None else ():
        try:
            lake.extents(name)
        except NoSuchVersion:
            lost.append(name)
    if not lost:
        return ""
    return (
        f"\nNot in this lake: {', '.join(lost)}. `dicom-assets verify --fix` makes again what was lost, "
        "`dicom-assets upgrade` what a newer release has."
    )


def read_rows(lake: Lake, sql: str) -> pa.Table:
    """What one SELECT gives that a user has written a part of. Raises QueryError, as `run_read_only` does.

    What DuckDB says of a row is not passed on: here nobody has asked to see what the rows hold.
    """
    with _alone(lake) as connection, _unquoted("condition"):
        _one_select(connection, sql)
        return arrow(connection, sql)


@contextmanager
def open_rows(lake: Lake, sql: str) -> Iterator[duckdb.DuckDBPyRelation]:
    """What one SELECT of a user gives, of which nothing was read yet; errors as of `read_rows`, at any time within."""
    with _alone(lake) as connection, _unquoted("query"):
        if _one_select(connection, sql).type != duckdb.StatementType.SELECT:
            raise QueryError("Only a SELECT gives rows that can be taken: leave EXPLAIN out.")
        yield connection.sql(sql)


@contextmanager
def _alone(lake: Lake) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with a database of its own that reads the lake and nothing else."""
    with connect(lake, alone=True) as connection:
        lock_down(connection, lake.files.local_root or f"{PROTOCOL}://")
        yield connection


@contextmanager
def _unquoted(what: str) -> Iterator[None]:
    """Turns what DuckDB says into sentences that quote no row. what: a user has written."""
    try:
        yield
    except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException) as error:
        raise QueryError(_words(error)) from None  # of the query alone: nothing was read
    except duckdb.PermissionException:
        raise QueryError(f"A {what} can ask for the tables of the lake, and for no other file.") from None
    except duckdb.Error as error:
        raise QueryError(
            f"The {what} cannot be asked of every row ({type(error).__name__}): TRY_CAST gives NULL where a value is "
            "of another kind."
        ) from None


def _one_select(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement:
    """The one reading statement that a text is. Raises QueryError."""
    try:
        statements = connection.extract_statements(sql)
        # EXPLAIN ANALYZE runs what it explains, so what stands behind it must be a SELECT as well.
        explained = connection.extract_statements(_EXPLAIN.sub("", statements[0].query)) if statements else []
    except duckdb.Error as error:
        raise QueryError(_words(error)) from None
    if len(statements) != 1 or [one.type for one in explained] != [duckdb.StatementType.SELECT]:
        raise QueryError("Only one SELECT, DESCRIBE, SHOW or EXPLAIN at a time: the lake is read-only here.")
    return statements[0]


def _words(error: duckdb.Error) -> str:
    """What DuckDB says; of what our own file system raised within it, the last line alone."""
    text = str(error)
    if isinstance(error, duckdb.IOException) and "No files found" in text:
        return "A file of that version is gone: it is older than the retention that maintenance keeps."
    return text.strip().rsplit("\n", 1)[-1] if text.startswith("Traceback") else text


def rows(connection: duckdb.DuckDBPyConnection) -> tuple[Sequence[str], list[tuple[object, ...]]]:
    """Column names and rows of a result."""
    names = [column[0] for column in connection.description or []]
    return names, connection.fetchall()
