"""Questions to the lake that block: so many side by side, so long at most, and none that outlives who asked it.

Belongs here: threads, turns, the time limit, and stopping what nobody waits for. Does not belong here: what is asked.

What a body of megabytes is made from takes turns of its own, so that no search waits behind it, and few of them, since
they share processors and the interpreter with the searches. It has threads of its own, too, which give way to others
where the system lets a single thread do so (Linux).

DuckDB knows of no client that leaves. So each connection that a question opens is known while it is open, and
interrupted when the time is over or the request is gone; the thread then ends with the query, within milliseconds.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from contextvars import copy_context
from typing import TypeVar

import anyio
import anyio.to_thread
import duckdb

from dicom_assets.serve.problems import Refusal
from dicom_assets.serve.turns import Turns

T = TypeVar("T")

AT_ONCE = 8
"""Questions that are answered side by side; others wait for their turn."""

BODIES_AT_ONCE = 2
"""Questions for bodies that are answered side by side, besides."""

SHORT_AT_ONCE, SHORT_BODIES_AT_ONCE = 2, 1
"""Of these, such as have not lasted yet (`turns`)."""

_NICE = 5
"""By how much threads for bodies give way. One that waits for a processor may have the interpreter: not by too much."""

_AGAIN_SECONDS = 0.02
"""An interrupt that comes between two queries of a question meets none of them: it is repeated."""


class Stopped(Exception):
    """Nobody waits for the answer any more."""


Interrupt = Callable[[], None]
"""Breaks off what a question does at the moment; called from another thread, perhaps more than once."""


class _Asked:
    """One question, its thread and what it is doing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: list[Interrupt] = []
        self._stopped = False
        self.is_running = False

    def begin(self) -> None:
        with self._lock:
            self._check()
            self.is_running = True

    def enter(self, interrupt: Interrupt) -> None:
        with self._lock:
            self._check()
            self._under_way.append(interrupt)

    def leave(self, interrupt: Interrupt) -> None:
        with self._lock:
            self._under_way.remove(interrupt)

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            for interrupt in self._under_way:
                interrupt()

    def _check(self) -> None:
        if self._stopped:
            raise Stopped


class Questions:
    """The questions to one lake. seconds: how long one may take, waiting for its turn included."""

    def __init__(
        self,
        seconds: float = math.inf,
        short: int = SHORT_AT_ONCE,
        short_bodies: int = SHORT_BODIES_AT_ONCE,
    ) -> None:
        """No thread is there before there is a question. short, short_bodies: turns that have not lasted yet."""
        self.seconds = seconds
        self._turns = Turns(AT_ONCE, short)
        self._turns_for_bodies = Turns(BODIES_AT_ONCE, short_bodies)
        self._threads = anyio.CapacityLimiter(math.inf)  # whose turn it is has a thread, until that has ended
        self._threads_for_bodies = ThreadPoolExecutor(BODIES_AT_ONCE, "bodies", _give_way)
        self._mine = threading.local()

    async def ask(self, question: Callable[[], T]) -> T:
        """The answer to a question that blocks, found in a thread of its own.

        Raises Refusal (503) when it takes too long, or too much memory. Whoever is cancelled while it waits leaves
        nothing behind: queries are interrupted, and the thread has ended when this does. A connection may stay open
        behind an answer, for the next question to go on with.
        """
        return await self._ask(question, self._turns, self._in_thread)

    async def ask_for_body(self, question: Callable[[], T]) -> T:
        """As `ask`, for what a large answer is made from."""
        return await self._ask(question, self._turns_for_bodies, self._in_thread_for_bodies)

    async def _in_thread(self, run: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(run, abandon_on_cancel=True, limiter=self._threads)

    async def _in_thread_for_bodies(self, run: Callable[[], T]) -> T:
        loop, context = asyncio.get_running_loop(), copy_context()
        return await loop.run_in_executor(self._threads_for_bodies, lambda: context.run(run))

    async def _ask(
        self, question: Callable[[], T], turns: Turns, in_thread: Callable[[Callable[[], T]], Awaitable[T]]
    ) -> T:
        asked = _Asked()

        def run() -> T:
            asked.begin()
            self._mine.asked = asked
            try:
                return question()
            except duckdb.OutOfMemoryException:  # headers of a hundred megabytes, several at a time
                raise Refusal(
                    503, "More memory is needed than answers may take at the moment.", {"Retry-After": "5"}
                ) from None
            finally:
                self._mine.asked = None
                asked.is_running = False

        has_turn = False
        with anyio.move_on_after(self.seconds):
            async with turns.turn():
                has_turn = True
                try:
                    return await in_thread(run)
                except BaseException:
                    with anyio.CancelScope(shield=True):
                        asked.stop()
                        while asked.is_running:
                            await anyio.sleep(_AGAIN_SECONDS)
                            asked.stop()
                    raise
        raise self._too_late(has_turn)

    def _too_late(self, had_turn: bool) -> Refusal:
        if had_turn:
            return Refusal(
                503, f"This question takes longer than {self.seconds:g} seconds. Ask for less: name a study, or a day."
            )
        return Refusal(503, "Too much is asked of the lake at the moment.", {"Retry-After": "5"})

    @contextmanager
    def broken_off_by(self, interrupt: Interrupt) -> Iterator[None]:
        """Within it, `interrupt` is called when nobody waits for this thread's question any more. Raises Stopped."""
        asked: _Asked | None = getattr(self._mine, "asked", None)
        if asked is None:
            yield
            return
        asked.enter(interrupt)
        try:
            yield
        finally:
            asked.leave(interrupt)

    @contextmanager
    def using(self, connection: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection of the question of this thread, closed behind it. Raises Stopped when nobody waits any more."""
        with closing(connection), self.broken_off_by(connection.interrupt):
            yield connection


def _give_way() -> None:
    """Lets the thread that calls it give way to others."""
    if sys.platform == "linux":  # where it is no matter of the whole process
        os.nice(_NICE)
