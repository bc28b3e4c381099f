"""Reading ahead: only staging changes before the run, which takes what was read and tells what went wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dicom_assets.batch import context as work_module
from dicom_assets.batch.claim_rounds import next_delivery, only_ingest
from dicom_assets.batch.context import BatchBusy, OpenBatch, RunContext
from dicom_assets.batch.validate import Progress
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.staging import Part
from dicom_assets.landing.claims import claim_new
from dicom_assets.landing.store import SourceUnavailable
from dicom_assets.schema.registry import TABLES
from dicom_assets.settings import Settings
from dicom_assets.storage.files import LakeError
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import contents, settings_for, table
from dicom_assets_tests.support.landings import LandingFolder, put_mixed
from dicom_assets_tests.support.steps import publish

RUN = "run"


@pytest.fixture
def landing(tmp_path: Path) -> LandingFolder:
    """A folder with something of everything."""
    (tmp_path / "landing").mkdir()
    folder = LandingFolder(tmp_path / "landing")
    put_mixed(folder)
    return folder


@pytest.fixture
def settings(tmp_path: Path, landing: LandingFolder) -> Settings:
    """Of a new lake."""
    return settings_for(tmp_path / "lake", landing.root)


def claimed(work: RunContext) -> str:
    """The one batch of the folder."""
    ((claim,),) = [claim_new(store, work.log, work.settings.claiming).claims for store in work.stores()]
    return claim.batch_id


@pytest.fixture
def work(settings: Settings) -> Iterator[RunContext]:
    """A lake that is open."""
    with RunContext(settings, shared_engine=InlineEngine()) as opened:
        yield opened


def test_before_its_run_a_batch_is_as_claimed_as_before(work: RunContext):
    batch = claimed(work)
    work.read_ahead(batch, RUN)
    seen, outcomes = read_before(work, batch)
    assert sum(outcomes.values()) == seen > 0
    assert work.unstarted() == [batch]
    assert all(rows == [] for rows in contents(work.lake).values())


def test_a_batch_that_is_held_keeps_footers(work: RunContext):
    def keeps_footers() -> bool:
        with work.lake.cursor() as connection:
            ((kept,),) = connection.execute("SELECT current_setting('parquet_metadata_cache')").fetchall()
        return bool(kept)

    assert not keeps_footers()
    work.batch(claimed(work))
    assert keeps_footers()


@pytest.mark.slow
def test_its_run_ends_in_the_same_tables_without_reading_again(
    work: RunContext, tmp_path: Path, landing: LandingFolder, monkeypatch: pytest.MonkeyPatch
):
    with RunContext(settings_for(tmp_path / "other", landing.root), shared_engine=InlineEngine()) as other:
        publish(other.batch(claimed(other)))
        expected = what_was_found(other.lake)
    batch = claimed(work)
    work.read_ahead(batch, RUN)
    read_before(work, batch)
    monkeypatch.setattr(OpenBatch, "expand", never)
    monkeypatch.setattr(work_module, "read_batch", never)
    publish(work.batch(batch))
    assert what_was_found(work.lake) == expected


def what_was_found(lake: Lake) -> dict[str, list[dict[str, Any]]]:
    """The outcome of every object and what the accepted ones say, whenever and in whatever batch that was."""
    ledger = table(lake, "validated_batch").select(["object_id", "outcome", "code", "kind"])
    flat = table(lake, "flat_metadata", without=["batch_id", "ingested_at"])
    levels = {name: table(lake, name).select(list(TABLES[name].key)) for name in ("instance", "series", "study")}
    return {name: rows.to_pylist() for name, rows in {"ledger": ledger, "flat": flat, **levels}.items()}


def never(*arguments: object, **named: object) -> None:
    raise AssertionError("this was done already")


def read_before(work: RunContext, batch: str) -> tuple[int, Mapping[str, int]]:
    """What came of reading a batch ahead."""
    found = work.read_before(batch, RUN)
    assert found is not None
    return found


def test_a_run_of_another_id_reads_for_itself(work: RunContext):
    batch = claimed(work)
    work.read_ahead(batch, "somebody else's")
    assert work.read_before(batch, RUN) is None
    assert work.read_before(batch, "somebody else's") is not None


def test_batches_are_read_in_the_order_in_which_that_is_asked_for(work: RunContext, landing: LandingFolder):
    first = claimed(work)
    landing.put("later/0001.dcm", dicom(9, 1, 1), age_seconds=3_600)
    second = claimed(work)
    for batch in (first, second):
        work.read_ahead(batch, RUN)
    read_before(work, second)
    assert work.batch(first).staging.require_all(Part.LEDGER, "object_id") > 1


def fails_once(function: Callable[..., object], error: Exception) -> Callable[..., object]:
    left = [error]

    def failing(*arguments: object, **named: object) -> object:
        if left:
            raise left.pop()
        return function(*arguments, **named)

    return failing


@pytest.mark.parametrize("step", ["expand", "read"])
def test_what_went_wrong_is_told_by_the_run_and_a_retry_of_the_step_does_it_anew(
    work: RunContext, monkeypatch: pytest.MonkeyPatch, step: str
):
    error = SourceUnavailable("The folder is gone.") if step == "expand" else LakeError("The disk is full.")
    monkeypatch.setattr(OpenBatch, step, fails_once(getattr(OpenBatch, step), error))
    batch = work.batch(claimed(work))
    work.read_ahead(batch.batch_id, RUN)
    with pytest.raises(type(error), match=str(error)):
        batch.begin(RUN)
    publish(batch)
    assert work.unclosed() == []


def test_nobody_reads_ahead_what_another_process_holds(work: RunContext, settings: Settings):
    batch = claimed(work)
    with RunContext(settings) as other:
        other.batch(batch)
        with pytest.raises(BatchBusy):
            work.read_ahead(batch, RUN)


@pytest.mark.parametrize("step", ["expand", "read"])
def test_a_batch_is_let_go_only_when_nothing_is_written_into_its_staging_any_more(
    work: RunContext, settings: Settings, monkeypatch: pytest.MonkeyPatch, step: str
):
    batch, reads, may_end = claimed(work), threading.Event(), threading.Event()
    function = getattr(OpenBatch, step)

    def slowly(*arguments, **named):
        reads.set()
        assert may_end.wait(30)
        return function(*arguments, **named)

    monkeypatch.setattr(OpenBatch, step, slowly)
    work.read_ahead(batch, RUN)
    assert reads.wait(30)
    releasing = threading.Thread(target=work.release, args=(batch,))
    releasing.start()
    with RunContext(settings) as other:
        with pytest.raises(BatchBusy):
            other.batch(batch, wait_seconds=0.2)
        may_end.set()
        releasing.join(30)
        assert other.batch(batch, wait_seconds=5).staging.left()


def test_what_a_source_in_mode_organize_holds_is_left_to_the_run(tmp_path: Path, landing: LandingFolder):
    settings = settings_for(tmp_path / "lake", landing.root)
    source = settings.sources[0].model_copy(update={"mode": "organize"})
    with RunContext(settings.model_copy(update={"sources": (source,)}), shared_engine=InlineEngine()) as work:
        batch = claimed(work)
        work.read_ahead(batch, RUN)
        assert work.read_before(batch, RUN) is None


def test_what_a_cluster_reads_is_not_read_ahead(work: RunContext, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DICOM_ASSETS_DASK", "tcp://nowhere:1")
    batch = claimed(work)
    work.read_ahead(batch, RUN)
    assert work.read_before(batch, RUN) is None


def test_closing_breaks_off_what_is_read_ahead(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    reads, may_end = threading.Event(), threading.Event()

    def endless(batch: OpenBatch, run_id: str, progress: Callable[[Progress], None]) -> None:
        reads.set()
        while not may_end.wait(0.01):
            progress(Progress(batch.batch_id, 0, 1, 0.0))

    monkeypatch.setattr(OpenBatch, "read", endless)
    with RunContext(settings, shared_engine=InlineEngine()) as work:
        work.read_ahead(claimed(work), RUN)
        assert reads.wait(30)
        closing = threading.Thread(target=work.__exit__, args=(None, None, None))
        closing.start()
        closing.join(10)
        stopped, _ = not closing.is_alive(), may_end.set()
    assert stopped


class TestAnIngest:
    def test_waits_for_another_one_and_says_so(self, settings: Settings):
        said: list[str] = []
        told = threading.Event()

        def say(sentence: str) -> None:
            said.append(sentence)
            told.set()

        def wait_and_claim() -> None:
            with RunContext(settings, say=say) as work, only_ingest(work):
                claimed(work)

        waiting = threading.Thread(target=wait_and_claim)
        with RunContext(settings) as other:
            with other.claiming(wait_seconds=0):
                waiting.start()
                assert told.wait(30)
                assert other.unstarted() == []
            waiting.join(30)
            other.forget_claims()
            assert len(other.unstarted()) == 1
        assert said == ["Another ingest is at work on this lake; waiting until it has ended."]

    def test_is_not_given_batches_that_it_has_run_again(self, work: RunContext):
        (batch,) = next_delivery(work, ()).batches
        assert next_delivery(work, (batch,)).batches == []

    def test_expects_reading_before_anything_is_claimed_where_a_source_has_grown_and_not_where_nothing_is_new(
        self, work: RunContext, landing: LandingFolder, monkeypatch: pytest.MonkeyPatch
    ):
        claims: list[int] = []
        monkeypatch.setattr(RunContext, "expect_reading", lambda expecting: claims.append(len(expecting.log)))
        for expected in ([0], [0]):
            next_delivery(work, ())
            assert claims == expected
        landing.put("another.dcm", dicom(7))
        next_delivery(work, ())
        assert claims == [0, 1]

    def test_is_told_of_a_lake_that_cannot_be_used(self, tmp_path: Path, landing: LandingFolder):
        (tmp_path / "file").write_text("no folder")
        with (
            RunContext(settings_for(tmp_path / "file" / "lake", landing.root)) as work,
            pytest.raises(LakeError),
            only_ingest(work),
        ):
            pass
