"""`dicom-assets ui` as somebody has it who has just installed it: sensors, runs, backfills, and the pages in a browser.

One system for all tests: its lake is a container of Azurite; a folder, a container with a queue, and a DICOM service
are its sources. What a test waits for is of its own source; none of them minds what the others have done before.
"""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import httpx
import pytest
from azure.storage.queue import QueueClient
from typer.testing import CliRunner

from dicom_assets.batch.books import Books, Status, all_books
from dicom_assets.cli.main import app
from dicom_assets.defs.windows import KEY, border
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import connect, existing
from dicom_assets_tests.azure import azurite
from dicom_assets_tests.service.feed_server import running
from dicom_assets_tests.service.service_model import ServiceModel, metadata
from dicom_assets_tests.support import commands
from dicom_assets_tests.support.browser import chromium, needs_browser, shot
from dicom_assets_tests.support.commands import wait_for
from dicom_assets_tests.support.landings import put_mixed
from dicom_assets_tests.support.projects import Project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_500)]

PATIENT = 600.0
"""Seconds that something may take on a slow machine; most of it is several stages of other processes."""
HOUR = timedelta(hours=1)
CONFIG = """
lake = "{lake}"

[[sources]]
name = "landing"
root = "{folder}"

[[sources]]
name = "ct"
root = "{container}/in"
queue = "{queue}"

[[services]]
name = "pacs"
url = "{service}"

[changes]
start = {start}
window_minutes = 60
delay_minutes = 0

[claiming]
quiet_seconds = 0
longest_wait_seconds = 0

[reading]
workers = 1
"""


@dataclass(frozen=True)
class System:
    """A running system. windows: keys of two windows of changes that a backfill asks for, each with a study."""

    project: Project
    address: str
    lake_url: str
    container: azurite.Container
    queue: QueueClient
    windows: tuple[str, str]

    @property
    def lake(self) -> Lake:
        """The lake as it is now."""
        return existing(self.lake_url)

    def books(self, source: str) -> list[Books]:
        """The books of what came from one source."""
        return [one for one in all_books(self.lake) if one.source == source]

    def backfills(self) -> list[Any]:
        """All backfills that were ever asked for."""
        with self.project.instance() as instance:
            return list(instance.get_backfills())

    def wait_for(self, what: str, condition: Callable[[], bool]) -> None:
        wait_for(what, condition, seconds=PATIENT, log=self.project.folder / "dev.log", pause=2.0)

    def command(self, *arguments: str) -> Any:
        """A command of ours in this process, as in the project's folder."""
        with self.project.instance(), pytest.MonkeyPatch.context() as patch:
            patch.setenv("DAGSTER_HOME", str(self.project.folder))
            return CliRunner().invoke(app, arguments)


@pytest.fixture(scope="module", autouse=True)
def _patient() -> Iterator[None]:
    """A command may take as long as what it waits for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "SECONDS", PATIENT)
        yield


@pytest.fixture(scope="module")
def system(emulator: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The system, with files in its folder before it starts, and a backfill of changes that it has begun with."""
    container, queue, lake = azurite.new_container(), azurite.new_queue(), azurite.new_container()
    start = border(datetime.now(UTC), 60) - 3 * HOUR
    with running(ServiceModel.at(start)) as service:
        for number in range(2):
            service.model.store(metadata(f"1.{number}", f"1.{number}.1", f"1.{number}.1.1"))
            service.model.advance(3_600)
        project = Project.make(tmp_path_factory.mktemp("system") / "clone")
        config = CONFIG.format(
            lake=lake.url, folder=project.landing.root, container=container.url, queue=queue.queue_name,
            service=service.url, start=start.strftime("%Y-%m-%dT%H:%M:%SZ"),
        )  # fmt: skip
        (project.folder / "dicom-assets.toml").write_text(config)
        put_mixed(project.landing)
        first, second = (start + number * HOUR for number in range(2))
        with project.ui() as address:
            system = System(project, address, lake.url, container, queue, (first.strftime(KEY), second.strftime(KEY)))
            # Asked for at once, so that it is done while the first tests wait for something else.
            asked = project.run(
                "dagster", "job", "backfill", "-j", "sync_dicom_changes",
                "--from", system.windows[0], "--to", system.windows[1], "--noprompt",
            )  # fmt: skip
            assert asked.returncode == 0, asked.stderr
            system.wait_for("the lake", lambda: any(name.startswith("batches/_delta_log/") for name in lake.names()))
            yield system


@pytest.fixture(scope="module")
def arrived(system: System) -> Books:
    """The batch of the files that were there, which a sensor saw and a run closed."""
    closed: list[Books] = []

    def look() -> bool:
        closed[:] = [one for one in system.books("landing") if one.status == Status.CLOSED]
        return bool(closed)

    system.wait_for("the sensor to see the files and a run to close them", look)
    return closed[0]


@pytest.fixture(scope="module")
def changes(system: System) -> list[Books]:
    """The batches of a past range of changes, for which a backfill was asked on Dagster's command line."""

    def studies() -> set[str]:
        with connect(system.lake, ["study"]) as connection:
            query = "SELECT StudyInstanceUID FROM study WHERE source = 'pacs'"
            return {uid for (uid,) in connection.execute(query).fetchall()}

    def look() -> bool:
        return studies() == {"1.0", "1.1"} and all(one.status == Status.CLOSED for one in system.books("pacs"))

    system.wait_for("the studies of the service in the lake", look)
    return system.books("pacs")


def test_files_that_are_there_are_ingested_by_themselves(arrived: Books):
    assert (arrived.seen, arrived.balance) == (12, 0)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page, closed behind the test: one that is left open goes on asking Dagster, and drawing."""
    with browser.new_page(viewport={"width": 1600, "height": 1000}) as page:
        page.set_default_timeout(PATIENT * 1_000)
        yield page


@needs_browser
class TestPages:
    def test_the_asset_graph_is_drawn(self, page: Any, system: System):
        page.goto(f"{system.address}/asset-groups")
        graph = page.locator("svg foreignObject")
        for group in ("landing", "metadata", "clinical", "hierarchy", "books"):
            graph.get_by_text(group, exact=True).first.wait_for()
        graph.get_by_text("landing", exact=True).first.click()
        for asset in ("raw_files", "validated_batch"):
            graph.get_by_text(asset, exact=True).first.wait_for()
        shot(page, "graph")

    def test_an_asset_shows_what_its_rows_and_columns_are(self, page: Any, system: System):
        page.goto(f"{system.address}/assets/flat_metadata")
        page.get_by_text("Every accepted DICOM object with its typed attributes").wait_for()
        page.get_by_text("study_key", exact=True).first.wait_for()
        shot(page, "asset")

    def test_nothing_asks_for_telemetry_or_a_newsletter(self, page: Any, system: System):
        page.goto(system.address)
        page.get_by_text("Overview", exact=True).first.wait_for()
        text = page.inner_text("body").lower()
        assert "newsletter" not in text
        assert "telemetry" not in text
        assert page.locator("[role=dialog]").count() == 0

    def test_a_backfill_of_all_batches_is_drained_and_their_checks_show_green(
        self, page: Any, system: System, arrived: Books, changes: list[Books]
    ):
        before = {one.batch_id: one.run_id for one in all_books(system.lake)}
        known = {one.backfill_id for one in system.backfills()}
        page.goto(f"{system.address}/locations/dicom_assets/jobs/ingest_batch")
        page.get_by_text("Materialize all").first.click()
        dialog = page.locator("[role=dialog]")
        dialog.get_by_role("button", name="All", exact=True).click()
        shot(page, "dialog")
        dialog.get_by_role("button", name=re.compile("^Launch")).click()
        system.wait_for("the backfill", lambda: len(system.backfills()) > len(known))
        page.goto("about:blank")

        def closed_again() -> bool:
            books = {one.batch_id: one for one in all_books(system.lake)}
            return all(
                books[batch].status == Status.CLOSED and books[batch].run_id != run for batch, run in before.items()
            )

        system.wait_for("the runs that were launched from the UI", closed_again)
        (backfill,) = [one for one in system.backfills() if one.backfill_id not in known]
        with system.project.instance() as instance:
            runs = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill.backfill_id}))
        assert before.keys() <= {run.tags["dagster/partition"] for run in runs}
        assert {one.run_id for one in all_books(system.lake) if one.batch_id in before} <= {run.run_id for run in runs}
        page.goto(f"{system.address}/assets/validated_batch?view=checks")
        page.get_by_text("claimed_equals_judged").first.wait_for()
        page.get_by_text("Passed").first.wait_for()
        shot(page, "checks")
        text = page.inner_text("body")
        count = int(re.search(r"Checks \((\d+)\)", text)[1])
        assert text.count("Succeeded") == count > 5
        assert "Failed" not in text


def test_windows_of_a_past_range_are_read_one_after_the_other(system: System, changes: list[Books]):
    assert {one.balance for one in changes} == {0}
    with system.project.instance() as instance:
        records = instance.get_run_records(dg.RunsFilter(job_name="sync_dicom_changes"))
        assert {*system.windows} <= instance.get_materialized_partitions(dg.AssetKey("dicom_changes"))
    assert {*system.windows} <= {record.dagster_run.tags["dagster/partition"] for record in records}
    spans = sorted((record.start_time, record.end_time) for record in records if record.end_time)
    assert len(spans) > 1
    assert all(ended <= began for (_, ended), (began, _) in itertools.pairwise(spans))


def test_a_single_asset_of_a_closed_batch_is_refused_with_the_command_that_makes_the_whole_of_it(
    system: System, arrived: Books
):
    done = system.project.run(
        "dagster", "asset", "materialize", "--select", "raw_files", "--partition", arrived.batch_id,
        "-m", "dicom_assets.definitions",
    )  # fmt: skip
    assert done.returncode != 0
    command = f"dagster job backfill -j ingest_batch --partitions {arrived.batch_id} --noprompt"
    assert command in done.stderr + done.stdout
    assert arrived.batch_id in {one.batch_id for one in system.books("landing") if one.status == Status.CLOSED}


def test_a_self_test_in_a_container_whose_blobs_a_queue_announces_passes_and_leaves_nothing(system: System):
    def announce() -> None:
        """What Event Grid does, once all is there: then it is one batch."""
        until = time.monotonic() + PATIENT
        while len(system.container.names()) < 69 and time.monotonic() < until:
            time.sleep(1)
        for number, blob in enumerate(system.container.client.list_blobs()):
            azurite.announce(system.queue, azurite.event(system.container, blob.name, blob.etag, blob.size, number))

    announcing = threading.Thread(target=announce, daemon=True)
    announcing.start()
    done = system.project.run("dicom-assets", "selftest", "--landing", "ct", "--timeout", "200")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The self-test passed." in done.stdout
    announcing.join()
    assert system.container.names() == []


def test_a_self_test_says_that_the_sensor_is_stopped(system: System, arrived: Books):
    names = {"repositoryName": "__repository__", "repositoryLocationName": "dicom_assets", "sensorName": "new_files"}
    selector = "{" + ", ".join(f'{name}: "{value}"' for name, value in names.items()) + "}"

    def asked(query: str) -> Any:
        answer = httpx.post(f"{system.address}/graphql", json={"query": query}, timeout=60).json()
        assert "errors" not in answer and "message" not in str(answer), answer
        return answer["data"]

    known = asked(f"{{sensorOrError(sensorSelector: {selector}) {{... on Sensor {{sensorState {{id}}}}}}}}")
    state = known["sensorOrError"]["sensorState"]["id"]
    asked(f'mutation {{stopSensor(id: "{state}") {{... on PythonError {{message}}}}}}')
    try:
        late = system.command("selftest", "--landing", "landing", "--timeout", "1")
    finally:
        asked(f"mutation {{startSensor(sensorSelector: {selector}) {{... on PythonError {{message}}}}}}")
    assert late.exit_code == 1, late.output
    assert "The sensor new_files is stopped" in late.stdout
    assert not list(system.project.landing.root.glob("selftest-*"))
