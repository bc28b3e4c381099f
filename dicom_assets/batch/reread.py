"""Reading again what the lake has: choosing objects by batch, reason, source or SQL, and claiming them once more.

Belongs here: which objects are chosen, and which of those cannot be read again, with the reason. Does not belong here:
the claims (`landing.rereads`), what a batch of kind `reread` does otherwise than others (`context`, `checks`,
`superseding`).

What is read again is a file as a whole: of an archive all members, of a window of a DICOM service all entries. It is
read where it lies now. Whether its bytes are still the same is found by reading; what is not the same is accounted for
as gone or changed, and the lake keeps what it had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.batch.books import Status, all_books
from dicom_assets.batch.context import RunContext
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import QueryError, arrow, connect, read_rows
from dicom_assets.lake.quoting import one_of, quoted
from dicom_assets.landing.claims import BatchKind, Claim
from dicom_assets.landing.opening import lies_elsewhere
from dicom_assets.landing.rereads import claim_again
from dicom_assets.schema.codes import CODES
from dicom_assets.schema.registry import FLAT_METADATA, RAW_FILES
from dicom_assets.settings import Settings, SettingsError, UserError


class NothingChosen(UserError):
    """No condition was given, or one that names what is not there."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be read again: all conditions that are given must hold.

    batches: ids. codes: reason codes of an object or of its warnings. source: name. where: SQL over one object's
    columns of raw_files, validated_batch and flat_metadata.
    """

    batches: Sequence[str] = ()
    codes: Sequence[str] = ()
    source: str | None = None
    where: str | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a choice comes to.

    objects: source, object_id, uri, etag, size, modified_at and read_in of what is claimed again, archives and windows
    whole. members: how many objects these hold that the condition holds for. by_reason: those, by outcome and code.
    left: how many objects cannot be read again, by the reason in words.
    """

    objects: pa.Table
    members: int
    by_reason: Mapping[tuple[str, str | None], int]
    left: Mapping[str, int]


_OWN = [name for name in FLAT_METADATA.schema.names if name not in {*RAW_FILES.schema.names, "header"}]
_COLUMNS = ", ".join([*(f'flat."{name}"' for name in _OWN), "flat.header"])

_OBJECTS = f"""
-- one row per object and closed batch of which no later batch has read it: what a condition may ask for
SELECT raw.* EXCLUDE (kind), ledger.outcome, ledger.code, ledger.kind, {_COLUMNS}
FROM raw_files AS raw
JOIN validated_batch AS ledger USING (batch_id, object_id)
JOIN (
    SELECT batch_id FROM batches WHERE status = 'closed' AND kind IS DISTINCT FROM '{BatchKind.DELETE}'
) AS closed USING (batch_id)
LEFT JOIN flat_metadata AS flat USING (batch_id, object_id)
WHERE ledger.superseded_by IS NULL AND ledger.kind <> 'erased'
    AND coalesce(ledger.code NOT IN ('OBJECT_GONE', 'CHANGED_DURING_READ', 'ARCHIVE_EXPANDED'), true)
"""

_OF_CODES = """
(batch_id, object_id) IN (
    SELECT batch_id, object_id FROM validated_batch WHERE code IN ({codes})
    UNION SELECT batch_id, object_id FROM ingestion_errors WHERE code IN ({codes})
)
"""

_OWNERS = f"""
-- one row per object of a claim that is, or holds, a chosen one: where it lies, and whether it can be read again
SELECT
    raw.object_id, split_part(raw.source, '/', 1) AS source, raw.uri, raw.etag, raw.size, raw.modified_at,
    raw.batch_id AS read_in, chosen,
    CASE
        WHEN raw.member IS NOT NULL THEN 'they lie in an archive that mode organize has made'
        WHEN followed.batch_id IS NOT NULL THEN 'they are gone at their source, which the lake has followed'
        WHEN last.object_id IS NOT NULL THEN 'something else lies in their place by now'
        WHEN under_way.object_id IS NOT NULL THEN 'a batch that is not closed reads them already'
    END AS why_not
FROM (
    SELECT batch_id, coalesce(container_id, object_id) AS object_id, count(*) AS chosen FROM found GROUP BY ALL
) AS owner
JOIN raw_files AS raw USING (batch_id, object_id)
LEFT JOIN overwritten AS last
    ON last.source = raw.source AND last.uri = raw.uri AND last.member IS NULL AND raw.member IS NULL
    AND last.object_id <> raw.object_id AND last.claimed_at > raw.claimed_at
LEFT JOIN (SELECT batch_id FROM batches WHERE kind = '{BatchKind.DELETE}') AS followed
    ON followed.batch_id = last.batch_id
LEFT JOIN under_way ON under_way.object_id = raw.object_id
"""


def choose(work: RunContext, choice: Choice) -> Chosen:
    """Finds what is to be read again. Raises NothingChosen, QueryError, SettingsError, LakeError."""
    _require(work, choice)
    lake = work.lake
    found = _matching(lake, choice)
    with connect(lake, ["raw_files", "overwritten", "batches"]) as connection:
        connection.register("found", found)
        connection.register("under_way", _under_way(work))
        # an object may stand in two closed batches when the later one has not found it
        owners = arrow(connection, f"SELECT * FROM ({_OWNERS}) QUALIFY row_number() OVER (PARTITION BY object_id) = 1")
        connection.register("owners", owners)
        left = connection.execute(
            "SELECT why_not, sum(chosen)::BIGINT FROM owners WHERE why_not IS NOT NULL GROUP BY 1 ORDER BY 1"
        ).fetchall()
        ready = arrow(connection, "SELECT * FROM owners WHERE why_not IS NULL ORDER BY source, uri")
        connection.register("ready", ready)
        reasons = connection.execute(
            "SELECT outcome, code, count(*) FROM found SEMI JOIN ready "
            "ON ready.object_id = coalesce(found.container_id, found.object_id) GROUP BY ALL ORDER BY ALL",
        ).fetchall()
    _require_places(work.settings, ready)
    by_reason = {(outcome, code): count for outcome, code, count in reasons}
    objects = ready.select(["source", "object_id", "uri", "etag", "size", "modified_at", "read_in"])
    return Chosen(objects, sum(by_reason.values()), by_reason, dict(left))


def claim_chosen(work: RunContext, chosen: Chosen) -> list[Claim]:
    """Claims what was chosen once more. Call it with the right to claim. Raises LakeError."""
    return list(claim_again(work.log, chosen.objects, work.settings.claiming))


def _require(work: RunContext, choice: Choice) -> None:
    if not (choice.batches or choice.codes or choice.source or choice.where):
        raise NothingChosen("Say what is to be read again: --batch, --code, --source or --where.")
    known = {claim.batch_id for claim in work.log.claims()}
    for batch in choice.batches:
        if batch not in known:
            raise NothingChosen(f"No batch '{batch}' is claimed in this lake. See `dicom-assets status`.")
    for code in choice.codes:
        if code not in CODES:
            raise NothingChosen(f"There is no reason code '{code}'. `dicom-assets errors` lists those of this lake.")
    if choice.source is not None:
        work.settings.source(choice.source)


def _matching(lake: Lake, choice: Choice) -> pa.Table:
    """batch_id, object_id, container_id, outcome and code of the objects for which all conditions hold."""
    terms = ["true"]
    if choice.batches:
        terms.append(f"batch_id IN ({one_of(choice.batches)})")
    if choice.codes:
        terms.append(_OF_CODES.format(codes=one_of(choice.codes)))
    if choice.source is not None:
        terms.append(f"split_part(source, '/', 1) = {quoted(choice.source)}")
    if choice.where:
        _require_condition(lake, choice.where)
        terms.append(f"(\n{choice.where}\n)")
    sql = (
        "SELECT batch_id, object_id, container_id, outcome, code FROM "
        f"({_OBJECTS}) AS objects WHERE {' AND '.join(terms)}"
    )
    return read_rows(lake, sql)


def _require_condition(lake: Lake, sql: str) -> None:
    """Raises QueryError for what is not one SQL expression that is true or false of a row."""
    try:
        with duckdb.connect(":memory:") as connection:
            statements = connection.extract_statements(f"SELECT 1 WHERE (\n{sql}\n)")
    except duckdb.Error:
        statements = []
    is_one = len(statements) == 1 and statements[0].type == duckdb.StatementType.SELECT
    asked = f"SELECT column_type FROM (DESCRIBE SELECT (\n{sql}\n) FROM ({_OBJECTS}) AS objects)"
    if not is_one or read_rows(lake, asked)["column_type"].to_pylist() != [
        "BOOLEAN"
    ]:  # a number would be taken for true
        raise QueryError(
            "--where is one SQL condition over columns of raw_files, validated_batch and flat_metadata, such as "
            "\"Modality = 'CT' AND outcome = 'ingested'\". Nothing was claimed."
        )


def _require_places(settings: Settings, objects: pa.Table) -> None:
    """Raises SettingsError when objects lie in another folder than their source is now; nothing could be read."""
    for name in objects["source"].unique().to_pylist():
        uri = objects["uri"][pc.index(objects["source"], name).as_py()].as_py()
        if lies_elsewhere(settings.source(name), uri):
            raise SettingsError(
                f"What is to be read again came from another folder than source '{name}' is now. Give --landing as it "
                "was given then, or correct the source's root. Nothing was claimed."
            )


def _under_way(work: RunContext) -> pa.Table:
    """object_ids of the claims of batches whose books are not closed."""
    closed = {row.batch_id for row in all_books(work.lake) if row.status == Status.CLOSED}
    open_claims = [claim for claim in work.log.claims() if claim.batch_id not in closed]
    schema = pa.schema([("object_id", pa.string())])
    parts = [work.log.manifest(claim.batch_id).select(["object_id"]).cast(schema) for claim in open_claims]
    return pa.concat_tables([schema.empty_table(), *parts])
