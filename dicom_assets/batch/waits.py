"""Batches that wait for a person: why, with which objects, and what can be done, as text for terminal and pages.

Belongs here: reading the books and errors of such a batch, and the commands that they ask for. Does not belong here:
deciding about it (`decisions`), options and printing (`cli`), what Dagster is told (`defs`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from dicom_assets.batch.books import Books, Decision, Status, books_of
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import connect
from dicom_assets.landing.claims import ClaimLog

GATE = "validated_batch.gate"
"""The rule whose shares a person may accept."""
HOUSE_RULES = "validated_batch.house_rules"
"""The rule that holds a batch against the rules of the house, of which those that pause may be accepted as well."""
ACCEPTABLE = (GATE, HOUSE_RULES)

_RULE = re.compile(r"^([a-z_]+\.[a-z_]+): ")


@dataclass(frozen=True, slots=True)
class Command:
    """What a person can do about a batch: the command, and what it does."""

    text: str
    what: str


@dataclass(frozen=True, slots=True)
class CodeCount:
    """Objects of a batch of which one code is told."""

    code: str
    severity: str
    objects: Sequence[str]


@dataclass(frozen=True, slots=True)
class Waits:
    """A batch as a person looks at it. stopped_at: when it was paused or failed, by its own error row."""

    books: Books
    claimed: int
    stopped_at: datetime | None
    codes: Sequence[CodeCount]


def rule_of(reason: str | None) -> str | None:
    """The rule, `table.name`, that a batch was paused by; None when it was none."""
    found = _RULE.match(reason or "")
    return found[1] if found else None


def commands(batch_id: str, status: str | None, reason: str | None = None) -> list[Command]:
    """What can be done about a batch. status: None for one that never started."""
    show = Command(f"dicom-assets batch show {batch_id}", "what waits, why, and which objects")
    if status == Status.CLOSED:
        return [Command(f"dicom-assets errors --batch {batch_id}", "what was found wrong or left out, by reason")]
    found = [show, Command(f"dicom-assets batch retry {batch_id}", "runs it again, when the cause is removed")]
    if status == Status.PAUSED and rule_of(reason) in ACCEPTABLE:
        accept = f"dicom-assets batch accept {batch_id} --reason TEXT"
        found.append(Command(accept, "publishes what is good of it; the rest stays quarantined"))
    dismiss = f"dicom-assets batch dismiss {batch_id} --reason TEXT"
    return [*found, Command(dismiss, "closes it with all of its objects quarantined")]


def markdown(batch_id: str, status: str | None, reason: str | None = None) -> str:
    """The same as a list for Dagster's pages."""
    lines = [f"- `{one.text}`: {one.what}" for one in commands(batch_id, status, reason)]
    return "\n".join([*lines, "- or the jobs `retry_batch`, `accept_batch`, `dismiss_batch` in this UI"])


def is_waiting(books: Books) -> bool:
    """Whether a batch waits for a person."""
    return books.status in (Status.PAUSED, Status.FAILED)


def look_at(lake: Lake, log: ClaimLog, batch_id: str) -> Waits:
    """What there is to say of a batch, whatever its status. Raises UnknownBatch, LakeError."""
    manifest = log.manifest(batch_id)
    books = books_of(lake, batch_id) or Books(batch_id, manifest["source"][0].as_py(), "claimed", seen=len(manifest))
    scope = {name: {"batch_id": [batch_id]} for name in ("ingestion_errors", "validated_batch")}
    with connect(lake, [*scope], within=scope) as connection:
        (stopped_at,) = connection.execute(
            "SELECT max(occurred_at) FROM ingestion_errors WHERE object_id = '' AND stage <> 'rule'"
        ).fetchall()[0]
        found = connection.execute(
            """
            SELECT code, max(severity), list(DISTINCT object_id ORDER BY object_id) FROM (
                SELECT object_id, code, severity FROM ingestion_errors WHERE object_id <> ''
                UNION ALL
                SELECT object_id, code, '' FROM validated_batch WHERE code IS NOT NULL
            )
            GROUP BY code
            ORDER BY array_position(['error', 'warning', 'info', ''], max(severity)), len(list(DISTINCT object_id)) DESC
            """
        ).fetchall()
    return Waits(books, len(manifest), stopped_at, [CodeCount(*row) for row in found])


def decided(books: Books) -> str | None:
    """What was decided about a batch, in a sentence; None when nothing was."""
    if books.decision is None or books.decided_at is None:
        return None
    what = "accepted" if books.decision == Decision.ACCEPTED else "dismissed"
    return f"It was {what} by {books.decided_by} at {books.decided_at:%Y-%m-%dT%H:%M:%SZ}: {books.decision_reason}"
