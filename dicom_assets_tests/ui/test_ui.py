"""The UI for real: `dagster dev` in a browser, as somebody who has never seen it uses it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_assets_tests.support.commands import wait_for
from dicom_assets_tests.support.landings import put_mixed
from dicom_assets_tests.support.projects import Project

sync_api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
           "--disable-component-update", "--disable-sync"]  # fmt: skip
PATIENCE = 60_000
"""Milliseconds that something may take to be drawn."""
SHOTS = os.environ.get("DICOM_ASSETS_TEST_SHOTS")
"""A folder for pictures of what the test saw, for whoever wants to look."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no browser is installed: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    project = Project.make(tmp_path_factory.mktemp("ui") / "clone")
    put_mixed(project.landing)
    return project


@pytest.fixture(scope="module")
def address(project) -> Iterator[str]:
    with project.ui() as address:
        yield address


@pytest.fixture(scope="module")
def page(address) -> Iterator[sync_api.Page]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=OPTIONS)
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(PATIENCE)
        yield page
        browser.close()


def shot(page: sync_api.Page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png")


def test_files_that_are_there_are_ingested_by_themselves(project, address):
    log = project.folder / "dev.log"
    wait_for("the sensor to see the files and a run to close them", lambda: len(project.closed()) == 1, log=log)
    (books,) = project.books()
    assert (books.seen, books.balance) == (12, 0)


def test_the_asset_graph_is_drawn(page, address):
    page.goto(f"{address}/asset-groups")
    graph = page.locator("svg foreignObject")
    for group in ("landing", "metadata", "clinical", "hierarchy", "books"):
        graph.get_by_text(group, exact=True).first.wait_for()
    graph.get_by_text("landing", exact=True).first.click()
    for asset in ("raw_files", "validated_batch"):
        graph.get_by_text(asset, exact=True).first.wait_for()
    shot(page, "graph")


def test_an_asset_shows_what_its_rows_and_columns_are(page, address):
    page.goto(f"{address}/assets/flat_metadata")
    page.get_by_text("Every accepted DICOM object with its typed attributes").wait_for()
    page.get_by_text("study_key", exact=True).first.wait_for()
    shot(page, "asset")


def test_nothing_asks_for_telemetry_or_a_newsletter(page, address):
    page.goto(address)
    page.get_by_text("Overview", exact=True).first.wait_for()
    text = page.inner_text("body").lower()
    assert "newsletter" not in text
    assert "telemetry" not in text
    assert page.locator("[role=dialog]").count() == 0


def test_a_batch_is_materialized_from_the_ui_and_its_checks_show_green(project, page, address):
    (before,) = project.books()
    page.goto(f"{address}/locations/dicom_assets/jobs/ingest_batch")
    page.get_by_text("Materialize all").first.click()
    dialog = page.locator("[role=dialog]")
    dialog.get_by_role("button", name="All", exact=True).click()
    shot(page, "dialog")
    dialog.get_by_role("button", name=re.compile("^Launch")).click()

    def closed_again() -> bool:
        (books,) = project.books()
        return books.status == "closed" and books.run_id != before.run_id

    wait_for("the run that was launched from the UI", closed_again, log=project.folder / "dev.log")
    page.goto(f"{address}/assets/validated_batch?view=checks")
    page.get_by_text("claimed_equals_judged").first.wait_for()
    page.get_by_text("Passed").first.wait_for()
    shot(page, "checks")
    text = page.inner_text("body")
    count = int(re.search(r"Checks \((\d+)\)", text)[1])
    assert text.count("Succeeded") == count > 5
    assert "Failed" not in text
    assert before.batch_id in text
