"""The files of our own pages: templates, scripts and styles as they lie beside this module.

Belongs here: reading them, and how they are answered. Does not belong here: what pages show (`viewer_pages`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from html import escape
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dicom_assets.serve.exchange import exchange_of
from dicom_assets.serve.problems import not_found

PLACE = "/view-files"
"""Where scripts and styles stand, below which no UID can be taken for one of them."""

_FOLDER = Path(__file__).parent / "static"
_KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def text_of(name: str) -> str:
    """The text of a file."""
    return (_FOLDER / name).read_text(encoding="utf-8")


def filled(name: str, values: Mapping[str, str]) -> str:
    """A page with values in the place of `{{name}}`, escaped."""
    text = text_of(name)
    for key, value in values.items():
        text = text.replace("{{" + key + "}}", escape(value, quote=True))
    return text


class Files:
    """Scripts and styles, read once."""

    def __init__(self) -> None:
        """Reads them."""
        self._files = {one.name: one.read_bytes() for one in sorted(_FOLDER.iterdir()) if one.suffix in _KINDS}
        self._tags = {name: f'W/"{hashlib.sha256(body).hexdigest()[:16]}"' for name, body in self._files.items()}

    @property
    def route(self) -> Route:
        """Below PLACE."""
        return Route(PLACE + "/{name}", self._answer, methods=["GET", "HEAD"])

    async def _answer(self, request: Request) -> Response:
        exchange_of(request.scope).route = PLACE + "/{name}"
        name = request.path_params["name"]
        if name not in self._files:
            raise not_found("file")
        headers = {"ETag": self._tags[name], "Cache-Control": "private, no-cache"}
        if request.headers.get("if-none-match") == self._tags[name]:
            return Response(status_code=304, headers=headers)
        return Response(self._files[name], media_type=_KINDS[Path(name).suffix], headers=headers)
