"""Headers of every answer: what browsers may do with it, and pages elsewhere that may ask for it (CORS).

Belongs here: headers that do not depend on what is answered. Does not belong here: who may see what (`access`).
"""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dicom_assets.serve.exchange import exchange_of
from dicom_assets.serve.problems import Refusal
from dicom_assets.serve_settings import ServeSettings

EXPOSED = "Content-Type, ETag, Warning"
METHODS = "GET, HEAD, OPTIONS, POST"
ASKED_WITH = "Accept, Authorization, Content-Type, If-None-Match, Range"

ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Cache-Control": "private, no-cache",
}
"""What an answer has that says nothing else. A page gives its own policy."""

OF_PAGES = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
"""What a viewer's pages need so that browsers let them share memory between threads."""


class AnswerHeaders:
    """Adds to every answer what belongs to all of them."""

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        """Pages of the origins in the settings may read answers."""
        self._app, self._origins = app, settings.origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        origin = Headers(scope=scope).get("origin")
        request_id = exchange_of(scope).request_id

        async def adding(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._add(MutableHeaders(scope=message), origin, request_id)
            await send(message)

        await self._app(scope, receive, adding)

    def _add(self, headers: MutableHeaders, origin: str | None, request_id: str) -> None:
        headers["X-Request-Id"] = request_id
        for name, value in ALWAYS.items():
            headers.setdefault(name, value)
        # A page elsewhere could otherwise show images of this server, or learn from them whether they are there.
        headers.setdefault("Cross-Origin-Resource-Policy", "cross-origin" if self._origins else "same-origin")
        if headers.get("content-type", "").startswith("text/html"):
            for name, value in OF_PAGES.items():
                headers.setdefault(name, value)
        if self._origins:
            headers.add_vary_header("Origin")
        if origin is not None and origin.lower() in self._origins:
            headers["Access-Control-Allow-Origin"] = origin
            headers["Access-Control-Expose-Headers"] = EXPOSED


def preflight(headers: Headers, settings: ServeSettings) -> Response | None:
    """The answer to a browser that asks whether a page may ask; None for any other request. Raises Refusal (403)."""
    if "origin" not in headers or "access-control-request-method" not in headers:
        return None
    check_origin(headers, settings, reached_at=None)
    return Response(
        status_code=204,
        headers={
            "Access-Control-Allow-Methods": METHODS,
            "Access-Control-Allow-Headers": ASKED_WITH,
            "Access-Control-Max-Age": "600",
        },
    )


def check_origin(headers: Headers, settings: ServeSettings, reached_at: str | None) -> None:
    """Raises Refusal (403) for a page of another origin than this server's own and those of the settings."""
    origin = headers.get("origin")
    own = "/".join(reached_at.split("/")[:3]) if reached_at else None
    if origin is not None and origin.lower() not in settings.origins and origin != own:
        raise Refusal(403, "Pages of that origin may not ask here. `origins` in the section [serve] sets them.")
