"""Answers that are sent piece by piece: nobody holds them whole, and nothing of them outlives the client.

Belongs here: the response, the parts of a multipart/related answer (PS3.18 8.6.1.2, RFC 2387), blocks of an object.
Does not belong here: what is sent, clients that take nothing or have gone (`patience`).

An answer that cannot be finished is broken off, so that nobody takes a part of it for the whole.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing

import anyio
import anyio.to_thread
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dicom_assets.serve.media import RELATED

BLOCK = 1 << 20
"""Bytes of an object in memory for each answer."""


class Stream(Response):
    """An answer of pieces. Whatever makes them is closed when the answer ends, also when the client breaks off."""

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        status: int,
        media_type: str,
        headers: Mapping[str, str] | None = None,
        *,
        length: int | None = None,
    ) -> None:
        """length: bytes in all, where they are known."""
        super().__init__(None, status, headers, media_type)
        self._pieces = pieces
        self.raw_headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
        if length is not None:
            self.headers["content-length"] = str(length)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the answer; of HEAD its headers alone."""
        async with aclosing(self._pieces) as pieces:
            await self._send(scope["method"] != "HEAD", pieces, send)

    async def _send(self, with_body: bool, pieces: AsyncIterator[bytes], send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if with_body:
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Parts:
    """The frame of a multipart/related answer. media_type: of the whole; kind: of its parts."""

    def __init__(self, kind: str) -> None:
        """A boundary that nothing holds by chance."""
        self._boundary = secrets.token_hex(16)
        self.media_type = f'{RELATED}; type="{kind}"; boundary={self._boundary}'
        self.end = f"\r\n--{self._boundary}--\r\n".encode("ascii")
        self._begins = True

    def begin(self, kind: str, location: str | None = None) -> bytes:
        """What stands in front of a part. kind: its Content-Type."""
        before, self._begins = "" if self._begins else "\r\n", False
        where = f"Content-Location: {location}\r\n" if location else ""
        return f"{before}--{self._boundary}\r\nContent-Type: {kind}\r\n{where}\r\n".encode("ascii")


class BrokenOff(Exception):
    """An answer that had begun cannot be finished; the server closes the connection."""

    def __init__(self) -> None:
        """Nothing is said of the object."""
        super().__init__("an answer that had begun cannot be finished")


async def finish(act: Callable[[], object]) -> None:
    """Does what must be done although the answer may have been broken off; it waits for nobody's turn."""
    with anyio.CancelScope(shield=True):
        await anyio.to_thread.run_sync(act)
