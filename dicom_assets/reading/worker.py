"""What a reading process does: it takes chunks, runs the function on each, and tells before each object that it begins.

Belongs here: the child's side of `processes`. Does not belong here: what is done with a chunk (`judge`, `listing`),
when a process is replaced (`engine`).

What libraries print is dropped: it might quote an object.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import MutableSequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from dicom_assets.reading.memory import trim

try:
    import fcntl
    import resource
except ModuleNotFoundError:  # not Unix, where no lake is written and so nothing is read into one (storage.file_locks)
    pass

POSITION, BASE, ORIGIN = 0, 1, 2
"""Places in the shared memory: the object that is being read, the memory in use when the chunk began, and the process
that this one was forked from."""

IDLE = -1
"""Position between chunks; during one it is the index of the object that is being read."""

CRASH_STATUS = 70

KEPT = 64 << 20
"""Bytes that a process keeps from chunk to chunk; fetching them anew from the system takes a tenth of its time."""

_RESERVED = 4 << 30  # bytes; an allocator takes a gigabyte at its first use


def serve(connection: Connection, shared: MutableSequence[int], memory_bytes: int) -> None:
    """Serves chunks until the other side of the connection closes.

    shared: see POSITION, BASE. memory_bytes: that reading may add to what the process has at its first chunk.
    """
    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    _print_nothing()
    shared[ORIGIN] = os.getppid()
    at_first = 0

    def beat(index: int) -> None:
        shared[POSITION] = index

    while True:
        try:
            function, chunk = connection.recv()
        except EOFError:
            return
        if not at_first:  # the function's modules are there now; what follows is the objects' own growth
            _limit_memory(memory_bytes)
            at_first = resident()
        shared[BASE] = resident()
        beat(0)
        answer: tuple[bool, Any]
        try:
            answer = (True, function(chunk, beat))
        except MemoryError:
            os._exit(CRASH_STATUS)
        except Exception as error:  # noqa: BLE001 - a fault of the function itself, reported to the parent as one
            answer = (False, _where(error))
        beat(len(chunk.objects))
        connection.send(answer)
        del answer, chunk
        beat(IDLE)
        if resident() - at_first > KEPT:
            trim()


def _end_with_parent() -> None:
    """Ends this process when its parent has ended, even by SIGKILL, and whatever holds the interpreter up meanwhile."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    if sys.platform != "linux":
        threading.Thread(target=lambda: (parent.join(), os._exit(0)), daemon=True).start()
        return
    # The pipe that the parent holds the other end of: when that is closed the system sends SIGIO, which ends a process.
    fcntl.fcntl(parent.sentinel, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(parent.sentinel, fcntl.F_SETFL, fcntl.fcntl(parent.sentinel, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([parent.sentinel], [], [], 0)[0]:
        os._exit(0)


def _print_nothing() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def resident(pid: int | str = "self") -> int:
    """Bytes of memory that a process holds; 0 where the system does not tell."""
    return _pages(pid, 1)


def _pages(pid: int | str, column: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[column]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


def _limit_memory(growth: int) -> None:
    """Bounds the address space, so that one giant allocation fails at once; memory in use is the engine's to watch.

    Threads and allocators reserve address space that they never use, hence the allowance beside `growth` bytes.
    """
    now = _pages("self", 0)
    if now:
        with contextlib.suppress(ValueError, OSError):
            limit = resource.getrlimit(resource.RLIMIT_AS)[1]
            resource.setrlimit(resource.RLIMIT_AS, (now + growth + _RESERVED, limit))


def _where(error: BaseException) -> str:
    """Type and place of an error, without its message, which might quote an object."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {frame.name}, {Path(frame.filename).name}:{frame.lineno}"
