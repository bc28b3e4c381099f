"""Publishing the tables of FHIR and OMOP for one batch, each idempotently and from the touched studies alone.

Belongs here: which rows of these tables a batch replaces, and which rows they are made from. Does not belong here: how
a resource or a row is made (`dicom_assets.fhir`, `dicom_assets.omop`), the commit itself (`lake.delta`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.batch.corrected_standards import EMPTIED, as_persons
from dicom_assets.batch.omop_ids import identified
from dicom_assets.batch.publish import touched_studies
from dicom_assets.fhir import diagnostic_report as reports
from dicom_assets.fhir import imaging_study as imaging
from dicom_assets.fhir.diagnostic_report import Studies, Study
from dicom_assets.fhir.mapping import Context as FhirContext
from dicom_assets.lake import summaries
from dicom_assets.lake.choice import Choice
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.hierarchy import gone_sql
from dicom_assets.lake.query import arrow, connect
from dicom_assets.lake.staging import Part, Staging
from dicom_assets.lake.studies import study_scope
from dicom_assets.lake.subjects import subjects
from dicom_assets.omop import concepts, coverage, image_occurrence
from dicom_assets.omop.maps import IdMaps, load_maps
from dicom_assets.schema import keys
from dicom_assets.schema.registry import (
    BATCH_STUDY,
    CLINICAL,
    DIAGNOSTIC_REPORT,
    IMAGE_OCCURRENCE,
    IMAGE_OCCURRENCE_ORIGIN,
    IMAGING_STUDY,
    INSTANCE,
    MAPPING_COVERAGE,
    SERIES,
    STUDY,
)
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


def publish_imaging_study(lake: Lake, staging: Staging, settings: Settings) -> tuple[int, int]:
    """Rebuilds the touched studies of imaging_study, and writes their NDJSON files; how many rows and files.

    A study that has lost its last instance stays, as entered-in-error. Files carry the batch's id, so a rerun
    replaces its own and those of no other batch.
    """
    touched = touched_studies(staging)
    wanted = touched["study_key"].to_pylist()
    if not wanted:
        return 0, 0
    names = ["study", "series", "instance"]
    with lake.committing(IMAGING_STUDY.name):
        with connect(lake, names, within=study_scope(lake, names, wanted)) as connection:
            connection.register("touched", touched)
            built = list(_built(connection, _STUDIES, settings))
            gone = arrow(connection, "SELECT study_key FROM touched ANTI JOIN study USING (study_key)")
        if len(gone):
            names.append("flat_metadata")
            scope = study_scope(lake, names, gone["study_key"].to_pylist())
            with connect(lake, names, within=scope) as connection:
                connection.register("gone", gone)
                built += _built(connection, gone_sql(Choice.of(settings.curation)), settings)
            names.append(IMAGING_STUDY.name)
            with connect(lake, names, within=study_scope(lake, names, gone["study_key"].to_pylist())) as connection:
                connection.register("gone", gone)
                built += _built(connection, EMPTIED, settings)
        rows = pa.concat_tables([IMAGING_STUDY.schema.empty_table(), *built])
        lake.replace(IMAGING_STUDY.name, wanted, rows)
    return len(rows), _write_ndjson(lake, staging, rows)


def _built(connection: duckdb.DuckDBPyConnection, sql: str, settings: Settings) -> Iterator[pa.Table]:
    tables = concepts.load(settings.omop.modality_concepts, settings.omop.anatomic_site_concepts)
    context = FhirContext(tables, settings.fhir.issuer_systems)
    schema = pa.schema([*STUDY.schema, pa.field("source_file", pa.string()), pa.field("subject_state", pa.string())])
    studies = arrow(connection, f"FROM {subjects(f'({sql})')}").select(schema.names).cast(schema).sort_by("study_key")
    for group in _groups(studies):
        connection.register("wanted", group.select(["study_key"]))
        yield imaging.rows(
            group,
            _of(connection, SERIES.name, imaging.SERIES_COLUMNS),
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
    """Writes each study's resource below the source that the study came from; how many files."""
    claimed = staging.read(Part.RAW, ["source", "claimed_at"]).slice(0, 1).to_pylist()
    if not claimed:
        return 0
    return _write_files(lake, staging.batch_id, rows, claimed[0]["source"], claimed[0]["claimed_at"])


def write_ndjson_again(lake: Lake, batch_id: str) -> int:
    """Writes a closed batch's NDJSON files from what imaging_study says of its studies now; how many. Raises LakeError.

    Files of a batch without studies go.
    """
    names = ["raw_files", BATCH_STUDY.name]
    with connect(lake, names, within={name: {"batch_id": [batch_id]} for name in names}) as connection:
        keys = [key for (key,) in connection.execute("SELECT DISTINCT study_key FROM batch_study").fetchall()]
        claimed = connection.execute("SELECT source, claimed_at FROM raw_files LIMIT 1").fetchall()
    if not claimed:
        return 0
    with connect(lake, [IMAGING_STUDY.name], within=study_scope(lake, [IMAGING_STUDY.name], keys)) as connection:
        rows = arrow(connection, "SELECT source, resource FROM imaging_study ORDER BY study_key")
    return _write_files(lake, batch_id, rows, *claimed[0])


def _write_files(lake: Lake, batch_id: str, rows: pa.Table, of: str, at: datetime) -> int:
    """of: the source that the batch is of, where an earlier run of it may have left files."""
    written = 0
    for source in sorted({of, *rows["source"].to_pylist()}):
        folder = imaging.ndjson_folder(source, at)
        resources = rows.filter(pc.equal(rows["source"], source))["resource"].to_pylist()
        names = dict(imaging.ndjson_files(resources, batch_id))
        for name, data in names.items():
            lake.files.put(f"{folder}/{name}", data)
        own = f"{folder}/{imaging.ndjson_name(batch_id)}"
        paths = {f"{folder}/{name}" for name in names}
        for path in lake.files.names(folder):
            if path.startswith(own) and path not in paths:  # an earlier run had more to say
                lake.files.remove(path)
        written += len(names)
    return written


_NAMED = """
-- one row per name by which a report may call a study that this batch touched, or a resource that it brought
SELECT unnest([study_key, StudyInstanceUID, id, trim(AccessionNumber)]) AS name
FROM imaging_study SEMI JOIN touched USING (study_key)
UNION ALL
SELECT resource_id FROM brought WHERE record_type = 'ImagingStudy'
"""

_CALLING = """
-- one row per report that names or is linked to what the batch touched
SELECT record_key, batch_id FROM (
    SELECT record_key, batch_id, unnest(list_concat(
        list_concat(study_uids, accession_numbers),
        list_concat([regexp_replace(r, '^.*/', '') FOR r IN imaging_studies], study_keys)
    )) AS name
    FROM diagnostic_report
)
SEMI JOIN named USING (name)
"""

_OTHER_PATIENT = """
-- one row per report whose record has come to another patient, or of which another version counts now
SELECT clinical.record_key, clinical.batch_id
FROM diagnostic_report JOIN clinical USING (source, record_key)
WHERE (diagnostic_report.PatientID, diagnostic_report.IssuerOfPatientID, diagnostic_report.batch_id)
    IS DISTINCT FROM (clinical.PatientID, clinical.IssuerOfPatientID, clinical.batch_id)
"""

_LINKABLE = f"""
-- one row per study that reports can be linked to
SELECT
    study_key, StudyInstanceUID AS uid, source, AccessionNumber AS accession, PatientID AS patient,
    IssuerOfPatientID AS issuer, subject_state = 'conflict' AS has_conflict
FROM {subjects()}
WHERE StudyInstanceUID IN (FROM names) OR AccessionNumber IN (FROM names)
    OR StudyInstanceUID IN (SELECT uid FROM resources)
"""

_RESOURCES = """
-- one row per ImagingStudy resource that a report refers to, the lake's own or one that arrived, with its study
SELECT id, StudyInstanceUID AS uid FROM imaging_study WHERE id IN (FROM referred)
UNION ALL
SELECT resource_id, regexp_replace(identifier ->> 'value', '^urn:oid:', '')
FROM (
    SELECT resource_id, unnest(from_json(record_values -> 'identifier', '["json"]')) AS identifier
    FROM clinical
    WHERE record_type = 'ImagingStudy' AND resource_id IN (FROM referred)
)
WHERE identifier ->> 'system' = 'urn:dicom:uid'
"""


def publish_diagnostic_report(lake: Lake, staging: Staging) -> int:
    """Publishes the batch's reports, and links anew those that its studies concern; how many rows changed.

    A report may arrive before its study or after it: whoever comes later makes the link. What is opened follows from
    what the batch brings: studies or ImagingStudy resources, by which reports may be called; Patients, to whom reports
    may have come; reports.
    """
    with lake.committing(DIAGNOSTIC_REPORT.name):
        return link_reports(lake, _affected_reports(lake, staging))


def link_reports(lake: Lake, affected: set[tuple[str, str]]) -> int:
    """Links reports anew, for whoever holds the right to commit to diagnostic_report; how many rows changed.

    affected: each record_key with a batch whose rows of `clinical` may hold the record.
    """
    if not affected:
        return 0
    read = as_persons(lake, reports.read(_records(lake, affected)))
    rows = reports.linked(read, _linkable(lake, read))
    changed = _changed(lake, rows)
    lake.replace(DIAGNOSTIC_REPORT.name, changed["record_key"].to_pylist(), changed)
    return len(changed)


def _affected_reports(lake: Lake, staging: Staging) -> set[tuple[str, str]]:
    """The reports to link anew: each record_key with a batch whose rows of `clinical` may hold the record."""
    brought = staging.read_whole(Part.CLINICAL, ["record_type", "record_key", "resource_id"])
    kinds = set(brought["record_type"].unique().to_pylist())
    touched = touched_studies(staging)
    wanted = touched["study_key"].to_pylist()
    found: list[tuple[str, str]] = []
    if wanted or "ImagingStudy" in kinds:
        names = [IMAGING_STUDY.name, DIAGNOSTIC_REPORT.name]
        with connect(lake, names, within=study_scope(lake, names, wanted)) as connection:
            connection.register("touched", touched)
            connection.register("brought", brought)
            connection.execute(f"CREATE TEMP TABLE named AS {_NAMED}")
            found += connection.execute(_CALLING).fetchall()
    if "Patient" in kinds:
        with connect(lake, [DIAGNOSTIC_REPORT.name, CLINICAL.name]) as connection:
            found += connection.execute(_OTHER_PATIENT).fetchall()
    own = brought.filter(pc.equal(brought["record_type"], "DiagnosticReport"))["record_key"].to_pylist()
    return {*found, *((key, staging.batch_id) for key in own)}


def _records(lake: Lake, affected: set[tuple[str, str]]) -> pa.Table:
    """The records of reports, from the batches that hold them.

    A record that another batch has replaced just now is left to that batch, which links it itself.
    """
    scope = {CLINICAL.name: {"batch_id": {batch for _, batch in affected}}}
    with connect(lake, [CLINICAL.name], within=scope) as connection:
        connection.register("affected", pa.table({"record_key": pa.array([key for key, _ in affected], pa.string())}))
        return arrow(
            connection,
            "SELECT * FROM clinical SEMI JOIN affected USING (record_key) "
            "WHERE record_type = 'DiagnosticReport' ORDER BY batch_id, object_id, record",
        ).select(CLINICAL.schema.names)


def _linkable(lake: Lake, read: Sequence[Mapping[str, Any]]) -> Studies:
    """The studies that reports name, looked up in narrow columns."""

    def texts(values: set[str]) -> pa.Table:
        return pa.table({"name": pa.array(sorted(values), pa.string())})

    referred = reports.referred(read)
    names = [STUDY.name, *([IMAGING_STUDY.name, CLINICAL.name] if referred else [])]
    with connect(lake, names) as connection:
        connection.register("names", texts(reports.names(read)))
        connection.register("referred", texts(referred))
        nothing = "SELECT NULL::VARCHAR AS id, NULL::VARCHAR AS uid WHERE false"
        connection.execute(f"CREATE TEMP TABLE resources AS {_RESOURCES if referred else nothing}")
        return Studies.of(
            (Study(**row) for row in arrow(connection, _LINKABLE).to_pylist()),
            connection.execute("FROM resources").fetchall(),
        )


def _changed(lake: Lake, rows: pa.Table) -> pa.Table:
    """Those rows of diagnostic_report that the table does not have as they are: most reports stay as they were."""
    scope = {DIAGNOSTIC_REPORT.name: {"record_key": rows["record_key"].to_pylist()}}
    with connect(lake, [DIAGNOSTIC_REPORT.name], within=scope) as connection:
        there = arrow(connection, "FROM diagnostic_report").select(rows.column_names).cast(rows.schema)
    had: dict[str, list[dict[str, Any]]] = {}
    for row in there.to_pylist():
        had.setdefault(row["record_key"], []).append(row)
    return rows.filter(pa.array([had.get(row["record_key"]) != [row] for row in rows.to_pylist()], pa.bool_()))


@dataclass(frozen=True)
class Occurrences:
    """The series behind some rows of image_occurrence, with the UIDs of all studies that the batch touched."""

    uids: Sequence[str]
    series: Sequence[Mapping[str, Any]]
    maps: IdMaps


_ORDER = "study.first_seen_at, series.study_key, series.SeriesNumber NULLS LAST, series.SeriesInstanceUID"

_SERIES = f"""
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
SELECT {{columns}}, study.subject_state, objects.uris, objects.AcquisitionDate, objects.ContentDate
FROM series
SEMI JOIN wanted USING (study_key)
JOIN {subjects()} AS study USING (study_key, source, StudyInstanceUID)
LEFT JOIN objects USING (source, StudyInstanceUID, SeriesInstanceUID)
ORDER BY {_ORDER}
"""


def occurrences(lake: Lake, staging: Staging, settings: Settings) -> Occurrences:
    """What image_occurrence of the touched studies is made from.

    A study that several sources hold is one study for OMOP, which has no sources: all of them are rebuilt together.
    Raises MappingError.
    """
    touched = touched_studies(staging)
    if not len(touched):
        return Occurrences((), (), IdMaps())
    pairs = _studies(lake, touched)
    uids = sorted({uid for _, uid in pairs})
    sources = {source for source, _ in pairs} | _sources(lake)
    wanted = sorted({keys.study_key(source, uid) for source in sources for uid in uids})
    names = ["study", "series", "instance"]
    # a series is of whom its study is, whatever it says of it by itself
    listed = ", ".join(
        f'{"study" if column in image_occurrence.SUBJECT else "series"}."{column}"'
        for column in image_occurrence.SERIES_COLUMNS
    )
    with connect(lake, names, within=study_scope(lake, names, wanted)) as connection:
        connection.register("wanted", pa.table({"study_key": pa.array(wanted, pa.string())}))
        series = arrow(connection, _SERIES.format(columns=listed)).to_pylist()
    return Occurrences(uids, series, _maps(settings.omop))


_SOURCES = """
-- one row per file of study and source of which it has studies
SELECT parse_filename(filename) AS file, source FROM {source} GROUP BY ALL ORDER BY ALL
"""


def _sources(lake: Lake) -> set[str]:
    """Every source that has studies, data partitions of services and sources that are not configured any more too."""
    schema = pa.schema([STUDY.schema.field("source")])
    return set(summaries.of_files(lake, STUDY.name, _SOURCES, _SOURCES, schema)["source"].to_pylist())


def _studies(lake: Lake, touched: pa.Table) -> set[tuple[str, str]]:
    """Source and StudyInstanceUID of the touched studies.

    Of those that are gone flat_metadata knows them; where a batch was dismissed that alone had brought them, or
    corrections alone had moved something there, the table that is to be rebuilt.
    """
    found: set[tuple[str, str]] = set()
    for name in ("study", "flat_metadata", IMAGE_OCCURRENCE_ORIGIN.name):
        scope = study_scope(lake, [name], touched["study_key"].to_pylist())
        with connect(lake, [name], within=scope) as connection:
            connection.register("touched", touched)
            rows = connection.execute(
                f"SELECT DISTINCT study_key, source, StudyInstanceUID FROM {name} SEMI JOIN touched USING (study_key)"
            ).fetchall()
        found |= {(source, uid) for _, source, uid in rows}
        seen = pa.array([key for key, *_ in rows], pa.string())
        touched = touched.filter(pc.invert(pc.is_in(touched["study_key"], seen)))
        if not len(touched):
            break
    return found


def _maps(settings: OmopSettings) -> IdMaps:
    return load_maps(settings.person_map, settings.visit_map, settings.procedure_map)


def publish_identifiers(lake: Lake, staging: Staging, settings: Settings) -> int:
    """Gives out the ids that the touched studies need and do not have; how many.

    An id once given out stays, whatever becomes of the batch: rows are added, never replaced by others. Raises
    MappingError, IdentifiersExhausted.
    """
    return _rows(lake, staging, settings).given_out


@dataclass(frozen=True)
class _Rows:
    """Rows of both tables of occurrences, and everything that they follow from. given_out: new ids for them."""

    origin: tuple[object, ...]
    uids: Sequence[str]
    given_out: int
    occurrences: pa.Table
    origins: pa.Table


def _rows(lake: Lake, staging: Staging, settings: Settings) -> _Rows:
    """The rows of the touched studies in both tables, made once for a batch as long as nothing has changed.

    Another batch may have added series to such a study since the ids were given out; these get theirs here.
    """
    sources = ("study", "series", "instance", "flat_metadata")
    maps = _maps(settings.omop)
    versions = [lake.extents(name).version for name in sources]
    origin = (staging.batch_id, touched_studies(staging)["study_key"].to_pylist(), versions, settings.omop, maps)
    last = staging.recall(_Rows)
    if last is None or last.origin != origin:
        found = occurrences(lake, staging, settings)
        ids, given_out = identified(lake, staging, image_occurrence.wanted(found.series, found.maps))
        tables = concepts.load(settings.omop.modality_concepts, settings.omop.anatomic_site_concepts)
        context = image_occurrence.Context(tables, found.maps, settings.omop.wadors_base)
        last = _Rows(origin, found.uids, given_out, *image_occurrence.rows(found.series, ids, context))
        staging.remember(last)
    return last


def publish_occurrences(lake: Lake, staging: Staging, settings: Settings, name: str) -> int:
    """Rebuilds the touched studies of image_occurrence or image_occurrence_origin; how many rows they now have."""
    with lake.committing(name):
        rows = _rows(lake, staging, settings)
        if not rows.uids:
            return 0
        if name == IMAGE_OCCURRENCE.name:
            lake.replace(name, rows.uids, rows.occurrences)
            return len(rows.occurrences)
        studies = {*rows.origins["study_key"].to_pylist(), *touched_studies(staging)["study_key"].to_pylist()}
        lake.replace(name, sorted(studies), rows.origins)
        return len(rows.origins)


def publish_coverage(lake: Lake) -> pa.Table:
    """Puts together what is mapped and linked in the whole lake; the rows of mapping_coverage."""
    with lake.committing(MAPPING_COVERAGE.name):
        counted = pa.concat_tables([summaries.counts(lake, name, sql) for name, sql in coverage.COUNTED.items()])
        with connect(lake, [*coverage.LINKED, MAPPING_COVERAGE.name]) as connection:
            rows = coverage.coverage(connection, counted)
            had = connection.execute("SELECT DISTINCT measure FROM mapping_coverage").fetchall()
        lake.replace(MAPPING_COVERAGE.name, sorted({m for (m,) in had} | set(rows["measure"].to_pylist())), rows)
    return rows
