"""The stylesheet and the scripts of the pages.

Belongs here: giving them, each under an address that changes with it. Does not belong here: what they say (`static/`).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dicom_assets.serve.exchange import exchange_of

FOLDER = Path(__file__).parent / "static"
BELOW = "/static/"
_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".png": "image/png"}


class StaticFiles:
    """The files of the folder `static`, held in memory."""

    def __init__(self) -> None:
        """Reads them; there are few, and they are small."""
        self._bodies = {path.name: path.read_bytes() for path in FOLDER.iterdir() if path.suffix in _KINDS}

    @property
    def paths(self) -> frozenset[str]:
        """Their paths, which say nothing of any lake."""
        return frozenset(BELOW + name for name in self._bodies)

    def address(self, name: str) -> str:
        """Where a file is: another address whenever it is another one, so that browsers may keep it."""
        return f"{BELOW}{name}?v={hashlib.sha256(self._bodies[name]).hexdigest()[:12]}"

    def routes(self) -> list[Route]:
        """Their routes."""
        return [Route(BELOW + "{name}", self._give, methods=["GET", "HEAD"])]

    async def _give(self, request: Request) -> Response:
        exchange_of(request.scope).route = BELOW + "{name}"
        name = request.path_params["name"]
        body = self._bodies.get(name)
        if body is None:
            return Response(status_code=404)
        headers = {"Cache-Control": "public, max-age=31536000, immutable"} if request.url.query else {}
        return Response(body, 200, headers, _KINDS[Path(name).suffix])
