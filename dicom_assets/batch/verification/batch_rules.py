"""Rules over closed batches: claim, arrivals, ledger, metadata, errors, records and books say the same.

Belongs here: each rule's SQL over some batches at a time. Does not belong here: studies (`studies`), files (`storage`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from dicom_assets.batch.checks.duplicate_checks import DIGESTS
from dicom_assets.batch.verification.findings import SHOWN, Finding, Sound

OBJECTS_AT_ONCE = 500_000
"""Objects of the batches that are looked at together."""


@dataclass(frozen=True, slots=True)
class BatchRule:
    """A rule whose SQL gives (batch_id, name) for whatever differs.

    tables: what it reads besides `books` (closed batches, as `batches` has them) and `claims` (batch_id, object_id).
    """

    name: str
    description: str
    tables: tuple[str, ...]
    sql: str


def _differing(expected: str, actual: str) -> str:
    """(batch_id, object_id) of the rows that one of two queries has more often than the other."""
    return f"""
    SELECT batch_id, object_id FROM (
        SELECT *, 1 AS times FROM ({expected}) UNION ALL SELECT *, -1 AS times FROM ({actual})
    ) GROUP BY ALL HAVING sum(times) <> 0
    """


_COUNTS = """
-- one row per closed batch whose books say otherwise than its ledger
SELECT batch_id, 'books' FROM books
LEFT JOIN (
    SELECT
        batch_id, count(*) AS seen_there,
        count(*) FILTER (outcome = 'ingested') AS ingested_there,
        count(*) FILTER (outcome = 'quarantined') AS quarantined_there,
        count(*) FILTER (outcome = 'ignored') AS ignored_there,
        count(*) FILTER (outcome = 'deleted') AS deleted_there
    FROM validated_batch GROUP BY batch_id
) USING (batch_id)
WHERE seen <> ingested + quarantined + ignored + deleted
    OR seen <> coalesce(seen_there, 0)
    OR ingested <> coalesce(ingested_there, 0)
    OR quarantined <> coalesce(quarantined_there, 0)
    OR ignored <> coalesce(ignored_there, 0)
    OR deleted <> coalesce(deleted_there, 0)
"""

_RECORDS = """
-- batches with records of objects that their ledger does not have as ingested, or with another number of records than
-- their books; fewer are right where some were erased, or a later batch of the same source has replaced some, by other
-- records or, in the place of their file, by something that holds none
SELECT batch_id, object_id FROM clinical
ANTI JOIN (SELECT batch_id, object_id FROM validated_batch WHERE outcome = 'ingested' AND kind = 'clinical') AS ledger
    USING (batch_id, object_id)
UNION
SELECT batch_id, 'books' FROM books
LEFT JOIN (SELECT batch_id, count(*) AS there FROM clinical WHERE version_state IS NULL GROUP BY batch_id)
    USING (batch_id)
LEFT JOIN (
    SELECT batch_id, count(*) AS erased FROM ingestion_errors WHERE code = 'ERASED' AND stage = 'record'
    GROUP BY batch_id
) USING (batch_id)
WHERE coalesce(there, 0) > clinical_rows
    OR (coalesce(there, 0) + coalesce(erased, 0) < clinical_rows AND NOT EXISTS (
        SELECT 1 FROM all_books AS later
        WHERE later.source = books.source AND later.batch_id <> books.batch_id
            AND later.clinical_records > 0 AND later.closed_at > books.closed_at
    ) AND NOT EXISTS (
        SELECT 1 FROM raw_files AS raw JOIN overwritten AS last ON last.source = raw.source AND last.uri = raw.uri
            AND coalesce(last.member, '') = coalesce(raw.member, '') AND last.claimed_at > raw.claimed_at
        WHERE raw.batch_id = books.batch_id
    ))
"""

_REASONS = """
-- objects whose code has no row that says why, and rows about the reading of objects that the ledger does not have;
-- what a batch finds where records of others meet its own, it tells of these
SELECT batch_id, object_id FROM validated_batch AS ledger
WHERE (code IS NOT NULL OR outcome IN ('quarantined', 'ignored')) AND NOT EXISTS (
    SELECT 1 FROM ingestion_errors AS error
    WHERE error.batch_id = ledger.batch_id AND error.object_id = ledger.object_id AND error.code = ledger.code
)
UNION
SELECT batch_id, object_id FROM (
    FROM ingestion_errors WHERE stage IN ('read', 'record')
        AND code NOT IN ('IDENTITY_CHANGED', 'CORRECTION_CONTRADICTED', 'PATIENT_LINK_CYCLE')
) AS told
ANTI JOIN validated_batch USING (batch_id, object_id)
"""

_UIDS = """
-- batches that have another number of UIDs in the index than in their metadata
SELECT batch_id, 'uids' FROM (
    SELECT batch_id, count(*) AS said FROM (
        SELECT batch_id, study_key, StudyInstanceUID AS uid FROM flat_metadata WHERE uid IS NOT NULL
        UNION SELECT batch_id, study_key, SeriesInstanceUID FROM flat_metadata WHERE SeriesInstanceUID IS NOT NULL
        UNION SELECT batch_id, study_key, SOPInstanceUID FROM flat_metadata WHERE SOPInstanceUID IS NOT NULL
    ) GROUP BY batch_id
)
FULL JOIN (SELECT batch_id, count(*) AS indexed FROM uid_index GROUP BY batch_id) USING (batch_id)
WHERE said IS DISTINCT FROM indexed
"""

RULES: tuple[BatchRule, ...] = (
    BatchRule("claimed", "Objects of the claim = files in raw_files", ("raw_files",), _differing(
        "SELECT batch_id, object_id FROM claims",
        "SELECT batch_id, object_id FROM raw_files WHERE container_id IS NULL")),
    BatchRule("members", "Every member lies in an archive of its batch", ("raw_files",),
        "SELECT batch_id, object_id FROM raw_files AS inside WHERE container_id IS NOT NULL AND NOT EXISTS ("
        "SELECT 1 FROM raw_files AS archive WHERE archive.batch_id = inside.batch_id "
        "AND archive.object_id = inside.container_id)"),
    BatchRule("judged", "Objects in raw_files = objects judged", ("raw_files", "validated_batch"), _differing(
        "SELECT batch_id, object_id FROM raw_files", "SELECT batch_id, object_id FROM validated_batch")),
    BatchRule("books", "The books = outcomes counted in the ledger", ("validated_batch",), _COUNTS),
    BatchRule("metadata", "Accepted DICOM objects = rows of flat_metadata", ("validated_batch", "flat_metadata"),
        _differing(
            "SELECT batch_id, object_id FROM validated_batch "
            "WHERE outcome IN ('ingested', 'deleted') AND kind IN ('dicom', 'change')",
            "SELECT batch_id, object_id FROM flat_metadata")),
    BatchRule("reasons", "Every reason code has its row in ingestion_errors",
        ("validated_batch", "ingestion_errors"), _REASONS),
    BatchRule("clinical", "Clinical rows = what the books say",
        ("raw_files", "validated_batch", "clinical", "ingestion_errors", "overwritten"), _RECORDS),
    BatchRule("indexed", "Every study of flat_metadata is in the index", ("flat_metadata", "batch_study"),
        "SELECT DISTINCT batch_id, study_key FROM flat_metadata ANTI JOIN batch_study USING (batch_id, study_key)"),
    BatchRule("uids", "As many UIDs in the index as the metadata of the batch has", ("flat_metadata", "uid_index"),
        _UIDS),
    BatchRule("digests", "Digests of flat_metadata = those in their index", ("flat_metadata", "batch_digest"),
        _differing(
            f"SELECT batch_id, digest || ' ' || objects AS object_id FROM ({DIGESTS.format(flat='flat_metadata')})",
            "SELECT batch_id, digest || ' ' || objects AS object_id FROM batch_digest")),
    BatchRule("reports", "Reports in clinical = rows of diagnostic_report", ("clinical", "diagnostic_report"),
        _differing(
            "SELECT batch_id, object_id FROM clinical WHERE record_type = 'DiagnosticReport' "
            "AND version_state IS NULL",
            "SELECT batch_id, object_id FROM diagnostic_report")),
)  # fmt: skip
"""Every rule, in the order of the flow."""


@dataclass(slots=True)
class _Sum:
    """What a rule has found in the batches so far."""

    differing: int = 0
    batches: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()


def look(
    sound: Sound, books: pa.Table, chosen: Sequence[str], manifests: Mapping[str, pa.Array], whole: frozenset[str]
) -> Iterator[Finding]:
    """What each rule finds in some closed batches.

    books: all closed rows of `batches`. manifests: gives the object_ids of a batch's claim. whole: batches whose claim
    can be read. Raises LakeError, duckdb.Error.
    """
    sums = {rule.name: _Sum() for rule in RULES}
    for group in _groups(books, chosen):
        with sound.lake.cursor() as connection:
            connection.register("all_books", books)
            connection.register("chosen", pa.table({"batch_id": pa.array(group, pa.string())}))
            connection.execute("CREATE TEMP VIEW books AS SELECT * FROM all_books SEMI JOIN chosen USING (batch_id)")
            connection.register("claims", _claims([batch for batch in group if batch in whole], manifests))
            for name in {name for rule in RULES for name in rule.tables if sound.opens(name)}:
                sound.view(connection, name, None if name == "overwritten" else {"batch_id": group})
            for rule in RULES:
                if sound.opens(*rule.tables):
                    _add(sums[rule.name], connection, rule, whole)
    for rule in RULES:
        if sound.opens(*rule.tables):
            found = sums[rule.name]
            yield Finding(rule.name, rule.description, found.differing, found.batches, shown=found.shown)
        else:
            yield Finding(rule.name, rule.description, told="not looked at: a table cannot be opened", is_note=True)


def _groups(books: pa.Table, chosen: Sequence[str]) -> Iterator[list[str]]:
    seen = dict(zip(books["batch_id"].to_pylist(), books["seen"].to_pylist(), strict=True))
    group: list[str] = []
    held = 0
    for batch in sorted(chosen):
        group.append(batch)
        held += seen.get(batch) or 0
        if held >= OBJECTS_AT_ONCE:
            yield group
            group, held = [], 0
    if group:
        yield group


def _claims(batches: Sequence[str], manifests: Mapping[str, pa.Array]) -> pa.Table:
    schema = pa.schema([("batch_id", pa.string()), ("object_id", pa.string())])
    parts = []
    for batch in batches:
        ids = manifests[batch]
        parts.append(pa.table([pa.repeat(pa.scalar(batch, pa.string()), len(ids)), ids], schema=schema))
    return pa.concat_tables([schema.empty_table(), *parts])


def _add(found: _Sum, connection: duckdb.DuckDBPyConnection, rule: BatchRule, whole: frozenset[str]) -> None:
    rows = connection.execute(
        f"SELECT batch_id, count(*), min(name, {SHOWN}) FROM ({rule.sql}) AS one (batch_id, name) GROUP BY 1 ORDER BY 1"
    ).fetchall()
    for batch, number, names in rows:
        if rule.name == "claimed" and batch not in whole:
            continue  # its claim is torn, which is told by itself
        found.differing += number
        found.batches += (batch,)
        found.shown = (*found.shown, *map(str, names))[:SHOWN]
