"""Pages in Chromium, and what axe finds wrong with them for people who do not see, or use no mouse.

Belongs here: the browser, keys, axe. Does not belong here: what is asserted.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NO_BROWSER = "no browser is installed: apt-get install chromium"
NODE_MODULES = Path(os.environ.get("DICOM_ASSETS_NODE_MODULES", Path(__file__).parents[2] / "node_modules"))
AXE = NODE_MODULES / "axe-core" / "axe.min.js"
NO_AXE = "axe-core is not installed: make node"
SCHEMES = ("light", "dark")


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of playwright's, without pages."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-sync"])
        yield browser
        browser.close()


def complaints(page: Any) -> list[str]:
    """What axe calls serious or worse on a page, with the elements that it means."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['id']}: {node['html']}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
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
