"""What is written down of every request: a line of the access log, a line of the audit log, numbers.

Belongs here: watching requests from their head to their end. Does not belong here: what the audit log says
(`audit_log`), how numbers are given (`metrics`).

The access log holds no UID, name, path or query string: the template of the route, and an id that the answer has as
well (X-Request-Id).
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dicom_assets.serve.audit_log import Audit
from dicom_assets.serve.exchange import Exchange, begin
from dicom_assets.serve.line_log import LineLog
from dicom_assets.serve.metrics import Metrics

METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT"})
"""Methods that are written down by their name; any other word is a client's own."""


class Observation:
    """Writes down what an application does."""

    def __init__(self, app: ASGIApp, access_log: LineLog, audit: Audit, metrics: Metrics) -> None:
        """One for each process."""
        self._app, self._access_log, self._audit, self._metrics = app, access_log, audit, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request; anything but HTTP goes on as it is."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = begin(scope)
        if exchange.method not in METHODS:
            exchange.method = "OTHER"

        async def watching(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
            else:
                exchange.sent += len(message.get("body", b""))
            await send(message)

        self._metrics.at_once += 1
        try:
            await self._app(scope, receive, watching)
        except BaseException:
            exchange.is_broken = True
            raise
        finally:
            self._metrics.at_once -= 1
            with anyio.CancelScope(shield=True):
                await self._write(exchange)

    async def _write(self, exchange: Exchange) -> None:
        self._metrics.count(exchange)
        if self._access_log.is_on:
            line = {
                "log": "access",
                "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "method": exchange.method,
                "route": exchange.route,
                "status": exchange.status,
                "ms": round(exchange.seconds * 1_000, 1),
                "waited_ms": None if exchange.waited is None else round(exchange.waited * 1_000, 1),
                "bytes": exchange.sent,
                "broken": exchange.is_broken,
                "request": exchange.request_id,
            }
            try:
                self._access_log.write(line)
            except OSError as error:
                print(f"dicom-assets: the access log cannot be written: {error.strerror}.", file=sys.stderr, flush=True)
        await self._audit.write(exchange)
