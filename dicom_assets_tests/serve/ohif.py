"""OHIF's built viewer, served as its own pages are, and told of a DICOMweb server.

Belongs here: the pages and their configuration. Does not belong here: the browser, what is looked at.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MODULES = Path(os.environ.get("DICOM_ASSETS_NODE_MODULES", Path(__file__).parents[2] / "node_modules"))
PAGES = MODULES / "@ohif" / "app" / "dist"
HOW = "OHIF is not installed: run `make node` (needs npm)"


def configuration(url: str) -> str:
    """`app-config.js` for one server. url: where its DICOMweb begins."""
    source = {
        "friendlyName": "the lake",
        "name": "lake",
        "qidoRoot": url,
        "wadoRoot": url,
        "wadoUriRoot": url,
        "qidoSupportsIncludeField": True,
        "imageRendering": "wadors",
        "thumbnailRendering": "wadors",
        "enableStudyLazyLoad": True,
        "supportsFuzzyMatching": True,
        "supportsWildcard": True,
        "omitQuotationForMultipartRequest": True,
        "bulkDataURI": {"enabled": True},
    }
    config = {
        "routerBasename": "/",
        "extensions": [],
        "modes": [],
        "customizationService": {},
        "showStudyList": True,
        "maxNumberOfWebWorkers": 2,
        "showWarningMessageForCrossOrigin": False,
        "showCPUFallbackMessage": False,
        "showLoadingIndicator": True,
        "strictZSpacingForVolumeViewport": True,
        "investigationalUseDialog": {"option": "never"},
        "defaultDataSourceName": "dicomweb",
        "dataSources": [
            {
                "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
                "sourceName": "dicomweb",
                "configuration": source,
            }
        ],
    }
    return f"window.config = {json.dumps(config)};"


class _Pages(SimpleHTTPRequestHandler):
    """Files of the viewer; any other path is its one page."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *arguments: Any, config: bytes, **more: Any) -> None:
        self._config = config
        super().__init__(*arguments, directory=str(PAGES), **more)

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path == "/app-config.js":
            self.send_response(200)
            self.send_header("Content-Type", "text/javascript")
            self.send_header("Content-Length", str(len(self._config)))
            self.end_headers()
            self.wfile.write(self._config)
            return
        if not (PAGES / path.lstrip("/")).is_file():
            self.path = "/index.html"
        super().do_GET()

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        return


@contextmanager
def pages(port: int, url: str) -> Iterator[str]:
    """The viewer on a port of this machine; its address. url: of the DICOMweb server that it shows."""
    handler = partial(_Pages, config=configuration(url).encode())
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.shutdown()
        server.server_close()
