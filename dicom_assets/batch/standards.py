"""Publishing the tables of FHIR and OMOP for one batch, each idempotently and from the touched studies alone.

Belongs here: which rows of these tables a batch replaces, and which rows they are made from. Does not belong here: how
a resource or a row is made (`dicom_assets.fhir`, `dicom_assets.omop`), the commit itself (`lake.delta`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from dicom_assets.batch.publish import touched_studies
from dicom_assets.batch.staging import Part, Staging
from dicom_assets.fhir import diagnostic_report as reports
from dicom_assets.fhir import imaging_study as imaging
from dicom_assets.fhir.diagnostic_report import Studies, Study
from dicom_assets.fhir.mapping import Context as FhirContext
from dicom_assets.lake import keys
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.hierarchy import NEWEST
from dicom_assets.lake.query import arrow, connect, quoted
from dicom_assets.lake.registry import (
    CLINICAL,
    DIAGNOSTIC_REPORT,
    IMAGE_OCCURRENCE,
    IMAGING_STUDY,
    INSTANCE,
    MAPPING_COVERAGE,
    OMOP_IDENTIFIER,
    SERIES,
    STUDY,
)
from dicom_assets.lake.studies import batches_of, study_scope
from dicom_assets.omop import concepts, coverage, image_occurrence
from dicom_assets.omop.identifiers import Domain, Wanted, allocate
from dicom_assets.omop.maps import IdMaps, load_maps
from dicom_assets.settings import OmopSettings, Settings

INSTANCES_AT_ONCE = 50_000
"""Instances in memory while resources are built."""

_STUDIES = """
-- one row per touched study that has instances, with where the object lies that gives its newest attributes
SELECT study.*, concat_ws('!', instance.uri, instance.member) AS source_file
FROM study
SEMI JOIN touched USING (study_key)
LEFT JOIN instance USING (study_key, object_id)
"""

_GONE_COLUMNS = ", ".join(
    f'"{column.name}"'
    for column in STUDY.columns
    if column.name not in ("series_count", "instance_count", "patient_count", "first_seen_at", "updated_at")
)
_GONE = f"""
-- one row per touched study that has lost its last instance, as its newest object described it
WITH gone AS (
    SELECT * EXCLUDE (header) FROM flat_metadata SEMI JOIN touched USING (study_key)
    WHERE study_key NOT IN (SELECT study_key FROM study)
),
seen AS (
    SELECT
        source, StudyInstanceUID, min(ingested_at) AS first_seen_at, max(ingested_at) AS updated_at,
        count(DISTINCT (coalesce(trim(PatientID), ''), coalesce(trim(IssuerOfPatientID), '')))
            FILTER (operation = 'upsert') AS patient_count
    FROM gone
    GROUP BY ALL
)
SELECT
    {_GONE_COLUMNS}, 0 AS series_count, 0 AS instance_count, patient_count, first_seen_at, updated_at,
    concat_ws('!', uri, member) AS source_file
FROM gone
JOIN seen USING (source, StudyInstanceUID)
WHERE operation = 'upsert'
QUALIFY row_number() OVER (
    PARTITION BY source, StudyInstanceUID ORDER BY {", ".join(f"{c} DESC" for c in NEWEST.split(", "))}
) = 1
"""


def publish_imaging_study(lake: Lake, staging: Staging, settings: Settings) -> tuple[int, int]:
    """Rebuilds the touched studies of imaging_study, and writes their NDJSON files; how many rows and files.

    A study that has lost its last instance stays, as entered-in-error. Files are named by the batch's time, so a rerun
    writes the same ones again.
    """
    touched = touched_studies(staging)
    wanted = touched["study_key"].to_pylist()
    if not wanted:
        return 0, 0
    names = ["study", "series", "instance", "flat_metadata"]
    with lake.committing(IMAGING_STUDY.name):
        with connect(lake, names, within=study_scope(lake, names, wanted)) as connection:
            connection.register("touched", touched)
            built = list(_built(connection, settings))
        rows = pa.concat_tables([IMAGING_STUDY.schema.empty_table(), *built])
        lake.replace(IMAGING_STUDY.name, wanted, rows)
    return len(rows), _write_ndjson(lake, staging, rows)


def _built(connection: duckdb.DuckDBPyConnection, settings: Settings) -> Iterator[pa.Table]:
    tables = concepts.load(settings.omop.modality_concepts, settings.omop.anatomic_site_concepts)
    context = FhirContext(tables, settings.fhir.issuer_systems)
    schema = pa.schema([*STUDY.schema, pa.field("source_file", pa.string())])
    for sql in (_STUDIES, _GONE):
        studies = arrow(connection, sql).select(schema.names).cast(schema).sort_by("study_key")
        for group in _groups(studies):
            connection.register("wanted", group.select(["study_key"]))
            yield imaging.rows(
                group,
                _of(connection, SERIES.name, SERIES.schema.names),
                _of(connection, INSTANCE.name, imaging.INSTANCE_COLUMNS),
                base=settings.fhir.base,
                context=context,
            )


def _of(connection: duckdb.DuckDBPyConnection, name: str, columns: Sequence[str]) -> pa.Table:
    listed = ", ".join(f'"{column}"' for column in columns)
    return arrow(connection, f"SELECT {listed} FROM {name} SEMI JOIN wanted USING (study_key)")


def _groups(studies: pa.Table) -> Iterator[pa.Table]:
    """Studies in runs of about INSTANCES_AT_ONCE instances."""
    start, held = 0, 0
    for index, count in enumerate(studies["instance_count"].to_pylist()):
        if held and held + count > INSTANCES_AT_ONCE:
            yield studies.slice(start, index - start)
            start, held = index, 0
        held += count
    if start < len(studies):
        yield studies.slice(start)


def _write_ndjson(lake: Lake, staging: Staging, rows: pa.Table) -> int:
    claimed = staging.read(Part.RAW, ["source", "claimed_at"]).slice(0, 1).to_pylist()
    if not claimed:
        return 0
    number = 0
    for path, data in imaging.ndjson_files(
        rows["resource"].to_pylist(), claimed[0]["source"], claimed[0]["claimed_at"]
    ):
        lake.files.put(path, data)
        number += 1
    return number


_NAMED = """
-- one row per name by which a report may call a study that this batch touched
SELECT study_key AS name FROM touched
UNION ALL SELECT StudyInstanceUID FROM imaging_study SEMI JOIN touched USING (study_key)
UNION ALL SELECT id FROM imaging_study SEMI JOIN touched USING (study_key)
UNION ALL SELECT trim(AccessionNumber) FROM imaging_study SEMI JOIN touched USING (study_key)
UNION ALL SELECT resource_id FROM clinical WHERE record_type = 'ImagingStudy' AND batch_id = $1
"""

_AFFECTED_REPORTS = """
-- one row per report that arrived with the batch, or that names or is linked to what it touched
SELECT record_key FROM clinical WHERE record_type = 'DiagnosticReport' AND batch_id = $1
UNION
SELECT record_key
FROM (
    SELECT record_key, unnest(list_concat(
        list_concat(study_uids, accession_numbers),
        list_concat([regexp_replace(r, '^.*/', '') FOR r IN imaging_studies], study_keys)
    )) AS name
    FROM diagnostic_report
)
SEMI JOIN named USING (name)
UNION
SELECT diagnostic_report.record_key
FROM diagnostic_report JOIN clinical USING (source, record_key)
WHERE (diagnostic_report.PatientID, diagnostic_report.IssuerOfPatientID)
    IS DISTINCT FROM (clinical.PatientID, clinical.IssuerOfPatientID)
"""

_LINKABLE = """
-- one row per study that reports can be linked to
SELECT
    study_key, StudyInstanceUID AS uid, source, AccessionNumber AS accession, PatientID AS patient,
    IssuerOfPatientID AS issuer, subject_state = 'conflict' AS has_conflict
FROM imaging_study
WHERE NOT is_deleted AND (
    StudyInstanceUID IN (FROM names) OR trim(AccessionNumber) IN (FROM names)
    OR StudyInstanceUID IN (SELECT uid FROM resources)
)
"""

_RESOURCES = """
-- one row per ImagingStudy resource that a report names, the lake's own or one that arrived, with its study
SELECT id, StudyInstanceUID AS uid FROM imaging_study WHERE id IN (FROM names)
UNION ALL
SELECT resource_id, regexp_replace(identifier ->> 'value', '^urn:oid:', '')
FROM (
    SELECT resource_id, unnest(from_json(record_values -> 'identifier', '["json"]')) AS identifier
    FROM clinical
    WHERE record_type = 'ImagingStudy' AND resource_id IN (FROM names)
)
WHERE identifier ->> 'system' = 'urn:dicom:uid'
"""


def publish_diagnostic_report(lake: Lake, staging: Staging) -> int:
    """Publishes the batch's reports, and links anew those that its studies concern; how many rows changed.

    A report may arrive before its study or after it: whoever comes later makes the link.
    """
    names = ["clinical", "imaging_study", "diagnostic_report"]
    touched = touched_studies(staging)
    with lake.committing(DIAGNOSTIC_REPORT.name):
        scope = study_scope(lake, ["imaging_study"], touched["study_key"].to_pylist())
        with connect(lake, names, within=scope) as connection:
            connection.register("touched", touched)
            connection.execute(f"CREATE TEMP TABLE named AS {_NAMED}", [staging.batch_id])
            found = connection.execute(f"{_AFFECTED_REPORTS} ORDER BY record_key", [staging.batch_id]).fetchall()
        affected = [key for (key,) in found]
        if not affected:
            return 0
        with connect(lake, names) as connection:
            connection.register("affected", pa.table({"record_key": pa.array(affected, pa.string())}))
            records = arrow(
                connection,
                "SELECT * FROM clinical SEMI JOIN affected USING (record_key) "
                "WHERE record_type = 'DiagnosticReport' ORDER BY batch_id, object_id, record",
            ).select(CLINICAL.schema.names)
            read = reports.read(records)
            connection.register("names", pa.table({"name": pa.array(sorted(reports.names(read)), pa.string())}))
            connection.execute(f"CREATE TEMP TABLE resources AS {_RESOURCES}")
            studies = Studies.of(
                (Study(**row) for row in arrow(connection, _LINKABLE).to_pylist()),
                connection.execute("FROM resources").fetchall(),
            )
        rows = reports.linked(read, studies)
        lake.replace(DIAGNOSTIC_REPORT.name, affected, rows)
    return len(rows)


@dataclass(frozen=True)
class Occurrences:
    """The series behind some rows of image_occurrence, with UIDs and keys of all studies that the batch touched.

    studies: their keys in every source.
    """

    uids: Sequence[str]
    studies: Sequence[str]
    series: Sequence[Mapping[str, Any]]
    maps: IdMaps


_SERIES = """
-- one row per series of the studies that the batch touched, in whatever source, with what OMOP needs besides
WITH objects AS (
    SELECT
        source, StudyInstanceUID, SeriesInstanceUID,
        list(DISTINCT regexp_replace(uri, '[^/]*$', 'x')) AS uris,
        min(AcquisitionDate) AS AcquisitionDate,
        min(ContentDate) AS ContentDate
    FROM instance SEMI JOIN wanted USING (study_key)
    GROUP BY ALL
)
SELECT series.*, study.patient_count, objects.uris, objects.AcquisitionDate, objects.ContentDate
FROM series
SEMI JOIN wanted USING (study_key)
JOIN study USING (study_key, source, StudyInstanceUID)
LEFT JOIN objects USING (source, StudyInstanceUID, SeriesInstanceUID)
ORDER BY study.first_seen_at, series.study_key, series.SeriesNumber NULLS LAST, series.SeriesInstanceUID
"""


def occurrences(lake: Lake, staging: Staging, settings: Settings) -> Occurrences:
    """What image_occurrence of the touched studies is made from.

    A study that several sources hold is one study for OMOP, which has no sources: all of them are rebuilt together.
    Raises MappingError.
    """
    touched = touched_studies(staging)
    if not len(touched):
        return Occurrences((), (), (), IdMaps())
    scope = study_scope(lake, ["flat_metadata"], touched["study_key"].to_pylist())
    with connect(lake, ["flat_metadata"], within=scope) as connection:
        connection.register("touched", touched)
        pairs = connection.execute(
            "SELECT DISTINCT source, StudyInstanceUID FROM flat_metadata SEMI JOIN touched USING (study_key)"
        ).fetchall()
    uids = sorted({uid for _, uid in pairs})
    sources = {source for source, _ in pairs} | {source.name for source in settings.sources}
    wanted = sorted({keys.study_key(source, uid) for source in sources for uid in uids})
    names = ["study", "series", "instance"]
    with connect(lake, names, within=study_scope(lake, names, wanted)) as connection:
        connection.register("wanted", pa.table({"study_key": pa.array(wanted, pa.string())}))
        series = arrow(connection, _SERIES).to_pylist()
    return Occurrences(uids, wanted, series, _maps(settings.omop))


def _maps(settings: OmopSettings) -> IdMaps:
    return load_maps(settings.person_map, settings.visit_map, settings.procedure_map)


def _known(lake: Lake, wanted: Iterable[Wanted], batches: Iterable[str] | None = None) -> dict[Wanted, int]:
    """Ids that were given out for these keys; by some batches, or by any."""
    pairs = list(wanted)
    asked = pa.table(
        {"domain": [str(domain) for domain, _ in pairs], "natural_key": [key for _, key in pairs]},
        schema=pa.schema([pa.field("domain", pa.string()), pa.field("natural_key", pa.string())]),
    )
    scope = {} if batches is None else {OMOP_IDENTIFIER.name: {"batch_id": batches}}
    with connect(lake, [OMOP_IDENTIFIER.name], within=scope) as connection:
        connection.register("asked", asked)
        found = connection.execute(
            "SELECT domain, natural_key, id FROM omop_identifier SEMI JOIN asked USING (domain, natural_key)"
        ).fetchall()
    return {(domain, key): number for domain, key, number in found}


def _given_last(lake: Lake) -> dict[str, int]:
    """By domain, the id that was given out last."""
    with connect(lake, [OMOP_IDENTIFIER.name]) as connection:
        return dict(
            connection.execute(
                f"SELECT domain, CASE WHEN domain = {quoted(Domain.IMAGE)} THEN max(id) ELSE min(id) END "
                "FROM omop_identifier GROUP BY domain"
            ).fetchall()
        )


def _identified(lake: Lake, staging: Staging, found: Occurrences) -> tuple[dict[Wanted, int], int]:
    """The ids of these series, and how many had to be given out for it. Raises IdentifiersExhausted.

    Most were given out by the batch itself or by those that touched its studies before: the ids of all the lake are
    looked through only for what is left, and an id is given out only for what is not there either.
    """
    wanted = image_occurrence.wanted(found.series, found.maps)
    ids = _known(lake, wanted, {staging.batch_id, *batches_of(lake, found.studies)})
    if ids.keys() >= {*wanted}:
        return ids, 0
    with lake.committing(OMOP_IDENTIFIER.name):
        ids |= _known(lake, [one for one in wanted if one not in ids])
        missing = [one for one in wanted if one not in ids]
        if not missing:
            return ids, 0
        fresh = allocate(missing, ids, _given_last(lake), staging.batch_id)
        with connect(lake, [OMOP_IDENTIFIER.name], within=staging.scope(OMOP_IDENTIFIER.name)) as connection:
            own = arrow(connection, "SELECT * FROM omop_identifier").cast(OMOP_IDENTIFIER.schema)
        lake.replace(OMOP_IDENTIFIER.name, [staging.batch_id], pa.concat_tables([own, fresh]))
    given = (fresh[column].to_pylist() for column in ("domain", "natural_key", "id"))
    return ids | {(domain, key): number for domain, key, number in zip(*given, strict=True)}, len(fresh)


def publish_identifiers(lake: Lake, staging: Staging, settings: Settings) -> int:
    """Gives out the ids that the touched studies need and do not have; how many.

    An id once given out stays, whatever becomes of the batch: rows are added, never replaced by others. Raises
    MappingError, IdentifiersExhausted.
    """
    return _identified(lake, staging, occurrences(lake, staging, settings))[1]


def publish_occurrences(lake: Lake, staging: Staging, settings: Settings, name: str) -> int:
    """Rebuilds the touched studies of image_occurrence or image_occurrence_origin; how many rows they now have.

    Another batch may have added series to such a study since the ids were given out; these get theirs here.
    """
    tables = concepts.load(settings.omop.modality_concepts, settings.omop.anatomic_site_concepts)
    with lake.committing(name):
        found = occurrences(lake, staging, settings)
        if not found.uids:
            return 0
        ids, _ = _identified(lake, staging, found)
        context = image_occurrence.Context(tables, found.maps, settings.omop.wadors_base)
        made = image_occurrence.rows(found.series, ids, context)
        if name == IMAGE_OCCURRENCE.name:
            lake.replace(name, found.uids, made[0])
            return len(made[0])
        studies = set(made[1]["study_key"].to_pylist()) | set(touched_studies(staging)["study_key"].to_pylist())
        lake.replace(name, sorted(studies), made[1])
        return len(made[1])


def publish_coverage(lake: Lake) -> pa.Table:
    """Counts what is mapped and linked in the whole lake anew; the rows of mapping_coverage."""
    with lake.committing(MAPPING_COVERAGE.name):
        with connect(lake, [*coverage.TABLES, MAPPING_COVERAGE.name]) as connection:
            rows = coverage.coverage(connection)
            had = connection.execute("SELECT DISTINCT measure FROM mapping_coverage").fetchall()
        lake.replace(MAPPING_COVERAGE.name, sorted({m for (m,) in had} | set(rows["measure"].to_pylist())), rows)
    return rows
