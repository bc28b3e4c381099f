"""The pages of the books in Chromium: by keyboard alone, read by axe, in light and dark, wide and narrow."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicom_assets.batch.books import Status
from dicom_assets.curation.cohorts.selection import create_cohort
from dicom_assets.lake.delta import Lake
from dicom_assets.settings import Settings
from dicom_assets_tests.catalogue.shown_lake import series, study
from dicom_assets_tests.catalogue.wrong_lake import CLAIMED, GAP, TWINS
from dicom_assets_tests.serve.serving import START, Server, serving
from dicom_assets_tests.support.browser import SEEN, chromium, findings, go_to, needs_axe, needs_browser, overflow
from dicom_assets_tests.support.commands import clean_environment
from dicom_assets_tests.support.dicoms import dicom, uid, without_identity
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.states import States
from dicom_assets_tests.support.steps import Stepped

pytestmark = [pytest.mark.slow, needs_browser]


def paused(graph: Stepped, landing: LandingFolder) -> str:
    """A batch of which 3 objects are good and 12 are not."""
    for number in range(3):
        landing.put(f"good/{number}.dcm", dicom(1, 1, number))
    for number in range(12):
        landing.put(f"bad/{number}.dcm", without_identity(number))
    (batch,) = graph.ingest()
    assert graph.books(batch).status == Status.PAUSED
    return batch


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def test_a_paused_batch_is_found_by_keyboard_and_its_command_copied_and_run(states: States, browser: Any, tmp_path):
    graph, _, batch = states.begin(paused)
    with serving(graph.settings, tmp_path / "server") as server:
        context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
        page = context.new_page()
        page.goto(server.url + "/")
        go_to(page, "Batches")
        page.keyboard.press("Enter")
        page.wait_for_url("**/batches")
        wanted = f"dicom-assets batch accept {batch} --reason TEXT --lake {graph.settings.lake}"
        go_to(page, f"Copy the command {wanted}")
        page.keyboard.press("Enter")
        page.get_by_text("Copied", exact=True).wait_for()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == wanted
        done = _run(copied.replace("TEXT", "'three are good'"), server)
        assert done.returncode == 0, done.stderr
        page.reload()
        page.get_by_text("Nothing waits.").wait_for()
        go_to(page, batch)
        page.keyboard.press("Enter")
        page.get_by_text("three are good").wait_for()
        context.close()
    books = graph.books(batch)
    assert (books.status, books.ingested, books.quarantined) == (Status.CLOSED, 3, 12)


def _run(line: str, server: Server) -> subprocess.CompletedProcess[str]:
    """Runs a command as whoever has pasted it into a shell beside the server."""
    program, *words = shlex.split(line)
    assert program == "dicom-assets"
    folder = server.log.parent
    environment = clean_environment(DICOM_ASSETS_CONFIG=str(folder / "dicom-assets.toml"))
    return subprocess.run([*START, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False)


@needs_axe
def test_nothing_serious_is_wrong_with_the_pages_for_anybody(kept: Any, browser: Any, tmp_path: Path):
    paths = ("/batches", f"/batches/{kept.paused}", f"/batches/{kept.closed}", "/errors", "/errors/MISSING_IDENTITY",
             "/overview")  # fmt: skip
    assert wrongs(kept.settings, paths, browser, tmp_path / "server") == []


@needs_axe
def test_nothing_serious_is_wrong_with_reports_and_cohorts_for_anybody(wrong: Any, browser: Any, tmp_path: Path):
    lake = shutil.copytree(wrong.settings.lake, tmp_path / "lake")
    settings = wrong.settings.model_copy(update={"lake": str(lake)})
    create_cohort(Lake(str(lake)), "gap", studies=[uid(GAP)], by="test")
    paths = ("/report", "/report/landing", "/findings?source=landing&kind=duplicate&value=bytes", study(TWINS),
             series(GAP), series(CLAIMED), "/cohorts", "/cohorts/gap", "/")  # fmt: skip
    assert wrongs(settings, paths, browser, tmp_path / "server") == []


def wrongs(settings: Settings, paths: tuple[str, ...], browser: Any, folder: Path) -> list[str]:
    """What axe and the console say of pages in light and dark, and which are wider than their windows."""
    found: list[str] = []

    def said(message: Any) -> None:
        found.append(f"console: {message.text}")

    with serving(settings, folder) as server:
        context = browser.new_context()
        page = context.new_page()
        page.on("console", said)
        for path in paths:
            page.emulate_media(color_scheme="light")
            page.goto(server.url + path)
            for one in page.query_selector_all("summary"):
                one.click()
            found += [f"light {path} {one}" for one in findings(page)]
            page.emulate_media(color_scheme="dark")
            found += [f"dark {path} {one}" for one in findings(page, *SEEN)]
            for width in (1400, 400):
                page.set_viewport_size({"width": width, "height": 900})
                if overflow(page) > 0:
                    found.append(f"{path}: wider than {width} pixels")
        context.close()
    return found
