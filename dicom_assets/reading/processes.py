"""A reading process as its parent sees it: started, given chunks, asked how far it is, ended.

Belongs here: what `multiprocessing` is told. Does not belong here: the child's side (`worker`), when a process is
started, judged and replaced (`engine`).

On Linux processes are forked in some milliseconds by multiprocessing's fork server, which has imported what they need
(`preload`); libraries of this process would not survive a fork. Elsewhere each is started anew.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from typing import Any

from dicom_assets.reading.blame import Job
from dicom_assets.reading.worker import BASE, IDLE, ORIGIN, POSITION, resident, serve

_IS_LINUX = sys.platform == "linux"
_CONTEXT = multiprocessing.get_context("forkserver") if _IS_LINUX else multiprocessing.get_context("spawn")
_STARTING = threading.Lock()
_END_SECONDS = 2.0


class ReadingProcess:
    """A process that reads one chunk at a time.

    connection: readable when an answer has come, or when the process has ended. job: what it has been given.
    """

    def __init__(self, memory_bytes: int) -> None:
        """Starts it. Raises OSError, EOFError."""
        self.connection, theirs = _CONTEXT.Pipe()
        self._shared = _CONTEXT.RawArray("q", [IDLE, 0, 0])
        self._process = _CONTEXT.Process(target=serve, args=(theirs, self._shared, memory_bytes), daemon=True)
        self.job: Job | None = None
        self._seen, self._since, self._first_memory = IDLE, 0.0, 0
        with theirs, _without_command():
            self._process.start()

    @property
    def position(self) -> int:
        """The object of its chunk that it is reading; IDLE when it is at none."""
        return int(self._shared[POSITION])

    @property
    def origin(self) -> int:
        """The process that it was forked from; 0 while it has not begun, and where processes are not forked."""
        return int(self._shared[ORIGIN]) if _IS_LINUX else 0

    def give(self, job: Job) -> None:
        """Hands it a chunk. Raises OSError when it has ended."""
        self.job = job
        self._shared[POSITION], self._shared[BASE] = IDLE, 0
        self._seen, self._since = IDLE, time.monotonic()
        self.connection.send((job.function, job.chunk))

    def answer(self) -> tuple[bool, Any]:
        """Takes what came of the chunk; see `blame.Job`. Raises EOFError, OSError when the process has ended."""
        answer: tuple[bool, Any] = self.connection.recv()
        self.job = None
        self._first_memory = self._first_memory or int(self._shared[BASE])
        return answer

    def seconds_at_object(self) -> float:
        """How long it has been at the same object, as far as this was asked."""
        now = time.monotonic()
        if self.position != self._seen:
            self._seen, self._since = self.position, now
        return now - self._since

    def growth(self) -> int:
        """Bytes that its chunk has added to its memory; 0 while it has not begun."""
        base = int(self._shared[BASE])
        return resident(self._pid) - base if base else 0

    def kept(self) -> int:
        """Bytes that it has kept of all it has read."""
        return resident(self._pid) - self._first_memory

    @property
    def _pid(self) -> int:
        return self._process.pid or 0

    def end(self, *, has_ended: bool) -> int | None:
        """Ends it; its status, or the negative number of the signal that ended it; None when unknown.

        has_ended: its connection says so, and what its end says of itself is waited for.
        """
        if has_ended:
            self._process.join(_END_SECONDS)
        self._process.kill()
        self._process.join()
        self.connection.close()
        status: int | None = self._process.exitcode
        return status


def start_origin() -> None:
    """Starts what reading processes are forked from, which then imports what they need; returns at once.

    The first of them starts it where nobody else has, and says so when it cannot be started. It ends with this process,
    if it has not ended before.
    """
    if _IS_LINUX:
        with _without_command(), suppress(OSError):
            forkserver.ensure_running()


def end_origin(origin: int) -> None:
    """Ends what reading processes were forked from, unless this process has children; the next one to start makes anew.

    It is nothing but memory, 100 MB of modules. origin: see `ReadingProcess`.
    """
    with _STARTING, suppress(ChildProcessError):  # then another engine has ended it
        if not multiprocessing.active_children():
            os.waitid(os.P_PID, origin, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # whether it still is a child of ours
            os.kill(origin, signal.SIGKILL)
            os.waitid(os.P_PID, origin, os.WEXITED | os.WNOWAIT)  # multiprocessing asks how it ended, and makes anew


@contextmanager
def _without_command() -> Iterator[None]:
    """Keeps multiprocessing from running this process's main module in the new one, as it does for functions in it.

    That is a command: it would import Dagster there, at every start.
    """
    with _STARTING:
        _CONTEXT.set_forkserver_preload(["dicom_assets.reading.preload"])
        main: dict[str, Any] = vars(sys.modules["__main__"])
        kept: dict[str, Any] = {name: main[name] for name in ("__spec__", "__file__") if name in main}
        try:
            main["__spec__"] = None
            main.pop("__file__", None)
            yield
        finally:
            main.update(kept)
