"""Rules of what was read: records counted again, something there for each ingested object, a row for each flaw.

Belongs here: rules over staged records, metadata and errors, before anything is published, and of `clinical` after it.
Does not belong here: the counting itself (`recount`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.batch.checks.contract import SHOWN, CheckContext, CheckResult, NamedRule, compared, staged_tables
from dicom_assets.batch.checks.recount import Uncounted, count_records
from dicom_assets.batch.checks.reopening import (
    bounded_file,
    chosen,
    reopened,
    rows_of,
    source_of_batch,
    verified,
)
from dicom_assets.lake.query import connect
from dicom_assets.lake.staging import Part
from dicom_assets.landing.store import ObjectError
from dicom_assets.schema.registry import CLINICAL
from dicom_assets.storage.byte_file import OutOfBounds

_READ = pa.array(["RECORDS_ALL_INVALID", "NO_RECORDS"])
"""Codes of clinical files that were read to their end and are not ingested."""
_OF_TABLES = (Part.CLINICAL, Part.CORRECTION)
"""Parts of records that files hold by the dozen."""
UNSURE = ("quote", "not valid JSON", "the file ends inside", "no JSON object stands")
"""Stand in the detail of a record error where a quote stands wrong or JSON is broken; how such a file goes on, and how
many records are in the broken part, is a matter of taste."""


@dataclass(slots=True)
class Recount:
    """What came of counting again. expected, actual: records of the files that could be counted, by both readers."""

    expected: int = 0
    actual: int = 0
    counted: int = 0
    differing: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def recount(context: CheckContext) -> Recount:
    """Counts the records of a batch's clinical files again."""
    settings = context.settings.checks
    result = Recount()
    read = _records_read(context)
    if not read:
        return result
    ids = chosen(context.staging.batch_id, list(read), settings.clinical_files)
    clinical = context.settings.clinical
    columns = (*clinical.patient_id_columns, *(one.patient_id_column for one in clinical.datasets), "corrected_by")
    rows, left = [], settings.clinical_bytes
    for row in sorted(rows_of(context, ids), key=lambda one: ids.index(one["object_id"])):
        left -= row["size"]
        if left >= 0:
            rows.append(row)
    result.left_out += sorted(set(read) - {row["object_id"] for row in rows})
    if not rows:
        return result
    for row, source in reopened(source_of_batch(context), rows, context.settings.archives):
        name = row["object_id"]
        records, unsure = read[name]
        try:
            if isinstance(source, ObjectError):
                raise Uncounted
            # Arrow looks at a file's end first and JSON is read through: no file is asked for much more than it holds
            counted = count_records(bounded_file(source, 4 * source.size + (1 << 20)), columns)
            if not verified(source) or (counted != records and unsure):
                raise Uncounted
        except (Uncounted, OutOfBounds, ObjectError):
            result.left_out.append(name)
            continue
        result.counted += 1
        result.expected += counted
        result.actual += records
        if counted != records:
            result.differing.append(name)
    return result


def _records_read(context: CheckContext) -> dict[str, tuple[int, bool]]:
    """By clinical file that was read to its end: records and record errors, and whether it is broken somewhere."""
    ledger = context.staged(Part.LEDGER)
    ledger = ledger.filter(pc.is_in(ledger["kind"], pa.array(["clinical", "correction"])))
    if not len(ledger):
        return {}
    with context.lake.cursor() as connection:
        connection.register("ledger", ledger)
        records = [context.staged(part).select(["object_id"]) for part in _OF_TABLES]
        connection.register("records", pa.concat_tables(records))
        connection.register("errors", context.staging.read(Part.ERRORS, ["object_id", "stage", "code", "detail"]))
        connection.register("read_codes", pa.table({"code": _READ}))
        rows = connection.execute(
            f"""
            SELECT object_id, sum(rows)::BIGINT, bool_or(unsure) FROM (
                SELECT object_id, 0 AS rows, false AS unsure FROM ledger
                UNION ALL
                SELECT object_id, 1, false FROM records
                UNION ALL
                SELECT object_id, 1, regexp_matches(detail, '{"|".join(UNSURE)}') FROM errors
                WHERE stage = 'record' AND code IN ('RECORD_INVALID', 'CORRECTION_INVALID', 'ERASED')
            )
            SEMI JOIN (
                SELECT object_id FROM ledger WHERE outcome = 'ingested' OR code IN (FROM read_codes)
            ) AS read_whole USING (object_id)
            GROUP BY object_id
            """
        ).fetchall()
    return {name: (int(count), bool(unsure)) for name, count, unsure in rows}


def records_are_counted_again(context: CheckContext) -> CheckResult:
    """Records read + record errors = records that another reader counts, file by file."""
    found = context.once("recount", recount)
    return CheckResult(not found.differing, found.expected, found.actual, sorted(found.differing)[:SHOWN])


def files_are_counted_again(context: CheckContext) -> CheckResult:
    """Every clinical file could be counted again."""
    found = context.once("recount", recount)
    total = found.counted + len(found.left_out)
    return CheckResult(
        not found.left_out,
        total,
        found.counted,
        sorted(found.left_out)[:SHOWN],
        f"{len(found.left_out)} of {total} clinical files were not counted again: gone, written in a way that the "
        "other reader does not know, or beyond the bounds of [checks]."
        if found.left_out
        else "",
    )


def ingested_have_rows(context: CheckContext) -> CheckResult:
    """Every object whose outcome is `ingested` has a row of metadata, or a clinical record at least.

    In a batch that is run again, one that is absent now has none where the records of a newer version have replaced it.
    """
    with staged_tables(context, Part.LEDGER, Part.FLAT, *_OF_TABLES) as connection:
        connection.register("replaced", _replaced(context))
        return compared(
            connection,
            "SELECT object_id FROM staged_validated_batch WHERE outcome = 'ingested'",
            "SELECT object_id FROM staged_validated_batch WHERE outcome = 'ingested' AND object_id IN "
            "(SELECT object_id FROM staged_flat_metadata UNION ALL SELECT object_id FROM staged_clinical "
            "UNION ALL SELECT object_id FROM staged_correction UNION ALL SELECT object_id FROM replaced)",
        )


def _replaced(context: CheckContext) -> pa.Table:
    """object_ids of clinical files that are absent now and of which a later batch has records of a newer version."""
    raw = context.staging.read_whole(Part.RAW, ["object_id", "uri", "member", "kind", "verdict"])
    is_absent = pc.is_in(raw["verdict"], value_set=pa.array(["OBJECT_GONE", "CHANGED_DURING_READ"]))
    absent = raw.filter(pc.and_(is_absent, pc.equal(raw["kind"], "clinical")))
    if not len(absent):
        return absent.select(["object_id"])
    with connect(context.lake, ["raw_files", "clinical"]) as connection:
        connection.register("absent", absent)
        return connection.execute(
            f"""
            SELECT DISTINCT absent.object_id FROM absent
            JOIN raw_files AS file ON file.uri = absent.uri AND file.member IS NOT DISTINCT FROM absent.member
            WHERE file.batch_id > {context.batch} AND file.object_id IN (SELECT object_id FROM clinical)
            """
        ).to_arrow_table()


def nothing_of_refused_is_staged(context: CheckContext) -> CheckResult:
    """No row of metadata or record belongs to an object that is quarantined or ignored."""
    with staged_tables(context, Part.LEDGER, Part.FLAT, *_OF_TABLES) as connection:
        return compared(
            connection,
            "SELECT object_id FROM staged_validated_batch WHERE false",
            "SELECT DISTINCT object_id FROM "
            "(SELECT object_id FROM staged_flat_metadata UNION ALL SELECT object_id FROM staged_clinical "
            "UNION ALL SELECT object_id FROM staged_correction) "
            "ANTI JOIN (SELECT object_id FROM staged_validated_batch WHERE outcome IN ('ingested', 'deleted')) "
            "AS accepted USING (object_id)",
        )


def issues_have_errors(context: CheckContext) -> CheckResult:
    """Each code of an object, in the ledger or among the issues of its metadata, has its error row, and no other."""
    with staged_tables(context, Part.LEDGER, Part.FLAT, Part.ERRORS) as connection:
        return compared(
            connection,
            "SELECT object_id, code FROM staged_validated_batch WHERE code IS NOT NULL "
            "UNION SELECT object_id, unnest(issues) FROM staged_flat_metadata",
            "SELECT object_id, code FROM staged_ingestion_errors WHERE stage = 'read'",
        )


def patients_stand_in_records(context: CheckContext) -> CheckResult:
    """The PatientID of a record stands in that record; looked for where it is written there as it is here."""
    with context.lake.cursor() as connection:
        columns = ["object_id", "PatientID", "record_values"]
        connection.register("records", context.staging.reader(Part.CLINICAL, columns))
        rows = connection.execute(
            """
            SELECT object_id, count(*), count(*) FILTER (contains(record_values, PatientID)) FROM records
            WHERE regexp_full_match(PatientID, '[A-Za-z0-9_.-]+')
            GROUP BY object_id ORDER BY object_id
            """
        ).fetchall()
    wrong = [name for name, records, standing in rows if records != standing]
    total, standing = (sum(row[place] for row in rows) for place in (1, 2))
    return CheckResult(not wrong, total, standing, wrong[:SHOWN])


_RESOLVED = ("PatientID", "IssuerOfPatientID", "patient_system")
"""Columns that follow from another record where one refers to a Patient."""


_DECIDED = ("version_state", "identity_since", "patient_identifiers")
"""Columns that say which of the versions of a record counts, which publishing decides."""


_SUMMED = """
-- one row per object: how many of its records are in the table, and the sum of their digests, whatever their order
SELECT
    object_id, count(*) FILTER (is_there) AS records, sum(said) FILTER (is_there) AS said
FROM (SELECT object_id, hash(record, {said}) AS said, {is_there} AS is_there FROM {rows})
GROUP BY object_id
"""


def clinical_equals_staged(context: CheckContext) -> CheckResult:
    """Each record of the batch in `clinical` says what was read; its patient too, unless it refers to one.

    Summed by object as the records stream by: a million of them side by side take half a gigabyte.
    """
    columns = [name for name in CLINICAL.schema.names if name not in _DECIDED]
    said = ", ".join(
        f'CASE WHEN patient_reference IS NULL THEN "{name}" END' if name in _RESOLVED else f'"{name}"'
        for name in columns
    )
    with connect(context.lake, ["clinical"], within=context.staging.scope("clinical")) as connection:
        there = f"FROM clinical WHERE batch_id = {context.batch}"
        if not connection.execute(f"SELECT 1 {there} LIMIT 1").fetchall():
            return CheckResult(True, 0, 0)
        connection.register("staged", context.staging.reader(Part.CLINICAL, columns))
        read = _SUMMED.format(
            said=said, rows="staged", is_there=f"hash(object_id, record) IN (SELECT hash(object_id, record) {there})"
        )
        published = _SUMMED.format(said=said, rows=f"({there})", is_there="true")
        rows = connection.execute(
            f"""
            SELECT
                object_id, coalesce(read.records, 0), coalesce(published.records, 0),
                read.said IS DISTINCT FROM published.said
            FROM ({read}) AS read FULL JOIN ({published}) AS published USING (object_id)
            ORDER BY object_id
            """
        ).fetchall()
    wrong = [name for name, _, _, is_another in rows if is_another]
    expected, actual = (sum(row[place] for row in rows) for place in (1, 2))
    return CheckResult(expected == actual and not wrong, expected, actual, wrong[:SHOWN])


RECORD_RULES: tuple[NamedRule, ...] = (
    NamedRule("validated_batch", "ingested_have_rows", "Each ingested object has metadata or records",
              ingested_have_rows),
    NamedRule("validated_batch", "nothing_of_refused_is_staged", "Nothing is staged of what is not ingested",
              nothing_of_refused_is_staged),
    NamedRule("validated_batch", "issues_have_errors", "Codes and issues = error rows", issues_have_errors),
    NamedRule("validated_batch", "records_are_counted_again", "Records = records counted by another reader",
              records_are_counted_again),
    NamedRule("validated_batch", "files_are_counted_again", "No clinical file was left out of counting again",
              files_are_counted_again, blocking=False),
    NamedRule("validated_batch", "patients_stand_in_records", "A record's PatientID is in the record",
              patients_stand_in_records),
    NamedRule("clinical", "equals_staged", "Published records say what was read", clinical_equals_staged),
)  # fmt: skip
"""Every rule of this module."""
