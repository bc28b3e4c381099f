"""From a service over HTTP through the real graph to the tables: every change accounted for, the newest one current.

Two histories are played once for all tests that look at them, because a batch takes seconds: `history`, whose windows
arrive in the wrong order, and `again`, where a window is read a second time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dicom_assets.batch.context import RunContext
from dicom_assets.batch.reread import Choice, choose, claim_chosen
from dicom_assets.batch.verification.verify import verify
from dicom_assets.service.client import ServiceClient
from dicom_assets.service.errors import ServiceError
from dicom_assets.service.feed import Window, read_window
from dicom_assets.service.window_files import Landed, land, window_path
from dicom_assets.settings import Settings
from dicom_assets_tests.service.feed_server import Fault, FeedServer, running
from dicom_assets_tests.service.service_model import DEFAULT, TICKS, metadata, ticks_of
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import Graph, make_asset, quiet_dagster
from dicom_assets_tests.support.steps import Stepped

START = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


def window(number: int) -> Window:
    return Window(START + number * HOUR, START + (number + 1) * HOUR)


class Synced:
    """A service, its landing zone and a lake; kind: who runs its batches; judges: see `Stepped`."""

    def __init__(
        self,
        server: FeedServer,
        folder: Path,
        instance: dg.DagsterInstance,
        kind: type[Graph] = Stepped,
        judges: bool = False,
    ) -> None:
        self.server = server
        service = server.settings(landing=str(folder / "changes"))
        made = Settings.model_validate(
            {
                "lake": str(folder / "lake"),
                "services": [service.model_dump()],
                "claiming": {"quiet_seconds": 0},
                "reading": {"workers": 1},
            }
        )
        self.service = service
        self.batches: list[str] = []
        self.first: list[str] = []
        self.unchanged: list[str] = []
        self.second: list[str] = []
        self.graph = kind(made, instance)
        if isinstance(self.graph, Stepped):
            self.graph.judges = judges

    @property
    def model(self):
        return self.server.model

    def clock(self, hour: float) -> None:
        """Puts the service's clock `hour` hours after the first window's start."""
        self.model.ticks = ticks_of(START) + round(hour * 3_600 * TICKS)

    def land(self, number: int) -> Landed:
        with ServiceClient(self.service, sleep=lambda _: None) as client:
            part = window(number)
            return land(self.service, window_path(part), part, read_window(client, part), "v2")

    def sync(self, *numbers: int) -> list[str]:
        for number in numbers:
            self.land(number)
        return self.graph.ingest()

    def current(self) -> dict:
        """The instances of the lake as the service's keys, with their header."""
        rows = self.graph.rows(
            "SELECT i.source, i.StudyInstanceUID, i.SeriesInstanceUID, i.SOPInstanceUID, f.header "
            "FROM instance i JOIN flat_metadata f USING (batch_id, object_id)"
        )
        return {
            (
                DEFAULT if row["source"] == "pacs" else row["source"].removeprefix("pacs/"),
                row["StudyInstanceUID"],
                row["SeriesInstanceUID"],
                row["SOPInstanceUID"],
            ): orjson.loads(row["header"])
            for row in rows
        }

    def expected(self) -> dict:
        return {key: orjson.loads(stored.metadata) for key, stored in self.model.current.items()}

    def holds(self) -> None:
        """The lake is the service, and the books of every batch close."""
        assert self.current() == self.expected()
        for row in self.graph.rows("SELECT * FROM batches"):
            assert row["status"] == "closed"
            assert row["seen"] == row["ingested"] + row["quarantined"] + row["ignored"] + row["deleted"]
        studies = {(p, s) for p, s, _, _ in self.model.current}
        series = {(p, s, e) for p, s, e, _ in self.model.current}
        counted = self.graph.rows("SELECT (SELECT count(*) FROM study) AS s, (SELECT count(*) FROM series) AS e")[0]
        assert (counted["s"], counted["e"]) == (len(studies), len(series))


def one(number: int, study: str = "1.1", **values: str) -> dict:
    return metadata(study, f"{study}.1", f"{study}.1.{number}", **values)


@contextmanager
def synced(folder: Path, kind: type[Graph] = Stepped, judges: bool = False) -> Iterator[Synced]:
    quiet_dagster()
    with running() as server, dg.DagsterInstance.ephemeral() as instance:
        yield Synced(server, folder, instance, kind, judges)


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """Three hours of a service; the last is read first, then the other two together."""
    with synced(tmp_path_factory.mktemp("history"), Graph) as service:
        model = service.model
        service.clock(-2)
        model.store(one(1, "1.10"))  # before anything is read
        service.clock(0.1)
        for number in range(30):
            model.store(one(number))
        model.update((DEFAULT, "1.1", "1.1.1", "1.1.1.3"), one(3, StudyDescription="corrected"))
        model.delete((DEFAULT, "1.1", "1.1.1", "1.1.1.4"))
        last_of_its_study = model.store(one(1, "1.7"))
        model.store(one(1, "1.8"))
        back_again = model.store(one(1, "1.9", StudyDescription="old"))
        model.store(one(1, "1.11"))
        model.store(one(1, "1.11", StudyDescription="other"), "research")
        model.store(one(1, "1.12"), file_path="AHDS/w/dicom/s/Microsoft.Default/abc_1.dcm")
        model.ticks = ticks_of(START + HOUR / 2) + 1_234_566
        model.store(one(1, "1.14"))
        service.clock(1.1)
        model.delete(last_of_its_study)
        model.delete(back_again)
        model.store(one(1, "1.9", StudyDescription="new"))
        model.update((DEFAULT, "1.10", "1.10.1", "1.10.1.1"), one(1, "1.10", StudyDescription="corrected"))
        model.sequence = 9_998
        high = model.store(one(1, "1.13", StudyDescription="9999"))
        model.sequence = 39_999
        model.update(high, one(1, "1.13", StudyDescription="40000"))
        model.rows[-1] = replace(model.rows[-1], ticks=model.rows[-2].ticks)  # the sequence number decides
        service.clock(2.1)
        for number in range(210):
            model.delete(model.store(one(number, "1.15")))
        model.store(one(999, "1.15"))
        model.update(back_again, one(1, "1.9", StudyDescription="newest"))
        service.batches = [*service.sync(2), *service.sync(0, 1)]
        yield service


def test_the_lake_is_the_service_although_its_windows_came_in_the_wrong_order(history):
    history.holds()
    assert len(history.batches) == 2


def test_every_entry_is_accounted_for(history):
    last, first = (history.graph.books(batch) for batch in history.batches)
    # Of 422 entries 210 are Creates of instances that are gone, and the window's file is an object itself.
    assert (last.seen, last.ingested, last.deleted, last.ignored, last.quarantined) == (423, 2, 210, 211, 0)
    # Two files and two superseded Creates; of the instance that came back every entry has metadata.
    assert (first.seen, first.ingested, first.deleted, first.ignored, first.quarantined) == (47, 40, 3, 4, 0)
    for batch in history.batches:
        assert all(check.passed for check in history.graph.checks(batch).values())


def test_a_page_of_superseded_entries_only_does_not_end_the_window(history):
    codes = history.graph.rows(
        "SELECT code, count(*) AS n FROM validated_batch "
        f"WHERE batch_id = '{history.batches[0]}' AND code IS NOT NULL GROUP BY code"
    )
    assert {row["code"]: row["n"] for row in codes} == {"CHANGE_SUPERSEDED": 210, "ARCHIVE_EXPANDED": 1}
    assert history.graph.rows("SELECT * FROM instance WHERE SOPInstanceUID = '1.15.1.999'")


def test_an_instance_deleted_as_the_last_of_its_study_takes_series_and_study_with_it(history):
    for table in ("study", "series", "instance"):
        kept = {row["StudyInstanceUID"] for row in history.graph.rows(f"SELECT StudyInstanceUID FROM {table}")}
        assert "1.7" not in kept
        assert "1.8" in kept


def test_an_update_before_the_first_sync_is_an_upsert(history):
    (row,) = history.graph.rows("SELECT * FROM study WHERE StudyInstanceUID = '1.10'")
    assert row["StudyDescription"] == "corrected"


def test_delete_and_re_create_end_in_the_new_instance(history):
    (row,) = history.graph.rows("SELECT * FROM study WHERE StudyInstanceUID = '1.9'")
    assert (row["StudyDescription"], row["instance_count"]) == ("newest", 1)


def test_entries_without_file_path_are_ingested_and_those_with_one_keep_it_as_uri(history):
    uris = {row["SOPInstanceUID"]: row["uri"] for row in history.graph.rows("SELECT * FROM instance")}
    assert uris["1.12.1.1"] == "AHDS/w/dicom/s/Microsoft.Default/abc_1.dcm"
    assert uris["1.8.1.1"].endswith(".ndjson.zst")


def test_forty_thousand_sequence_numbers_keep_their_order(history):
    (row,) = history.graph.rows("SELECT * FROM instance WHERE StudyInstanceUID = '1.13'")
    assert (row["sequence"], row["StudyDescription"]) == (40_000, "40000")


def test_the_same_uids_in_two_partitions_are_two_instances(history):
    rows = history.graph.rows("SELECT source FROM study WHERE StudyInstanceUID = '1.11' ORDER BY source")
    assert [row["source"] for row in rows] == ["pacs", "pacs/research"]


def test_timestamps_keep_their_full_precision(history):
    (row,) = history.graph.rows("SELECT * FROM flat_metadata WHERE StudyInstanceUID = '1.14'")
    assert row["version_text"] == "2026-03-01T08:30:00.1234567+00:00"
    assert row["version_at"] == datetime(2026, 3, 1, 8, 30, 0, 123_456, tzinfo=UTC)


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    """A window that is read, read again unchanged, and read once more after one of its instances was deleted."""
    with synced(tmp_path_factory.mktemp("again"), judges=True) as service:
        for number in range(20):
            service.model.store(one(number))
        service.first = service.sync(0)
        service.unchanged = service.sync(0)
        service.clock(1.5)
        service.model.delete((DEFAULT, "1.1", "1.1.1", "1.1.1.7"))
        service.second = service.sync(0)
        yield service


@pytest.mark.slow
def test_a_window_that_reads_the_same_is_not_claimed_again(again):
    assert len(again.first) == 1
    assert again.unchanged == []


@pytest.mark.slow
def test_of_a_window_read_again_only_what_changed_is_claimed(again):
    books = again.graph.books(again.second[0])
    assert (books.seen, books.ignored) == (2, 2)  # the file, and the one Create that reads Deleted now
    assert len(again.graph.rows("SELECT * FROM flat_metadata")) == 20


@pytest.mark.slow
def test_a_batch_run_again_finds_what_it_found_before(again):
    (batch,) = again.second
    seen = again.graph.books(batch).seen
    assert again.graph.run(batch).success
    assert again.graph.books(batch).seen == seen


@pytest.mark.slow
def test_a_batch_whose_window_was_replaced_keeps_what_it_brought_when_it_is_run_again(again):
    def rows() -> list[list[dict]]:
        return [again.graph.rows(f"SELECT * FROM {name} ORDER BY ALL") for name in ("flat_metadata", "raw_files")]

    before, books = rows(), again.graph.books(again.first[0])
    assert again.graph.run(again.first[0]).success, again.graph.books(again.first[0]).reason
    assert rows() == before
    assert again.graph.books(again.first[0]).ingested == books.ingested
    again.sync(1)
    assert again.current() == again.expected()


@pytest.mark.slow
def test_its_windows_can_be_read_again_on_demand(again):
    again.sync(1)
    with again.graph.work() as work:
        (claim,) = claim_chosen(work, choose(work, Choice(source="pacs")))
    assert again.graph.run(claim.batch_id).success, again.graph.books(claim.batch_id).reason
    assert again.current() == again.expected()
    assert [one for one in verify(again.graph.lake, again.graph.settings).findings if not one.holds] == []


@pytest.mark.slow
def test_entries_and_files_that_cannot_be_understood_are_quarantined_and_mended_by_reading_again(tmp_path):
    with synced(tmp_path) as service:
        for number in range(30):
            service.model.store(one(number))
        service.clock(1.5)
        service.model.store(one(1, "1.2"))
        with ServiceClient(service.service) as client:
            pages = list(read_window(client, window(0)))
        del pages[0].entries[3]["action"]
        del pages[0].entries[4]["metadata"]
        pages[0].entries[5]["timestamp"] = "soon"
        land(service.service, window_path(window(0)), window(0), pages, "v2")
        service.land(1)
        cut = Path(service.service.landing) / window_path(window(1))
        cut.write_bytes(cut.read_bytes()[:-5])
        (batch,) = service.graph.ingest()
        books = service.graph.books(batch)
        assert (books.ingested, books.quarantined, books.ignored) == (27, 4, 1)
        codes = service.graph.rows(
            "SELECT code, count(*) AS n FROM ingestion_errors WHERE severity = 'error' GROUP BY 1"
        )
        assert {row["code"]: row["n"] for row in codes} == {"CHANGE_INVALID": 3, "CHANGE_PAGE_UNREADABLE": 1}
        cut.unlink()
        service.sync(0, 1)
        assert service.current() == service.expected()


STEPS = st.lists(
    st.tuples(st.sampled_from(["store", "store", "update", "delete", "delete", "hour"]), st.integers(0, 5)),
    min_size=25,
    max_size=40,
)


@pytest.mark.slow
@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(STEPS, st.randoms())
def test_any_history_with_kills_between_ends_in_the_services_instances(steps, random):
    """Kills: of a landing before its file is there, of a batch after any of its assets."""
    with tempfile.TemporaryDirectory() as folder, synced(Path(folder)) as service:
        hour = 0
        for version, (what, number) in enumerate(steps):
            key = (DEFAULT, f"1.{number % 2}", f"1.{number % 2}.1", f"1.{number % 2}.1.{number}")
            content = one(number, f"1.{number % 2}", StudyDescription=f"v{version}")
            if what == "hour":
                hour += 1
                service.clock(hour)
            elif what == "store" and key not in service.model.current:
                service.model.store(content)
            elif what == "update" and key in service.model.current:
                service.model.update(key, content)
            elif what == "delete" and key in service.model.current:
                service.model.delete(key)
        windows = list(range(hour + 1))
        random.shuffle(windows)
        for number in windows:
            service.server.faults += [Fault(400)]  # the landing dies with the first request
            with pytest.raises(ServiceError):
                service.land(number)
            service.land(number)
        for batch in service.graph.claim():
            with RunContext(service.graph.settings, shared_engine=InlineEngine()) as work:
                for name in random.choice(KILLED_AFTER):
                    make_asset(name, batch, work)
        with service.graph.work() as work:
            unclosed = work.unclosed()
        for batch in unclosed:
            service.graph.run(batch)
        service.holds()


KILLED_AFTER = [
    ["raw_files"],
    ["raw_files", "validated_batch"],
    ["raw_files", "validated_batch", "flat_metadata"],
]
