"""Reading processes: chunks in, results out in the same order, and no object can take the batch down.

Belongs here: handing chunks to processes, watching and replacing these. Does not belong here: what is done with a chunk
(`judge`), what the end of a process means for an object (`blame`), one process (`processes`).

At most three chunks for each process are on the way, so memory does not grow with the batch. A process is started when
a chunk waits for one, so a small batch starts a single process, and ends when there has been none for a second; after
many chunks so does what they are forked from. They end with their parent, even by SIGKILL.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from dicom_assets.reading.blame import Job, reason_of
from dicom_assets.reading.processes import ReadingProcess, end_origin
from dicom_assets.reading.worker import IDLE
from dicom_assets.settings import ReadingLimits

Result = TypeVar("Result")

ADDRESS_VARIABLE = "DICOM_ASSETS_DASK"
"""Names the Dask scheduler that reads instead of processes of this machine; see `dask_engine`."""

Beat = Callable[[int], None]
"""What the function calls with the index of the object that it begins to read."""

IN_FLIGHT = 3
"""Chunks on the way for each process: one being read, the others waiting to be read or to be taken."""

IDLE_SECONDS = 1.0
"""How long processes without a chunk are kept: what they hold is memory that publishing needs, and a fresh one starts
in some milliseconds."""

MANY_CHUNKS = 50
"""Chunks after which what the processes were forked from ends with them: publishing so many objects takes its memory.
After fewer it stays: to start it anew takes most of a second of one core."""

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
    """Runs a function on chunks: in processes of this machine or on a cluster."""

    def run(self, function: Callable[[Any, Beat], Result], chunks: Iterable[Any]) -> Generator[Result]:
        """What the function returns for each chunk, in order of the chunks.

        A chunk that was divided at an object gives a result for each of its parts, in their order.

        `function(chunk, beat)` is importable by name and calls `beat(i)` before it reads object i. Whoever breaks off
        closes the generator. Raises EngineFailed.
        """
        ...


def cluster_address() -> str | None:
    """Where the Dask scheduler is that reads, if one is named."""
    return os.environ.get(ADDRESS_VARIABLE) or None


def worker_count(limits: ReadingLimits) -> int:
    """Number of reading processes: as set, or one for each core that this process may use."""
    if limits.workers:
        return limits.workers
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class ProcessEngine:
    """Runs chunks in processes that are watched and replaced. They stay for a run that follows at once."""

    def __init__(self, limits: ReadingLimits) -> None:
        """Nothing is started before the first chunk."""
        self._limits = limits
        self._count = worker_count(limits)
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[Job | EngineFailed] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._one_run_at_a_time = threading.Lock()
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
        """What the function returns for each chunk, in order; see ReadingEngine. A second run waits for the first."""
        with self._one_run_at_a_time:
            yield from self._run(function, chunks)

    def _run(self, function: Callable[[Any, Beat], Result], chunks: Iterable[Any]) -> Generator[Result]:
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
        """The thread that starts and watches the processes."""
        supervisor = _Supervisor(self._limits, self._count, inbox, outbox, self._wake_read)
        fault: str | None = "the thread that serves reading processes has broken off"
        try:
            supervisor.loop()
            fault = None
        except (OSError, EOFError) as error:
            fault = f"reading processes cannot be served: {type(error).__name__}"
        finally:
            if fault is not None:  # whoever waits for an answer is told, whatever happened
                outbox.put(EngineFailed(fault))
            supervisor.close()


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
        self._processes: list[ReadingProcess] = []
        self._answered = 0
        self._wake = wake

    def close(self) -> None:
        """Ends everything."""
        for process in list(self._processes):
            self._end(process)

    def loop(self) -> None:
        """Serves until the inbox says None."""
        tick = min(_TICK_SECONDS, self._limits.object_seconds / 4)
        while self._take():
            self._assign()
            by_connection = {process.connection: process for process in self._processes}
            is_busy = any(process.job for process in self._processes)
            found = wait([self._wake, *by_connection], tick if is_busy else IDLE_SECONDS if by_connection else None)
            if not found and not is_busy:
                self._rest()
            for ready in found:
                if isinstance(ready, Connection):
                    self._receive(by_connection[ready])
                else:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake, 4096)
            self._watch()

    def _rest(self) -> None:
        """Ends the processes, and after many chunks what they were forked from."""
        origin = self._processes[-1].origin
        self.close()
        if self._answered >= MANY_CHUNKS and origin:
            end_origin(origin)
        self._answered = 0

    def _take(self) -> bool:
        with contextlib.suppress(queue.Empty):
            while True:
                job = self._inbox.get_nowait()
                if job is None:
                    return False
                self._waiting.append(job)
        return True

    def _process_for(self, job: Job) -> ReadingProcess | None:
        """A process that may read a chunk now, started where there is none; None while there is none to be had."""
        busy = [p.job for p in self._processes if p.job is not None]
        if any(one.must_be_quiet for one in busy) or (busy and job.must_be_quiet):
            return None
        idle = [p for p in self._processes if p.job is None]
        found = next(iter(idle), None) if not job.is_lone else None  # alone is in a process that has read nothing
        if found is None and idle and len(self._processes) >= self._count:
            self._end(idle[0])  # makes room for a fresh one
        if found is None and len(self._processes) < self._count:
            found = ReadingProcess(self._limits.worker_memory_bytes)
            self._processes.append(found)
        return found

    def _assign(self) -> None:
        while self._waiting:
            process = self._process_for(self._waiting[0])
            if process is None:
                return
            try:
                process.give(self._waiting.popleft())
            except OSError:
                self._lost(process, None)

    def _receive(self, process: ReadingProcess) -> None:
        """Takes an answer; the end of the connection is the end of the process."""
        job = process.job
        try:
            answer = process.answer()
        except (EOFError, OSError):
            self._lost(process, None)
            return
        assert job is not None
        job.answer = answer
        self._outbox.put(job)
        self._answered += 1
        # One that has kept much of what it read is replaced, between two chunks and without blame.
        if process.kept() > self._limits.worker_memory_bytes // 2:
            self._end(process)

    def _watch(self) -> None:
        """Ends a process whose object takes too long or too much memory."""
        for process in [process for process in self._processes if process.job is not None]:
            allowed = self._limits.object_seconds + (_START_SECONDS if process.position == IDLE else 0.0)
            if process.seconds_at_object() > allowed:
                self._lost(process, "PARSER_TIMEOUT")
            elif process.growth() > self._limits.worker_memory_bytes:
                self._lost(process, "PARSER_CRASH")

    def _end(self, process: ReadingProcess, *, has_ended: bool = False) -> int | None:
        self._processes.remove(process)
        return process.end(has_ended=has_ended)

    def _lost(self, process: ReadingProcess, code: str | None) -> None:
        """Replaces a process. code: why this engine ends it; None when it has ended by itself.

        What that means for the object that was being read, `Job.lost` says.
        """
        index, job = process.position, process.job
        status = self._end(process, has_ended=code is None)
        if job is None:
            return
        is_at_object = 0 <= index < len(job.chunk.objects)
        again = job.lost(index if is_at_object else None, code or reason_of(status))
        if not again:
            self._outbox.put(job)
        self._waiting.extendleft(reversed(again))
