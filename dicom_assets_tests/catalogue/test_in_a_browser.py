"""The pages in a browser: from a search to an element of a header by keyboard alone, and what axe says of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicom_assets_tests.catalogue.shown_lake import EVERY, ODD, TOKENS, Shown, instance, series, study
from dicom_assets_tests.serve.asking import ENVIRONMENT
from dicom_assets_tests.serve.serving import serving
from dicom_assets_tests.support.browser import SEEN, chromium, findings, needs_axe, needs_browser, overflow, shot

SIZES = ((1400, 900), (400, 800))
BETWEEN = (1100, 1000, 800, 320)
"""Widths at which nothing but the layout is looked at."""

PAGES = (
    *EVERY,
    "/?patient=nobody-has-this-name",
    "/?sort=patient&scanner=siemens",
    "/nothing",
    "/sign-out",
    "/cohorts",
)

pytestmark = [pytest.mark.slow, needs_browser]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def url(shown: Shown, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(shown.settings, tmp_path_factory.mktemp("plain")) as server:
        yield server.url


def shoot(page: Any, name: str) -> None:
    shot(page, name.strip("/").replace("/", "-") or "search")


def opened(browser: Any, size: tuple[int, int], scheme: str = "light", **more: Any) -> Any:
    """A page, whose errors and complaints are gathered in `page.complaints`."""
    page = browser.new_context(viewport=dict(zip(("width", "height"), size, strict=True)), color_scheme=scheme, **more)
    page = page.new_page()
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("console", lambda said: page.complaints.append(said.text) if said.type == "error" else None)
    page.on("dialog", lambda dialog: page.complaints.append("a dialog was opened"))
    return page


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_by_keyboard_from_the_search_to_an_element_of_a_header(browser: Any, url: str, size: tuple[int, int]):
    page = opened(browser, size)
    page.goto(url)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "patient"
    page.keyboard.type("sum(1)")
    page.keyboard.press("Enter")
    page.wait_for_url("**patient=sum*")
    for path in (study(ODD), series(ODD)):
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        page.wait_for_url(f"**{path}")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{instance(ODD)}")
    page.keyboard.press("/")
    page.keyboard.type("b_value")
    rows = page.locator("#header-lines tbody tr:visible")
    assert rows.count() == 1
    assert "700" in rows.first.inner_text()
    page.keyboard.press("Enter")
    page.wait_for_url("**find=b_value*")
    assert page.complaints == []


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_no_page_is_wider_than_the_screen_and_none_complains(browser: Any, url: str, size: tuple[int, int]):
    pages = {path: opened(browser, size) for path in EVERY}
    for path, page in pages.items():
        page.goto(url + path)
    for path, page in pages.items():  # each is idle after half a second, which is waited for once
        page.wait_for_load_state("networkidle")
        shoot(page, f"{size[0]}{path}")
        assert overflow(page) <= 0, path
        for width in BETWEEN if size == SIZES[0] else ():
            page.set_viewport_size({"width": width, "height": size[1]})
            assert overflow(page) <= 0, (path, width)
        assert page.complaints == [], path
        page.context.close()


def test_pictures_of_series_are_drawn(browser: Any, url: str):
    page = opened(browser, SIZES[0])
    page.goto(url + study(ODD))
    page.wait_for_selector("img.is-there")
    assert page.complaints == []


def test_pages_work_without_scripts(browser: Any, url: str):
    page = opened(browser, SIZES[0], java_script_enabled=False)
    page.goto(url)
    page.fill("#patient", "sum(1)")
    page.keyboard.press("Enter")
    page.wait_for_url("**patient=sum*")
    page.click("tbody a")
    page.wait_for_url(f"**{study(ODD)}")
    page.goto(url + instance(ODD) + "?find=b_value")
    assert page.locator("#header-lines tbody tr").count() == 1


def test_a_person_signs_in_and_out(browser: Any, shown: Shown, tmp_path: Path):
    toml = "".join(f'[[serve.tokens]]\nname = "{one["name"]}"\nvariable = "{one["variable"]}"\n' for one in TOKENS[:1])
    with serving(shown.settings, tmp_path / "signed", toml=toml, environment=ENVIRONMENT) as server:
        page = opened(browser, SIZES[0])
        page.goto(server.url + study(ODD))
        page.fill("#token", ENVIRONMENT["ALL"])
        page.keyboard.press("Enter")
        page.wait_for_url(f"**{study(ODD)}")
        page.wait_for_selector("h2#series")
        page.wait_for_selector("img.is-there")
        page.click("text=Sign out")
        page.click("button:has-text('Sign out')")
        page.wait_for_selector("#token")
        page.goto(server.url + study(ODD))
        page.wait_for_selector("#token")
        assert not [one for one in page.complaints if "401" not in one]
        assert findings(page) == []


@needs_axe
def test_axe_finds_nothing_serious_wide_and_dark_or_narrow_and_light(browser: Any, url: str):
    page = opened(browser, SIZES[0], "dark")
    found = {}
    for path in PAGES:
        page.goto(url + path)
        for details in page.locator("details").all():
            details.evaluate("one => one.open = true")
        found[path] = findings(page)
        page.set_viewport_size(dict(zip(("width", "height"), SIZES[1], strict=True)))
        page.emulate_media(color_scheme="light")
        found[path] += findings(page, *SEEN)
        page.set_viewport_size(dict(zip(("width", "height"), SIZES[0], strict=True)))
        page.emulate_media(color_scheme="dark")
    assert {path: one for path, one in found.items() if one} == {}
