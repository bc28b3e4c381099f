"""The bytes of a chunk's objects, each opened where it lies: files side by side, members of an archive in one go.

Does not belong here: what the bytes say (`kinds`), storages (`landing`).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from itertools import groupby

from dicom_assets.landing.archives import open_members
from dicom_assets.landing.change_windows import PageUnreadable
from dicom_assets.landing.opening import open_store
from dicom_assets.landing.store import LandingStore, ObjectError, ObjectRef, OpenObject
from dicom_assets.reading.change_entries import open_entries
from dicom_assets.reading.tasks import Chunk, ObjectTask
from dicom_assets.schema.codes import Kind
from dicom_assets.storage.byte_ranges import ByteSource

Opened = OpenObject | ByteSource | ObjectError | None
Opening = tuple[ObjectTask, Opened, OpenObject | None]
"""An object, its open bytes or why there are none, and the open archive that they come from."""


def container_of(task: ObjectTask | None) -> str | None:
    """The archive that an object must be read from; None for an object of its own."""
    return None if task is None or task.located.member is None else task.located.uri


def open_all(chunk: Chunk) -> Generator[Opening]:
    """Each object with its open bytes, or with why there are none; files of their own first fetched side by side."""
    store = open_store(chunk.settings)
    located = (task.located for task in chunk.objects)
    for container, group in groupby(located, key=container_of):
        tasks = list(group)
        if container is None:
            yield from ((*one, None) for one in _open_files(store, tasks, chunk))
        elif tasks[0].kind == Kind.CHANGE:
            yield from ((*one, None) for one in _open_entries(store, tasks, chunk))
        else:
            yield from _open_archive(store, tasks, chunk)


def is_settled(chunk: Chunk, task: ObjectTask) -> bool:
    """Whether the outcome of an object is known before it is opened."""
    return task.verdict is not None or task.object_id in chunk.poison


def _open_files(store: LandingStore, tasks: Sequence[ObjectTask], chunk: Chunk) -> Iterator[tuple[ObjectTask, Opened]]:
    wanted = [ObjectRef(t.uri, t.etag, t.size) for t in tasks if not is_settled(chunk, t)]
    opened = store.open_all(wanted, chunk.reading.first_read_bytes)
    for task in tasks:
        if is_settled(chunk, task):
            yield task, None
            continue
        result = next(opened)
        yield task, result
        if not isinstance(result, ObjectError):
            result.close()


def _open_archive(store: LandingStore, tasks: Sequence[ObjectTask], chunk: Chunk) -> Iterator[Opening]:
    wanted = [task for task in tasks if not is_settled(chunk, task)]
    if not wanted:
        yield from ((task, None, None) for task in tasks)
        return
    first = wanted[0]
    container = next(
        store.open_all([ObjectRef(first.uri, first.etag, first.container_size or 0)], chunk.reading.first_read_bytes)
    )
    if isinstance(container, ObjectError):
        yield from ((task, None if is_settled(chunk, task) else container, None) for task in tasks)
        return
    try:
        members = open_members(container, [task.entry for task in wanted], chunk.archives)
        for task in tasks:
            if is_settled(chunk, task):
                yield task, None, container
                continue
            _, member = next(members)
            yield task, changed_since(container) or member, container
    finally:
        container.close()


def _open_entries(
    store: LandingStore, tasks: Sequence[ObjectTask], chunk: Chunk
) -> Iterator[tuple[ObjectTask, Opened]]:
    """Entries of one window file, read together: they are small, and the file is verified once for all of them."""
    wanted = [task for task in tasks if not is_settled(chunk, task)]
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
                failure = changed_since(page)
            except PageUnreadable as error:
                failure = changed_since(page) or ObjectError(error.code, error.detail)
            except OSError as error:
                failure = error if isinstance(error, ObjectError) else ObjectError("READ_FAILED", type(error).__name__)
            finally:
                page.close()
    for task in tasks:
        yield task, None if is_settled(chunk, task) else failure or next(entries)


def changed_since(container: OpenObject) -> ObjectError | None:
    """What says that a container is not what was claimed any more."""
    try:
        container.verify()
    except ObjectError as error:
        return error
    return None
