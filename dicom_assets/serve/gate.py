"""What a request passes before it is answered: sizes, the host it was meant for, who asks, how often.

Belongs here: the order. Does not belong here: the single conditions (`limits`, `access`, `answer_headers`).

What costs least comes first, and nothing is told before it is known who asks, but whether the server is well. Whoever
fails to say who they are is counted by their address, so that tokens cannot be guessed by trying.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from dicom_assets.serve.access import Access
from dicom_assets.serve.answer_headers import check_origin, preflight
from dicom_assets.serve.audit_log import Audit
from dicom_assets.serve.exchange import exchange_of
from dicom_assets.serve.limits import Limits
from dicom_assets.serve.problems import Refusal
from dicom_assets.serve.turns import CLIENT, CONNECTION, HAS_BEGUN, Beginnings, Client
from dicom_assets.serve_settings import ServeSettings

HEALTH = "/healthz"
"""Where the server says whether it is well, to anybody who reaches it, under any name."""


class Gate:
    """Lets a request through to an application, or raises Refusal."""

    def __init__(
        self,
        app: ASGIApp,
        settings: ServeSettings,
        access: Access,
        limits: Limits,
        audit: Audit,
        open_paths: frozenset[str] = frozenset(),
    ) -> None:
        """One for each process. open_paths: for which nobody has to say who they are."""
        self._open_paths = open_paths
        self._app, self._settings = app, settings
        self._access, self._limits, self._audit = access, limits, audit
        self._beginnings = Beginnings()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request. Raises Refusal."""
        self._limits.check_head(scope)
        headers, method = Headers(scope=scope), scope["method"]
        if scope["path"] == HEALTH:
            await self._app(scope, self._limits.bounded(receive, "GET", headers), send)
            return
        self._access.check_host(headers)
        if method == "OPTIONS" and (answer := preflight(headers, self._settings)) is not None:
            await answer(scope, receive, send)
            return
        address = scope["client"][0] if scope.get("client") else None
        exchange = exchange_of(scope)
        try:
            exchange.caller = self._access.caller(address, headers)
        except Refusal:
            if scope["path"] not in self._open_paths:
                self._limits.check_rate(f"address {address}")
                raise
        if method not in ("GET", "HEAD", "OPTIONS"):
            check_origin(headers, self._settings, self._access.reached_at(address, scope["scheme"], headers))
        caller = exchange.caller
        is_known = caller.kind in ("token", "user")
        client = f"{caller.kind} {caller.name}" if is_known else f"address {address}"
        self._limits.check_rate(client)
        CLIENT.set(scope.get("extensions", {}).get(CONNECTION) or Client(client))
        self._audit.check()
        with self._limits.turn():
            async with self._beginnings.turn() as has_begun:
                HAS_BEGUN.set(has_begun)
                exchange.waited = exchange.seconds
                # what nobody has to sign in for takes no bodies but small ones
                sized = "GET" if scope["path"] in self._open_paths else method
                await self._app(scope, self._limits.bounded(receive, sized, headers), send)
