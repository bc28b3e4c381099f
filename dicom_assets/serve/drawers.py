"""The processes in which frames are decoded and drawn, as the server sees them.

Belongs here: starting them, handing out jobs, ending those that take too long. Does not belong here: their side
(`drawer`).

There are none before somebody asks for a decoded frame. A process ends with the server, since nothing more comes.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import IO, Any, cast

from dicom_assets.serve.decoding import Undecodable
from dicom_assets.serve.drawer import DONE, HEAD
from dicom_assets.serve.questions import Questions

AT_ONCE = 2
JOB_SECONDS = 20.0
GRACE_SECONDS = 2.0
"""That a job may still take when nobody waits for it any more: whoever scrolls leaves many behind, and to begin a
process anew takes longer than most of them."""

_ANSWER_MOST = 1 << 31


class Drawers:
    """Up to AT_ONCE processes, each with one job at a time. Threads share it."""

    def __init__(self) -> None:
        """Starts none."""
        self._free: queue.LifoQueue[_Process | None] = queue.LifoQueue()
        self._all: list[_Process] = []
        for _ in range(AT_ONCE):
            self._free.put(None)
        weakref.finalize(self, _end, self._all)

    def run(self, questions: Questions, job: str, arguments: Sequence[Any]) -> bytes:
        """What comes of a job. Raises Undecodable, also when the process that does it ends or takes too long.

        questions: by which it is broken off when nobody waits any more. Blocks.
        """
        process = self._free.get()
        try:
            if process is None or process.has_ended:
                process = _Process()
                self._all[:] = [one for one in self._all if not one.has_ended] + [process]
            with questions.broken_off_by(process.kill_soon):
                return process.run(job, arguments)
        finally:
            self._free.put(process)


class _Process:
    """A drawer that is running."""

    def __init__(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "dicom_assets.serve.drawer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        self._hurrying = threading.Lock()
        self._timers: list[threading.Timer] = []

    @property
    def has_ended(self) -> bool:
        return self._child.poll() is not None

    def run(self, job: str, arguments: Sequence[Any]) -> bytes:
        jobs, answers = cast(IO[bytes], self._child.stdin), cast(IO[bytes], self._child.stdout)
        with self._hurrying:
            self._timers = [_started(JOB_SECONDS, self._child.kill)]
        try:
            pickle.dump((job, tuple(arguments)), jobs)
            jobs.flush()
            status, length = HEAD.unpack(answers.read(HEAD.size))
            answer = answers.read(min(length, _ANSWER_MOST))
            if len(answer) != length:
                raise EOFError
        except (OSError, ValueError, EOFError, struct.error):  # the process has ended, or was ended
            self.end()
            raise Undecodable("the decoder has crashed over it, or takes too long") from None
        finally:
            with self._hurrying:
                for timer in self._timers:
                    timer.cancel()
                self._timers = []
        if status != DONE:
            raise Undecodable(answer.decode())
        return answer

    def kill_soon(self) -> None:
        """Ends it from another thread, unless its job is done by then; the thread that waits for its answer sees it."""
        with self._hurrying:
            if len(self._timers) == 1:
                self._timers.append(_started(GRACE_SECONDS, self._child.kill))

    def end(self) -> None:
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            with contextlib.suppress(OSError, ValueError):
                cast(IO[bytes], pipe).close()


def _started(seconds: float, what: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, what)
    timer.daemon = True
    timer.start()
    return timer


def _end(processes: list[_Process]) -> None:
    for one in processes:
        one.end()
