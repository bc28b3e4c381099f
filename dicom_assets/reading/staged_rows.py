"""Rows of a chunk's verdicts, as they are staged: ledger, metadata, clinical records, errors.

Does not belong here: verdicts as such (`verdicts`), rows of clinical records (`clinical_rows`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from dicom_assets.dicom.header import Header
from dicom_assets.dicom.rows import dicom_columns, header_texts, issue_lists, pixel_columns
from dicom_assets.lake.staging import SCHEMAS, Part
from dicom_assets.reading.tasks import Chunk, ObjectTask
from dicom_assets.reading.verdicts import Verdict, Version, error_row
from dicom_assets.schema import keys
from dicom_assets.schema.registry import FLAT_METADATA
from dicom_assets.storage.files import ArrowSink, arrow_bytes


@dataclass(slots=True)
class Rows:
    """Rows of one chunk. Those that may be large are compressed as they come.

    unseen: members whose container was not seen to be the same since they were read.
    """

    ledger: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    accepted: list[tuple[ObjectTask, Header, Version | None]] = field(default_factory=list)
    held_bytes: int = 0
    unseen: list[tuple[ObjectTask, Verdict]] = field(default_factory=list)
    flat: ArrowSink = field(default_factory=lambda: ArrowSink(SCHEMAS[Part.FLAT]))
    clinical: ArrowSink = field(default_factory=lambda: ArrowSink(SCHEMAS[Part.CLINICAL]))
    corrections: ArrowSink = field(default_factory=lambda: ArrowSink(SCHEMAS[Part.CORRECTION]))


def record(chunk: Chunk, task: ObjectTask, verdict: Verdict, rows: Rows) -> None:
    """Adds an object with its verdict."""
    rows.ledger.append(
        {
            "batch_id": chunk.batch_id,
            "object_id": task.object_id,
            "outcome": str(verdict.outcome),
            "code": verdict.findings[0][0] if verdict.findings else None,
            "kind": str(verdict.kind),
            "judged_at": datetime.now(UTC),
        }
    )
    rows.errors += [error_row(chunk, task, "read", code, detail, 0) for code, detail in dict(verdict.findings).items()]
    for table in verdict.records:
        rows.clinical.write(table)
    for table in verdict.corrections:
        rows.corrections.write(table)
    rows.errors += verdict.record_errors
    if verdict.header is not None:
        rows.accepted.append((task, verdict.header, verdict.version))
        rows.held_bytes += len(verdict.header.json or b"")


def compress(chunk: Chunk, rows: Rows) -> None:
    """Turns the headers that are held into compressed rows."""
    if rows.accepted:
        rows.flat.write(_flat_rows(chunk, rows.accepted))
    rows.accepted, rows.held_bytes = [], 0


def part_files(chunk: Chunk, rows: Rows) -> Iterator[tuple[Part, bytes]]:
    """The Arrow file of each part that has rows."""
    compress(chunk, rows)
    for part, listed in ((Part.LEDGER, rows.ledger), (Part.ERRORS, rows.errors)):
        if listed:
            yield part, arrow_bytes(pa.Table.from_pylist(listed, schema=SCHEMAS[part]))
    sinks = ((Part.FLAT, rows.flat), (Part.CLINICAL, rows.clinical), (Part.CORRECTION, rows.corrections))
    for part, sink in sinks:
        if sink.rows:
            yield part, sink.close()


def _flat_rows(chunk: Chunk, accepted: Sequence[tuple[ObjectTask, Header, Version | None]]) -> pa.Table:
    """Staged rows of flat_metadata: the object's own columns, then those of its header."""
    tasks = [task for task, _, _ in accepted]
    headers = [header for _, header, _ in accepted]
    versions = [version or _own_version(chunk, task) for task, _, version in accepted]
    is_file = [version is None for _, _, version in accepted]
    dicom = dicom_columns(headers)
    own: dict[str, Any] = {
        "batch_id": [chunk.batch_id] * len(tasks),
        "object_id": [t.object_id for t in tasks],
        "source": [v.source for v in versions],
        "operation": [v.operation for v in versions],
        "version_at": [v.version_at for v in versions],
        "version_text": [v.version_text or None for v in versions],
        "sequence": [v.sequence for v in versions],
        # Where the object lies now: its place as it was claimed may be another object's by now.
        "uri": [v.uri or t.uri for t, v in zip(tasks, versions, strict=True)],
        "member": [t.located.member for t in tasks],
        "size": [t.size if file else None for t, file in zip(tasks, is_file, strict=True)],
        "study_key": [
            keys.study_key(v.source, h.columns["StudyInstanceUID"]) for v, h in zip(versions, headers, strict=True)
        ],
        "header_form": [h.form if h.json else None for h in headers],
        "content_digest": [keys.content_digest(h.json) if h.json else None for h in headers],
        "stable_digest": [h.stable_digest for h in headers],
        "bytes_digest": [h.digests and h.digests.bytes_digest for h in headers],
        "pixel_digest": [h.digests and h.digests.pixel_digest for h in headers],
        "ingested_at": [chunk.claimed_at] * len(tasks),
    }
    made = {name: dicom[name] for name in dicom.schema.names}
    made |= {"header": header_texts(headers), "issues": issue_lists(headers), **pixel_columns(headers)}
    made |= {name: pa.array(values, FLAT_METADATA.column(name).type) for name, values in own.items()}
    return pa.table([made[name] for name in FLAT_METADATA.schema.names], schema=FLAT_METADATA.schema)


def _own_version(chunk: Chunk, task: ObjectTask) -> Version:
    """A file's own version: the time of its last modification."""
    return Version(task.source, "upsert", task.modified_at or chunk.claimed_at, "", 0, task.located.uri)
