"""Chromium for tests, and axe, which finds what keeps people out who do not see, or use no mouse.

Belongs here: finding and starting them, keys. Does not belong here: pages that are looked at.
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


SEEN = (
    "color-contrast",
    "link-in-text-block",
    "scrollable-region-focusable",
    "target-size",
    "link-name",
    "button-name",
)
"""Rules of axe that may find something else in other colours or in a narrow window."""


def findings(page: Any, *rules: str) -> list[str]:
    """What axe finds that is serious or critical: rule, and where. page: of a context that passes by the CSP.

    rules: these alone, of a page that was read whole before and has not been loaded again.
    """
    if not rules:
        page.evaluate(_AXE.read_text(encoding="utf-8"))
    options = {"resultTypes": ["violations"], **({"runOnly": list(rules)} if rules else {})}
    found = page.evaluate("options => axe.run(document, options)", options)["violations"]
    return [
        f"{one['id']}: {' '.join(map(str, node['target']))} {node.get('failureSummary', '')}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"][:3]
    ]


def overflow(page: Any) -> int:
    """Pixels by which a page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def go_to(page: Any, name: str, most: int = 60) -> None:
    """Presses Tab until an element of this name has the focus."""
    for _ in range(most):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            "(document.activeElement.getAttribute('aria-label') || document.activeElement.textContent).trim()"
        )
        if focused == name:
            return
    raise AssertionError(f"no key led to {name}")


def shot(page: Any, name: str) -> None:
    """A picture for whoever wants to look."""
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png")
