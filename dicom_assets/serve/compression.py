"""JSON, text and pages that are compressed on their way, where the client takes it; images and objects never are.

Belongs here: gzip around an answer. Does not belong here: what is answered.

Metadata of 9 MB become 0.6 MB at gzip's level 1 and hardly less at higher ones. ETags are weak, so that they hold for
both forms (RFC 9110 8.8.1); a strong one is made weak.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import anyio.to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LEAST = 1_024
"""Shorter answers are sent as they are."""

LEVEL = 1

ASIDE = 65_536
"""Longer pieces are compressed beside the loop that answers everybody."""

KINDS = (
    *("application/dicom+json", "application/json", "text/csv", "application/openmetrics-text"),
    *("text/html", "text/css", "text/javascript"),
)


class Compression:
    """Compresses answers of an application."""

    def __init__(self, app: ASGIApp) -> None:
        """Nothing to be set."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        accepts = accepts_gzip(Headers(scope=scope).getlist("accept-encoding"))
        wanted = accepts and scope["method"] != "HEAD"
        await self._app(scope, receive, _Compressing(send, wanted).send)


def accepts_gzip(values: Sequence[str]) -> bool:
    """Whether Accept-Encoding lets gzip be given (RFC 9110 12.5.3)."""
    weights: dict[str, bool] = {}
    for one in ",".join(values).split(","):
        coding, *parameters = (part.strip().lower() for part in one.split(";"))
        zero = any(part.replace(" ", "").startswith("q=") and _is_zero(part) for part in parameters)
        weights[coding] = not zero
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", False)))


def _is_zero(parameter: str) -> bool:
    try:
        return float(parameter.partition("=")[2]) <= 0
    except ValueError:
        return True


class _Compressing:
    """One answer. Its head waits for the first piece, which may be the only one."""

    def __init__(self, send: Send, is_wanted: bool) -> None:
        self._send, self._is_wanted = send, is_wanted
        self._head: Message | None = None
        self._held = bytearray()
        self._passing = False
        self._gzip: zlib._Compress | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif self._passing:
            await self._send(message)
        else:
            await self._go_on(message.get("body", b""), message.get("more_body", False))

    async def _begin(self, message: Message) -> None:
        headers = MutableHeaders(scope=message)
        kind = headers.get("content-type", "").split(";")[0].strip().lower()
        if kind in KINDS and "content-encoding" not in headers and message["status"] != 206:
            headers.add_vary_header("Accept-Encoding")
            self._head = message
        if self._head is None or not self._is_wanted:
            self._passing = True
            await self._send(message)

    async def _go_on(self, body: bytes, more: bool) -> None:
        if self._gzip is None:
            self._held += body
            if len(self._held) < LEAST:
                if not more:
                    await self._pass_on()
                return
            body = bytes(self._held)
            self._held.clear()
            await self._begin_compressed()
        out = await self._compressed(body)
        if not more:
            assert self._gzip is not None
            out += self._gzip.flush()
        if out or not more:
            await self._send({"type": "http.response.body", "body": out, "more_body": more})

    async def _pass_on(self) -> None:
        assert self._head is not None
        await self._send(self._head)
        await self._send({"type": "http.response.body", "body": bytes(self._held), "more_body": False})

    async def _begin_compressed(self) -> None:
        assert self._head is not None
        self._gzip = zlib.compressobj(LEVEL, zlib.DEFLATED, wbits=31)
        headers = MutableHeaders(scope=self._head)
        headers["Content-Encoding"] = "gzip"
        if "content-length" in headers:
            del headers["content-length"]
        if (tag := headers.get("etag")) is not None and not tag.startswith("W/"):
            headers["ETag"] = f"W/{tag}"
        await self._send(self._head)

    async def _compressed(self, body: bytes) -> bytes:
        assert self._gzip is not None
        if len(body) <= ASIDE:
            return self._gzip.compress(body)
        return await anyio.to_thread.run_sync(self._gzip.compress, body)
