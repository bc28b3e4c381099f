"""Reading processes: chunks in, results out in the same order, and no object can take the batch down.

Belongs here: starting, watching and replacing processes, and telling why one ended. Does not belong here: what is done
with a chunk (`judge`), what the end of a process means for an object (`job`), the child's side (`worker`).

Processes are never forked from this one, whose libraries do not survive a fork, but from a `nursery`, or started
fresh where that is not possible. They end with their parent, even by SIGKILL. At most three chunks for each process are
on the way, so memory does not grow with the batch. A process is started when a chunk waits for one, so a small batch
starts a single process.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import queue
import selectors
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self, TypeVar

from dicom_assets.reading.blame import Job, reason_of
from dicom_assets.reading.nursery import IS_POSSIBLE, Nursery, child_command, child_environment
from dicom_assets.reading.worker import BASE, IDLE, LENGTH, PID, PROGRESS, Preparing, resident
from dicom_assets.settings import ReadingLimits

Result = TypeVar("Result")

ADDRESS_VARIABLE = "DICOM_ASSETS_DASK"
"""Names the Dask scheduler that reads instead of processes of this machine; see `dask_engine`."""

Beat = Callable[[int], None]
"""What the function calls with the index of the object that it begins to read."""

IN_FLIGHT = 3
"""Chunks on the way for each process: one being read, the others waiting to be read or to be taken."""

_TICK_SECONDS = 0.05
_START_SECONDS = 60.0


class Named(Protocol):
    """An object of a chunk."""

    @property
    def object_id(self) -> str:
        """Its name."""
        ...


class Chunk(Protocol):
    """Some objects that are read together: a dataclass that can be pickled.

    poison: reason code by object_id for objects that must not be read, since reading them alone ended a process, too:
    PARSER_CRASH, PARSER_TIMEOUT or READER_KILLED. The engine replaces it; the function honours it.
    """

    @property
    def objects(self) -> Sequence[Named]:
        """The objects in reading order."""
        ...

    @property
    def poison(self) -> Mapping[str, str]:
        """Reason code by object_id."""
        ...


class EngineFailed(RuntimeError):
    """The function itself failed, or processes end outside any object. The message names no object."""


class ReadingEngine(Protocol):
    """Runs a function on chunks: in processes, in this process, or on a cluster."""

    def run(self, function: Callable[[Any, Beat], Result], chunks: Iterable[Any]) -> Generator[Result]:
        """What the function returns for each chunk, in order of the chunks.

        A chunk that was divided at an object gives a result for each of its parts, in their order.

        `function(chunk, beat)` is importable by name and calls `beat(i)` before it reads object i. Whoever breaks off
        closes the generator. Raises EngineFailed.
        """
        ...


class InlineEngine:
    """Runs everything in this process, without limits on time or memory: for tests and trusted input."""

    def run(self, function: Callable[[Any, Beat], Result], chunks: Iterable[Any]) -> Generator[Result]:
        """What the function returns for each chunk, in order."""
        for chunk in chunks:
            yield function(chunk, _no_beat)


def _no_beat(index: int) -> None:
    return


def cluster_address(environment: Mapping[str, str] = os.environ) -> str | None:
    """Where the Dask scheduler is that reads, if one is named."""
    return environment.get(ADDRESS_VARIABLE) or None


def worker_count(limits: ReadingLimits) -> int:
    """Number of reading processes: as set, or one for each core that this process may use."""
    if limits.workers:
        return limits.workers
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(slots=True)
class _Process:
    """One reading process and the parent's ends of its pipes.

    origin: where it was forked, or itself. is_fresh: it has read no object yet.
    """

    origin: Nursery | subprocess.Popen[bytes]
    requests: int
    results: int
    lifeline: int
    shared: memoryview
    job: Job | None = None
    outgoing: memoryview = field(default_factory=lambda: memoryview(b""))
    incoming: bytearray = field(default_factory=bytearray)
    seen: int = IDLE
    since: float = 0.0
    first_memory: int = 0
    is_fresh: bool = True

    @property
    def pid(self) -> int:
        """Its process id; 0 while it has not begun."""
        return int(self.shared[PID])

    def close(self) -> int | None:
        """Ends the process at once, if it has not ended by itself.

        Returns how it ended: its status, or the negative number of the signal that ended it first; None when unknown.
        """
        status: int | None = None
        if isinstance(self.origin, subprocess.Popen):
            self.origin.kill()
            status = self.origin.wait()
        elif self.pid and self.origin.is_alive:
            # Even when it has ended by itself nobody else has its id before the nursery is told.
            os.kill(self.pid, signal.SIGKILL)
            status = self.origin.ended(self.pid)
        for descriptor in (self.requests, self.results, self.lifeline):
            os.close(descriptor)
        return status


class ProcessEngine:
    """Runs chunks in processes that are watched and replaced. Processes stay for the next run until `close`."""

    def __init__(self, limits: ReadingLimits) -> None:
        """Nothing is started before the first chunk."""
        self._limits = limits
        self._count = worker_count(limits)
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[Job | EngineFailed] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends all processes. The engine may be used again afterwards."""
        if self._thread is not None:
            self._inbox.put(None)
            os.write(self._wake_write, b"x")
            self._thread.join()
            self._thread = None
            self._inbox, self._outbox = queue.SimpleQueue(), queue.SimpleQueue()

    def run(self, function: Callable[[Any, Beat], Result], chunks: Iterable[Any]) -> Generator[Result]:
        """What the function returns for each chunk, in order; see ReadingEngine. One run at a time."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._serve, args=(self._inbox, self._outbox), name="reading-engine", daemon=True
            )
            self._thread.start()
        pending: deque[Job] = deque()
        source = iter(chunks)
        exhausted = False
        complete = False
        try:
            while True:
                while not exhausted and len(pending) < IN_FLIGHT * self._count:
                    chunk = next(source, None)
                    if chunk is None:
                        exhausted = True
                        break
                    job = Job(function, chunk)
                    pending.append(job)
                    self._inbox.put(job)
                    os.write(self._wake_write, b"x")
                if not pending:
                    break
                while not pending[0].is_answered:
                    done = self._outbox.get()
                    if isinstance(done, EngineFailed):
                        raise done
                for sound, value in pending.popleft().answers():
                    if not sound:
                        raise EngineFailed(f"reading failed: {value}")
                    yield value
            complete = True
        finally:
            if not complete:  # the caller stopped early or something failed: what is on the way is void
                self.close()

    def _serve(self, inbox: queue.SimpleQueue[Job | None], outbox: queue.SimpleQueue[Job | EngineFailed]) -> None:
        """The thread that watches the processes. It starts them too: on Linux they end with this thread."""
        supervisor = _Supervisor(self._limits, self._count, inbox, outbox, self._wake_read)
        fault: str | None = "the thread that serves reading processes has broken off"
        try:
            supervisor.loop()
            fault = None
        except OSError as error:
            fault = f"reading processes cannot be served: {type(error).__name__}"
        finally:
            if fault is not None:  # whoever waits for an answer is told, whatever happened
                outbox.put(EngineFailed(fault))
            supervisor.close()


def _shared_page() -> BinaryIO:
    """A file of one page for a process and this one to share.

    It is memory where the system has such files. On a disk its place is taken at once: a page of a file with a hole is
    a bus error when the disk is full by the time it is written to.
    """
    if hasattr(os, "memfd_create"):
        file = os.fdopen(os.memfd_create("progress"), "w+b", buffering=0)
        file.truncate(mmap.PAGESIZE)
        return file
    whole = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - the caller closes it
    whole.write(bytes(mmap.PAGESIZE))
    return whole


class _Supervisor:
    """Event loop over the processes of one engine."""

    def __init__(
        self,
        limits: ReadingLimits,
        count: int,
        inbox: queue.SimpleQueue[Job | None],
        outbox: queue.SimpleQueue[Job | EngineFailed],
        wake: int,
    ) -> None:
        self._limits = limits
        self._count = count
        self._inbox = inbox
        self._outbox = outbox
        self._waiting: deque[Job] = deque()
        self._processes: list[_Process] = []
        self._nursery: Nursery | None = None
        self._wake = wake
        self._selector = selectors.DefaultSelector()
        self._selector.register(wake, selectors.EVENT_READ)

    def close(self) -> None:
        """Ends everything."""
        begun = all(process.pid for process in self._processes)
        for process in self._processes:
            process.close()
        self._processes.clear()
        if self._nursery is not None:
            self._nursery.close(at_once=not begun)
        self._selector.close()

    def loop(self) -> None:
        """Serves until the inbox says None."""
        tick = min(_TICK_SECONDS, self._limits.object_seconds / 4)
        while True:
            if not self._take():
                return
            self._assign()
            busy = any(process.job for process in self._processes)
            for key, events in self._selector.select(tick if busy else None):
                process = key.data
                if process is None:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake, 4096)
                elif process in self._processes:
                    if events & selectors.EVENT_READ:
                        self._read(process)
                    elif events & selectors.EVENT_WRITE:
                        self._write(process)
            self._watch()

    def _take(self) -> bool:
        with contextlib.suppress(queue.Empty):
            while True:
                job = self._inbox.get_nowait()
                if job is None:
                    return False
                self._waiting.append(job)
        return True

    def _process_for(self, job: Job) -> _Process | None:
        """A process that may read a chunk now, started where there is none; None while there is none to be had."""
        busy = [p.job for p in self._processes if p.job is not None]
        if any(one.must_be_quiet for one in busy) or (busy and job.must_be_quiet):
            return None
        idle = [p for p in self._processes if p.job is None]
        found = next((p for p in idle if p.is_fresh or not job.is_lone), None)
        if found is None and idle and len(self._processes) >= self._count:
            self._forget(idle[0])  # makes room for a fresh one
        if found is None and len(self._processes) < self._count:
            found = self._start(job)
        return found

    def _assign(self) -> None:
        while self._waiting:
            process = self._process_for(self._waiting[0])
            if process is None:
                return
            job = self._waiting.popleft()
            process.is_fresh = process.is_fresh and isinstance(job.chunk, Preparing)
            body = pickle.dumps((job.function, job.chunk), protocol=5)
            process.job, process.seen, process.since = job, IDLE, time.monotonic()
            process.shared[PROGRESS], process.shared[BASE] = IDLE, 0
            process.outgoing = memoryview(LENGTH.pack(len(body)) + body)
            self._write(process)

    def _start(self, job: Job) -> _Process:
        request_read, request_write = os.pipe()
        result_read, result_write = os.pipe()
        life_read, life_write = os.pipe()
        memory = self._limits.worker_memory_bytes
        with _shared_page() as file:
            shared = memoryview(mmap.mmap(file.fileno(), mmap.PAGESIZE)).cast("q")
            child = (request_read, result_write, file.fileno(), life_read)
            origin: Nursery | subprocess.Popen[bytes]
            if IS_POSSIBLE:
                if self._nursery is None or not self._nursery.is_alive:
                    self._nursery = Nursery()
                origin = self._nursery
                module = getattr(job.chunk, "module", job.function.__module__)
                origin.start(module, child, memory)
            else:
                numbers = ", ".join(map(str, (*child, os.getpid(), memory)))
                origin = subprocess.Popen(
                    child_command(f"worker; worker.main({numbers})"),
                    pass_fds=child,
                    env=child_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
        for descriptor in (request_read, result_write, life_read):
            os.close(descriptor)
        os.set_blocking(request_write, False)
        os.set_blocking(result_read, False)
        process = _Process(origin, request_write, result_read, life_write, shared)
        self._processes.append(process)
        self._selector.register(result_read, selectors.EVENT_READ, process)
        return process

    def _write(self, process: _Process) -> None:
        """Sends what is left of a chunk; goes on when the pipe has room again."""
        try:
            while process.outgoing:
                process.outgoing = process.outgoing[os.write(process.requests, process.outgoing) :]
        except BlockingIOError:
            with contextlib.suppress(KeyError):
                self._selector.register(process.requests, selectors.EVENT_WRITE, process)
            return
        except BrokenPipeError:
            pass  # the process has ended; reading its results will tell
        with contextlib.suppress(KeyError):
            self._selector.unregister(process.requests)

    def _read(self, process: _Process) -> None:
        """Takes what has come; a whole frame ends the chunk, the end of the pipe is the end of the process."""
        while True:
            try:
                block = os.read(process.results, 1 << 20)
            except BlockingIOError:
                return
            if not block:
                self._lost(process, None)
                return
            process.incoming += block
            if len(process.incoming) < LENGTH.size:
                continue
            (length,) = LENGTH.unpack_from(process.incoming)
            if len(process.incoming) == LENGTH.size + length:
                job = process.job
                assert job is not None
                answer = pickle.loads(memoryview(process.incoming)[LENGTH.size :])
                process.incoming, process.job = bytearray(), None
                job.answer = answer
                self._outbox.put(job)
                self._renew(process)
                return

    def _renew(self, process: _Process) -> None:
        """Ends a process that has kept much of what it read, between two chunks and without blame."""
        process.first_memory = process.first_memory or process.shared[BASE]
        if resident(process.pid) - process.first_memory > self._limits.worker_memory_bytes // 2:
            self._forget(process)

    def _watch(self) -> None:
        """Ends a process whose object takes too long or too much memory."""
        now = time.monotonic()
        for process in list(self._processes):
            if process.job is None:
                continue
            index, base = process.shared[PROGRESS], process.shared[BASE]
            if index != process.seen:
                process.seen, process.since = index, now
            allowed = self._limits.object_seconds + (_START_SECONDS if index == IDLE else 0.0)
            if now - process.since > allowed:
                self._lost(process, "PARSER_TIMEOUT")
            elif base and resident(process.pid) - base > self._limits.worker_memory_bytes:
                self._lost(process, "PARSER_CRASH")

    def _forget(self, process: _Process) -> int | None:
        """Ends a process and everything that waits for it; how it ended, see `_Process.close`."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(process.requests)
        self._selector.unregister(process.results)
        self._processes.remove(process)
        return process.close()

    def _lost(self, process: _Process, code: str | None) -> None:
        """Replaces a process. code: why this engine ends it; None when it has ended by itself.

        What that means for the object that was being read, `Job.lost` says.
        """
        index, job = process.shared[PROGRESS], process.job
        origin = process.origin
        if not process.pid and isinstance(origin, Nursery):
            origin.close(at_once=True)  # it does not fork; those that it has forked come here next
        blameless = isinstance(origin, Nursery) and not origin.is_alive
        status = self._forget(process)
        if job is None:
            return
        named = not blameless and 0 <= index < len(job.chunk.objects)
        again = job.lost(index if named else None, code or reason_of(status))
        if not again:
            self._outbox.put(job)
        self._waiting.extendleft(reversed(again))
