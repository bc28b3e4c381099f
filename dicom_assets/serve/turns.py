"""Turns at what only so many may do side by side, handed out client by client.

Belongs here: whose turn it is, and who counts as one client. Does not belong here: what is done in a turn
(`questions`), how much somebody may ask at all (`limits`).

Hundreds of questions of one client wait behind each other, and not in front of another one's: clients that wait get a
turn in rotation, and of the short turns one is always left for another client. All that comes from one caller, or
address, is one client, until a connection has taken an answer whole: from then on it is a client by itself. So
whoever asks and goes, again and again by new connections, is one client however often it comes.

Questions that take milliseconds are answered sooner one after the other than side by side, since they share the
interpreter; behind those that take long nobody should wait. So few begin side by side, and a turn that has lasted no
longer counts among these. The same holds for requests as a whole: each takes the loop and the interpreter for
milliseconds before and behind its questions. Those of connections that have taken no answer yet, of which hundreds may
come at once, begin one after the other, in the time that other ones leave: not in the moment between an answer and the
next question of the same client, which would meet them.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import NamedTuple


class Client(NamedTuple):
    """Who takes turns: all that comes from one caller or address, or a connection that has taken an answer.

    is_connection: the latter.
    """

    name: str
    is_connection: bool = False


CLIENT: ContextVar[Client] = ContextVar("client", default=Client(""))  # noqa: B039 - it never changes
"""Whose request the present task answers."""

CONNECTION = "dicom_assets.connection"
"""The extension of ASGI with the Client that a connection is once it has taken an answer, None before."""

SHORT_SECONDS = 0.25
"""A turn that has lasted so long is none of the short ones any more."""

BEGINNING_SECONDS = 0.05
"""The same of a request, which takes less when all that it needs is at hand."""

PAUSE_SECONDS = 0.005
"""What a client takes at most, on a machine with little to do, from one answer to its next request."""

HAS_BEGUN: ContextVar[Callable[[], None]] = ContextVar("has_begun", default=lambda: None)
"""To be called when the present request waits for others than the lake: it counts no more among those that begin."""


class Turns:
    """So many turns side by side, so many of them short, and of these all but one of the same client.

    For one event loop.
    """

    def __init__(self, at_once: int, short: int | None = None, seconds: float | None = None) -> None:
        """short: None for as many as there are. seconds: that a short turn lasts, SHORT_SECONDS by default."""
        self._at_once, self._short, self._seconds = at_once, short or at_once, seconds
        self._of_one = max(self._short - 1, 1)
        self._taken = 0
        self._taken_short: Counter[Client] = Counter()
        self._waiting: OrderedDict[Client, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Callable[[], None]]:
        """A turn of the client whose request is answered, as soon as there is one. What it gives makes it long."""
        client = CLIENT.get()
        mine = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(mine)
        self._hand_out()
        timer: asyncio.TimerHandle | None = None
        is_short = True

        def last() -> None:
            nonlocal is_short
            if is_short:
                is_short = False
                self._taken_short[client] -= 1
                if not self._taken_short[client]:
                    del self._taken_short[client]
                self._lasted(client)
                self._hand_out()

        try:
            await mine
            timer = asyncio.get_running_loop().call_later(self._seconds or SHORT_SECONDS, last)
            yield last
        finally:
            if not mine.cancelled():  # otherwise nobody has given it
                self._taken -= 1
                if timer is not None:
                    timer.cancel()
                last()
                self._hand_out()

    def _hand_out(self) -> None:
        """Gives what is free to those who wait; a client that has had a turn stands behind the others."""
        for client in [*self._waiting]:
            queue = self._waiting[client]
            while queue and queue[0].cancelled():
                queue.popleft()
            if queue and self._is_free(client):
                queue.popleft().set_result(None)
                self._give(client)
                self._waiting.move_to_end(client)
            if not queue:
                del self._waiting[client]

    def _give(self, client: Client) -> None:
        self._taken += 1
        self._taken_short[client] += 1

    def _lasted(self, client: Client) -> None:
        """A short turn of a client is none any more."""

    def _is_free(self, client: Client) -> bool:
        is_room = self._taken < self._at_once and self._taken_short.total() < self._short
        return is_room and self._taken_short[client] < self._of_one


class Beginnings(Turns):
    """The beginnings of requests: at once for a connection that has taken an answer, one after the other for the rest.

    One of the rest begins when no request is about to begin, of whomever, and none of such a connection was so for
    PAUSE_SECONDS; however many are, one in BEGINNING_SECONDS.
    """

    def __init__(self) -> None:
        """Nobody has begun yet."""
        super().__init__(1, seconds=BEGINNING_SECONDS)
        self._began = -math.inf
        self._pause: asyncio.TimerHandle | None = None

    def _give(self, client: Client) -> None:
        super()._give(client)
        if not client.is_connection:
            self._began = time.monotonic()

    def _lasted(self, client: Client) -> None:
        if client.is_connection:
            if self._pause is not None:
                self._pause.cancel()
            self._pause = asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._hand_out()

    def _is_free(self, client: Client) -> bool:
        is_quiet = self._pause is None and not self._taken_short
        return client.is_connection or is_quiet or time.monotonic() - self._began >= BEGINNING_SECONDS
