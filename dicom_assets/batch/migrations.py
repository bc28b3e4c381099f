"""What adding columns does not do: the migrations of a lake of an earlier release, each with its name.

Belongs here: how many things a migration would change, and doing it. Does not belong here: which lakes need which
(`lake.form`), their order and what is told of them (`upgrade`).

Each is safe to begin anew: what was done before a kill is found done, or done again with the same result. None opens an
object: values that today's reader reads differently stay as they are until the object is read again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.batch import geometry_rows
from dicom_assets.batch.context import RunContext
from dicom_assets.batch.rebuild import rebuild
from dicom_assets.batch.same_uids import CODE, stage_same_uids
from dicom_assets.batch.server_keys import rekeyed
from dicom_assets.batch.standards import link_reports, write_ndjson_again
from dicom_assets.curation.conflicts import publish_conflicts
from dicom_assets.curation.duplicate_rows import make_rows, objects_left
from dicom_assets.curation.uid_index import enter_again
from dicom_assets.fhir.imaging_study import ndjson_name
from dicom_assets.lake import overwritten
from dicom_assets.lake.choice import Choice
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import arrow, connect, quoted, scan
from dicom_assets.lake.rewrite import rewrite_files
from dicom_assets.lake.staging import SCHEMAS, Part, Staging
from dicom_assets.lake.tables import NoSuchVersion
from dicom_assets.schema.codes import ABSENT
from dicom_assets.schema.registry import CLINICAL, DIAGNOSTIC_REPORT, INGESTION_ERRORS, OVERWRITTEN

Tell = Callable[[int, int], None]
"""Is told how much is done, of how much."""

PLACES_AT_ONCE = 2_000_000
"""Rows of raw_files whose places are compared together."""

STUDIES_ROWS = 20_000
"""Objects whose studies are made again together."""

REPORTS_AT_ONCE = 5_000

PROGRESS = "_upgrade/studies"
"""The last study_key that the migration of studies has made again, while it is under way."""

CONFLICT_PROGRESS = "_upgrade/conflict_rows"
"""The same of the migration that fills the table of conflicts."""

LINES = "Process/Clinical/FHIR NDJSON"

_CLAIMED_AGAIN = """
-- one row per place that closed batches claimed more than once: its last claim, unless that or a later one is known
WITH claims AS (
    SELECT source, uri, member, batch_id, object_id, claimed_at
    FROM {raw_files} AS raw
    SEMI JOIN (SELECT batch_id FROM {batches} WHERE status = 'closed') AS closed USING (batch_id)
    ANTI JOIN (SELECT batch_id, object_id FROM {validated_batch} WHERE code IN ({absent})) AS gone
        USING (batch_id, object_id)
    WHERE kind <> 'change' AND hash(uri) % {parts} = {part}
),
last AS (
    SELECT * FROM claims
    QUALIFY count(*) OVER (PARTITION BY source, uri, coalesce(member, '')) > 1
        AND row_number() OVER (PARTITION BY source, uri, coalesce(member, '') ORDER BY claimed_at DESC, batch_id DESC)
            = 1
)
SELECT * FROM last
WHERE NOT EXISTS (
    SELECT 1 FROM {overwritten} AS known
    WHERE known.source = last.source AND known.uri = last.uri AND known.member IS NOT DISTINCT FROM last.member
        AND known.claimed_at >= last.claimed_at
)
"""

_NOT_CURRENT = """
-- one row per file of records without keys in whose place something was claimed since that is no file of records
SELECT DISTINCT records.batch_id, records.object_id
FROM {clinical} AS records
JOIN {overwritten} AS last ON place_key = file_key AND last.object_id <> records.object_id
WHERE file_key <> record_key AND NOT EXISTS (
    SELECT 1 FROM {validated_batch} AS ledger
    WHERE ledger.object_id = last.object_id AND ledger.batch_id = last.batch_id
        AND outcome = 'ingested' AND kind = 'clinical'
)
"""

_RESOURCES = """
-- one row per file of clinical that holds resources without their server: how many
SELECT parse_filename(filename) AS file, count(*) AS rows
FROM {clinical}
WHERE server IS NULL AND file_key = record_key AND (record_values ->> 'resourceType') = record_type
GROUP BY ALL ORDER BY ALL
"""

_DOUBTFUL = """
-- one row per batch with an object whose SOP Instance UID another place has with another header
SELECT DISTINCT batch_id
FROM {flat_metadata} AS flat
SEMI JOIN (
    SELECT source, SOPInstanceUID FROM {flat_metadata}
    WHERE operation = 'upsert' AND version_text IS NULL
    GROUP BY ALL
    HAVING count(DISTINCT content_digest) > 1 AND count(DISTINCT (uri, member)) > 1
) AS doubtful USING (source, SOPInstanceUID)
SEMI JOIN (SELECT batch_id FROM {batches} WHERE status = 'closed') AS closed USING (batch_id)
ORDER BY 1
"""

_UNINDEXED = """
-- one row per batch with metadata that is not in the index of UIDs: how many rows it has
SELECT batch_id, count(*) AS rows FROM {flat_metadata}
ANTI JOIN (SELECT DISTINCT batch_id FROM {uid_index}) AS indexed USING (batch_id) GROUP BY ALL ORDER BY ALL
"""

_WITH_STUDIES = """
-- one row per closed batch that touched studies
SELECT DISTINCT batch_id FROM {batch_study} SEMI JOIN (SELECT batch_id FROM {batches} WHERE status = 'closed') AS closed
USING (batch_id) ORDER BY 1
"""


@dataclass(frozen=True)
class Migration:
    """One migration. text: what it does, in words. find: how many things it would change; do: changes them."""

    text: str
    find: Callable[[Lake], int]
    do: Callable[[RunContext, Tell], None]


def _sources(lake: Lake, sql: str, *, filename: bool = False, **more: object) -> str:
    """SQL with the tables that it names in braces; a table that the lake does not have yet is empty."""

    def source(name: str) -> str:
        try:
            return scan(lake, name, filename=filename)
        except NoSuchVersion:
            return scan(lake, name, paths=[], filename=filename)

    names = {name for name in re.findall(r"{(\w+)}", sql) if name in lake.tables}
    return sql.format(**{name: source(name) for name in names}, **more)


def _column(lake: Lake, sql: str) -> list[str]:
    with lake.cursor() as connection:
        return [str(row[0]) for row in connection.execute(sql).fetchall()]


def _claimed_again(lake: Lake) -> Iterator[pa.Table]:
    parts = max(1, -(-lake.row_count("raw_files") // PLACES_AT_ONCE))
    absent = ", ".join(f"'{code}'" for code in sorted(ABSENT))
    for part in range(parts):
        with lake.cursor() as connection:
            yield arrow(connection, _sources(lake, _CLAIMED_AGAIN, absent=absent, parts=parts, part=part))


def _find_places(lake: Lake) -> int:
    return sum(map(len, _claimed_again(lake)))


def _enter_places(work: RunContext, tell: Tell) -> None:
    for rows in _claimed_again(work.lake):
        overwritten.enter(work.lake, rows.select([n for n in OVERWRITTEN.schema.names if n != "place_key"]))

    lake = work.lake
    with lake.committing("clinical"):
        batches = _column(lake, f"SELECT DISTINCT batch_id FROM ({_sources(lake, _NOT_CURRENT)}) ORDER BY 1")
        for number, batch in enumerate(batches):
            tell(number, len(batches))
            with lake.cursor() as connection:
                old = _sources(lake, _NOT_CURRENT)
                rows = arrow(
                    connection,
                    f"SELECT * FROM {scan(lake, 'clinical', within={'batch_id': [batch]})} ANTI JOIN ({old}) "
                    f"USING (batch_id, object_id) WHERE batch_id = {quoted(batch)}",
                )
            lake.replace("clinical", [batch], rows.select(CLINICAL.schema.names).cast(CLINICAL.schema))


def _files_of_resources(lake: Lake) -> dict[str, int]:
    with lake.cursor() as connection:
        found = connection.execute(_sources(lake, _RESOURCES, filename=True)).fetchall()
    by_name = {str(path).rsplit("/", 1)[-1]: str(path) for path in lake.extents("clinical").paths}
    return {by_name[name]: rows for name, rows in found}


def _find_resources(lake: Lake) -> int:
    return sum(_files_of_resources(lake).values())


def _rekey_resources(work: RunContext, tell: Tell) -> None:
    lake = work.lake
    files = _files_of_resources(lake)
    for number, path in enumerate(files):
        tell(number, len(files))
        with lake.committing("clinical"):
            rewrite_files(lake, "clinical", [path], lambda rows: rekeyed(lake, work.settings, rows), data_change=True)
    _link_again(lake)


def _link_again(lake: Lake) -> None:
    """Makes diagnostic_report anew from the reports that count in clinical."""
    with connect(lake, ["clinical"]) as connection:
        found = connection.execute(
            "SELECT record_key, batch_id FROM clinical WHERE record_type = 'DiagnosticReport' ORDER BY batch_id"
        ).fetchall()
    with lake.committing(DIAGNOSTIC_REPORT.name):
        for start in range(0, len(found), REPORTS_AT_ONCE):
            link_reports(lake, {*found[start : start + REPORTS_AT_ONCE]})
        with connect(lake, ["clinical", DIAGNOSTIC_REPORT.name]) as connection:
            stale = connection.execute(
                "SELECT record_key FROM diagnostic_report ANTI JOIN clinical USING (source, record_key)"
            ).fetchall()
        lake.replace(DIAGNOSTIC_REPORT.name, [key for (key,) in stale], DIAGNOSTIC_REPORT.schema.empty_table())


def _find_studies(lake: Lake) -> int:
    sql = "SELECT count(DISTINCT study_key) FROM {flat_metadata}"
    return int(_column(lake, _sources(lake, sql))[0])


def _rebuild_studies(work: RunContext, tell: Tell) -> None:
    files = work.lake.files
    done = files.get(PROGRESS).decode() if files.exists(PROGRESS) else ""
    with work.lake.cursor() as connection:
        sql = "SELECT study_key, count(*) AS rows FROM {flat_metadata} GROUP BY ALL ORDER BY ALL"
        sizes = connection.execute(_sources(work.lake, sql)).fetchall()
    group: list[str] = []
    rows = 0
    for number, (key, size) in enumerate(sizes, start=1):
        if key > done:
            group.append(key)
            rows += size
        if group and (rows >= STUDIES_ROWS or number == len(sizes)):
            tell(number - len(group), len(sizes))
            rebuild(work, group)
            files.put(PROGRESS, group[-1].encode())
            group, rows = [], 0
    files.remove(PROGRESS)


def _doubtful(lake: Lake) -> list[str]:
    return _column(lake, _sources(lake, _DOUBTFUL))


def _tell_same_uids(work: RunContext, tell: Tell) -> None:
    batches = _doubtful(work.lake)
    for number, batch in enumerate(batches):
        tell(number, len(batches))
        _same_uids_of(work.lake, batch)


def _same_uids_of(lake: Lake, batch: str) -> None:
    """Adds what a batch would be told today of SOP Instance UIDs to its rows of ingestion_errors."""
    staging = Staging(lake.files, batch)
    try:
        with connect(lake, ["batch_study", INGESTION_ERRORS.name], within=staging.scope("batch_study")) as connection:
            touched = arrow(connection, "SELECT DISTINCT study_key FROM batch_study ORDER BY 1")
        staging.stage(Part.TOUCHED, touched.cast(SCHEMAS[Part.TOUCHED]))
        staging.stage(Part.ERRORS, SCHEMAS[Part.ERRORS].empty_table())
        if not stage_same_uids(lake, staging, ""):
            return
        found = staging.read(Part.ERRORS)
        with lake.committing(INGESTION_ERRORS.name):
            with connect(lake, [INGESTION_ERRORS.name], within=staging.scope(INGESTION_ERRORS.name)) as connection:
                had = arrow(connection, "FROM ingestion_errors").select(INGESTION_ERRORS.schema.names)
            kept = had.cast(INGESTION_ERRORS.schema).filter(pc.not_equal(had["code"], CODE))
            lake.replace(INGESTION_ERRORS.name, [batch], pa.concat_tables([kept, found]))
    finally:
        staging.remove()


def _find_conflict_rows(lake: Lake) -> int:
    return int(_column(lake, _sources(lake, "SELECT count(DISTINCT study_key) FROM {instance}"))[0])


def _fill_conflicts(work: RunContext, tell: Tell) -> None:
    """Fills the index of UIDs batch by batch, then makes the conflicts of all studies, some at a time."""
    lake, files = work.lake, work.lake.files
    with lake.cursor() as connection:
        left = connection.execute(_sources(lake, _UNINDEXED)).fetchall()
    for batches in _groups(left):
        enter_again(lake, batches)
    done = files.get(CONFLICT_PROGRESS).decode() if files.exists(CONFLICT_PROGRESS) else ""
    with lake.cursor() as connection:
        sql = "SELECT study_key, count(*) AS rows FROM {instance} GROUP BY ALL ORDER BY ALL"
        sizes = connection.execute(_sources(lake, sql)).fetchall()
    told = sum(key <= done for key, _ in sizes)
    for keys in _groups((key, size) for key, size in sizes if key > done):
        tell(told, len(sizes))
        publish_conflicts(lake, keys, Choice.of(work.settings.curation))
        files.put(CONFLICT_PROGRESS, keys[-1].encode())
        told += len(keys)
    files.remove(CONFLICT_PROGRESS)


def _groups(sizes: Iterable[tuple[str, int]]) -> Iterator[list[str]]:
    """Names in groups of about STUDIES_ROWS rows. sizes: each with its rows."""
    group: list[str] = []
    rows = 0
    for name, size in sizes:
        group.append(name)
        rows += size
        if rows >= STUDIES_ROWS:
            yield group
            group, rows = [], 0
    if group:
        yield group


def _batches_with_studies(lake: Lake) -> list[str]:
    return _column(lake, _sources(lake, _WITH_STUDIES))


def _write_lines(work: RunContext, tell: Tell) -> None:
    """Writes the NDJSON files of every closed batch under today's names, then removes those under others."""
    lake = work.lake
    batches = _batches_with_studies(lake)
    for number, batch in enumerate(batches):
        tell(number, len(batches))
        write_ndjson_again(lake, batch)
    names = [f"/{ndjson_name(claim.batch_id)}" for claim in work.log.claims()]
    known = re.compile("|".join(map(re.escape, names)) or "$^")
    for path in lake.files.names(LINES):
        if known.search(path) is None:
            lake.files.remove(path)


MIGRATIONS: dict[str, Migration] = {
    "places": Migration(
        "enters places that were claimed more than once into overwritten, so that what was overwritten is not current",
        _find_places,
        _enter_places,
    ),
    "resources": Migration(
        "gives FHIR resources in clinical the server that their ids are of, as part of their keys, and links reports "
        "again",
        _find_resources,
        _rekey_resources,
    ),
    "studies": Migration(
        "makes instance, series, study and what follows from them again by the rules of this release",
        _find_studies,
        _rebuild_studies,
    ),
    "conflicts": Migration(
        "looks in batches for SOP Instance UIDs of objects of different content, and enters them into ingestion_errors",
        lambda lake: len(_doubtful(lake)),
        _tell_same_uids,
    ),
    "lines": Migration(
        "writes the NDJSON files of batches under names that tell the batch, and removes those under other names",
        lambda lake: len(_batches_with_studies(lake)),
        _write_lines,
    ),
    "geometry_rows": Migration(
        "fills the columns that came with series_geometry from headers, and makes the geometry of every series",
        geometry_rows.find,
        geometry_rows.make,
    ),
    "conflict_rows": Migration(
        "fills conflict with what instances say differently, and what it is made with: patient_value and uid_index",
        _find_conflict_rows,
        _fill_conflicts,
    ),
    "duplicate_rows": Migration(
        "takes digests of the headers in flat_metadata, and finds objects that are there more than once",
        objects_left,
        lambda work, tell: make_rows(work.lake, tell),
    ),
}
"""Every migration by its name, see `lake.form.MIGRATIONS`."""
