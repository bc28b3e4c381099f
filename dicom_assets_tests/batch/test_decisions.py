"""What a person decides about a batch that waits: which decisions are taken, and what they do."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from dicom_assets.batch import decisions
from dicom_assets.batch.books import Status
from dicom_assets.batch.checks import rules
from dicom_assets.batch.checks.contract import CheckContext, CheckResult
from dicom_assets.batch.decisions import DecisionRefused
from dicom_assets.batch.waits import commands, look_at
from dicom_assets.defs import single_batches
from dicom_assets.settings import SettingsError
from dicom_assets_tests.support.dicoms import dicom, without_identity
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import TABLES_OF_A_BATCH, Graph, make_asset, table, versions
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import Stepped, failures, publish

pytestmark = pytest.mark.usefixtures("as_far_as_hierarchy")

BAD, GOOD = 4, 2
PUBLISHED = ("flat_metadata", "clinical", "instance", "series", "study")


GATE = {"minimum": 1, "quarantined_share": 0.1}
"""A batch pauses when more than a tenth of it is bad."""


def put_bad_and_good(landing: LandingFolder) -> None:
    for number in range(BAD):
        landing.put(f"bad{number}.dcm", without_identity(number))
    for number in range(GOOD):
        landing.put(f"good{number}.dcm", dicom(1, 1, number + 1))
    landing.put_zip("a.zip", {"1.dcm": dicom(2), "notes.txt": b"notes"})
    landing.put("a.csv", "PatientID,x\nP0001,a\n")


def until_paused(graph: Graph, batch: str) -> None:
    """Takes a batch as far as its gate."""
    with graph.work() as work:
        work.shared_engine = InlineEngine()
        held = work.batch(batch)
        result = failures(held, judges=False)["validated_batch.gate"]
        held.stop(Status.PAUSED, f"validated_batch.gate: {result.explanation}", "run")


def nothing(graph: Graph, landing: LandingFolder) -> str:
    """An empty folder and a new lake."""
    return ""


def paused_batch(graph: Graph, landing: LandingFolder) -> str:
    """A batch that is paused for what is bad in it."""
    put_bad_and_good(landing)
    (batch,) = graph.claim()
    until_paused(graph, batch)
    assert graph.books(batch).status == "paused"
    return batch


@pytest.fixture
def place(request, states) -> tuple[Stepped, LandingFolder, str]:
    """The paused batch for whoever asks for it; otherwise nothing."""
    begun: tuple[Stepped, LandingFolder, str]
    begun = states.begin(paused_batch if "paused" in request.fixturenames else nothing, gate=GATE)
    return begun


@pytest.fixture
def graph(place) -> Stepped:
    """A lake that pauses a batch when more than a tenth of it is bad."""
    return place[0]


@pytest.fixture
def landing(place) -> LandingFolder:
    """Its landing folder."""
    return place[1]


@pytest.fixture
def paused(place) -> str:
    """A batch that is paused for what is bad in it."""
    return place[2]


@pytest.fixture
def instance(states) -> dg.DagsterInstance:
    """The Dagster that knows the batches."""
    return states.instance


def decide(graph: Graph, batch: str, what: str, *, judges: bool = False, **given: Any) -> None:
    """Decides and runs the batch, without Dagster's run around it. judges: see `Stepped`."""
    with graph.work() as work:
        work.shared_engine = InlineEngine()
        held = work.batch(batch)
        getattr(decisions, what)(held, **given)
        publish(held, judges=judges)


WHO = {"decided_by": "anna", "reason": "known to be broken"}


def accepted_batch(graph: Graph, landing: LandingFolder) -> str:
    """The same batch, accepted and closed."""
    batch = paused_batch(graph, landing)
    decide(graph, batch, "accept", judges=True, **WHO)
    return batch


def dismissed_batch(graph: Graph, landing: LandingFolder) -> str:
    """The same batch, dismissed."""
    batch = paused_batch(graph, landing)
    decide(graph, batch, "dismiss", judges=True, **WHO)
    return batch


def two_versions(graph: Graph, landing: LandingFolder) -> None:
    """A file of which two versions came, in two batches."""
    for number in range(2):
        landing.put("a.dcm", dicom(1, SeriesDescription=f"version {number}"), age_seconds=9_000 - number)
        graph.ingest()


def outcomes(graph: Graph) -> dict[str, int]:
    rows = graph.rows("SELECT coalesce(code, outcome) AS said, count(*) AS n FROM validated_batch GROUP BY ALL")
    return {row["said"]: row["n"] for row in rows}


class TestAccepted:
    def test_the_good_part_is_published_and_the_rest_stays_quarantined(self, states):
        graph, _, batch = states.begin(accepted_batch, gate=GATE)
        books = graph.books(batch)
        assert (books.status, books.seen, books.ingested, books.quarantined, books.balance) == ("closed", 10, 4, BAD, 0)
        assert (books.decision, books.decided_by, books.decision_reason) == ("accepted", "anna", "known to be broken")
        assert books.decided_at is not None
        assert len(table(graph.lake, "instance")) == GOOD + 1

    @pytest.mark.slow
    def test_run_again_it_is_accepted_still_and_no_other_batch_is(self, states):
        graph, landing, batch = states.begin(accepted_batch, gate=GATE)
        with graph.work() as work:
            work.shared_engine = InlineEngine()
            publish(work.batch(batch))
        assert graph.books(batch).decision == "accepted"
        for number in range(3):
            landing.put(f"more{number}.dcm", without_identity(9 + number))
        (other,) = graph.claim()
        until_paused(graph, other)
        assert graph.books(other).status == "paused"

    def test_a_check_of_integrity_blocks_it_all_the_same(self, graph, paused, monkeypatch):
        def broken(_: CheckContext) -> CheckResult:
            return CheckResult(False, 1, 0)

        with graph.work() as work:
            work.shared_engine = InlineEngine()
            held = work.batch(paused)
            decisions.accept(held, **WHO)
            kept = next(one for one in rules.ALL_RULES if (one.table, one.name) == ("flat_metadata", "equals_ledger"))
            monkeypatch.setattr("dicom_assets_tests.support.steps.ALL_RULES", (
                *rules.ALL_RULES, type(kept)(kept.table, "broken", "Broken", broken)))  # fmt: skip
            assert "flat_metadata.broken" in failures(held)


class TestDismissed:
    @pytest.mark.slow
    def test_it_closes_with_each_object_quarantined_and_nothing_of_it_in_the_lake(self, states):
        graph, _, batch = states.begin(dismissed_batch, gate=GATE)
        books = graph.books(batch)
        assert (books.status, books.seen, books.quarantined, books.balance) == ("closed", 10, 10, 0)
        assert (books.decision, books.decided_by) == ("dismissed", "anna")
        assert outcomes(graph) == {"DISMISSED": 10}
        assert [len(table(graph.lake, name)) for name in PUBLISHED] == [0] * len(PUBLISHED)
        errors = table(graph.lake, "ingestion_errors").to_pylist()
        assert [row["code"] for row in errors] == ["DISMISSED"] * 10
        assert sum("MISSING_IDENTITY" in row["detail"] for row in errors) == BAD
        assert len({row["object_id"] for row in errors}) == 10

    @pytest.mark.slow
    @pytest.mark.parametrize("last", ["flat_metadata", "ingestion_errors"])
    def test_what_was_published_of_it_before_goes(self, graph, landing, last):
        put_bad_and_good(landing)
        landing.put("before.dcm", dicom(1, 1, 9))
        graph.settings = graph.settings.model_copy(update={"gate": type(graph.settings.gate)()})
        (batch,) = graph.claim()
        with graph.work() as work:
            work.shared_engine = InlineEngine()
            for name in TABLES_OF_A_BATCH[: TABLES_OF_A_BATCH.index(last) + 1]:
                make_asset(name, batch, work)
        assert len(table(graph.lake, "flat_metadata")) == 4
        decide(graph, batch, "dismiss", **WHO)
        assert (graph.books(batch).status, graph.books(batch).quarantined) == ("closed", 11)
        assert [len(table(graph.lake, name)) for name in PUBLISHED] == [0] * len(PUBLISHED)

    @pytest.mark.slow
    @pytest.mark.parametrize("last", ["raw_files", "study"])
    def test_what_it_had_overwritten_counts_again(self, states, last):
        graph, landing, _ = states.begin(two_versions, gate=GATE)
        landing.put("a.dcm", dicom(1, SeriesDescription="unwanted"), age_seconds=60)
        (batch,) = graph.claim()
        with graph.work() as work:
            work.shared_engine = InlineEngine()
            for name in TABLES_OF_A_BATCH[: TABLES_OF_A_BATCH.index(last) + 1]:
                make_asset(name, batch, work)
        decide(graph, batch, "dismiss", **WHO)
        assert table(graph.lake, "instance")["SeriesDescription"].to_pylist() == ["version 1"]
        assert table(graph.lake, "series")["SeriesDescription"].to_pylist() == ["version 1"]

    def test_its_source_need_not_be_there_nor_be_configured(self, graph, paused, landing, instance):
        landing.root.rename(landing.root.with_name("away"))
        (source,) = graph.settings.sources
        renamed = graph.settings.model_copy(update={"sources": (source.model_copy(update={"name": "other"}),)})
        decide(Graph(renamed, instance), paused, "dismiss", **WHO)
        assert (graph.books(paused).status, graph.books(paused).quarantined) == ("closed", 10)

    def test_a_batch_that_was_never_run_is_dismissed_by_its_claim(self, graph, landing):
        put_bad_and_good(landing)
        (batch,) = graph.claim()
        decide(graph, batch, "dismiss", **WHO)
        books = graph.books(batch)
        assert (books.status, books.seen, books.quarantined) == ("closed", 8, 8), "nobody knows what is in the archive"

    @pytest.mark.slow
    def test_it_stays_dismissed_whoever_runs_it_and_when_the_decision_was_not_carried_out(self, graph, paused):
        with graph.work() as work:
            decisions.dismiss(work.batch(paused), **WHO)
        assert Graph.run(graph, paused).success, "as `ingest` or a backfill does"
        assert outcomes(graph) == {"DISMISSED": 10}
        assert graph.run(paused).success
        assert outcomes(graph) == {"DISMISSED": 10}

    @pytest.mark.slow
    def test_objects_that_come_again_with_another_time_are_claimed_and_taken_in(self, states):
        graph, landing, _ = states.begin(dismissed_batch, gate=GATE)
        landing.put("good0.dcm", dicom(1, 1, 1), age_seconds=3_600)
        (batch,) = graph.ingest()
        assert graph.books(batch).ingested == 1


def refused(graph: Graph, batch: str, what: str, **given: Any) -> str:
    """The sentence with which a decision is refused; nothing has changed then."""
    before = versions(graph.lake)
    with graph.work() as work, pytest.raises((DecisionRefused, SettingsError)) as raised:
        calls = {"retry": single_batches.retry, "accept": single_batches.accept, "dismiss": single_batches.dismiss}
        calls[what](work, graph.instance, batch, **given)
    assert versions(graph.lake) == before
    return str(raised.value)


class TestWhatCannotBeDecided:
    @pytest.mark.parametrize(("what", "given"), [("retry", {}), ("accept", WHO), ("dismiss", WHO)])
    def test_about_a_batch_that_nobody_claimed(self, graph, landing, what, given):
        assert "No batch 'nope' is claimed in this lake" in refused(graph, "nope", what, **given)

    @pytest.mark.parametrize(("what", "given"), [("retry", {}), ("accept", WHO), ("dismiss", WHO)])
    def test_about_one_that_somebody_works_on(self, graph, paused, what, given):
        with graph.work() as work:
            work.batch(paused)
            assert "is under way" in refused(graph, paused, what, **given)

    def test_about_one_that_is_closed(self, states):
        graph, _, paused = states.begin(accepted_batch, gate=GATE)
        for what, given in (("retry", {}), ("accept", WHO), ("dismiss", WHO)):
            assert f"Batch {paused} is closed" in refused(graph, paused, what, **given)

    def test_accepting_one_that_was_not_run_or_failed(self, graph, landing):
        put_bad_and_good(landing)
        (batch,) = graph.claim()
        assert "was never run, and only a paused one can be accepted" in refused(graph, batch, "accept", **WHO)
        with graph.work() as work:
            work.batch(batch).stop(Status.FAILED, "The run broke off.", "run")
        assert "is failed, and only a paused one" in refused(graph, batch, "accept", **WHO)

    def test_accepting_one_that_is_paused_by_a_check_of_integrity(self, graph, paused):
        with graph.work() as work:
            work.batch(paused).stop(Status.PAUSED, "raw_files.equals_claim: expected 3, actual 2", "run")
        said = refused(graph, paused, "accept", **WHO)
        assert "nothing else can be accepted. It is paused because: raw_files.equals_claim" in said

    def test_accepting_one_whose_source_was_away(self, graph, landing):
        put_bad_and_good(landing)
        (batch,) = graph.claim()
        away = landing.root.rename(landing.root.with_name("away"))
        until_paused(graph, batch)
        away.rename(landing.root)
        assert "cannot be accepted: The source is away" in refused(graph, batch, "accept", **WHO)

    @pytest.mark.parametrize("what", ["accept", "dismiss"])
    def test_without_a_reason(self, graph, paused, what):
        assert "Say why" in refused(graph, paused, what, decided_by="anna", reason=" ")

    def test_running_one_whose_source_is_another_folder_now(self, graph, paused, tmp_path, instance):
        (tmp_path / "other").mkdir()
        (source,) = graph.settings.sources
        moved = source.model_copy(update={"root": str(tmp_path / "other")})
        other = Graph(graph.settings.model_copy(update={"sources": (moved,)}), instance)
        for what, given in (("retry", {}), ("accept", WHO)):
            assert "was claimed from another folder than source 'landing' is now" in refused(
                other, paused, what, **given
            )


class TestLookingAtOne:
    def test_says_why_it_waits_which_objects_and_what_can_be_done(self, graph, paused):
        with graph.work() as work:
            found = look_at(graph.lake, work.log, paused)
        assert (found.books.status, found.claimed) == ("paused", 8)
        assert found.stopped_at is not None
        codes = {one.code: len(one.objects) for one in found.codes}
        assert codes == {"MISSING_IDENTITY": BAD, "NOT_DICOM": 1, "ARCHIVE_EXPANDED": 1}
        told = [one.text.split()[2] for one in commands(paused, found.books.status, found.books.reason)]
        assert told == ["show", "retry", "accept", "dismiss"]

    def test_of_one_that_cannot_be_accepted_does_not_offer_it(self):
        told = [one.text.split()[2] for one in commands("b", "paused", "raw_files.equals_claim: expected 3, actual 2")]
        assert told == ["show", "retry", "dismiss"]
        assert [one.text for one in commands("b", "closed")] == ["dicom-assets errors --batch b"]


class TestThroughDagster:
    @pytest.mark.slow
    def test_the_check_that_paused_it_says_what_can_be_done(self, graph, landing):
        put_bad_and_good(landing)
        (run_paused,) = graph.claim()
        assert not Graph.run(graph, run_paused).success
        told = graph.checks(run_paused)["validated_batch.gate"].metadata["what you can do"].value
        for what in ("show", "retry", "accept", "dismiss"):
            assert f"`dicom-assets batch {what} {run_paused}" in told

    @pytest.mark.slow
    @pytest.mark.parametrize(("job", "more", "counts"), [
        ("accept_batch", {"reason": "known", "decided_by": "anna"}, ("closed", 4, BAD)),
        ("dismiss_batch", {"reason": "unwanted"}, ("closed", 0, 10)),
        ("retry_batch", {"quarantined_share": 1.0}, ("closed", 4, BAD)),
        ("retry_batch", {}, ("paused", 4, BAD)),
        ("show_batch", {}, ("paused", 4, BAD)),
    ])  # fmt: skip
    def test_the_jobs_do_what_the_commands_do(self, graph, paused, job, more, counts):
        from dicom_assets.defs.graph import build_defs

        config = {"ops": {f"{job}_op": {"config": {"batch_id": paused, **more}}}}
        done = build_defs(graph.settings, engine=InlineEngine()).resolve_job_def(job).execute_in_process(
            config, instance=graph.instance, raise_on_error=False
        )  # fmt: skip
        assert done.success == (counts[0] == "closed" or job == "show_batch")
        books = graph.books(paused)
        assert (books.status, books.ingested, books.quarantined) == counts

    def test_the_jobs_say_in_their_config_what_they_want(self, graph):
        from dicom_assets.defs.graph import build_defs

        for job in ("show_batch", "retry_batch", "accept_batch", "dismiss_batch"):
            found = build_defs(graph.settings).resolve_job_def(job)
            (node,) = found.graph.node_defs
            fields = node.config_schema.config_type.fields
            assert "partitions `batch` list it" in fields["batch_id"].description
            assert fields["batch_id"].is_required
