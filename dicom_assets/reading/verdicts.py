"""The outcome of one object, with everything that was found on the way.

Does not belong here: how a kind of object is read (`kinds`), the rows that are made of verdicts (`staged_rows`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from dicom_assets.dicom.header import Header
from dicom_assets.reading.tasks import Chunk, ObjectTask
from dicom_assets.schema.codes import CODES, OUTSIDE, WAITING


@dataclass(frozen=True, slots=True)
class Version:
    """The version of an instance that an object stands for, where that is not the object's own.

    source: with the data partition. uri: where the instance itself lies, None when the service does not say.
    version_text: the timestamp as the service wrote it.
    """

    source: str
    operation: str
    version_at: datetime
    version_text: str
    sequence: int
    uri: str | None


@dataclass(slots=True)
class Verdict:
    """Outcome of one object, or that it waits, with everything found on the way."""

    outcome: str
    kind: str
    findings: list[tuple[str, str | None]] = field(default_factory=list)
    header: Header | None = None
    version: Version | None = None
    records: Sequence[pa.Table] = ()
    corrections: Sequence[pa.Table] = ()
    record_errors: Sequence[dict[str, Any]] = ()

    @property
    def held_bytes(self) -> int:
        """What it takes in memory, about."""
        header = 0 if self.header is None else len(self.header.json or b"")
        return header + sum(int(table.nbytes) for table in (*self.records, *self.corrections))


def settled(kind: str, code: str, detail: str | None) -> Verdict:
    """The verdict of an object of which nothing is taken, with its reason; a code from outside lets it wait."""
    outcome = WAITING if code in OUTSIDE else CODES[code].outcome
    if outcome is None:
        raise AssertionError(f"{code} is no code of an object")
    return Verdict(outcome, kind, [(code, detail)])


def error_row(chunk: Chunk, task: ObjectTask, stage: str, code: str, detail: str | None, record: int) -> dict[str, Any]:
    """A row of ingestion_errors."""
    return {
        "batch_id": chunk.batch_id,
        "object_id": task.object_id,
        "stage": stage,
        "code": code,
        "record": record,
        "severity": str(CODES[code].severity),
        "detail": detail or CODES[code].meaning,
        "uri": task.uri,
        "member": task.member,
        "occurred_at": datetime.now(UTC),
        "run_id": chunk.run_id,
    }
