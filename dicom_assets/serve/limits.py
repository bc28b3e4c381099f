"""How much may be asked: requests a second, requests at once, sizes.

Belongs here: counting, and the refusals. Does not belong here: time (`patience`), what one process can hold of
connections (`server`).
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from dicom_assets.serve.problems import Refusal
from dicom_assets.serve_settings import ServeSettings

CLIENTS = 10_000
"""Clients of whom is known how much they have asked; of more, the one that was silent longest is forgotten."""

NO_BODY = 65_536
"""Bytes of a body where none is expected."""


class Rate:
    """Requests a second of each client: a bucket that holds `burst` and is filled again by `per_second`."""

    def __init__(self, per_second: float, burst: int) -> None:
        """Every client begins with a full bucket."""
        self._per_second, self._burst = per_second, burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, now: float | None = None) -> None:
        """Counts one request. Raises Refusal (429) with the time to wait when the bucket is empty."""
        now = time.monotonic() if now is None else now
        left, since = self._left.pop(client, (float(self._burst), now))
        left = min(self._burst, left + (now - since) * self._per_second)
        self._left[client] = (max(left - 1, 0) if left >= 1 else left, now)
        while len(self._left) > CLIENTS:
            self._left.popitem(last=False)
        if left < 1:
            wait = math.ceil((1 - left) / self._per_second)
            raise Refusal(429, "Too many requests. Wait, then go on more slowly.", {"Retry-After": str(max(wait, 1))})


class Limits:
    """All bounds but those of time, for one process."""

    def __init__(self, settings: ServeSettings) -> None:
        """Nothing is asked yet."""
        self._settings = settings
        self._rate = Rate(settings.requests_per_second, settings.burst)
        self.at_once = 0

    def check_head(self, scope: Any) -> None:
        """Raises Refusal (414, 431) for a head that is too large. scope: of ASGI."""
        asked = len(scope.get("raw_path") or scope["path"].encode()) + len(scope["query_string"])
        if asked > self._settings.query_bytes:
            raise Refusal(
                HTTPStatus.REQUEST_URI_TOO_LONG,
                f"The address may have {self._settings.query_bytes} bytes. Ask for less at a time.",
            )
        if sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > self._settings.head_bytes:
            raise Refusal(431, f"The headers may have {self._settings.head_bytes} bytes.")

    def check_rate(self, client: str) -> None:
        """Raises Refusal (429)."""
        self._rate.take(client)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One of the requests that are answered at once. Raises Refusal (503)."""
        if self.at_once >= self._settings.requests_at_once:
            raise Refusal(503, "Too much is asked at the moment.", {"Retry-After": "1"})
        self.at_once += 1
        try:
            yield
        finally:
            self.at_once -= 1

    def bounded(self, receive: Receive, method: str, headers: Headers) -> Receive:
        """`receive` that raises Refusal (413) where a body is too large; at once where its length is announced."""
        most = self._settings.body_bytes if method in ("POST", "PUT", "PATCH") else NO_BODY
        refusal = Refusal(413, f"The body may have {most} bytes.", {"Connection": "close"})
        announced = headers.get("content-length", "0")
        if not (announced.isascii() and announced.isdigit()):
            raise Refusal(400, "Content-Length: a number of bytes is expected.")
        if int(announced[:20]) > most:
            raise refusal
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise refusal
            return message

        return counted
