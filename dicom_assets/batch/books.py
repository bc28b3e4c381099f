"""The books: the row of each batch in `batches`, and the only places that change its status.

Belongs here: open, pause, fail, close, each idempotent, each counting what is really in the tables. Does not belong
here: deciding whether a check holds (`checks`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import pyarrow as pa

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.maintenance import tidy_all
from dicom_assets.lake.query import connect, quoted, records, records_of
from dicom_assets.lake.staging import Part, Staging
from dicom_assets.landing.claims import BatchKind, UnknownBatch
from dicom_assets.schema.codes import CODES, Outcome
from dicom_assets.schema.registry import BATCHES, INGESTION_ERRORS


class Decision(StrEnum):
    """What a person decided about a batch that waited; see `decisions`."""

    ACCEPTED = "accepted"
    DISMISSED = "dismissed"


class Status(StrEnum):
    """Where a batch stands."""

    OPEN = "open"
    PAUSED = "paused"
    CLOSED = "closed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Books:
    """One row of `batches`; counts of objects unless they say otherwise."""

    batch_id: str
    source: str
    status: str
    seen: int = 0
    ingested: int = 0
    quarantined: int = 0
    ignored: int = 0
    deleted: int = 0
    clinical_records: int = 0
    clinical_rows: int = 0
    started_at: datetime | None = None
    closed_at: datetime | None = None
    run_id: str | None = None
    reason: str | None = None
    kind: str | None = None
    decision: str | None = None
    decided_by: str | None = None
    decided_at: datetime | None = None
    decision_reason: str | None = None
    step_seconds: str | None = None

    @property
    def balance(self) -> int:
        """What is unaccounted for; 0 when the books close."""
        return self.seen - self.ingested - self.quarantined - self.ignored - self.deleted


def all_books(lake: Lake) -> list[Books]:
    """The books of every batch that ever started, oldest first."""
    return [Books(**row) for row in records_of(lake, BATCHES.name, {}, more="ORDER BY batch_id")]


def books_of(lake: Lake, batch_id: str) -> Books | None:
    """The books of one batch; None when it never started."""
    found = records_of(lake, BATCHES.name, {"batch_id": [batch_id]})
    return Books(**found[0]) if found else None


def open_batch(lake: Lake, batch_id: str, source: str, run_id: str, seen: int, kind: str = BatchKind.ARRIVAL) -> None:
    """Enters a batch as open, or again open when it is run again; its first start, and what was decided, are kept."""
    known = books_of(lake, batch_id) or Books(batch_id, source, Status.OPEN)
    decided = {name: getattr(known, name) for name in ("decision", "decided_by", "decided_at", "decision_reason")}
    started = known.started_at or datetime.now(UTC)
    row = Books(batch_id, source, Status.OPEN, seen=seen, started_at=started, run_id=run_id, kind=kind, **decided)
    _write(lake, row)


def decide(lake: Lake, batch_id: str, decision: Decision, decided_by: str, reason: str) -> Books:
    """Enters what a person decided about a batch that waits. Raises UnknownBatch, LakeError."""
    decided = replace(
        known_books(lake, batch_id),
        decision=str(decision),
        decided_by=decided_by,
        decided_at=datetime.now(UTC),
        decision_reason=reason,
    )
    _write(lake, decided)
    return decided


def counted(lake: Lake, batch_id: str) -> Mapping[str, int]:
    """What the tables hold of a batch: objects by outcome, clinical records and rows. No counter is trusted."""
    batch = quoted(batch_id)
    outcomes = ", ".join(f"count(*) FILTER (outcome = '{o}') AS {o}" for o in Outcome)
    tables = ["raw_files", "validated_batch", "ingestion_errors", "clinical"]
    with connect(lake, tables, within={name: {"batch_id": [batch_id]} for name in tables}) as connection:
        row = records(
            connection,
            f"""
            SELECT
                (SELECT count(*) FROM raw_files WHERE batch_id = {batch}) AS seen,
                {outcomes},
                (SELECT count(*) FROM clinical WHERE batch_id = {batch}) AS clinical_rows,
                (SELECT count(*) FROM ingestion_errors WHERE batch_id = {batch} AND stage = 'record'
                    AND code IN ('RECORD_INVALID', 'ERASED'))
                    AS record_errors
            FROM validated_batch WHERE batch_id = {batch}
            """,
        )[0]
    return {name: int(value) for name, value in row.items()}


def close_batch(lake: Lake, staging: Staging, run_id: str, seconds: Mapping[str, float] | None = None) -> Books:
    """Counts a batch in the tables, removes its staging, enters it as closed, and merges files that have piled up.

    seconds: that its steps took, by name. Whether the tables hold what they must was seen before (`closing`). Raises
    StagingMissing, LakeError.
    """
    known = known_books(lake, staging.batch_id)
    row: dict[str, Any] = dict(counted(lake, staging.batch_id))
    read = staging.rows(Part.CLINICAL) + row.pop("record_errors")
    closed = replace(
        known,
        **row,
        clinical_records=read,
        status=Status.CLOSED,
        closed_at=datetime.now(UTC),
        run_id=run_id,
        reason=None,
        step_seconds=json.dumps({name: round(took, 3) for name, took in seconds.items()}) if seconds else None,
    )
    staging.remove()
    _write(lake, closed)
    tidy_all(lake)
    return closed


def stop_batch(
    lake: Lake, staging: Staging, status: Status, reason: str, run_id: str, *, source: str = "", code: str | None = None
) -> Books:
    """Enters a batch as paused or failed, with its staged errors published; its rows stay staged.

    code: of the batch's own error row; CHECK_FAILED when it is paused, RUN_FAILED when it failed.
    """
    known = books_of(lake, staging.batch_id) or Books(staging.batch_id, source, status)
    publish_errors(lake, staging, status, reason, run_id, code)
    row: dict[str, Any] = dict(counted(lake, staging.batch_id))
    row.pop("record_errors")
    row["seen"] = max(row["seen"], known.seen)
    stopped = replace(known, **row, status=status, reason=reason, run_id=run_id, closed_at=None)
    _write(lake, stopped)
    return stopped


def publish_errors(
    lake: Lake, staging: Staging, status: Status | None, reason: str, run_id: str, code: str | None = None
) -> int:
    """Publishes a batch's staged errors, and one of the batch itself when it stops; how many rows there are."""
    rows = staging.read(Part.ERRORS)
    if status is not None:
        own = {
            "batch_id": staging.batch_id,
            "object_id": "",
            "stage": "check" if status is Status.PAUSED else "run",
            "code": code or ("CHECK_FAILED" if status is Status.PAUSED else "RUN_FAILED"),
            "record": 0,
            "severity": str(CODES["CHECK_FAILED"].severity),
            "detail": reason,
            "occurred_at": datetime.now(UTC),
            "run_id": run_id,
        }
        rows = pa.concat_tables([rows, pa.Table.from_pylist([own], schema=INGESTION_ERRORS.schema)])
    with lake.committing(INGESTION_ERRORS.name):
        lake.replace(INGESTION_ERRORS.name, [staging.batch_id], rows)
    return len(rows)


def known_books(lake: Lake, batch_id: str) -> Books:
    """The books of a batch that was opened. Raises UnknownBatch."""
    known = books_of(lake, batch_id)
    if known is None:
        raise UnknownBatch(f"Batch {batch_id} was never opened: run the whole job ingest_batch for it.")
    return known


def _write(lake: Lake, books: Books) -> None:
    row = {column.name: getattr(books, column.name) for column in BATCHES.columns}
    with lake.committing(BATCHES.name):
        lake.replace(BATCHES.name, [books.batch_id], pa.Table.from_pylist([row], schema=BATCHES.schema))
