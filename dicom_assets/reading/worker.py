"""The reading process: takes chunks, runs the function on each, tells after each object how far it is.

Belongs here: the child's side of `engine`; it imports nothing but the standard library until a chunk names its
function, so that it starts fast and holds neither Dagster nor a table engine. Does not belong here: what is done with
a chunk (`judge`), when a process is replaced (`engine`).

Frames in both directions are pickles behind their length (8 bytes, little endian). What libraries print is dropped:
it might quote an object.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import mmap
import os
import pickle
import resource
import signal
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dicom_assets import startup
from dicom_assets.reading.memory import trim

LENGTH = struct.Struct("<Q")
PROGRESS, BASE, PID = 0, 1, 2
"""Places in the shared memory: the object that is being read, the memory in use when the chunk began, who reads."""

IDLE = -1
"""Progress between chunks; during one it is the index of the object that is being read."""

CRASH_STATUS = 70

KEPT = 64 << 20
"""Bytes that a process keeps from chunk to chunk; fetching them anew from the system takes a tenth of its time."""

_RESERVED = 4 << 30  # bytes; an allocator takes a gigabyte at its first use
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Preparing:
    """A chunk without objects; module: what the process is going to need."""

    module: str
    objects: tuple[Any, ...] = ()
    poison: dict[str, str] = field(default_factory=dict)


def prepare(chunk: Preparing, beat: Callable[[int], None]) -> None:
    """What a process does to be ready before there is anything to read: see `readers`."""
    importlib.import_module(chunk.module)


def send(descriptor: int, message: object) -> None:
    """Writes one frame, waiting as long as the pipe is full."""
    body = pickle.dumps(message, protocol=5)
    for part in (LENGTH.pack(len(body)), body):
        view = memoryview(part)
        while view:
            view = view[os.write(descriptor, view) :]


def receive(descriptor: int) -> Any:
    """Reads one frame. Raises EOFError when the other side has closed."""
    (length,) = LENGTH.unpack(_exactly(descriptor, LENGTH.size))
    return pickle.loads(_exactly(descriptor, length))


def _exactly(descriptor: int, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        block = os.read(descriptor, min(1 << 20, length - len(parts)))
        if not block:
            raise EOFError
        parts += block
    return bytes(parts)


def end_with_parent(parent: int) -> None:
    """Ends this process by signal when its parent is gone, even by SIGKILL, where the system can do that (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(0)


def _end_with(lifeline: int) -> None:
    """Ends this process when the other end of a pipe is closed, as it is when whoever holds it ends."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            os.read(lifeline, 1)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def resident(pid: int | str = "self") -> int:
    """Bytes of memory that a process holds; 0 where the system does not tell."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:  # noqa: PTH123 - pathlib costs an import
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


def _limit_memory(growth: int) -> None:
    """Bounds the address space, so that one giant allocation fails at once; memory in use is the engine's to watch.

    Threads and allocators reserve address space that they never use, hence the allowance beside `growth` bytes.
    """
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - pathlib costs an import
            now = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (now + growth + _RESERVED, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _where(error: BaseException) -> str:
    """Type and place of an error, without its message, which might quote an object."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {frame.name}, {os.path.basename(frame.filename)}:{frame.lineno}"  # noqa: PTH119


def main(requests: int, results: int, progress: int, lifeline: int, parent: int, memory: int) -> None:
    """Serves chunks until the request pipe closes. Arguments: inherited descriptors, the parent's process id, bytes."""
    end_with_parent(parent)
    _end_with(lifeline)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    shared = memoryview(mmap.mmap(progress, mmap.PAGESIZE)).cast("q")
    shared[PID] = os.getpid()
    limited, first = False, 0
    gc.disable()
    lean = contextlib.ExitStack()
    lean.enter_context(startup.without(*startup.PIXELS_AND_DOWNLOADS))  # while the function's modules are imported

    def beat(index: int) -> None:
        shared[PROGRESS] = index

    while True:
        try:
            function, chunk = receive(requests)
        except EOFError:
            return
        if not limited and not isinstance(chunk, Preparing):
            # The function's modules are there now; what follows is the objects' own growth.
            lean.close()
            if "pyarrow" in sys.modules:
                startup.arrow_without_pandas()
            _limit_memory(memory)
            first = resident()
            startup.keep_what_is_there()
            limited = True
        shared[BASE] = resident()
        beat(0)
        try:
            answer = (True, function(chunk, beat))
        except MemoryError:
            os._exit(CRASH_STATUS)
        except Exception as error:  # noqa: BLE001 - a fault of the function itself, reported to the parent as one
            answer = (False, _where(error))
        beat(len(chunk.objects))
        send(results, answer)
        del answer, chunk
        beat(IDLE)
        if limited:
            gc.collect()
            if resident() - first > KEPT:
                trim()
