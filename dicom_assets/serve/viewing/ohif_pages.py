"""OHIF's pages at `/ohif/`, and what they are told of this server.

Belongs here: files of the package as they are answered, its configuration, the page where nothing is installed. Does
not belong here: getting the package (`ohif_package`).

Whatever is in front of this server may put its pages below another path. So nothing here says a path from the root: the
page's references and the configuration are relative to where they were found.
"""

from __future__ import annotations

import re
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from dicom_assets.serve.exchange import exchange_of
from dicom_assets.serve.served import ServedLake
from dicom_assets.serve.viewing.ohif_package import installed
from dicom_assets.serve.viewing.page_files import text_of

PLACE = "/ohif"

_CONFIGURATION = "app-config.js"
_HASHED = re.compile(r"(.*\.)?[0-9a-f]{16}\.[a-z0-9]+").fullmatch
_INLINE = re.compile(r"<script>.*?</script>", re.DOTALL)
_ROOTED = re.compile(r'(href|src|content)="/(?!/)')
_POLICY = (
    "default-src 'self'",
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:",
    "font-src 'self' data:",
    "connect-src 'self' data: blob:",
    "worker-src 'self' blob:",
    "frame-src 'self' blob:",
    "object-src 'self' blob:",
    "frame-ancestors 'none'",
    "base-uri 'none'",
    "form-action 'none'",
)
"""Of the page: it may ask this server and nobody else."""

_OF_PAGE = "; ".join((*_POLICY, "script-src 'self' 'wasm-unsafe-eval'"))
_OF_WORKERS = "; ".join((*_POLICY, "script-src 'self' 'wasm-unsafe-eval' 'unsafe-eval'"))
"""Of scripts, which counts where one is a worker: decoders that are compiled to WebAssembly make functions of text."""

_HEADERS = {
    "Content-Security-Policy": _OF_PAGE,
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_LOOKED_AT = {"Cache-Control": "private, no-cache"}
_FOR_EVER = {"Cache-Control": "private, max-age=31536000, immutable"}


class OhifPages:
    """The files of what is installed, whenever that is."""

    def __init__(self, served: ServedLake) -> None:
        """Looks at the folder when something is asked for."""
        self._served = served
        self._files: tuple[Path, StaticFiles] | None = None

    @property
    def routes(self) -> list[Route]:
        """Below PLACE."""
        return [
            Route(PLACE, self._moved, methods=["GET", "HEAD"]),
            Route(PLACE + "/{path:path}", self._answer, methods=["GET", "HEAD"]),
        ]

    async def _moved(self, request: Request) -> Response:
        exchange_of(request.scope).route = PLACE
        return RedirectResponse(PLACE.strip("/") + "/")

    async def _answer(self, request: Request) -> Response:
        exchange = exchange_of(request.scope)
        exchange.route = PLACE + "/{path}"
        exchange.studies.update(filter(None, request.query_params.get("StudyInstanceUIDs", "").split(",")))
        found = installed(self._served.settings)
        if found is None:
            return HTMLResponse(text_of("no_ohif.html"), 404, {"Content-Security-Policy": _ALONE})
        path = request.path_params["path"]
        if path == _CONFIGURATION:
            return Response(text_of("ohif_config.js"), media_type="text/javascript", headers=_HEADERS)
        if path not in ("", "index.html"):
            answer = await self._file(found.pages, path, request)
            if answer is not None:
                return answer
        page = relative((found.pages / "index.html").read_text(encoding="utf-8"), path.count("/"))
        return HTMLResponse(page, headers={**_HEADERS, **_LOOKED_AT})

    async def _file(self, pages: Path, path: str, request: Request) -> Response | None:
        """A file of the package; None for an address that its page makes something of."""
        if self._files is None or self._files[0] != pages:
            self._files = pages, StaticFiles(directory=pages)
        try:
            answer = await self._files[1].get_response(path, request.scope)
        except HTTPException:
            return None
        name = path.rpartition("/")[2]
        answer.headers.update({**_HEADERS, **(_FOR_EVER if _HASHED(name) else _LOOKED_AT)})
        if name.endswith(".js"):
            answer.headers["Content-Security-Policy"] = _OF_WORKERS
        return answer


_ALONE = "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


def relative(page: str, depth: int) -> str:
    """The package's page with references relative to where it is answered, so deep below PLACE.

    It has no scripts in it any more: what they set is set by the configuration.
    """
    return _ROOTED.sub(rf'\1="{"../" * depth or "./"}', _INLINE.sub("", page))
