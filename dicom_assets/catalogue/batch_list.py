"""Batches as pages show them: a list that can be narrowed, and one of them with everything that the books say of it.

Belongs here: asking. Does not belong here: what waits for a person (`matters`), how it is shown (`book_pages`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dicom_assets.batch.books import Status
from dicom_assets.batch.waits import Command, commands
from dicom_assets.catalogue.row_reading import rows
from dicom_assets.catalogue.seen_books import SeenBooks
from dicom_assets.monitoring.numbers import CLAIMED
from dicom_assets.schema.codes import Outcome
from dicom_assets.serve.problems import not_found

STATUSES = (CLAIMED, *Status)
PER_PAGE = 50


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch; counts are of objects.

    claimed_at: None for one whose claim is not in the log. status: of the books, or `claimed` when nobody has begun it.
    """

    batch_id: str
    source: str
    status: str
    seen: int
    ingested: int
    quarantined: int
    ignored: int
    deleted: int
    clinical_records: int | None
    clinical_rows: int | None
    kind: str | None
    claimed_at: datetime | None
    started_at: datetime | None
    closed_at: datetime | None
    run_id: str | None
    reason: str | None
    decision: str | None
    decided_by: str | None
    decided_at: datetime | None
    decision_reason: str | None
    step_seconds: str | None

    @property
    def accounted(self) -> int:
        """What has an outcome; `seen` once the books close."""
        return self.ingested + self.quarantined + self.ignored + self.deleted

    @property
    def begins_at(self) -> datetime | None:
        """What its age counts from."""
        return self.claimed_at or self.started_at

    @property
    def took(self) -> float | None:
        """Seconds from its first start until its books closed."""
        if self.closed_at is None or self.started_at is None:
            return None
        return (self.closed_at - self.started_at).total_seconds()

    @property
    def steps(self) -> Mapping[str, float]:
        """Seconds that each step took of the run that closed it."""
        return json.loads(self.step_seconds) if self.step_seconds else {}

    @property
    def commands(self) -> Sequence[Command]:
        """What a person can do about it."""
        return commands(self.batch_id, None if self.status == CLAIMED else self.status, self.reason)


@dataclass(frozen=True, slots=True)
class BatchPage:
    """Some of the batches, the newest first. total: how many there are of them. statuses: how many of each, of all."""

    batches: Sequence[Batch]
    total: int
    statuses: Mapping[str, int]
    sources: Sequence[str]


def batches(
    books: SeenBooks, *, status: str = "", source: str = "", page: int = 1, per_page: int = PER_PAGE
) -> BatchPage:
    """One page of the batches. status, source: "" for all. page: from 1. Raises LakeError."""
    with books.batches() as connection:
        counts = rows(connection, "SELECT status, source, count(*) AS batches FROM seen_batch GROUP BY ALL")
        found = rows(
            connection,
            "SELECT * FROM seen_batch WHERE ($1 = '' OR status = $1) AND ($2 = '' OR source = $2) "
            f"ORDER BY batch_id DESC LIMIT {per_page} OFFSET {(page - 1) * per_page}",
            [status, source],
        )
    of_source = [one for one in counts if source in ("", one["source"])]
    statuses = {name: sum(one["batches"] for one in of_source if one["status"] == name) for name in STATUSES}
    total = sum(count for name, count in statuses.items() if status in ("", name))
    return BatchPage([Batch(**one) for one in found], total, statuses, sorted({one["source"] for one in counts}))


@dataclass(frozen=True, slots=True)
class Held:
    """Objects of a batch by what became of them. code: why, None where nothing is wrong."""

    outcome: str
    code: str | None
    objects: int


@dataclass(frozen=True, slots=True)
class Stop:
    """A sentence about the batch as a whole: what paused it, or broke its run off."""

    code: str
    detail: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class Noted:
    """What was found wrong with objects of a batch, by code."""

    severity: str
    code: str
    objects: int
    rows: int


@dataclass(frozen=True, slots=True)
class WholeBatch:
    """One batch with what tables hold of it. studies: how many it touched."""

    batch: Batch
    held: Sequence[Held]
    noted: Sequence[Noted]
    stops: Sequence[Stop]
    studies: int


def whole_batch(books: SeenBooks, batch_id: str) -> WholeBatch:
    """One batch. Raises Refusal (404), LakeError."""
    with books.batches("validated_batch", "ingestion_errors", "batch_study", batch_id=batch_id) as connection:
        found = rows(connection, "SELECT * FROM seen_batch WHERE batch_id = $1", [batch_id])
        if not found:
            raise not_found("batch")
        held = rows(connection, _HELD, [batch_id])
        noted = rows(connection, _NOTED, [batch_id])
        stops = rows(connection, _STOPS, [batch_id])
        studies = rows(connection, "SELECT count(*) AS n FROM batch_study WHERE batch_id = $1", [batch_id])[0]["n"]
    return WholeBatch(
        Batch(**found[0]),
        sorted((Held(**one) for one in held), key=lambda one: _OUTCOMES.index(one.outcome)),
        [Noted(**one) for one in noted],
        [Stop(**one) for one in stops],
        studies,
    )


_OUTCOMES = [str(outcome) for outcome in Outcome]

_HELD = """
SELECT outcome, code, count(*) AS objects FROM validated_batch
WHERE batch_id = $1
GROUP BY outcome, code
ORDER BY code NULLS FIRST
"""

_NOTED = """
SELECT severity, code, count(DISTINCT object_id) AS objects, count(*) AS rows FROM ingestion_errors
WHERE batch_id = $1 AND object_id <> ''
GROUP BY severity, code
ORDER BY list_position(['error', 'warning', 'info'], severity), rows DESC, code
"""

_STOPS = """
SELECT code, coalesce(detail, '') AS detail, occurred_at FROM ingestion_errors
WHERE batch_id = $1 AND object_id = '' AND stage <> 'rule'
ORDER BY occurred_at DESC
"""


def as_row(batch: Batch) -> tuple[Any, ...]:
    """A batch as a row of a CSV file; `NAMES` has the titles."""
    return tuple(getattr(batch, name) for name in NAMES)


NAMES = ("batch_id", "source", "status", "seen", "ingested", "quarantined", "ignored", "deleted",
         "claimed_at", "started_at", "closed_at", "run_id", "reason")  # fmt: skip
