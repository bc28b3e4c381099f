"""The plain viewer in a browser: what it draws, and what keys, wheel, mouse and lists do."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from dicom_assets_tests.serve import viewable as made
from dicom_assets_tests.serve.serving import serving
from dicom_assets_tests.serve.viewable import view
from dicom_assets_tests.support.browser import PATIENCE, chromium, findings, needs_axe, needs_browser, shot
from dicom_assets_tests.support.dicoms import uid

pytestmark = [pytest.mark.slow, needs_browser]

COUNT = 8
"""Slices of CT."""
RENDERED = re.compile("/rendered")

_PIXELS = """() => {
    const canvas = document.getElementById("picture");
    const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    return {shape: [canvas.height, canvas.width], values: Array.from(data.filter((_, i) => i % 4 === 0))};
}"""


@dataclass
class Viewer:
    """The viewer in a browser."""

    page: Any
    url: str
    failed: list[str] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)

    def open(self, series: int, study: int = 1) -> None:
        self.page.goto(self.url + view(study, series))
        self.page.wait_for_selector("#stage[data-shown]", timeout=PATIENCE)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def shows(self, number: int) -> None:
        """Waits until an image is drawn, by its number in the series, as it is asked for now."""
        self.page.wait_for_selector(f"#stage[data-shown='{number}']:not(.late)", timeout=PATIENCE)

    def until(self, condition: str) -> None:
        """Waits until an expression of JavaScript holds; without `eval`, which the page does not allow."""
        end = time.monotonic() + PATIENCE / 1_000
        while not self.page.evaluate(condition):
            assert time.monotonic() < end, condition
            self.page.wait_for_timeout(30)

    def pixels(self) -> np.ndarray:
        found = self.page.evaluate(_PIXELS)
        return np.array(found["values"]).reshape(found["shape"])

    def text(self, name: str) -> str:
        return str(self.page.locator(f"#{name}").text_content())


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    folder = tmp_path_factory.mktemp("plain_viewer")
    lake = made.make(folder)
    with serving(lake.settings, folder / "server") as server, chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        one = Viewer(page, server.url)
        page.on("requestfailed", lambda request: one.failed.append(request.url))
        page.on("pageerror", lambda error: one.trouble.append(str(error)))
        page.on("dialog", lambda dialog: one.trouble.append("a script of the data ran"))
        yield one
        assert one.trouble == []


def windowed(values: np.ndarray, centre: float, width: float) -> np.ndarray:
    """PS3.3 C.11.2.1.2.1, linear, on values of the modality, into 0 to 255."""
    low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    middle = ((values - (centre - 0.5)) / (width - 1) + 0.5) * 255
    return np.where(values <= low, 0, np.where(values > high, 255, middle))


def hounsfield(place: int) -> np.ndarray:
    return made.stored(place).astype(float) - 1024


def test_images_are_drawn_in_their_order_with_the_values_and_windows_of_the_standard(viewer: Viewer):
    viewer.open(made.CT)
    viewer.shows(COUNT // 2 + 1)
    for key, number in (("Home", 1), ("ArrowDown", 2), ("ArrowRight", 3), ("PageDown", 8), ("ArrowUp", 7), ("End", 8)):
        viewer.press(key)
        viewer.shows(number)
    viewer.page.mouse.move(600, 400)
    viewer.page.mouse.wheel(0, -100)
    viewer.shows(7)
    assert abs(viewer.pixels() - windowed(hounsfield(7), *made.WINDOWS[0])).max() <= 1
    assert viewer.text("position") == "7 / 8" and viewer.text("at-bottom-right").startswith("at 17.5 mm")
    assert viewer.text("at-bottom-left").startswith("W 400  L 40")
    assert [viewer.text(f"to-{side}") for side in ("left", "right", "top", "bottom")] == ["R", "L", "A", "P"]
    viewer.page.select_option("#preset", label="3  Lung")
    viewer.until("document.querySelector('#stage').dataset.address?.includes('window=-600,1500')")
    assert abs(viewer.pixels() - windowed(hounsfield(7), -600, 1500)).max() <= 1
    shot(viewer.page, "plain-ct")
    assert viewer.page.title() == "Viewer – dicom-assets"


def test_dragging_makes_a_window_of_ones_own(viewer: Viewer):
    viewer.open(made.CT)
    viewer.press("Home")
    viewer.shows(1)
    mouse = viewer.page.mouse
    mouse.move(600, 400)
    mouse.down()
    mouse.move(650, 340, steps=4)
    mouse.up()
    viewer.until("document.querySelector('#stage').dataset.address?.endsWith('window=-56,480')")
    assert abs(viewer.pixels() - windowed(hounsfield(1), -56, 480)).max() <= 1
    assert viewer.text("at-bottom-left") == "W 480  L −56\nOwn"
    viewer.press("i")
    assert "inverted" in viewer.text("at-bottom-left")
    assert viewer.page.evaluate("getComputedStyle(document.getElementById('picture')).filter") == "invert(1)"
    viewer.press("r")
    viewer.until("!document.querySelector('#stage').dataset.address?.includes('window')")


def test_what_is_passed_over_is_not_fetched_to_its_end(viewer: Viewer):
    viewer.open(made.MR)
    held: list[Any] = []
    viewer.page.route(RENDERED, lambda route: held.append(route))
    viewer.failed.clear()
    viewer.page.goto(viewer.url + view(1, made.CT))
    viewer.until("document.querySelector('#position').textContent === '5 / 8'")
    viewer.page.wait_for_timeout(300)
    asked = {route.request.url for route in held}
    viewer.press("2")  # another window: nothing of what is under way is wanted any more
    viewer.page.wait_for_timeout(300)
    assert len(asked) == 4 and asked <= set(viewer.failed)
    viewer.page.unroute_all(behavior="ignoreErrors")


def test_frames_play_and_other_objects_are_told(viewer: Viewer):
    viewer.open(made.CINE)
    viewer.shows(made.CINE_FRAMES // 2 + 1)
    viewer.until("document.querySelector('#speed').value === '10'")  # FrameTime: 100 ms
    viewer.press("Home", "p")
    for number in range(2, made.CINE_FRAMES + 1):
        viewer.shows(number)
    viewer.press("p")
    pixel = viewer.page.evaluate(
        "Array.from(document.getElementById('picture').getContext('2d').getImageData(4, 16, 1, 1).data)"
    )
    assert abs(np.array(pixel[:3]) - (254, 0, 0)).max() < 8
    viewer.press("]")
    viewer.page.wait_for_selector("#document ul", timeout=PATIENCE)
    assert viewer.page.url.endswith(uid(1, made.REPORT))
    said = viewer.page.locator("#document").inner_text()
    assert "Radiology report" in said and "Finding: <script>alert(1)</script> round" in said
    shot(viewer.page, "plain-report")
    viewer.press("]")
    viewer.page.wait_for_selector("#document iframe", timeout=PATIENCE)
    viewer.press("]")
    viewer.until("document.querySelector('#message').textContent.startsWith('A set of structures')")
    viewer.open(made.VIDEO)
    viewer.until("document.querySelector('#message').textContent.startsWith('Nothing decodes MPEG2')")


def test_the_header_is_searched_and_what_it_holds_is_text(viewer: Viewer):
    viewer.open(made.CT)
    viewer.press("/")
    viewer.page.keyboard.type("patient's name")
    viewer.until("document.querySelectorAll('#lines tbody tr').length === 1")
    assert made.NAME in viewer.page.locator("#lines tbody tr").inner_text()
    assert "Bird" in viewer.text("who") and viewer.page.title() == "Viewer – dicom-assets"
    viewer.page.keyboard.press("Escape")
    viewer.press("?")
    assert viewer.page.locator("#help").is_visible()


@needs_axe
@pytest.mark.parametrize(("width", "theme"), [(1400, "dark"), (400, "light")])
def test_everybody_can_use_the_page(viewer: Viewer, width: int, theme: str):
    context = viewer.page.context.browser.new_context(viewport={"width": width, "height": 850}, bypass_csp=True)
    other = Viewer(context.new_page(), viewer.url)
    other.open(made.CT)
    other.page.wait_for_selector("#lines tbody tr")
    if theme == "light":
        other.press("t")
    assert findings(other.page) == []
    assert other.page.evaluate("[document.documentElement.scrollWidth, scrollY]") == [width, 0]
    other.press("?")
    assert findings(other.page) == []
    other.press("Escape")
    shot(other.page, f"plain-{theme}-{width}")
    names = re.findall(r"[A-Z]\w+", other.text("who"))
    assert "Canary" in names
    context.close()
