"""Storing what a batch has ingested at a DICOM service (STOW-RS): what is sent, and what became of it.

Belongs here: which objects of a batch are still to be sent, and the record of those that were. Does not belong here:
the request (`service.push`), when it is done (`defs.forwarded`), the rule that counts it (`checks.forwarding_checks`).

Books are closed before anything is sent, and stay as they are. What became of each object is written down as it goes
on, `{lake}/_forwarding/{batch}/{number}.parquet`: a run that is broken off leaves at most some objects under way of
which nothing is known. So before an object is sent the service is asked what it has of the study, and what it has is
not sent again. Objects that the service refuses, or whose bytes cannot be read now, are tried again by the next run of
the batch's partition; what is stored is never sent twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import pyarrow as pa

from dicom_assets.batch.books import Books, Status, all_books, books_of
from dicom_assets.dicom.selftest_uids import is_of_selftest
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.files_of_objects import FILE_ETAG, FILE_SIZE, file_joins
from dicom_assets.lake.query import arrow, connect
from dicom_assets.landing.claims import UnknownBatch
from dicom_assets.landing.opening import open_store
from dicom_assets.landing.retrieval import Place, open_object
from dicom_assets.landing.store import LandingStore, ObjectError
from dicom_assets.service.client import ServiceClient
from dicom_assets.service.dicomweb import instances_of
from dicom_assets.service.push import AT_ONCE, BLOCK, Outcome, store
from dicom_assets.settings import Settings, SettingsError, UserError
from dicom_assets.storage import locks
from dicom_assets.storage.files import LakeFiles

FOLDER = "_forwarding"
WRITTEN_AT_ONCE = 32
"""Objects whose outcome is written down together: so many are asked for again after a kill."""

RECORD = pa.schema(
    [
        pa.field("object_id", pa.string(), nullable=False),
        pa.field("service", pa.string(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("status", pa.int64()),
        pa.field("reason", pa.int64()),
        pa.field("code", pa.string()),
        pa.field("at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)
"""One line for each object and try. status: of HTTP; reason: of DICOM (0008,1197); code: why it could not be read."""


class Fate(StrEnum):
    """What became of an object. UNREAD: its bytes are gone, changed, or cannot be read now. KEPT: a self-test's own."""

    STORED = "stored"
    PRESENT = "present"
    REFUSED = "refused"
    UNREAD = "unread"
    KEPT = "kept"


DONE = (Fate.STORED, Fate.PRESENT, Fate.KEPT)


class NotForwarded(UserError):
    """A batch that is not forwarded; the message says why."""


@dataclass(frozen=True)
class Forwarded:
    """What a batch has come to. ingested: objects that are to be stored; left: refused or unread ones, with why."""

    service: str
    ingested: int
    counts: Mapping[str, int]
    left: Sequence[tuple[str, str]]
    sent_now: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether each object has an outcome."""
        return sum(self.counts.values()) == self.ingested


@dataclass(frozen=True)
class _Task:
    object_id: str
    key: tuple[str, str, str]
    place: Place | None


_TASKS = f"""
-- one row per object of the batch that was ingested from bytes, with version and size of the file that it is or lies in
SELECT flat.object_id, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID, flat.uri, flat.member,
    {FILE_ETAG} AS etag, {FILE_SIZE} AS size
FROM flat_metadata AS flat
{file_joins("flat", "raw_files")}
WHERE flat.operation = 'upsert' AND flat.version_text IS NULL
ORDER BY StudyInstanceUID, flat.object_id
"""


def waiting(lake: Lake, settings: Settings) -> list[str]:
    """Closed batches of sources that are forwarded of which objects have no outcome yet, oldest first."""
    forwarded = {source.name for source in settings.sources if source.forward_to}
    if not forwarded:
        return []
    marks = {name for name in lake.files.names(FOLDER) if not name.endswith(".parquet")}
    return [
        row.batch_id
        for row in all_books(lake)
        if row.status == Status.CLOSED and row.source in forwarded and row.ingested and _mark(row) not in marks
    ]


def _mark(closed: Books) -> str:
    """The file that says that each object has an outcome; another one when the batch was run again."""
    return f"{FOLDER}/{closed.batch_id}/done-{closed.run_id}"


def forward(lake: Lake, settings: Settings, batch_id: str, client: ServiceClient | None = None) -> Forwarded:
    """Stores what a closed batch has ingested, and is not stored yet, at the service of its source.

    client: of that service, for tests. Raises NotForwarded, SettingsError, ServiceError when the service is away or
    does not take us, LakeError, SourceUnavailable.
    """
    known = books_of(lake, batch_id)
    if known is None:
        raise UnknownBatch(f"Batch {batch_id} was never run.")
    name = settings.source(known.source).forward_to
    if name is None:
        raise NotForwarded(f"Batch {batch_id} is of source {known.source}, which has no forward_to.")
    if known.status != Status.CLOSED:
        raise NotForwarded(
            f"Batch {batch_id} is {known.status}: what it ingests is forwarded when its books are closed."
        )
    service = settings.service(name)
    with _held(lake.files, batch_id):
        tasks = list(_tasks(lake, batch_id))
        fates = _fates(lake.files, batch_id, name)
        left = [task for task in tasks if fates.get(task.object_id, ("", ""))[0] not in DONE]
        if left:
            opened = open_store(settings.source(known.source))
            with client or ServiceClient(service) as sending:
                _send(_Sender(lake.files, batch_id, sending, opened, settings), left)
            fates = _fates(lake.files, batch_id, name)
        lake.files.put(_mark(known), b"")
    own = {task.object_id: fates[task.object_id] for task in tasks}
    refused = sorted((one, why) for one, (fate, why) in own.items() if fate not in DONE)
    return Forwarded(name, len(tasks), Counter(fate for fate, _ in own.values()), refused, len(left))


@contextmanager
def _held(files: LakeFiles, batch_id: str) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(locks.held(files, f"forward-{batch_id}", 5.0, once=True))
        except locks.LockBusy:
            raise NotForwarded(f"Batch {batch_id} is being forwarded by another process.") from None
        yield


def _tasks(lake: Lake, batch_id: str) -> Iterator[_Task]:
    tables = ("flat_metadata", "raw_files")
    with connect(lake, tables, within={table: {"batch_id": [batch_id]} for table in tables}) as connection:
        rows = arrow(connection, _TASKS).to_pylist()
    for row in rows:
        place = None if row["etag"] is None else Place(row["uri"], row["etag"], row["size"], row["member"])
        key = (row["StudyInstanceUID"], row["SeriesInstanceUID"], row["SOPInstanceUID"])
        yield _Task(row["object_id"], key, place)


def records(files: LakeFiles, batch_id: str) -> pa.Table:
    """The lines that were written of a batch, in their order."""
    names = [name for name in files.names(f"{FOLDER}/{batch_id}") if name.endswith(".parquet")]
    return pa.concat_tables([RECORD.empty_table(), *(files.get_parquet(name).cast(RECORD) for name in names)])


def _fates(files: LakeFiles, batch_id: str, service: str) -> dict[str, tuple[str, str]]:
    """By object the last outcome at a service, with why."""
    return {
        row["object_id"]: (row["outcome"], why(row))
        for row in records(files, batch_id).to_pylist()
        if row["service"] == service
    }


def why(row: Mapping[str, Any]) -> str:
    """What a line says of why an object is not there, as a code."""
    if row["code"]:
        return str(row["code"])
    reason = f"failure reason {row['reason']}" if row["reason"] is not None else ""
    return reason or (f"status {row['status']}" if row["status"] is not None else "")


@dataclass(frozen=True)
class _Sender:
    files: LakeFiles
    batch_id: str
    client: ServiceClient
    opened: LandingStore
    settings: Settings

    def send(self, task: _Task, is_there: bool) -> dict[str, Any]:
        """Stores one object; the line of it."""
        if is_of_selftest(task.key[0]):
            return self._line(task, Fate.KEPT)
        if is_there:
            return self._line(task, Fate.PRESENT)
        if task.place is None:
            return self._line(task, Fate.UNREAD, code="OBJECT_GONE")
        try:
            with open_object(self.opened, task.place, self.settings.archives) as source:

                def blocks() -> Iterator[bytes]:
                    for start in range(0, source.size, BLOCK):
                        yield source.read(start, min(BLOCK, source.size - start))

                done = store(self.client, task.object_id, blocks, source.size)
        except ObjectError as error:
            return self._line(task, Fate.UNREAD, code=error.code)
        fate = _FATES.get(done.outcome, Fate.REFUSED)
        return self._line(task, fate, status=done.status, reason=done.reason)

    def present(self, study: str) -> set[tuple[str, str, str]]:
        """Keys of the instances of a study that the service has."""
        return set() if is_of_selftest(study) else instances_of(self.client, study)

    def _line(self, task: _Task, fate: Fate, **more: Any) -> dict[str, Any]:
        return {
            "object_id": task.object_id,
            "service": self.client.name,
            "outcome": str(fate),
            "at": datetime.now(UTC),
            **more,
        }


_FATES = {Outcome.STORED: Fate.STORED, Outcome.WARNING: Fate.STORED, Outcome.PRESENT: Fate.PRESENT}


def _send(sender: _Sender, tasks: Sequence[_Task]) -> None:
    """Sends objects, some at the same time, and writes down what became of them, some at a time.

    When the service gives up, what was answered until then is written down all the same. Of objects with one SOP
    Instance UID the first is sent, and the others only when that was refused.
    """
    number = len(sender.files.names(f"{FOLDER}/{sender.batch_id}"))
    there: dict[str, set[tuple[str, str, str]]] = {}
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="forward") as pool:
        for part in _parts(tasks):
            studies = {task.key[0] for task in part}
            there = {one: there[one] if one in there else sender.present(one) for one in sorted(studies)}
            under_way = [pool.submit(sender.send, task, task.key in there[task.key[0]]) for task in part]
            errors = [error for one in under_way if (error := one.exception()) is not None]
            lines = [one.result() for one in under_way if one.exception() is None]
            if lines:
                path = f"{FOLDER}/{sender.batch_id}/{number:06d}.parquet"
                sender.files.put_parquet(path, pa.Table.from_pylist(lines, schema=RECORD))
                number += 1
            if errors:
                raise errors[0]
            done = {line["object_id"] for line in lines if line["outcome"] in DONE}
            for task in part:
                if task.object_id in done:
                    there[task.key[0]].add(task.key)


def _parts(tasks: Sequence[_Task]) -> Iterator[Sequence[_Task]]:
    """Objects that are sent together: no two with one SOP Instance UID."""
    firsts = {task.key: task for task in reversed(tasks)}
    once = [task for task in tasks if firsts[task.key] is task]
    for start in range(0, len(once), WRITTEN_AT_ONCE):
        yield once[start : start + WRITTEN_AT_ONCE]
    yield from ([task] for task in tasks if firsts[task.key] is not task)


def require_forwarding(settings: Settings) -> None:
    """Raises SettingsError when no source is forwarded."""
    if not any(source.forward_to for source in settings.sources):
        raise SettingsError('No source has forward_to. Give one the name of a service: forward_to = "pacs".')
