"""Making a cohort: what a query or a list of studies names, as it is current, frozen.

Belongs here: from UIDs to the rows of a cohort. Does not belong here: what a query may ask (`lake.query`), the files of
a cohort (`frozen`).

Query and rows come from the same versions of the tables, which the cohort says. Memory holds some thousand rows; what
is more, DuckDB puts where it puts everything (`lake.database`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from dicom_assets.curation.cohorts import frozen
from dicom_assets.curation.cohorts.frozen import ROWS, Cohort, CohortError, Entry
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.files_of_objects import FILE_ETAG, FILE_SIZE, file_joins
from dicom_assets.lake.form import release
from dicom_assets.lake.query import open_rows, scan
from dicom_assets.lake.quoting import named
from dicom_assets.schema.registry import TABLES
from dicom_assets.storage.files import LakeError, LakeFiles

NAMING = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
"""Columns by which a query names what is selected; `source` narrows it where it is given."""
_ASKED_AT_ONCE = 10_000

_SELECTED = f"""
-- one row per current object of what is asked, with version and size of the file that it is or lies in
SELECT
    now.source, now.StudyInstanceUID, now.SeriesInstanceUID, now.SOPInstanceUID, now.object_id, now.batch_id, now.uri,
    now.member, now.size, now.version_at, flat.content_digest, flat.header_form,
    {FILE_ETAG} AS etag, {FILE_SIZE} AS file_size,
    count(*) OVER (PARTITION BY now.SOPInstanceUID) > 1 AS is_twin
FROM chosen AS now
LEFT JOIN {{flat}} AS flat ON flat.batch_id = now.batch_id AND flat.object_id = now.object_id
{{joins}}
ORDER BY now.StudyInstanceUID, now.SeriesInstanceUID, now.SOPInstanceUID, now.source, now.object_id
"""

_CHOSEN = """
CREATE TEMP TABLE chosen AS
SELECT source, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID, object_id, batch_id, uri, member, size, version_at
FROM {instance} SEMI JOIN asked USING ({columns})
"""


def create_cohort(
    lake: Lake,
    name: str,
    *,
    sql: str | None = None,
    studies: Iterable[str] | None = None,
    studies_in: Iterable[tuple[str, str]] | None = None,
    by: str,
) -> Cohort:
    """Makes a cohort of what a query gives, or of the studies of some UIDs, in every source or in some.

    sql: one SELECT with a column StudyInstanceUID, SeriesInstanceUID or SOPInstanceUID, or several of these; a column
    `source` narrows it, any other is left aside. studies: their UIDs. studies_in: pairs of a source and a UID. by: who
    makes it. Raises QueryError, LakeError; CohortError when the name is none or is taken, when nothing is selected, or
    while an erasure is under way.
    """
    if sum(one is not None for one in (sql, studies, studies_in)) != 1:
        raise CohortError("Give either a query or UIDs of studies. Nothing was changed.")
    files, folder = lake.files, frozen.folder_of(name)
    with frozen.held(files, name):
        if files.exists(f"{folder}/cohort.json"):
            raise frozen.taken(name)
        files.delete(folder)  # what was broken off before it was a cohort
        try:
            with lake.look_once(TABLES), lake.cursor() as connection:
                if sql is not None:
                    columns = _ask(lake, connection, sql)
                elif studies_in is not None:
                    columns = _take(connection, ["source", NAMING[0]], studies_in)
                else:
                    columns = _take(connection, [NAMING[0]], ((one,) for one in studies or ()))
                _choose(lake, connection, columns)
                _write_rows(lake, connection, folder)
                cohort = _described(lake, connection, name, sql, by)
            frozen.write(files, cohort)
        except BaseException:
            _take_back(files, folder)
            raise
        counts = {"objects": cohort.objects, "series": cohort.series, "studies": cohort.studies}
        frozen.enter(files, name, Entry("created", cohort.created_at, by, counts=counts))
    return cohort


def _take_back(files: LakeFiles, folder: str) -> None:
    """Removes rows that were written for a cohort that was not made after all."""
    if not files.exists(f"{folder}/cohort.json"):
        files.delete(folder)


def _ask(lake: Lake, connection: duckdb.DuckDBPyConnection, sql: str) -> list[str]:
    """Keeps what a query names as table `asked`; its columns. Raises QueryError, CohortError."""
    with open_rows(lake, sql) as relation:
        offered = {column.lower(): column for column in relation.columns}
        columns = [one for one in (*NAMING, "source") if one.lower() in offered]
        if not set(columns) & {*NAMING}:
            raise CohortError(
                f"The query gives no column {', '.join(NAMING[:-1])} or {NAMING[-1]}, by which objects are selected. "
                f"It gives: {', '.join(relation.columns)}. Nothing was changed."
            )
        wanted = ", ".join(f"{named(offered[one.lower()])}::VARCHAR AS {named(one)}" for one in columns)
        with _kept(connection, columns) as keep:
            for batch in relation.project(wanted).distinct().to_arrow_reader(_ASKED_AT_ONCE):
                keep(batch)
    return columns


def _take(connection: duckdb.DuckDBPyConnection, columns: list[str], given: Iterable[tuple[str, ...]]) -> list[str]:
    """Keeps what is given by UIDs as table `asked`; its columns."""
    rows = sorted(set(given))
    with _kept(connection, columns) as keep:
        keep(pa.record_batch([pa.array([row[at] for row in rows], pa.string()) for at in range(len(columns))], columns))
    return columns


@contextmanager
def _kept(connection: duckdb.DuckDBPyConnection, columns: list[str]) -> Iterator[_Keep]:
    listed = ", ".join(f"{named(one)} VARCHAR" for one in columns)
    connection.execute(f"CREATE TEMP TABLE asked ({listed})")
    yield _Keep(connection)


class _Keep:
    """Puts rows into the table `asked`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def __call__(self, batch: pa.RecordBatch) -> None:
        self._connection.register("some_asked", pa.Table.from_batches([batch]))
        self._connection.execute("INSERT INTO asked FROM some_asked")
        self._connection.unregister("some_asked")


def _choose(lake: Lake, connection: duckdb.DuckDBPyConnection, columns: list[str]) -> None:
    """Keeps what is current of what is asked as table `chosen`. Raises CohortError when that is nothing."""
    wanted = ", ".join(named(one) for one in columns)
    connection.execute(_CHOSEN.format(instance=scan(lake, "instance"), columns=wanted))
    if connection.execute("SELECT count(*) FROM chosen").fetchall() == [(0,)]:
        ((asked,),) = connection.execute("SELECT count(*) FROM asked").fetchall()
        raise CohortError(
            f"Nothing that is current in the lake is selected: {asked} different rows were given. Nothing was changed."
        )


def _write_rows(lake: Lake, connection: duckdb.DuckDBPyConnection, folder: str) -> None:
    """Writes the rows of a cohort from what is chosen."""
    batches = [one for (one,) in connection.execute("SELECT DISTINCT batch_id FROM chosen ORDER BY 1").fetchall()]
    within = {"batch_id": batches}
    sql = _SELECTED.format(
        flat=scan(lake, "flat_metadata", within=within),
        joins=file_joins("now", scan(lake, "raw_files", within=within)),
    )
    reader = connection.sql(sql).to_arrow_reader(frozen.ROWS_AT_ONCE)
    for number, batch in enumerate(reader):
        rows = pa.Table.from_batches([batch]).select(ROWS.names).cast(ROWS)
        if not lake.files.put_parquet(f"{folder}/rows/{number:06d}.parquet", rows, create=True):
            raise LakeError("Rows of a cohort of this name are there already. Nothing was changed.")


def _described(lake: Lake, connection: duckdb.DuckDBPyConnection, name: str, sql: str | None, by: str) -> Cohort:
    ((objects, studies, series, size),) = connection.execute(
        "SELECT count(*), count(DISTINCT StudyInstanceUID), "
        "count(DISTINCT (StudyInstanceUID, SeriesInstanceUID)), coalesce(sum(size), 0) FROM chosen"
    ).fetchall()
    return Cohort(
        name=name,
        created_at=frozen.now(),
        created_by=by,
        release=release(),
        query=sql,
        versions={table: lake.extents(table).version for table in TABLES},
        objects=int(objects),
        studies=int(studies),
        series=int(series),
        size=int(size),
    )
