"""Parities of the flow: what was claimed, judged, staged, published and rebuilt is the same, object by object.

Belongs here: each rule's SQL, written independently of the code that makes the rows, and the gate. Does not belong
here: rules of archives, records, samples, values (the modules beside this one).
"""

from __future__ import annotations

from functools import partial

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.batch.books import books_of
from dicom_assets.batch.checks import clinical_checks
from dicom_assets.batch.checks.arrivals import PLACED, VERSIONS, arrivals, placed
from dicom_assets.batch.checks.contract import (
    SHOWN,
    CheckContext,
    CheckResult,
    NamedRule,
    compared,
    own_rows,
    shown_column,
    staged_tables,
    studies_of,
    touched_rows,
)
from dicom_assets.batch.checks.corrected import corrected, is_corrected, tables_of
from dicom_assets.batch.checks.reread_checks import refuses_nothing_anew
from dicom_assets.batch.checks.shares import excess, opened
from dicom_assets.lake.moved_studies import origins_of
from dicom_assets.lake.query import connect, readable, scan, where
from dicom_assets.lake.quoting import one_of
from dicom_assets.lake.staging import Part
from dicom_assets.lake.studies import study_scope
from dicom_assets.lake.table_form import differences
from dicom_assets.landing.claims import BatchKind
from dicom_assets.schema.codes import WAITING
from dicom_assets.schema.registry import TABLES, Table
from dicom_assets.schema.tag_tables import FOLLOWING

GUARDED = ("batches", "batch_study", "batch_digest", "overwritten", "moved_study", "patient_value", "uid_index")
"""Tables with rules of their own: books_are_closed, studies_are_indexed, digests_are_indexed, overwrites_are_entered,
is_newest, and those of conflict."""


def _ids(connection: duckdb.DuckDBPyConnection, sql: str) -> list[str]:
    return [str(row[0]) for row in connection.execute(f"{sql} LIMIT {SHOWN}").fetchall()]


def _count(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    row = connection.execute(sql).fetchone()
    return int(row[0] or 0) if row else 0


def claimed_equals_judged(context: CheckContext) -> CheckResult:
    """Every object claimed is judged exactly once."""
    with staged_tables(context, Part.RAW, Part.LEDGER) as connection:
        return compared(
            connection, "SELECT object_id FROM staged_raw_files", "SELECT object_id FROM staged_validated_batch"
        )


_ACCEPTED = "outcome IN ('ingested', 'deleted') AND kind IN ('dicom', 'change')"


def accepted_are_staged(context: CheckContext) -> CheckResult:
    """Every accepted DICOM object has its one staged row of metadata."""
    with staged_tables(context, Part.LEDGER, Part.FLAT) as connection:
        return compared(
            connection,
            f"SELECT object_id FROM staged_validated_batch WHERE {_ACCEPTED}",
            "SELECT object_id FROM staged_flat_metadata",
        )


def refused_have_errors(context: CheckContext) -> CheckResult:
    """Every object that is not ingested has a row that says why."""
    with staged_tables(context, Part.LEDGER, Part.ERRORS) as connection:
        return compared(
            connection,
            "SELECT object_id FROM staged_validated_batch WHERE outcome IN ('quarantined', 'ignored')",
            "SELECT DISTINCT object_id FROM staged_ingestion_errors "
            "WHERE stage = 'read' AND severity IN ('error', 'info')",
        )


def gate(context: CheckContext) -> CheckResult:
    """The batch may go on: its source was read whole, not too much of it is quarantined, and nothing got lost.

    The shares of a batch that a person has decided about are no matter any more.
    """
    known = books_of(context.lake, context.staging.batch_id)
    decided = known is not None and known.decision is not None
    limits = opened(context.gate) if decided else context.gate
    ledger = context.staged(Part.LEDGER)
    total = pc.sum(pc.not_equal(ledger["kind"], "archive")).as_py() or 0
    refused = ledger.filter(pc.equal(ledger["outcome"], "quarantined"))["object_id"]
    bad = len(refused)
    incomplete = not_read_whole(context)
    if incomplete is not None:
        return incomplete
    if context.kind == BatchKind.REREAD and limits.quarantined_share < 1:
        return refuses_nothing_anew(context)
    beyond = excess(ledger, context.staged(Part.CLINICAL), context.staged(Part.ERRORS), limits)
    if beyond is not None:
        return CheckResult(False, beyond.bound, beyond.actual, beyond.objects[:SHOWN], beyond.explanation)
    share = bad / total if total else 0.0
    too_many = not decided and bad >= limits.minimum and share > limits.quarantined_share
    words = (
        f"{bad} of {total} objects are quarantined ({share:.0%}); the batch pauses above {limits.quarantined_share:.0%}"
        + ("" if not too_many else ". Remove the cause and run it again, or raise quarantined_share for that run")
        + (f". It was {known.decision} by {known.decided_by}" if known is not None and decided else "")
    )
    return CheckResult(
        not too_many, limits.quarantined_share, round(share, 4), refused[:SHOWN].to_pylist() if too_many else (), words
    )


def not_read_whole(context: CheckContext) -> CheckResult | None:
    """What the gate finds that is no matter of shares, and that nobody can accept; None when there is nothing."""
    ledger = context.staged(Part.LEDGER)
    unread = ledger.filter(pc.equal(ledger["outcome"], WAITING))["object_id"].to_pylist()
    words = "The source is away, or refuses what this batch has brought into the lake already; its rows stay."
    if not unread:
        unread = _lost_since(context)
        words = "Objects that this batch brought into the lake are not staged again; they stay."
    return CheckResult(False, 0, len(unread), unread[:SHOWN], words) if unread else None


def _lost_since(context: CheckContext) -> list[str]:
    """Objects of this batch in flat_metadata that publishing what is staged would drop.

    What cannot be read again is staged from there (`batch.own_rows`), with the members of what cannot be opened.
    """
    own = own_rows(context, "flat_metadata", "object_id")
    with readable("flat_metadata"), context.lake.cursor() as connection:
        connection.register("ledger", context.staging.read_whole(Part.LEDGER, ["object_id", "outcome", "code"]))
        return _ids(
            connection,
            f"SELECT object_id FROM {own} LEFT JOIN ledger USING (object_id) "
            "WHERE outcome IS NULL OR code IN ('OBJECT_GONE', 'CHANGED_DURING_READ')",
        )


def rows_published(part: Part, context: CheckContext) -> CheckResult:
    """The table has exactly the staged rows of the batch, each as it was staged."""
    name = str(part)
    # what comes to stand in the ledger when an object is read again is no row of this batch (`batch.superseding`)
    columns = [column for column in TABLES[name].schema.names if column != "superseded_by"]
    listed = ", ".join(f'"{column}"' for column in columns)
    row = f"object_id, hash({listed}) AS said"
    needed, staged = columns, "staged"
    if part is Part.RAW:  # what was moved since its claim stands in the table where it lies now
        place = 'CASE WHEN "at" IS NULL THEN {0} ELSE struct_extract("at", \'{0}\') END AS {0}'
        there = ", ".join(map(place.format, ("uri", "member", "etag")))
        needed, staged = [*columns, "at"], f"(SELECT * REPLACE ({there}) FROM staged)"
    with readable(name), context.lake.cursor() as connection:
        connection.register("staged", context.staging.read_whole(part, needed))
        return compared(connection, f"SELECT {row} FROM {staged}", f"SELECT {row} FROM {own_rows(context, name)}")


def metadata_equals_ledger(context: CheckContext) -> CheckResult:
    """Accepted DICOM objects = rows of flat_metadata, object by object."""
    with readable("flat_metadata"), context.lake.cursor() as connection:
        return compared(
            connection,
            f"SELECT object_id FROM {own_rows(context, 'validated_batch')} WHERE {_ACCEPTED}",
            f"FROM {own_rows(context, 'flat_metadata', 'object_id')}",
        )


def clinical_records_accounted(context: CheckContext) -> CheckResult:
    """Clinical records read = rows, plus rows that a newer version has replaced, plus record errors."""
    counted = clinical_checks.counted(context.lake, context.staging, SHOWN)
    return CheckResult(
        counted.read == counted.accounted and not counted.lost, counted.read, counted.accounted, counted.lost
    )


def studies_are_indexed(context: CheckContext) -> CheckResult:
    """Every study of the batch's metadata stands in the index by which studies are found."""
    index, here = own_rows(context, "batch_study"), own_rows(context, "flat_metadata", "study_key")
    with readable("flat_metadata"), context.lake.cursor() as connection:
        found, indexed, differing = connection.execute(
            f"""
            SELECT
                count(DISTINCT here.study_key),
                (SELECT count(*) FROM {index}),
                min(DISTINCT here.study_key, {SHOWN}) FILTER (indexed.study_key IS NULL)
            FROM {here} AS here LEFT JOIN {index} AS indexed USING (study_key)
            """
        ).fetchall()[0]
    return CheckResult(not differing, found, indexed, differing or ())


_GRAIN = {
    "instance": "source, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID",
    "series": "source, StudyInstanceUID, SeriesInstanceUID",
    "study": "source, StudyInstanceUID",
}


def _versions(context: CheckContext) -> pa.Table:
    """What flat_metadata alone says of each instance of the touched studies: whether it is there, who brought it.

    Found in another way than the hierarchy is made: the newest version by comparison with every other version instead
    of by a window, what was overwritten by what else arrived at the same place.
    """
    studies = studies_of(context)
    is_other = is_corrected(context.lake)
    looked_at = sorted(origins_of(context.lake, studies)) if is_other else studies
    scope = study_scope(context.lake, ["flat_metadata"], looked_at)["flat_metadata"]
    listed = "*" if is_other else PLACED
    source = f"(SELECT {listed} FROM {scan(context.lake, 'flat_metadata', within=scope)}{where(scope)})"
    versions = placed(source, arrivals(context.lake, scope, looked_at))
    if is_other:
        versions = corrected(versions, *tables_of(context.lake), studies=one_of(studies))
    return context.answer(VERSIONS.format(versions=versions))


def hierarchy_equals_metadata(name: str, context: CheckContext) -> CheckResult:
    """The touched studies of instance, series or study are those that flat_metadata gives.

    Another batch may have published metadata of such a study just now and not have rebuilt it yet; what such a batch
    brings is compared by its own check. Metadata is opened last, so that a batch whose rebuild is seen, or which is
    seen as closed, has its metadata seen as well.
    """
    grain = _GRAIN[name]
    closed = f"(SELECT batch_id FROM {scan(context.lake, 'batches')} WHERE status = 'closed') AS closed"
    index = scan(context.lake, "batch_study")
    with readable("batches", "batch_study"), context.lake.cursor() as connection:
        connection.register("rows_of_table", touched_rows(context, TABLES[name]))
        connection.register("versions", _versions(context))
        connection.execute(
            f"""
            CREATE TEMP TABLE moving AS
            SELECT DISTINCT {grain}
            FROM (SELECT * EXCLUDE (batches), unnest(batches) AS batch_id FROM versions)
            ANTI JOIN {closed} USING (batch_id)
            WHERE batch_id <> {context.batch}
            """
        )
        settled = f"ANTI JOIN moving USING ({grain})"
        if is_corrected(context.lake):  # what other batches correct stands in the index alone
            settled += (
                f" WHERE study_key NOT IN (SELECT study_key FROM {index} ANTI JOIN {closed} USING (batch_id) "
                f"WHERE batch_id <> {context.batch})"
            )
        return compared(
            connection,
            f"SELECT DISTINCT study_key, {grain} FROM (FROM versions WHERE is_there) {settled}",
            f"SELECT study_key, {grain} FROM rows_of_table {settled}",
            "study_key",
        )


_TWICE = """
-- rows whose key stands twice, of those of a batch; by hashes first: keys are long, and almost none stands twice
WITH doubtful AS (
    SELECT hashed FROM {rows} WHERE hashed IN (SELECT hashed FROM {rows} WHERE batch_id = {batch})
    GROUP BY hashed HAVING count(*) > 1
)
SELECT min({shown}) FROM {rows} WHERE hashed IN (FROM doubtful)
GROUP BY {grain} HAVING count(*) > 1
"""


def keys_are_unique(table: Table, context: CheckContext) -> CheckResult:
    """No key stands twice among the rows that the batch published or rebuilt."""
    grain = ", ".join(f'"{column}"' for column in table.key)
    twice = f"SELECT min({shown_column(table)}) FROM {{}} GROUP BY {grain} HAVING count(*) > 1"
    if table.replaced_by == "study_key":
        with context.lake.cursor() as connection:
            connection.register("rows_of_table", touched_rows(context, table))
            differing = _ids(connection, twice.format("rows_of_table"))
    else:
        listed = [shown_column(table), *table.key]
        own = own_rows(context, table.name, ", ".join(f'"{column}"' for column in dict.fromkeys(listed)))
        with readable(table.name), context.lake.cursor() as connection:
            if "batch_id" in table.key:
                differing = _ids(connection, twice.format(own))
                return CheckResult(not differing, 0, len(differing), differing)
            if not _count(connection, f"SELECT count(*) FROM {own}"):
                return CheckResult(True, 0, 0)
        with connect(context.lake, [table.name]) as connection:
            differing = _ids(connection, _TWICE.format(
                rows=f"(SELECT *, hash({grain}) AS hashed FROM {table.name})", batch=context.batch, grain=grain,
                shown=shown_column(table)))  # fmt: skip
    return CheckResult(not differing, 0, len(differing), differing)


def schema_is_registered(table: Table, context: CheckContext) -> CheckResult:
    """The table's columns and types are those of the registry, beside those that are promoted in the lake."""
    promoted = {one.column.name for one in context.lake.columns}
    differing = [one for one in differences(table, context.lake.schema(table.name)).names if one not in promoted]
    return CheckResult(not differing, 0, len(differing), differing)


def as_registered(table: Table, context: CheckContext) -> CheckResult:
    """Columns and types are those of the registry, and no key stands twice.

    One rule for both, because a rule of its own costs a step of the run for each table.
    """
    columns = schema_is_registered(table, context)
    return keys_are_unique(table, context) if columns.passed else columns


def books_are_closed(context: CheckContext) -> CheckResult:
    """Seen = ingested + quarantined + ignored + deleted, and the batch is closed."""
    books = books_of(context.lake, context.staging.batch_id)
    if books is None:
        return CheckResult(False, "closed", "no row in batches")
    return CheckResult(
        books.status == "closed" and books.balance == 0,
        books.seen,
        books.seen - books.balance,
        explanation=f"status {books.status}",
    )


def staging_is_empty(context: CheckContext) -> CheckResult:
    """Nothing of the batch is staged any more."""
    left = context.staging.left()
    return CheckResult(left == 0, 0, left)


def _rules() -> tuple[NamedRule, ...]:
    ledger, flat = "validated_batch", "flat_metadata"
    rules = [
        NamedRule("raw_files", "rows_published", "raw_files has every object of the batch",
                  partial(rows_published, Part.RAW)),
        NamedRule(ledger, "rows_published", "The ledger has every judged object", partial(rows_published, Part.LEDGER)),
        NamedRule(ledger, "claimed_equals_judged", "Objects claimed = objects judged", claimed_equals_judged),
        NamedRule(ledger, "accepted_are_staged", "Accepted DICOM objects = staged metadata rows", accepted_are_staged),
        NamedRule(ledger, "refused_have_errors", "Quarantined and ignored objects = error rows", refused_have_errors),
        NamedRule(ledger, "gate", "Source read whole; quarantined share below the threshold", gate),
        NamedRule(flat, "equals_ledger", "Accepted DICOM objects = rows of flat_metadata", metadata_equals_ledger),
        NamedRule(flat, "studies_are_indexed", "Every study of the batch is in the index", studies_are_indexed),
        NamedRule("clinical", "records_accounted", "Clinical records read = rows + record errors",
                  clinical_records_accounted),
        *(
            NamedRule(name, "equals_flat_metadata", f"{name} of the touched studies = what flat_metadata says",
                      partial(hierarchy_equals_metadata, name))
            for name in _GRAIN
        ),
        NamedRule("ingestion_errors", "rows_published", "Error rows = what was found",
                  partial(rows_published, Part.ERRORS)),
        NamedRule("cleanup", "books_are_closed", "seen = ingested + quarantined + ignored + deleted",
                  books_are_closed),
        NamedRule("cleanup", "staging_is_empty", "Nothing of the batch is left in staging", staging_is_empty),
    ]  # fmt: skip
    for table in TABLES.values():
        if table.name in {*GUARDED, *FOLLOWING} or not {"batch_id", "study_key"} & set(table.schema.names):
            continue  # or not made by batches
        rules.append(
            NamedRule(table.name, "as_registered", "Columns and types as registered, no duplicate keys",
                      partial(as_registered, table))
        )  # fmt: skip
    return tuple(rules)


RULES: tuple[NamedRule, ...] = _rules()
"""Every rule, from the registry of tables and the parities of the flow."""
