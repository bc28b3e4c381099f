"""From a service over HTTP through the real graph to the tables: every change accounted for, the newest one current."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import orjson
import pytest

from dicom_assets.service.changes import Landed, land, window_path
from dicom_assets.service.client import ServiceClient
from dicom_assets.service.feed import Window, read_window
from dicom_assets.settings import Settings
from dicom_assets_tests.service.feed_server import FeedServer, running
from dicom_assets_tests.service.service_model import DEFAULT, TICKS, metadata, ticks_of
from dicom_assets_tests.support.lakes import Graph, quiet_dagster

START = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


def window(number: int) -> Window:
    return Window(START + number * HOUR, START + (number + 1) * HOUR)


class Synced:
    """A service, its landing zone and a lake."""

    def __init__(self, server: FeedServer, folder: Path, instance: dg.DagsterInstance) -> None:
        self.server = server
        service = server.settings(landing=str(folder / "changes"))
        settings = Settings.model_validate(
            {
                "lake": str(folder / "lake"),
                "services": [service.model_dump()],
                "claiming": {"quiet_seconds": 0},
                "reading": {"workers": 1},
            }
        )
        self.service = service
        self.graph = Graph(settings, instance)

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


@pytest.fixture
def synced(tmp_path):
    quiet_dagster()
    with running() as server, dg.DagsterInstance.ephemeral() as instance:
        yield Synced(server, tmp_path, instance)


def one(number: int, study: str = "1.1", **values: str) -> dict:
    return metadata(study, f"{study}.1", f"{study}.1.{number}", **values)


def test_a_window_becomes_a_batch_whose_books_close(synced):
    for number in range(30):
        synced.model.store(one(number))
    synced.clock(0.5)
    synced.model.update((DEFAULT, "1.1", "1.1.1", "1.1.1.3"), one(3, StudyDescription="corrected"))
    synced.model.delete((DEFAULT, "1.1", "1.1.1", "1.1.1.4"))
    (batch,) = synced.sync(0)
    books = synced.graph.books(batch)
    # The container and the superseded Create are ignored; the update and the entries it supersedes are history.
    assert (books.seen, books.ingested, books.deleted, books.ignored, books.quarantined) == (33, 30, 1, 2, 0)
    assert all(check.passed for check in synced.graph.checks(batch).values())
    synced.holds()


def test_a_window_read_again_claims_only_what_changed(synced):
    for number in range(20):
        synced.model.store(one(number))
    synced.sync(0)
    assert synced.sync(0) == []
    synced.clock(1.5)
    synced.model.delete((DEFAULT, "1.1", "1.1.1", "1.1.1.7"))
    (again,) = synced.sync(0)
    books = synced.graph.books(again)
    assert (books.seen, books.ignored) == (2, 2)  # the file and the one Create that reads Deleted now
    assert len(synced.graph.rows("SELECT * FROM flat_metadata")) == 20
    synced.sync(1)
    synced.holds()


def test_a_batch_whose_window_was_replaced_pauses_and_loses_nothing_when_it_is_run_again(synced):
    for number in range(20):
        synced.model.store(one(number))
    (first,) = synced.sync(0)
    synced.clock(1.5)
    synced.model.delete((DEFAULT, "1.1", "1.1.1", "1.1.1.7"))
    synced.sync(0, 1)
    before = synced.graph.rows("SELECT * FROM flat_metadata ORDER BY ALL")
    assert not synced.graph.run(first).success
    assert synced.graph.rows("SELECT * FROM flat_metadata ORDER BY ALL") == before


def test_a_batch_run_again_finds_the_entries_that_it_found_before(synced):
    for number in range(20):
        synced.model.store(one(number))
    synced.sync(0)
    synced.clock(1.5)
    synced.model.delete((DEFAULT, "1.1", "1.1.1", "1.1.1.7"))
    (second,) = synced.sync(0)
    books = synced.graph.books(second)
    assert synced.graph.run(second).success
    assert synced.graph.books(second).seen == books.seen


def test_windows_in_any_order_end_in_the_same_instances(synced):
    key = synced.model.store(one(1, StudyDescription="old"))
    synced.clock(1.2)
    synced.model.delete(key)
    synced.clock(1.4)
    synced.model.store(one(1, StudyDescription="new"))
    synced.clock(2.5)
    synced.model.update(key, one(1, StudyDescription="newest"))
    for number in (2, 0, 1):
        synced.sync(number)
    synced.holds()


def test_an_instance_deleted_as_the_last_of_its_study_takes_series_and_study_with_it(synced):
    key = synced.model.store(one(1, study="1.7"))
    synced.model.store(one(2, study="1.8"))
    synced.sync(0)
    assert len(synced.graph.rows("SELECT * FROM study")) == 2
    synced.clock(1.5)
    synced.model.delete(key)
    synced.sync(1)
    assert [row["StudyInstanceUID"] for row in synced.graph.rows("SELECT * FROM study")] == ["1.8"]
    assert [row["StudyInstanceUID"] for row in synced.graph.rows("SELECT * FROM series")] == ["1.8"]
    synced.holds()


def test_a_page_of_superseded_entries_only_does_not_end_the_window(synced):
    for number in range(210):
        synced.model.delete(synced.model.store(one(number)))
    synced.model.store(one(999))
    (batch,) = synced.sync(0)
    books = synced.graph.books(batch)
    assert (books.ingested, books.deleted, books.ignored) == (1, 210, 211)
    codes = synced.graph.rows("SELECT code, count(*) AS n FROM validated_batch GROUP BY code ORDER BY n DESC")
    assert {row["code"]: row["n"] for row in codes}["CHANGE_SUPERSEDED"] == 210
    synced.holds()


def test_an_update_before_the_first_sync_is_an_upsert(synced):
    key = synced.model.store(one(1))
    synced.clock(1.5)
    synced.model.update(key, one(1, StudyDescription="corrected"))
    synced.sync(1)
    synced.holds()


def test_entries_without_file_path_are_ingested_and_those_with_one_keep_it_as_uri(synced):
    synced.model.store(one(1))
    path = "AHDS/w/dicom/s/Microsoft.Default/abc_1.dcm"
    synced.model.store(one(2), file_path=path)
    synced.sync(0)
    uris = {row["SOPInstanceUID"]: row["uri"] for row in synced.graph.rows("SELECT * FROM instance")}
    assert uris["1.1.1.2"] == path
    assert uris["1.1.1.1"].endswith(".ndjson.zst")
    synced.holds()


def test_forty_thousand_sequence_numbers_keep_their_order(synced):
    synced.model.sequence = 9_999
    key = synced.model.store(one(1, StudyDescription="9999"))
    synced.model.skip(30_000)
    synced.model.update(key, one(1, StudyDescription="40000"))
    synced.model.rows[-1] = type(synced.model.rows[-1])(  # the same moment: the sequence number decides
        synced.model.rows[-1].sequence, key, "Update", synced.model.rows[0].ticks, synced.model.rows[-1].watermark
    )
    synced.sync(0)
    assert [row["sequence"] for row in synced.graph.rows("SELECT sequence FROM instance")] == [40_001]
    synced.holds()


def test_the_same_uids_in_two_partitions_are_two_instances(synced):
    synced.model.store(one(1))
    synced.model.store(one(1, StudyDescription="other"), "research")
    synced.sync(0)
    sources = [row["source"] for row in synced.graph.rows("SELECT source FROM study ORDER BY source")]
    assert sources == ["pacs", "pacs/research"]
    synced.holds()


def test_timestamps_keep_their_full_precision(synced):
    synced.model.ticks = ticks_of(START) + 1_234_566
    synced.model.store(one(1))
    synced.sync(0)
    (row,) = synced.graph.rows("SELECT version_at, version_text, sequence FROM flat_metadata")
    assert row["version_text"] == "2026-03-01T08:00:00.1234567+00:00"
    assert row["version_at"] == datetime(2026, 3, 1, 8, 0, 0, 123_456, tzinfo=UTC)


def test_entries_that_cannot_be_understood_are_quarantined_with_their_reason(synced):
    for number in range(30):
        synced.model.store(one(number))
    with ServiceClient(synced.service) as client:
        pages = list(read_window(client, window(0)))
    del pages[0].entries[3]["action"]
    del pages[0].entries[4]["metadata"]
    pages[0].entries[5]["timestamp"] = "soon"
    land(synced.service, window_path(window(0)), window(0), pages, "v2")
    (batch,) = synced.graph.ingest()
    books = synced.graph.books(batch)
    assert (books.ingested, books.quarantined, books.ignored) == (27, 3, 1)
    codes = {row["code"] for row in synced.graph.rows("SELECT code FROM ingestion_errors WHERE severity = 'error'")}
    assert codes == {"CHANGE_INVALID"}


def test_a_window_file_that_is_cut_short_is_one_quarantined_object(synced):
    synced.model.store(one(1))
    synced.land(0)
    path = Path(synced.service.landing) / window_path(window(0))
    path.write_bytes(path.read_bytes()[:-5])
    (batch,) = synced.graph.ingest()
    assert (synced.graph.books(batch).seen, synced.graph.books(batch).quarantined) == (1, 1)
    # Reading the window again mends it.
    path.unlink()
    synced.sync(0)
    synced.holds_after_mending = synced.current() == synced.expected()
    assert synced.holds_after_mending
