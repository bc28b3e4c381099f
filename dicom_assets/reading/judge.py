"""What happens to one chunk of objects: each is opened once, judged, and turned into staged rows.

This is the one place where an object's outcome is decided, and so the one place where every error of reading ends.
It runs in a worker process: it imports neither Dagster nor DuckDB nor delta-rs, it commits nothing, and it returns
Arrow files. Does not belong here: how a header is read (`dicom`), how processes are kept (`engine`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import pyarrow as pa

from dicom_assets.clinical.chunks import ClinicalUnreadable
from dicom_assets.dicom.header import Header, Memo, NotDicom, Unreadable, read_header
from dicom_assets.dicom.rows import dicom_columns, header_texts, issue_lists
from dicom_assets.lake.staging import SCHEMAS, Part
from dicom_assets.landing.archives import open_members
from dicom_assets.landing.change_windows import EntryInvalid, PageUnreadable
from dicom_assets.landing.opening import open_store
from dicom_assets.landing.store import LandingStore, ObjectError, ObjectRef, OpenObject
from dicom_assets.reading.change_entries import Version, open_entries, read_change
from dicom_assets.reading.clinical_rows import clinical_rows, dataset_of
from dicom_assets.schema import keys
from dicom_assets.schema.codes import CODES, OUTSIDE, WAITING, Kind, Outcome
from dicom_assets.schema.registry import FLAT_METADATA
from dicom_assets.settings import (
    ArchiveLimits,
    ClinicalSettings,
    FhirSettings,
    ReadingLimits,
    SourceSettings,
)
from dicom_assets.storage.byte_ranges import ByteSource
from dicom_assets.storage.files import ArrowSink, arrow_bytes


@dataclass(frozen=True, slots=True)
class ObjectTask:
    """One row of staged raw_files, as the reading needs it; see `staging.RAW_STAGED`."""

    object_id: str
    source: str
    uri: str
    member: str | None
    etag: str
    size: int
    modified_at: datetime | None
    kind: str
    entry: tuple[int, ...]
    container_size: int | None
    verdict: str | None
    detail: str | None
    at: Mapping[str, Any] | None = None

    @property
    def located(self) -> ObjectTask:
        """The task as it must be opened: at the place where the object lies now."""
        if self.at is None:
            return self
        place = {name: self.at[name] for name in ("uri", "etag", "member", "container_size")}
        return replace(self, **place, entry=tuple(self.at["entry"] or ()), at=None)


@dataclass(frozen=True)
class Chunk:
    """Some hundred objects in the order of their folders, with all that a worker needs to judge them.

    poison: object_ids that broke a worker before, with the code they end in.
    """

    number: int
    batch_id: str
    run_id: str
    claimed_at: datetime
    settings: SourceSettings
    reading: ReadingLimits
    archives: ArchiveLimits
    clinical: ClinicalSettings
    fhir: FhirSettings
    objects: tuple[ObjectTask, ...]
    poison: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class JudgedChunk:
    """What came of a chunk: an Arrow file by part (none for parts without rows), and objects by outcome."""

    number: int
    parts: Mapping[Part, bytes]
    outcomes: Mapping[str, int]
    objects: int


@dataclass(slots=True)
class _Verdict:
    """Outcome of one object, or that it waits, with everything found on the way."""

    outcome: str
    kind: str
    findings: list[tuple[str, str | None]] = field(default_factory=list)
    header: Header | None = None
    version: Version | None = None
    records: Sequence[pa.Table] = ()
    record_errors: Sequence[dict[str, Any]] = ()

    @property
    def held_bytes(self) -> int:
        """What it takes in memory, about."""
        header = 0 if self.header is None else len(self.header.json or b"")
        return header + sum(int(table.nbytes) for table in self.records)


HELD_BYTES = 8 << 20
"""Bytes of headers that are held before they become rows: those of one object may be megabytes."""


@dataclass(slots=True)
class _Rows:
    """Rows of one chunk. Those that may be large are compressed as they come.

    unseen: members whose container was not seen to be the same since they were read.
    """

    ledger: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    accepted: list[tuple[ObjectTask, Header, Version | None]] = field(default_factory=list)
    held_bytes: int = 0
    unseen: list[tuple[ObjectTask, _Verdict]] = field(default_factory=list)
    flat: ArrowSink = field(default_factory=lambda: ArrowSink(SCHEMAS[Part.FLAT]))
    clinical: ArrowSink = field(default_factory=lambda: ArrowSink(SCHEMAS[Part.CLINICAL]))


def judge_chunk(chunk: Chunk, beat: Callable[[int], None]) -> JudgedChunk:
    """Opens, judges and stages the objects of a chunk.

    beat: called with an object's position before it is read, so that whoever watches knows where a worker hangs.
    Storage that fails for one object is that object's outcome; nothing is raised for an object.
    """
    rows = _Rows()
    memo = Memo()
    opening = _open_all(chunk)
    for position in range(len(chunk.objects)):
        beat(position)  # before opening: a nested archive may hang there already
        _, opened, container = next(opening)
        task = chunk.objects[position]
        rows.unseen.append((task, _judge(chunk, task, opened, memo)))
        following = chunk.objects[position + 1] if position + 1 < len(chunk.objects) else None
        if container is None or _container(task) != _container(following) or _unseen_bytes(rows) >= HELD_BYTES:
            _record_seen(chunk, container, rows)
        if rows.held_bytes >= HELD_BYTES:
            _compress(chunk, rows)
    opening.close()
    beat(len(chunk.objects))  # what goes wrong from here on is no object's fault
    parts = dict(_files(chunk, rows))
    outcomes = Counter(row["outcome"] for row in rows.ledger)
    return JudgedChunk(chunk.number, parts, dict(outcomes), len(chunk.objects))


Opened = OpenObject | ByteSource | ObjectError | None
Opening = tuple[ObjectTask, Opened, OpenObject | None]
"""An object, its open bytes or why there are none, and the open archive that they come from."""


def _container(task: ObjectTask | None) -> str | None:
    """The archive that an object must be read from; None for an object of its own."""
    return None if task is None or task.located.member is None else task.located.uri


def _unseen_bytes(rows: _Rows) -> int:
    return sum(verdict.held_bytes for _, verdict in rows.unseen)


def _record_seen(chunk: Chunk, container: OpenObject | None, rows: _Rows) -> None:
    """Records what was read, if its container is still what was claimed: a member cannot see that by itself.

    Otherwise none of the members that were read since it was last looked at is what it seemed to be.
    """
    changed = None if container is None else _verified(container)
    for task, verdict in rows.unseen:
        is_read = not _is_settled(chunk, task)
        found = _settled(task.kind, changed.code, changed.detail) if changed is not None and is_read else verdict
        _record(chunk, task, found, rows)
    rows.unseen = []


def _open_all(chunk: Chunk) -> Generator[Opening]:
    """Each object with its open bytes, or with why there are none; files of their own first fetched side by side."""
    store = open_store(chunk.settings)
    located = (task.located for task in chunk.objects)
    for container, group in groupby(located, key=_container):
        tasks = list(group)
        if container is None:
            yield from ((*one, None) for one in _open_files(store, tasks, chunk))
        elif tasks[0].kind == Kind.CHANGE:
            yield from ((*one, None) for one in _open_entries(store, tasks, chunk))
        else:
            yield from _open_archive(store, tasks, chunk)


def _is_settled(chunk: Chunk, task: ObjectTask) -> bool:
    return task.verdict is not None or task.object_id in chunk.poison


def _open_files(store: LandingStore, tasks: Sequence[ObjectTask], chunk: Chunk) -> Iterator[tuple[ObjectTask, Opened]]:
    wanted = [ObjectRef(t.uri, t.etag, t.size) for t in tasks if not _is_settled(chunk, t)]
    opened = store.open_all(wanted, chunk.reading.first_read_bytes)
    for task in tasks:
        if _is_settled(chunk, task):
            yield task, None
            continue
        result = next(opened)
        yield task, result
        if not isinstance(result, ObjectError):
            result.close()


def _open_archive(store: LandingStore, tasks: Sequence[ObjectTask], chunk: Chunk) -> Iterator[Opening]:
    wanted = [task for task in tasks if not _is_settled(chunk, task)]
    if not wanted:
        yield from ((task, None, None) for task in tasks)
        return
    first = wanted[0]
    container = next(
        store.open_all([ObjectRef(first.uri, first.etag, first.container_size or 0)], chunk.reading.first_read_bytes)
    )
    if isinstance(container, ObjectError):
        yield from ((task, None if _is_settled(chunk, task) else container, None) for task in tasks)
        return
    try:
        members = open_members(container, [task.entry for task in wanted], chunk.archives)
        for task in tasks:
            if _is_settled(chunk, task):
                yield task, None, container
                continue
            _, member = next(members)
            yield task, _verified(container) or member, container
    finally:
        container.close()


def _open_entries(
    store: LandingStore, tasks: Sequence[ObjectTask], chunk: Chunk
) -> Iterator[tuple[ObjectTask, Opened]]:
    """Entries of one window file, read together: they are small, and the file is verified once for all of them."""
    wanted = [task for task in tasks if not _is_settled(chunk, task)]
    entries: Iterator[ByteSource] = iter(())
    failure: ObjectError | None = None
    if wanted:
        first = wanted[0]
        ref = ObjectRef(first.uri, first.etag, first.container_size or 0)
        page = next(store.open_all([ref], chunk.reading.first_read_bytes))
        if isinstance(page, ObjectError):
            failure = page
        else:
            try:
                entries = iter(list(open_entries(page, [task.entry[0] for task in wanted])))
                failure = _verified(page)
            except PageUnreadable as error:
                failure = _verified(page) or ObjectError(error.code, error.detail)
            except OSError as error:
                failure = error if isinstance(error, ObjectError) else ObjectError("READ_FAILED", type(error).__name__)
            finally:
                page.close()
    for task in tasks:
        yield task, None if _is_settled(chunk, task) else failure or next(entries)


def _verified(container: OpenObject) -> ObjectError | None:
    try:
        container.verify()
    except ObjectError as error:
        return error
    return None


def _judge(chunk: Chunk, task: ObjectTask, opened: Opened, memo: Memo) -> _Verdict:
    """The outcome of one object; nothing of it is recorded before it was seen to be the same after its reading."""
    poisoned = chunk.poison.get(task.object_id)
    if poisoned is not None:
        return _settled(task.kind, poisoned, None)
    if task.verdict is not None:
        return _settled(task.kind, task.verdict, task.detail)
    if isinstance(opened, ObjectError):
        return _settled(task.kind, opened.code, opened.detail)
    if opened is None:
        raise AssertionError("an object without a verdict was not opened")
    if opened.size > chunk.reading.max_object_bytes:
        return _settled(task.kind, "TOO_LARGE", f"more than {chunk.reading.max_object_bytes} bytes")
    try:
        verdict = _read(chunk, task, opened, memo)
        verify = getattr(opened, "verify", None)
        if verify is not None:
            verify()
    except (Unreadable, ClinicalUnreadable, EntryInvalid, ObjectError) as error:
        return _settled(task.kind, error.code, error.detail)
    except OSError as error:
        return _settled(task.kind, "READ_FAILED", type(error).__name__)
    except MemoryError:
        raise  # this process has grown too far for the next object too; the engine replaces it
    except Exception as error:  # noqa: BLE001 - an object must end in an outcome, whatever its bytes make a parser do
        return _settled(task.kind, "UNPARSEABLE", type(error).__name__)
    return verdict


def _read(chunk: Chunk, task: ObjectTask, opened: ByteSource, memo: Memo) -> _Verdict:
    if task.kind == Kind.CLINICAL:
        return _read_clinical(chunk, task, opened)
    if task.kind == Kind.CHANGE:
        return _read_change(chunk, task, opened)
    try:
        header = read_header(opened, chunk.reading, memo)
    except NotDicom:
        return _settled(Kind.OTHER, "NOT_DICOM", None)
    if header.media_directory:
        return _settled(Kind.DICOM, "DICOMDIR", None)
    return _Verdict(Outcome.INGESTED, Kind.DICOM, [(code, None) for code in header.issues], header)


def _read_clinical(chunk: Chunk, task: ObjectTask, opened: ByteSource) -> _Verdict:
    from dicom_assets.clinical.records import read_records  # slow to import, and few workers need it

    tables, errors = [], []
    warnings: list[tuple[str, str | None]] = []
    for part in read_records(opened, chunk.clinical, chunk.fhir, dataset_of(chunk, task)):
        tables.append(clinical_rows(chunk, task, part.records))
        errors += [_error(chunk, task, "record", "RECORD_INVALID", e.detail, e.record) for e in part.errors]
        warnings += part.warnings
    if any(map(len, tables)):
        return _Verdict(Outcome.INGESTED, Kind.CLINICAL, warnings, records=tables, record_errors=errors)
    nothing = _settled(Kind.CLINICAL, *nothing_taken(len(errors)))
    nothing.record_errors = errors
    return nothing


def nothing_taken(refused: int) -> tuple[str, str | None]:
    """Code and detail of a clinical file of which no record was taken, so many of them for what is wrong with them."""
    return ("RECORDS_ALL_INVALID", f"{refused} of {refused} records are invalid") if refused else ("NO_RECORDS", None)


def _read_change(chunk: Chunk, task: ObjectTask, opened: ByteSource) -> _Verdict:
    found = read_change(opened, task.source, chunk.reading)
    if found is None:
        return _settled(Kind.CHANGE, "CHANGE_SUPERSEDED", None)
    header, version = found
    outcome = Outcome.DELETED if version.operation == "delete" else Outcome.INGESTED
    return _Verdict(outcome, Kind.CHANGE, [(code, None) for code in header.issues], header, version)


def _settled(kind: str, code: str, detail: str | None) -> _Verdict:
    outcome = WAITING if code in OUTSIDE else CODES[code].outcome
    if outcome is None:
        raise AssertionError(f"{code} is no code of an object")
    return _Verdict(outcome, kind, [(code, detail)])


def _record(chunk: Chunk, task: ObjectTask, verdict: _Verdict, rows: _Rows) -> None:
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
    rows.errors += [_error(chunk, task, "read", code, detail, 0) for code, detail in dict(verdict.findings).items()]
    for table in verdict.records:
        rows.clinical.write(table)
    rows.errors += verdict.record_errors
    if verdict.header is not None:
        rows.accepted.append((task, verdict.header, verdict.version))
        rows.held_bytes += len(verdict.header.json or b"")


def _error(chunk: Chunk, task: ObjectTask, stage: str, code: str, detail: str | None, record: int) -> dict[str, Any]:
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


def _compress(chunk: Chunk, rows: _Rows) -> None:
    """Turns the headers that are held into compressed rows."""
    if rows.accepted:
        rows.flat.write(_flat_rows(chunk, rows.accepted))
    rows.accepted, rows.held_bytes = [], 0


def _files(chunk: Chunk, rows: _Rows) -> Iterator[tuple[Part, bytes]]:
    """The Arrow file of each part that has rows."""
    _compress(chunk, rows)
    for part, listed in ((Part.LEDGER, rows.ledger), (Part.ERRORS, rows.errors)):
        if listed:
            yield part, arrow_bytes(pa.Table.from_pylist(listed, schema=SCHEMAS[part]))
    for part, sink in ((Part.FLAT, rows.flat), (Part.CLINICAL, rows.clinical)):
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
        "content_digest": [keys.content_digest(h.json) if h.json else None for h in headers],
        "ingested_at": [chunk.claimed_at] * len(tasks),
    }
    made = {name: dicom[name] for name in dicom.schema.names}
    made |= {"header": header_texts(headers), "issues": issue_lists(headers)}
    made |= {name: pa.array(values, FLAT_METADATA.column(name).type) for name, values in own.items()}
    return pa.table([made[name] for name in FLAT_METADATA.schema.names], schema=FLAT_METADATA.schema)


def _own_version(chunk: Chunk, task: ObjectTask) -> Version:
    """A file's own version: the time of its last modification."""
    return Version(task.source, "upsert", task.modified_at or chunk.claimed_at, "", 0, task.located.uri)
