"""Time: answers that do not begin, clients that take or give nothing, clients that have gone.

Belongs here: ending what nobody waits for. Does not belong here: how long one question to the lake may take
(`questions`), heads that never end (`server`).

An answer whose client breaks off is cancelled where it waits, so that whoever asks the lake can stop the question. The
answer to HEAD ends with its head: what would produce the body is not asked for it.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dicom_assets.serve.problems import Refusal

ABORT = "dicom_assets.abort"
"""The extension of ASGI by which a connection is cut: closing it would wait for a client that takes nothing."""

_WITH_BODY = ("POST", "PUT", "PATCH")


class Gone(Exception):
    """The client has gone, or takes nothing: there is nobody to say anything to."""


class Patience:
    """Lets an application wait only so long. answer: seconds until an answer begins. stall: for each piece of it."""

    def __init__(self, app: ASGIApp, answer: float, stall: float) -> None:
        """Seconds may be parts of one."""
        self._app, self._answer, self._stall = app, answer, stall

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request. Raises Refusal (408, 503), Gone."""
        sender = _Sender(scope, send, self._stall)
        if scope["method"] in _WITH_BODY:
            await self._app(scope, self._timely(receive), sender.send)
            return
        with anyio.CancelScope(deadline=anyio.current_time() + self._answer) as answering:
            sender.answering = answering
            arriving: asyncio.Queue[Message] = asyncio.Queue()
            watching = asyncio.create_task(_watch(receive, arriving, sender))
            try:
                await self._app(scope, arriving.get, sender.send)
            finally:
                watching.cancel()
        if answering.cancelled_caught and not sender.is_done:
            if sender.has_begun or sender.is_left:
                raise Gone
            raise Refusal(503, "The answer takes too long. Ask for less at a time.", {"Retry-After": "10"})

    def _timely(self, receive: Receive) -> Receive:
        async def timely() -> Message:
            with anyio.move_on_after(self._stall):
                return await receive()
            raise Refusal(408, "The body stopped coming.", {"Connection": "close"})

        return timely


class _Sender:
    """Sends an answer as fast as the client takes it, and cuts the connection of one that takes nothing.

    is_left: the client has gone. is_done: the answer is whole.
    """

    def __init__(self, scope: Scope, send: Send, stall: float) -> None:
        self._abort = scope.get("extensions", {}).get(ABORT)
        self._is_head = scope["method"] == "HEAD"
        self._send, self._stall = send, stall
        self.answering: anyio.CancelScope | None = None
        self.has_begun = self.is_done = self.is_left = False

    async def send(self, message: Message) -> None:
        if self.is_done:  # what a HEAD does not ask for
            await anyio.sleep(0)
            return
        is_start = message["type"] == "http.response.start"
        self.has_begun = True
        if is_start and self.answering is not None:
            self.answering.deadline = math.inf
        self.is_done = (self._is_head and is_start) or not (is_start or message.get("more_body", False))
        with anyio.move_on_after(self._stall) as waiting:
            await self._send(message)
            if self._is_head and is_start:
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        if waiting.cancelled_caught:
            self.is_done = False
            if self._abort is not None:
                self._abort()
            raise Gone
        if self._is_head and is_start:
            self._end()

    def leave(self) -> None:
        """The client has gone."""
        if not self.is_done:
            self.is_left = True
            self._end()

    def _end(self) -> None:
        if self.answering is not None:
            self.answering.cancel()


async def _watch(receive: Receive, arriving: asyncio.Queue[Any], sender: _Sender) -> None:
    """Hands on what arrives; when the client has gone, nobody waits for the answer any more."""
    while True:
        message = await receive()
        arriving.put_nowait(message)
        if message["type"] == "http.disconnect":
            sender.leave()
            return
