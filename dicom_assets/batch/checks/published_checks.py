"""Rules of the tables of FHIR and OMOP and of the books: what their rows say, held against the tables they come from.

Belongs here: values, each by SQL of its own. Does not belong here: which rows there are (`standard_checks`).

Studies that another batch which is not closed touches too are left to the batch that closes last, as in
`hierarchy_checks`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from dicom_assets.batch.books import books_of
from dicom_assets.batch.checks.contract import (
    SHOWN,
    CheckContext,
    CheckResult,
    NamedRule,
    compared,
    settled,
    touched_rows,
)
from dicom_assets.batch.checks.hierarchy_checks import clean
from dicom_assets.lake.query import arrow, connect, scan
from dicom_assets.schema.registry import TABLES

_PATIENT = ("PatientID", "IssuerOfPatientID")
_FHIR_ID = "[A-Za-z0-9.-]{1,64}"
"""What the type id of FHIR holds (R4B 2.24.0.1); of a series with another UID a resource says that it has none."""


@contextmanager
def _settled(context: CheckContext, **columns: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with columns (SQL) of the rows that tables have of the studies that this batch alone touches now."""
    context.lake.extents("batches")
    rows = {name: touched_rows(context, TABLES[name], sql) for name, sql in columns.items()}
    with context.lake.cursor() as connection:
        connection.register("settled", settled(context))
        for name, found in rows.items():
            connection.register(f"all_{name}", found)
            connection.execute(
                f"CREATE TEMP VIEW {name} AS SELECT * FROM all_{name} SEMI JOIN settled USING (study_key)"
            )
        yield connection


def imaging_studies_say_what_studies_say(context: CheckContext) -> CheckResult:
    """Counts, times, UIDs and subject in imaging_study, in columns and in the resources, = study and series."""
    series = "series_count, instance_count, first_seen_at AS created_at, updated_at AS modified_at"
    resource = (
        "(resource ->> 'numberOfSeries')::BIGINT AS series_told, "
        "(resource ->> 'numberOfInstances')::BIGINT AS instances_told, "
        "list_sort(json_extract_string(resource, '$.series[*].uid')) AS uids"
    )
    patient, issuer = (f"CASE WHEN patient_count = 1 THEN {clean(name)} END" for name in _PATIENT)
    fhir_has = f"lambda uid: regexp_full_match(uid, '{_FHIR_ID}')"
    nobody = "CASE patient_count WHEN 0 THEN 'missing' WHEN 1 THEN '' ELSE 'conflict' END AS nobody"
    subject = "(resource ->> '$.subject.identifier.value')"
    reason = "coalesce(resource ->> '$.subject.extension[0].valueCode', '')"
    with _settled(
        context,
        study=f"study_key, {series}, {patient} AS patient, {issuer} AS issuer, {nobody}",
        series="study_key, SeriesInstanceUID",
        imaging_study=f"study_key, is_deleted, series_count, instance_count, created_at, modified_at, {resource}, "
        f"CASE WHEN PatientID IS NOT DISTINCT FROM {subject} THEN PatientID ELSE 'not told' END AS patient, "
        "IssuerOfPatientID AS issuer, "
        f"CASE WHEN subject_state <> 'identified' OR {reason} <> '' THEN subject_state ELSE '' END AS nobody",
    ) as connection:
        return compared(
            connection,
            f"""
            SELECT
                study_key, series_count, instance_count, created_at, modified_at,
                series_count AS series_told, instance_count AS instances_told, uids,
                patient, issuer, nobody
            FROM study JOIN (
                SELECT study_key, list_filter(list_sort(list(trim(SeriesInstanceUID))), {fhir_has}) AS uids
                FROM series GROUP BY study_key
            ) AS listed USING (study_key)
            """,
            "SELECT * EXCLUDE (is_deleted) FROM imaging_study WHERE NOT is_deleted",
            "study_key",
        )


def reports_say_what_records_say(context: CheckContext) -> CheckResult:
    """The batch's rows of diagnostic_report have status, code and patient of their records."""
    tables = ["clinical", "diagnostic_report"]
    said = "source, record_key, object_id, version_at, status, code, code_system"
    with connect(context.lake, tables, within=context.staging.scope(*tables)) as connection:
        return compared(
            connection,
            f"SELECT {said}, PatientID, IssuerOfPatientID FROM clinical "
            f"WHERE record_type = 'DiagnosticReport' AND batch_id = {context.batch}",
            f"SELECT {said}, PatientID, IssuerOfPatientID FROM diagnostic_report WHERE batch_id = {context.batch}",
            "record_key",
        )


def series_have_identifiers(context: CheckContext) -> CheckResult:
    """Each touched series has its one integer in omop_identifier."""
    columns = "study_key, source, StudyInstanceUID, SeriesInstanceUID"
    with _settled(context, series=columns) as connection:
        series = arrow(connection, f"SELECT {columns} FROM series").to_pylist()
    keys = [
        hashlib.blake2b(
            "".join(
                f"{part}\0" for part in ("series", row["source"], row["StudyInstanceUID"], row["SeriesInstanceUID"])
            ).encode("utf-8", "surrogateescape"),
            digest_size=16,
        ).hexdigest()
        for row in series
    ]
    wanted = pa.table({"natural_key": pa.array(keys, pa.string()), "study_key": [row["study_key"] for row in series]})
    with connect(context.lake, ["omop_identifier"]) as connection:
        connection.register("wanted", wanted)
        return compared(
            connection,
            "SELECT study_key, natural_key FROM wanted",
            "SELECT study_key, natural_key FROM wanted JOIN omop_identifier USING (natural_key) "
            "WHERE domain = 'image_occurrence' AND id > 0",
            "study_key",
        )


def occurrences_say_what_series_say(context: CheckContext) -> CheckResult:
    """UIDs and dates of image_occurrence are those of the series, and whether a patient is known is as in the study.

    Two patients are never one surrogate person.
    """
    key = "study_key, source, StudyInstanceUID, SeriesInstanceUID"
    with _settled(
        context,
        series=f"{key}, coalesce(SeriesDate, StudyDate, PerformedProcedureStepStartDate) AS day",
        study=f"study_key, patient_count, {clean('PatientID')} AS patient, {clean('IssuerOfPatientID')} AS issuer",
        image_occurrence_origin=f"{key}, image_occurrence_id, person_from",
    ) as connection:
        uids = connection.execute("SELECT DISTINCT StudyInstanceUID FROM image_occurrence_origin").fetchall()
        made = scan(context.lake, "image_occurrence", within={"image_study_UID": [uid for (uid,) in uids]})
        connection.execute(
            f"""
            CREATE TEMP TABLE occurrence AS
            SELECT {key}, image_study_UID, image_series_UID, image_occurrence_date, person_id, person_from
            FROM image_occurrence_origin LEFT JOIN {made} USING (image_occurrence_id)
            """
        )
        result = compared(
            connection,
            "SELECT study_key, SeriesInstanceUID, StudyInstanceUID AS study, SeriesInstanceUID AS series, day "
            "FROM series",
            "SELECT study_key, SeriesInstanceUID, image_study_UID, image_series_UID, "
            "CASE WHEN day IS NOT NULL THEN image_occurrence_date END "
            f"FROM occurrence LEFT JOIN series USING ({key})",
            "study_key",
        )
        if not result.passed:
            return result
        mixed = connection.execute(
            f"""
            SELECT min(study_key) FROM occurrence JOIN study USING (study_key)
            GROUP BY
                CASE WHEN person_from = 'surrogate' THEN person_id END,
                CASE WHEN person_from <> 'surrogate' THEN study_key END
            HAVING bool_or((person_from = 'conflict') <> (patient_count > 1))
                OR bool_or((person_from = 'missing') <> (patient_count <= 1 AND patient IS NULL))
                OR bool_or(person_from = 'surrogate')
                    AND (count(DISTINCT patient) > 1 OR count(DISTINCT issuer) > 1)
            LIMIT {SHOWN}
            """
        ).fetchall()
    return CheckResult(not mixed, 0, len(mixed), [str(name) for (name,) in mixed]) if mixed else result


_TOTALS = {
    "series with mapped modality": "image_occurrence_origin",
    "studies with one known patient": "study",
    "reports linked to a study": "diagnostic_report",
}
"""Measures of mapping_coverage that count every row of a table."""


def coverage_counts_every_row(context: CheckContext) -> CheckResult:
    """The totals of mapping_coverage = rows of the tables, as their logs count them.

    Another batch that is not closed may have added rows since; then the comparison is left to that batch.
    """
    with connect(context.lake, ["batches"]) as connection:
        moving = connection.execute(
            f"SELECT 1 FROM batches WHERE status <> 'closed' AND batch_id <> {context.batch} LIMIT 1"
        ).fetchall()
    rows = {measure: int(context.lake.extents(name).rows.sum()) for measure, name in _TOTALS.items()}
    with connect(context.lake, ["mapping_coverage"]) as connection:
        totals = connection.execute("SELECT measure, total FROM mapping_coverage WHERE value = ''").fetchall()
    counted = {measure: int(total) for measure, total in totals if measure in rows}
    if moving or counted == rows:
        return CheckResult(True, sum(rows.values()), sum(rows.values()))
    differing = [_TOTALS[measure] for measure in rows if counted.get(measure) != rows[measure]]
    return CheckResult(False, sum(rows.values()), sum(counted.values()), differing)


def books_equal_tables(context: CheckContext) -> CheckResult:
    """The batch's row in `batches` counts what the tables hold of it, outcome by outcome."""
    books = books_of(context.lake, context.staging.batch_id)
    if books is None:
        return CheckResult(False, "closed", "no row in batches")
    tables = ["raw_files", "validated_batch", "clinical"]
    with connect(context.lake, tables, within=context.staging.scope(*tables)) as connection:
        own = f"WHERE batch_id = {context.batch}"
        outcomes = dict(
            connection.execute(f"SELECT outcome, count(*) FROM validated_batch {own} GROUP BY outcome").fetchall()
        )
        (seen,) = connection.execute(f"SELECT count(*) FROM raw_files {own}").fetchall()[0]
        (rows,) = connection.execute(f"SELECT count(*) FROM clinical {own}").fetchall()[0]
    counts = {name: outcomes.get(name, 0) for name in ("ingested", "quarantined", "ignored", "deleted")}
    counts |= {"seen": seen, "clinical_rows": rows}
    entered = {name: getattr(books, name) for name in counts}
    return CheckResult(
        counts == entered,
        sum(counts.values()),
        sum(entered.values()),
        [name for name in counts if counts[name] != entered[name]],
    )


PUBLISHED_RULES: tuple[NamedRule, ...] = (
    NamedRule("imaging_study", "says_what_studies_say", "Imaging studies count and name what studies do",
              imaging_studies_say_what_studies_say),
    NamedRule("diagnostic_report", "says_what_records_say", "Reports have status, code and patient of their records",
              reports_say_what_records_say),
    NamedRule("omop_identifier", "series_have_identifiers", "Each touched series has its integer",
              series_have_identifiers),
    NamedRule("image_occurrence_origin", "says_what_series_say", "Occurrences have UIDs, date and person of series",
              occurrences_say_what_series_say),
    NamedRule("mapping_coverage", "counts_every_row", "Totals = rows of the tables", coverage_counts_every_row),
    NamedRule("cleanup", "books_equal_tables", "The books count what the tables hold", books_equal_tables),
)  # fmt: skip
"""Every rule of this module."""
