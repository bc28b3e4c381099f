"""An object that cannot be read now is not bad: it leaves its batch, waits, and is read again by a later one."""

from __future__ import annotations

import errno
import io
import os
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from dicom_assets.batch import validate as read
from dicom_assets.landing.claims import MANIFEST, ClaimLog, Haste, claim_new
from dicom_assets.landing.returns import returned, waiting
from dicom_assets.reading import object_bytes
from dicom_assets.settings import ClaimingSettings
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.faults import breaking_off, refusing
from dicom_assets_tests.support.lakes import Graph, settings_for, table
from dicom_assets_tests.support.landings import CLINICAL_CSV, LandingFolder
from dicom_assets_tests.support.steps import Stepped

pytestmark = pytest.mark.usefixtures("as_far_as_hierarchy")

OF_BATCHES = ("raw_files", "validated_batch", "flat_metadata", "clinical", "ingestion_errors")

REFUSALS = (errno.EACCES, errno.EIO, errno.ESTALE, errno.ETIMEDOUT)

PATIENT, AT_ONCE = Haste(), Haste(waiting=True, absent=True)


@pytest.fixture
def graph(stepped: Stepped) -> Stepped:
    """These tests are about what is in the tables; those of each kind that ask every rule say so."""
    stepped.judges = False
    return stepped


def log(graph: Graph) -> ClaimLog:
    return ClaimLog(graph.lake.files)


def claim_later(graph: Graph, seconds: float = 0, haste: Haste = PATIENT) -> list[str]:
    """Claims as a tick does some seconds from now."""
    return claim_at(graph, datetime.now(UTC) + timedelta(seconds=seconds), haste)


def claim_at(graph: Graph, moment: datetime, haste: Haste = PATIENT) -> list[str]:
    """Claims as a tick does at a moment."""
    with graph.work() as work:
        (store,) = work.stores()
        done = claim_new(store, work.log, graph.settings.claiming, moment, haste)
    batches = [claim.batch_id for claim in done.claims]
    graph.instance.add_dynamic_partitions("batch", batches)
    return batches


def run_at_once(graph: Graph) -> list[str]:
    """Claims and runs as `dicom-assets ingest` does."""
    batches = claim_later(graph, haste=AT_ONCE)
    for batch in batches:
        assert graph.run(batch).success
    return batches


def ids(graph: Graph, batch: str) -> list[str]:
    found: list[str] = log(graph).manifest(batch)["object_id"].to_pylist()
    return found


def outcomes(graph: Graph) -> list[tuple[str, str, str | None]]:
    """(batch, last part of the name, code or outcome) of every row of the ledger."""
    rows = graph.rows(
        "SELECT batch_id, regexp_extract(coalesce(member, uri), '[^/]*$') AS name, coalesce(code, outcome) AS said "
        "FROM raw_files JOIN validated_batch USING (batch_id, object_id) ORDER BY ALL"
    )
    return [(row["batch_id"], row["name"], row["said"]) for row in rows]


def books(graph: Graph, batch: str) -> tuple[str, int, int, int]:
    found = graph.books(batch)
    return found.status, found.seen, found.ingested, found.balance


def one_waits(graph: Graph, landing: LandingFolder) -> str:
    """A file that could not be read; the batch that it has left."""
    with refusing(landing.put("a.dcm", dicom(SeriesDescription="old"))):
        (batch,) = graph.ingest()
    return batch


class TestAnObjectThatCannotBeRead:
    @pytest.mark.slow
    def test_leaves_its_batch_which_closes_without_it_and_is_read_again_under_the_same_name(self, graph, landing):
        graph.judges = True
        good = landing.put("a.dcm", dicom(1))
        bad = {error: landing.put(f"{errno.errorcode[error]}.dcm", dicom(2, 1, error)) for error in REFUSALS}
        with ExitStack() as faults:
            for error, path in bad.items():
                faults.enter_context(refusing(path, error=error))
            (batch,) = graph.ingest()
        first = ids(graph, batch)
        assert graph.results[batch].success
        assert books(graph, batch) == ("closed", 1, 1, 0)
        left = log(graph).returned()["object_id"].to_pylist()
        assert len(left) == len(bad)
        for name in OF_BATCHES:
            assert not set(left) & set(table(graph.lake, name)["object_id"].to_pylist()), name
        (one,) = waiting(log(graph).returned())
        assert (one.source, one.objects, one.codes) == ("landing", len(bad), {"READ_FAILED": len(bad)})

        rows = log(graph).returned().to_pylist()
        assert {one["due_at"] - one["returned_at"] for one in rows} == {timedelta(minutes=1)}
        assert claim_at(graph, min(one["due_at"] for one in rows) - timedelta(seconds=1)) == []
        (second,) = claim_at(graph, max(one["due_at"] for one in rows) + timedelta(seconds=1))
        assert set(ids(graph, second)) == set(left) < set(first)
        assert graph.run(second).success
        assert books(graph, second) == ("closed", len(bad), len(bad), 0)
        assert outcomes(graph) == [
            (batch, good.name, "ingested"),
            *sorted((second, path.name, "ingested") for path in bad.values()),
        ]
        assert waiting(log(graph).returned()) == []
        assert claim_later(graph, 1e6) == []

    @pytest.mark.slow
    def test_waits_longer_after_each_attempt(self, states):
        graph, landing, _ = states.begin(one_waits)
        seconds = []
        with refusing(landing.root / "a.dcm"):
            for _ in range(2):
                row = log(graph).returned().to_pylist()[0]
                seconds.append(round((row["due_at"] - row["returned_at"]).total_seconds()))
                assert claim_at(graph, row["due_at"] - timedelta(seconds=1)) == []
                (batch,) = claim_at(graph, row["due_at"] + timedelta(seconds=1))
                assert graph.run(batch).success
        row = log(graph).returned().to_pylist()[0]
        seconds.append(round((row["due_at"] - row["returned_at"]).total_seconds()))
        assert seconds == [60, 300, 1_800]

    def test_waits_as_long_as_after_the_last_pause_from_then_on(self):
        pauses = ClaimingSettings().again_seconds
        rows = [{"object_id": f"{attempt}", "attempt": attempt} for attempt in range(1, 9)]
        objects, now = pa.Table.from_pylist(rows, schema=MANIFEST), datetime.now(UTC)
        codes = {row["object_id"]: "READ_FAILED" for row in rows}
        due = returned(objects, codes, pauses, now, waits=True)["due_at"].to_pylist()
        seconds = [(one - now).total_seconds() for one in due]
        assert seconds == [60, 300, 1_800, 7_200, 43_200, 86_400, 86_400, 86_400]

    @pytest.mark.slow
    def test_a_batch_that_everything_leaves_closes_with_nothing_seen(self, graph, landing):
        paths = landing.put_series(1, 1, 3)
        with refusing(*paths):
            (batch,) = graph.ingest()
            assert graph.results[batch].success, graph.books(batch).reason
            assert books(graph, batch) == ("closed", 0, 0, 0)
        assert graph.run(batch).success, "what has left is not its own any more"
        assert books(graph, batch) == ("closed", 0, 0, 0)
        (second,) = run_at_once(graph)
        assert books(graph, second) == ("closed", 3, 3, 0)

    @pytest.mark.slow
    def test_run_again_its_first_batch_leaves_it_to_the_later_one(self, graph, landing):
        landing.put("a.dcm", dicom(1))
        with refusing(landing.put("b.dcm", dicom(2))):
            (batch,) = graph.ingest()
        assert graph.run(batch).success, "before it is claimed again"
        assert books(graph, batch) == ("closed", 1, 1, 0)
        (second,) = run_at_once(graph)
        assert graph.run(batch).success, "and after that"
        assert (books(graph, batch), books(graph, second)) == (("closed", 1, 1, 0), ("closed", 1, 1, 0))
        assert len(table(graph.lake, "instance")) == 2

    @pytest.mark.slow
    def test_clinical_records_of_what_left_are_not_published(self, graph, landing):
        with breaking_off(landing.put("a.csv", CLINICAL_CSV * 2_000), 32_768):
            (batch,) = graph.ingest()
        assert books(graph, batch) == ("closed", 0, 0, 0)
        assert len(table(graph.lake, "clinical")) == len(table(graph.lake, "ingestion_errors")) == 0
        (second,) = run_at_once(graph)
        assert books(graph, second) == ("closed", 1, 1, 0)
        assert len(table(graph.lake, "clinical")) > 1_000

    def test_that_is_not_listed_any_more_is_read_again_and_found_to_be_gone(self, states):
        graph, landing, _ = states.begin(one_waits)
        (landing.root / "a.dcm").unlink()
        (second,) = run_at_once(graph)
        assert outcomes(graph) == [(second, "a.dcm", "OBJECT_GONE")]
        assert books(graph, second) == ("closed", 1, 0, 0)

    @pytest.mark.slow
    def test_of_which_a_newer_version_came_meanwhile_is_accounted_for_all_the_same(self, states):
        graph, landing, _ = states.begin(one_waits)
        landing.put("a.dcm", dicom(SeriesDescription="new"), age_seconds=3_600)
        batches = run_at_once(graph)
        assert sorted(said for _, _, said in outcomes(graph)) == ["CHANGED_DURING_READ", "ingested"]
        assert {books(graph, batch)[0] for batch in batches} == {"closed"}
        assert table(graph.lake, "instance")["SeriesDescription"].to_pylist() == ["new"]
        assert waiting(log(graph).returned()) == []

    @pytest.mark.slow
    def test_of_which_a_newer_version_is_in_the_lake_does_not_push_that_out(self, states):
        graph, landing, _ = states.begin(one_waits)
        landing.put("a.dcm", dicom(SeriesDescription="new"), age_seconds=3_600)
        (due_at,) = log(graph).returned()["due_at"].to_pylist()
        (newer,) = claim_at(graph, due_at - timedelta(seconds=1))
        assert graph.run(newer).success
        assert table(graph.lake, "instance")["SeriesDescription"].to_pylist() == ["new"]
        (later,) = claim_at(graph, due_at + timedelta(seconds=1))
        assert graph.run(later).success
        assert outcomes(graph) == [(newer, "a.dcm", "ingested"), (later, "a.dcm", "CHANGED_DURING_READ")]
        assert books(graph, later)[0] == "closed"
        assert table(graph.lake, "instance")["SeriesDescription"].to_pylist() == ["new"]

    @pytest.mark.slow
    def test_pauses_the_batch_instead_when_that_has_brought_it_into_the_lake_before(self, graph, landing):
        bad = landing.put("a.dcm", dicom())
        landing.put("b.dcm", dicom(instance=2))
        (batch,) = graph.ingest()
        with refusing(bad):
            assert not graph.run(batch).success
        assert graph.books(batch).status == "paused"
        assert "its rows stay" in graph.books(batch).reason
        assert len(table(graph.lake, "flat_metadata")) == 2
        assert waiting(log(graph).returned()) == []
        assert graph.run(batch).success
        assert books(graph, batch) == ("closed", 2, 2, 0)


def archive(members: int = 4) -> bytes:
    """A ZIP of DICOM objects with long headers, stored as they are, so that each lies where it can be found."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as file:
        for number in range(1, members + 1):
            file.writestr(f"{number}.dcm", dicom(1, 1, number, TextValue="x" * 100_000))
    return sink.getvalue()


class TestAnArchiveThatCannotBeReadWhole:
    @pytest.fixture
    def broken(self, graph: Graph, landing: LandingFolder) -> Iterator[tuple[Graph, str]]:
        """A batch of a file and an archive whose second member breaks off in the middle; every rule holds."""
        graph.judges = True
        landing.put("good.dcm", dicom(2))
        path = landing.put("a.zip", data := archive())
        with breaking_off(path, len(data) * 3 // 8, len(data) * 3 // 8 + 10_000):
            (batch,) = graph.ingest()
        yield graph, batch

    @pytest.mark.slow
    def test_leaves_with_all_of_its_members_and_is_read_again_whole(self, broken):
        graph, batch = broken
        assert books(graph, batch) == ("closed", 1, 1, 0)
        assert outcomes(graph) == [(batch, "good.dcm", "ingested")]
        assert len(table(graph.lake, "instance")) == 1
        (one,) = waiting(log(graph).returned())
        assert (one.objects, one.codes) == (1, {"READ_FAILED": 1})
        (second,) = run_at_once(graph)
        assert books(graph, second) == ("closed", 5, 4, 0)
        assert len(table(graph.lake, "instance")) == 5

    @pytest.mark.slow
    def test_that_vanishes_in_the_middle_leaves_whole_too_so_that_no_member_is_read_by_two_batches(
        self, graph, landing, monkeypatch
    ):
        path = landing.put("a.zip", archive())
        away = landing.root.parent / "a.zip"
        kept, opened = object_bytes._open_archive, []

        def vanishing(*arguments):
            if len(opened) == 2:
                path.rename(away)
            opened.append(arguments)
            yield from kept(*arguments)

        monkeypatch.setattr(object_bytes, "_open_archive", vanishing)
        graph.settings = settings_for(Path(graph.settings.lake), landing.root, reading={"chunk_objects": 1})
        monkeypatch.setattr(read, "MEMBERS_PER_FILE", 1)
        monkeypatch.setattr(read, "SHORTEST_OF_FEW", 1)
        (batch,) = graph.ingest()
        assert len(opened) > 2
        assert books(graph, batch) == ("closed", 0, 0, 0)
        monkeypatch.undo()
        (second,) = run_at_once(graph)
        assert outcomes(graph) == [(second, "a.zip", "OBJECT_GONE")]
        away.rename(path)
        (third,) = run_at_once(graph)
        assert books(graph, third) == ("closed", 5, 4, 0)


class TestAnObjectThatIsGone:
    @pytest.mark.slow
    def test_and_comes_back_as_it_was_is_claimed_again_under_the_same_name(self, graph, landing):
        """A subfolder that is moved away between claim and reading, and moved back; every rule holds."""
        graph.judges = True
        landing.put("here.dcm", dicom(3))
        landing.put_series(1, 1, 3, folder="sub/deep")
        landing.put_zip("sub/a.zip", {"1.dcm": dicom(2, 1, 1), "2.dcm": dicom(2, 1, 2)})
        (batch,) = graph.claim()
        away = landing.root.parent / "away"
        (landing.root / "sub").rename(away)
        assert graph.run(batch).success
        assert books(graph, batch) == ("closed", 5, 1, 0)
        assert claim_later(graph) == [], "it is not listed"

        away.rename(landing.root / "sub")
        assert graph.run(batch).success, "what has come back is not the old batch's any more"
        assert books(graph, batch) == ("closed", 5, 1, 0)
        (second,) = claim_later(graph)
        assert set(ids(graph, second)) < set(ids(graph, batch))
        assert graph.run(second).success
        assert books(graph, second) == ("closed", 6, 5, 0)
        graph.judges = False
        assert graph.run(batch).success
        assert books(graph, batch) == ("closed", 5, 1, 0)
        assert len(table(graph.lake, "instance")) == 6
        assert claim_later(graph, 1e6) == []

    @pytest.mark.slow
    def test_and_is_listed_again_and_again_without_being_there_is_claimed_ever_more_seldom(self, graph, landing):
        """As a listing from yesterday's inventory lists it."""
        path = landing.put("a.dcm", dicom())
        status = path.stat()
        gone = 0
        pauses = []
        for _ in range(3):
            path.write_bytes(dicom())
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            rows = log(graph).returned().to_pylist()
            if rows:
                pauses.append((rows[0]["due_at"] - rows[0]["returned_at"]).total_seconds())
                if pauses[-1]:
                    assert claim_later(graph, pauses[-1] - 5) == []
            (batch,) = claim_later(graph, sum(pauses) + 5)
            path.unlink()
            assert graph.run(batch).success
            gone += 1
        assert [said for _, _, said in outcomes(graph)] == ["OBJECT_GONE"] * gone
        assert pauses == [0, 60]

    @pytest.mark.slow
    def test_that_changed_and_changed_back_is_claimed_again(self, graph, landing):
        path = landing.put("a.dcm", dicom())
        (batch,) = graph.claim()
        kept = path.rename(landing.root.parent / "kept")
        landing.put("a.dcm", dicom(SeriesDescription="other"), age_seconds=3_600)
        assert graph.run(batch).success
        kept.rename(path)
        (second,) = claim_later(graph)
        assert graph.run(second).success
        assert [said for _, _, said in outcomes(graph)] in (
            ["CHANGED_DURING_READ", "ingested"],
            ["ingested", "CHANGED_DURING_READ"],
        )

    @pytest.mark.slow
    def test_is_told_again_when_it_is_gone_again_from_a_batch_that_paused(self, graph, landing):
        """The log is written when the books close, so a paused batch finds what has come back."""
        paths = landing.put_series(1, 1, 12)
        (batch,) = graph.claim()
        for path in paths:
            path.rename(landing.root.parent / path.name)
        assert not graph.run(batch).success, "the gate: all of them are quarantined"
        for path in paths:
            (landing.root.parent / path.name).rename(path)
        assert claim_later(graph) == []
        assert graph.run(batch).success
        assert books(graph, batch) == ("closed", 12, 12, 0)
