"""What happens to one chunk of objects: each is opened once, judged, and turned into staged rows.

This is the one place where an object's outcome is decided, and so the one place where every error of reading ends.
It runs in a reading process: it imports neither Dagster nor DuckDB nor delta-rs, it commits nothing, and it returns
Arrow files. Does not belong here: opening (`object_bytes`), how a kind is read (`kinds`), rows (`staged_rows`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from dicom_assets.clinical.chunks import ClinicalUnreadable
from dicom_assets.dicom.header import Memo, Unreadable
from dicom_assets.landing.change_windows import EntryInvalid
from dicom_assets.landing.store import ObjectError, OpenObject
from dicom_assets.reading.kinds import read_object
from dicom_assets.reading.object_bytes import Opened, changed_since, container_of, is_settled, open_all
from dicom_assets.reading.re_arrival import without_erased
from dicom_assets.reading.staged_rows import Rows, compress, part_files, record
from dicom_assets.reading.tasks import Chunk, JudgedChunk, ObjectTask
from dicom_assets.reading.verdicts import Verdict, settled

HELD_BYTES = 8 << 20
"""Bytes of headers that are held before they become rows: those of one object may be megabytes."""


def judge_chunk(chunk: Chunk, beat: Callable[[int], None]) -> JudgedChunk:
    """Opens, judges and stages the objects of a chunk.

    beat: called with an object's position before it is read, so that whoever watches knows where a worker hangs.
    Storage that fails for one object is that object's outcome; nothing is raised for an object.
    """
    rows = Rows()
    memo = Memo()
    opening = open_all(chunk)
    for position in range(len(chunk.objects)):
        beat(position)  # before opening: a nested archive may hang there already
        _, opened, container = next(opening)
        task = chunk.objects[position]
        rows.unseen.append((task, _judge(chunk, task, opened, memo)))
        following = chunk.objects[position + 1] if position + 1 < len(chunk.objects) else None
        if container is None or container_of(task) != container_of(following) or _unseen_bytes(rows) >= HELD_BYTES:
            _record_seen(chunk, container, rows)
        if rows.held_bytes >= HELD_BYTES:
            compress(chunk, rows)
    opening.close()
    beat(len(chunk.objects))  # what goes wrong from here on is no object's fault
    parts = dict(part_files(chunk, rows))
    outcomes = Counter(row["outcome"] for row in rows.ledger)
    return JudgedChunk(chunk.number, parts, dict(outcomes), len(chunk.objects))


def _unseen_bytes(rows: Rows) -> int:
    return sum(verdict.held_bytes for _, verdict in rows.unseen)


def _record_seen(chunk: Chunk, container: OpenObject | None, rows: Rows) -> None:
    """Records what was read, if its container is still what was claimed: a member cannot see that by itself.

    Otherwise none of the members that were read since it was last looked at is what it seemed to be.
    """
    changed = None if container is None else changed_since(container)
    for task, verdict in rows.unseen:
        is_read = not is_settled(chunk, task)
        found = settled(task.kind, changed.code, changed.detail) if changed is not None and is_read else verdict
        record(chunk, task, found, rows)
    rows.unseen = []


def _judge(chunk: Chunk, task: ObjectTask, opened: Opened, memo: Memo) -> Verdict:
    """The outcome of one object; nothing of it is recorded before it was seen to be the same after its reading."""
    poisoned = chunk.poison.get(task.object_id)
    if poisoned is not None:
        return settled(task.kind, poisoned, None)
    if task.verdict is not None:
        return settled(task.kind, task.verdict, task.detail)
    if isinstance(opened, ObjectError):
        return settled(task.kind, opened.code, opened.detail)
    if opened is None:
        raise AssertionError("an object without a verdict was not opened")
    if opened.size > chunk.reading.max_object_bytes:
        return settled(task.kind, "TOO_LARGE", f"more than {chunk.reading.max_object_bytes} bytes")
    try:
        verdict = read_object(chunk, task, opened, memo)
        if chunk.refusals:
            verdict = without_erased(chunk, task, verdict)
        verify = getattr(opened, "verify", None)
        if verify is not None:
            verify()
    except (Unreadable, ClinicalUnreadable, EntryInvalid, ObjectError) as error:
        return settled(task.kind, error.code, error.detail)
    except OSError as error:
        return settled(task.kind, "READ_FAILED", type(error).__name__)
    except MemoryError:
        raise  # this process has grown too far for the next object too; the engine replaces it
    except Exception as error:  # noqa: BLE001 - an object must end in an outcome, whatever its bytes make a parser do
        return settled(task.kind, "UNPARSEABLE", type(error).__name__)
    return verdict
