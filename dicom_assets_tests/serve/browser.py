"""Chromium for tests, and the checker of accessibility.

Belongs here: finding and starting them. Does not belong here: pages that are looked at.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

MODULES = Path(os.environ.get("DICOM_ASSETS_NODE_MODULES", Path(__file__).parents[2] / "node_modules"))
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist",
           "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
           "--disable-sync"]  # fmt: skip
PATIENCE = 90_000
"""Milliseconds that something may take to be drawn."""
SHOTS = os.environ.get("DICOM_ASSETS_TEST_SHOTS")
"""A folder for pictures of what the test saw, for whoever wants to look."""

_AXE = MODULES / "axe-core" / "axe.min.js"

needs_browser = pytest.mark.skipif(BROWSER is None, reason="no browser is installed: apt-get install chromium")
needs_axe = pytest.mark.skipif(not _AXE.is_file(), reason="axe-core is not installed: run `make node` (needs npm)")


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser, until the block ends."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=OPTIONS)
        yield browser
        browser.close()


def findings(page: Any) -> list[tuple[str, list[str]]]:
    """What axe finds that is serious or critical: rule, and where. page: of a context that passes by the CSP."""
    page.evaluate(_AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")["violations"]
    return [
        (one["id"], [" ".join(map(str, node["target"])) for node in one["nodes"]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def shot(page: Any, name: str) -> None:
    """A picture for whoever wants to look."""
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png")
