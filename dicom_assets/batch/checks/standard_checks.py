"""The rules of the tables of FHIR and OMOP: parity with the hierarchy, and how much must be mapped.

Belongs here: each rule's SQL, written independently of the code that makes the rows. Does not belong here: what a rule
is and what happens when it does not hold (`batch.checks`).

A study that another open batch touches too may change between two reads; such studies are compared by the batch that
closes last.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pyarrow as pa

from dicom_assets.batch.checks.contract import (
    SHOWN,
    CheckContext,
    CheckResult,
    NamedRule,
    compared,
    settled,
    settled_tables,
    touched_rows,
)
from dicom_assets.lake.query import arrow, connect, scan
from dicom_assets.omop import coverage
from dicom_assets.schema.registry import MAPPING_COVERAGE, TABLES

_STUDY_GRAIN = "study_key, source, StudyInstanceUID"
_SERIES_GRAIN = f"{_STUDY_GRAIN}, SeriesInstanceUID"
_LISTED = "from_json(resource -> 'series', '[\"json\"]')"
_COUNTED = f"list_sum(list_transform({_LISTED}, lambda one: json_array_length(one, '$.instance')))::BIGINT"
_RESOURCES = f"id, {_STUDY_GRAIN}, is_deleted, {_COUNTED} AS instances"
"""What the rules look at of imaging_study."""

_OCCURRENCES = f"{_SERIES_GRAIN}, image_occurrence_id, modality_mapped, anatomic_site_mapped"
"""What the rules look at of image_occurrence_origin."""


def imaging_studies_equal_studies(context: CheckContext) -> CheckResult:
    """Resources that are not entered-in-error = studies."""
    with settled_tables(context, study="", imaging_study=_RESOURCES) as connection:
        return compared(
            connection,
            f"SELECT {_STUDY_GRAIN} FROM study",
            f"SELECT {_STUDY_GRAIN} FROM imaging_study WHERE NOT is_deleted",
            "study_key",
        )


def files_equal_resources(context: CheckContext) -> CheckResult:
    """Lines of the batch's NDJSON files = resources of the studies that it touches, by their ids.

    The files are found by the batch's id and read as lines, whoever wrote them and however they are numbered. Studies
    that another open batch touches are left out.
    """
    closed = scan(context.lake, "batches")
    rows = touched_rows(context, TABLES["imaging_study"], _RESOURCES)
    with context.lake.cursor() as connection:
        connection.register("settled", settled(context, closed))
        connection.register("imaging_study", rows)
        sources = connection.execute("SELECT DISTINCT source FROM imaging_study SEMI JOIN settled USING (study_key)")
        ids = [one["id"] for (source,) in sources.fetchall() for one in _lines(context, source)]
        connection.register("lines", pa.table({"id": pa.array(ids, pa.string())}))
        return compared(
            connection,
            "SELECT id, study_key FROM imaging_study SEMI JOIN settled USING (study_key)",
            "SELECT id, coalesce(study_key, 'no resource of the batch') AS study_key FROM lines "
            "LEFT JOIN imaging_study USING (id) "
            "WHERE study_key IS NULL OR study_key IN (SELECT study_key FROM settled)",
            "study_key",
        )


def _lines(context: CheckContext, source: str) -> Iterator[dict[str, Any]]:
    batch = context.staging.batch_id
    day = f"{batch[:4]}/{batch[4:6]}/{batch[6:8]}"
    for path in context.lake.files.names(f"Process/Clinical/FHIR NDJSON/{source}/{day}"):
        if f"-{batch}-" in path and path.endswith(".ndjson"):
            for line in context.lake.files.get(path).splitlines():
                yield orjson.loads(line)


def fhir_instances_equal_instances(context: CheckContext) -> CheckResult:
    """Instances counted in the resources themselves = rows of instance, study by study."""
    with settled_tables(context, instance="", imaging_study=_RESOURCES) as connection:
        return compared(
            connection,
            "SELECT study_key, count(*)::BIGINT AS instances FROM instance GROUP BY study_key",
            "SELECT study_key, sum(instances)::BIGINT AS instances FROM imaging_study "
            "WHERE NOT is_deleted GROUP BY study_key",
            "study_key",
        )


def reports_equal_records(context: CheckContext) -> CheckResult:
    """DiagnosticReports of the batch in clinical = rows of diagnostic_report."""
    tables = ["clinical", "diagnostic_report"]
    with connect(context.lake, tables, within=context.staging.scope(*tables)) as connection:
        return compared(
            connection,
            f"SELECT source, record_key FROM clinical WHERE record_type = 'DiagnosticReport' "
            f"AND batch_id = {context.batch}",
            f"SELECT source, record_key FROM diagnostic_report WHERE batch_id = {context.batch}",
            "record_key",
        )


def identifiers_are_unique(context: CheckContext) -> CheckResult:
    """No integer that the batch gave out stands for two things."""
    scope = context.staging.scope("omop_identifier")
    with connect(context.lake, ["omop_identifier"], within=scope) as connection:
        if not connection.execute("SELECT count(*) FROM omop_identifier").fetchall()[0][0]:
            return CheckResult(True, 0, 0)
    with connect(context.lake, ["omop_identifier"]) as connection:
        rows = connection.execute(
            f"""
            SELECT domain || ' ' || id FROM omop_identifier
            SEMI JOIN (FROM omop_identifier WHERE batch_id = {context.batch}) AS own USING (domain, id)
            GROUP BY domain, id HAVING count(*) > 1 ORDER BY domain, id LIMIT {SHOWN}
            """
        ).fetchall()
    return CheckResult(not rows, 0, len(rows), [str(one) for (one,) in rows])


def occurrences_equal_series(context: CheckContext) -> CheckResult:
    """Rows of image_occurrence = series, those of a study's other sources among them; mapped as their origin says."""
    with settled_tables(context, series="", image_occurrence_origin=_OCCURRENCES) as connection:
        uids = connection.execute("SELECT DISTINCT StudyInstanceUID FROM image_occurrence_origin").fetchall()
        made = scan(context.lake, "image_occurrence", within={"image_study_UID": [uid for (uid,) in uids]})
        connection.execute(
            f"""
            CREATE TEMP VIEW image_occurrence AS SELECT
                image_occurrence_id, modality_concept_id <> 0 AS modality_mapped,
                coalesce(anatomic_site_concept_id, 0) <> 0 AS anatomic_site_mapped
            FROM {made}
            """
        )
        return compared(
            connection,
            f"SELECT {_SERIES_GRAIN} FROM series",
            f"SELECT {_SERIES_GRAIN} FROM image_occurrence_origin "
            "SEMI JOIN image_occurrence USING (image_occurrence_id, modality_mapped, anatomic_site_mapped)",
            "study_key",
        )


def coverage_is_high(context: CheckContext) -> CheckResult:
    """Most modalities and anatomic sites that are written are mapped, and most persons when there is a mapping.

    What a series does not say is counted in the table, and is nobody's fault here.
    """
    limits = context.omop
    with connect(context.lake, [MAPPING_COVERAGE.name]) as connection:
        rows = arrow(connection, "FROM mapping_coverage")
    asked = {"modality": coverage.MODALITY, "anatomic site": coverage.SITE}
    if limits.person_map:
        asked["person"] = coverage.PERSON
    counted = {name: coverage.written(rows, measure) for name, measure in asked.items()}
    shares = sorted((mapped / total, name) for name, (mapped, total) in counted.items() if total)
    if not shares:
        return CheckResult(True, limits.mapped_share_warning, "nothing to map")
    worst = shares[0][0]
    return CheckResult(
        worst >= limits.mapped_share_warning,
        limits.mapped_share_warning,
        round(worst, 4),
        explanation="; ".join(f"{name} {share:.1%}" for share, name in shares),
        is_severe=worst < limits.mapped_share_error,
    )


STANDARD_RULES: tuple[NamedRule, ...] = (
    NamedRule("imaging_study", "equals_studies", "Imaging studies = studies", imaging_studies_equal_studies),
    NamedRule(
        "imaging_study",
        "instances_add_up",
        "Instances summed through FHIR = instances in the lake",
        fhir_instances_equal_instances,
    ),
    NamedRule(
        "imaging_study", "files_equal_rows", "Lines of the batch's NDJSON files = resources", files_equal_resources
    ),
    NamedRule(
        "diagnostic_report", "equals_clinical", "Reports read = rows of diagnostic_report", reports_equal_records
    ),
    NamedRule("omop_identifier", "ids_are_unique", "No id stands for two things", identifiers_are_unique),
    NamedRule("image_occurrence_origin", "equals_series", "Image occurrences = series", occurrences_equal_series),
    NamedRule(
        "mapping_coverage",
        "coverage_is_high",
        "Most modalities, anatomic sites and persons that are written are mapped",
        coverage_is_high,
        blocking=False,
    ),
)
"""Every rule of these tables; those that hold for any table are in `batch.checks`."""
