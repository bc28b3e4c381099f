"""Errors, warnings and remarks as pages show them: by reason code, and the objects of one code.

Belongs here: asking, and what a list can be narrowed by. Does not belong here: when an error counts as resolved
(`lake.resolutions`), how it is shown (`book_pages`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import duckdb

from dicom_assets.catalogue.row_reading import rows
from dicom_assets.catalogue.seen_books import SeenBooks
from dicom_assets.schema.codes import CODES, Severity
from dicom_assets.serve.problems import not_found
from dicom_assets.serve.served import Snapshot

PER_PAGE = 100
SEVERITIES = tuple(Severity)
STATES = ("open", "resolved")


@dataclass(frozen=True, slots=True)
class Narrowing:
    """What a list of errors is narrowed by; "" and None leave everything. since, until: days in UTC, both included."""

    source: str = ""
    severity: str = ""
    state: str = ""
    batch: str = ""
    since: date | None = None
    until: date | None = None

    @property
    def narrows(self) -> bool:
        """Whether something is left out."""
        return self != Narrowing()

    def sql(self) -> tuple[str, list[Any]]:
        """A condition over `seen_error` with its values, numbered from 1."""
        terms: list[tuple[str, Any]] = []
        if self.source:
            terms.append(("source = {}", self.source))
        if self.severity:
            terms.append(("severity = {}", self.severity))
        if self.batch:
            terms.append(("batch_id = {}", self.batch))
        if self.since is not None:
            terms.append(("occurred_at >= {}", _midnight(self.since)))
        if self.until is not None:
            terms.append(("occurred_at < {}", _midnight(self.until) + timedelta(days=1)))
        written = [sql.format(f"${number}") for number, (sql, _) in enumerate(terms, 1)]
        if self.state:
            written.append(f"resolution IS {'NULL' if self.state == 'open' else 'NOT NULL'}")
        return " AND ".join(written) or "true", [value for _, value in terms]


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason code with what has it. objects: different ones. rows: records counted one by one. open: rows."""

    severity: str
    code: str
    objects: int
    rows: int
    open: int
    first_at: datetime
    last_at: datetime

    @property
    def meaning(self) -> str:
        """What the code says."""
        return CODES[self.code].meaning if self.code in CODES else _UNKNOWN

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return CODES[self.code].remedy if self.code in CODES else ""


_UNKNOWN = "Another release wrote this code; this one does not know it."


@dataclass(frozen=True, slots=True)
class Reasons:
    """Reason codes, errors first, and the sources that have any."""

    reasons: Sequence[Reason]
    sources: Sequence[str]


def reasons(books: SeenBooks, narrowing: Narrowing) -> Reasons:
    """What was found wrong or left out, by code. Raises LakeError."""
    with books.errors(narrowing.batch or None) as connection:
        found = by_code(connection, narrowing)
        sources = rows(connection, "SELECT DISTINCT source FROM seen_batch ORDER BY source")
    return Reasons(found, [one["source"] for one in sources])


def by_code(connection: duckdb.DuckDBPyConnection, narrowing: Narrowing) -> list[Reason]:
    """The same reason codes, errors first. connection: of `SeenBooks.errors`."""
    condition, values = narrowing.sql()
    return [Reason(**one) for one in rows(connection, _REASONS.format(condition=condition), values)]


_REASONS = """
SELECT
    severity, code, count(DISTINCT object_id) FILTER (object_id <> '') AS objects, count(*) AS rows,
    count(*) FILTER (resolution IS NULL) AS open, min(occurred_at) AS first_at, max(occurred_at) AS last_at
FROM seen_error
WHERE {condition}
GROUP BY severity, code
ORDER BY list_position(['error', 'warning', 'info'], severity), open = 0, rows DESC, code
"""


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """One row of ingestion_errors. object_id: "" for what is of no object. resolution: None while it is open."""

    occurred_at: datetime
    source: str | None
    batch_id: str
    object_id: str
    stage: str
    record: int
    severity: str
    detail: str | None
    uri: str | None
    member: str | None
    rules: Sequence[str] | None
    resolution: str | None
    resolved_at: datetime | None
    resolved_by: str | None

    @property
    def is_taken_in(self) -> bool:
        """Whether its object is in the lake all the same."""
        return bool(self.object_id) and self.severity == Severity.WARNING


@dataclass(frozen=True, slots=True)
class ErrorPage:
    """Rows of one code, the newest first. total, objects: of all of them."""

    rows: Sequence[ErrorRow]
    total: int
    objects: int
    open: int
    sources: Sequence[str]


def error_page(books: SeenBooks, code: str, narrowing: Narrowing, page: int = 1, per_page: int = PER_PAGE) -> ErrorPage:
    """One page of the rows of a code. page: from 1. Raises LakeError."""
    condition, values = narrowing.sql()
    condition += f" AND code = ${len(values) + 1}"
    values.append(code)
    with books.errors(narrowing.batch or None) as connection:
        (counts,) = rows(connection, _COUNTS.format(condition=condition), values)
        found = rows(
            connection, _ROWS.format(condition=condition, most=per_page, skipped=(page - 1) * per_page), values
        )
        sources = rows(connection, "SELECT DISTINCT source FROM seen_batch ORDER BY source")
    return ErrorPage([ErrorRow(**one) for one in found], **counts, sources=[one["source"] for one in sources])


_COUNTS = """
SELECT
    count(*) AS total, count(DISTINCT object_id) FILTER (object_id <> '') AS objects,
    count(*) FILTER (resolution IS NULL) AS open
FROM seen_error WHERE {condition}
"""

_ROWS = """
SELECT
    occurred_at, source, batch_id, object_id, stage, record, severity, detail, uri, member, rules, resolution,
    resolved_at, resolved_by
FROM seen_error
WHERE {condition}
ORDER BY resolution IS NOT NULL, occurred_at DESC, batch_id DESC, object_id, record
LIMIT {most} OFFSET {skipped}
"""


def instance_of(snapshot: Snapshot, batch_id: str, object_id: str) -> tuple[str, str, str]:
    """The UIDs (study, series, instance) of an object that a batch has taken in. Raises Refusal (404), LakeError."""
    columns = ("object_id", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    rows_of = snapshot.scan("flat_metadata", {"batch_id": [batch_id]}, columns)
    with snapshot.cursor() as connection:
        found = connection.execute(f"SELECT * FROM {rows_of} WHERE object_id = $1", [object_id]).fetchone()
    if found is None:
        raise not_found("instance")
    return found[1], found[2], found[3]
