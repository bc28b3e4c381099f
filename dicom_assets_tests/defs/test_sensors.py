"""Sensors by direct evaluation: what a tick claims and asks for, and what is made good after a crash."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from dicom_assets.batch.books import Status
from dicom_assets.defs.jobs import runs_batch
from dicom_assets.defs.partitions import BATCH
from dicom_assets.defs.resources import work_resource
from dicom_assets.defs.sensors import failure_sensor, mark, new_files, what_waits
from dicom_assets.landing.claims import claim_new
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.lakes import Graph, settings_for
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import WithoutDagster


def tick(graph: Graph) -> dg.SensorResult | dg.SkipReason:
    """One evaluation of `new_files`."""
    with dg.build_sensor_context(instance=graph.instance, resources={"work": work_resource(graph.settings)}) as context:
        return new_files(context)


def requested(result) -> list[str]:
    """Batches that runs are asked for; the run key is the batch's id, so that asking twice runs once."""
    assert isinstance(result, dg.SensorResult)
    assert all(one.run_key == one.partition_key for one in result.run_requests)
    return [one.partition_key for one in result.run_requests]


def registered(result) -> list[str]:
    """Batches that Dagster is told about."""
    return [key for one in result.dynamic_partitions_requests for key in one.partition_keys]


def claim_only(graph: Graph) -> list[str]:
    """A tick that died right after its claims were durable."""
    with graph.work() as work:
        (store,) = work.stores()
        return [claim.batch_id for claim in claim_new(store, work.log, graph.settings.claiming).claims]


def closed(graph: Graph, landing: LandingFolder) -> str:
    """A lake of one closed batch."""
    landing.put("a.dcm", dicom(1))
    (batch,) = graph.ingest()
    return batch


class TestATick:
    def test_claims_what_is_new_and_asks_for_one_run_each(self, tmp_path, landing, instance):
        landing.put_series(1, 1, 2)
        landing.put_series(2, 1, 2)
        graph = Graph(settings_for(tmp_path / "lake", landing.root, claiming={"batch_objects": 2}), instance)
        result = tick(graph)
        assert len(requested(result)) == 2
        assert registered(result) == requested(result)

    def test_says_that_nothing_is_new_when_everything_is_closed(self, states):
        graph, _, _ = states.begin(closed)
        result = tick(graph)
        assert result.skip_reason.skip_message == "Nothing new."

    def test_counts_files_that_may_still_be_written_and_leaves_them(self, graph, landing):
        landing.put("a.dcm", dicom(), age_seconds=0)
        result = tick(graph)
        assert result.skip_reason.skip_message == ("1 object is still being written; it will be picked up next time.")

    def test_leaves_what_follows_a_claim_until_more_has_come_and_says_until_when(self, states):
        graph, landing, _ = states.begin(closed)
        landing.put("b.dcm", dicom(2))
        result = tick(graph)
        assert re.fullmatch(
            r"1 object waits for more to come, until \d\d:\d\d UTC at the latest\.",
            result.skip_reason.skip_message,
        )
        assert len(_claims(graph)) == 1

    def test_what_waits_is_said_with_what_happens_next(self):
        at = datetime(2026, 11, 20, 14, 4, 30, tzinfo=UTC)
        assert what_waits(12, []) == "12 objects are still being written; they will be picked up next time."
        assert what_waits(0, [(2, at), (0, None), (1, at - timedelta(minutes=2))]) == (
            "3 objects wait for more to come, until 14:05 UTC at the latest."
        )

    def test_leaves_everything_to_an_ingest_that_is_at_work(self, graph, landing):
        landing.put("a.dcm", dicom())
        with graph.work() as work, work.claiming(wait_seconds=0):
            result = tick(graph)
            assert result.skip_message == (
                "`dicom-assets ingest` is at work on this lake; what it leaves is claimed later."
            )
            assert work.log.claims() == []
        assert len(requested(tick(graph))) == 1

    def test_fails_with_a_sentence_when_the_landing_folder_is_not_there(self, graph, landing):
        landing.root.rmdir()
        with pytest.raises(dg.Failure, match=r"Source 'landing': .* is not a folder that exists\. Create or mount it"):
            tick(graph)

    def test_a_source_that_is_not_there_keeps_no_other_from_being_run(self, tmp_path, landing, instance):
        other = LandingFolder(tmp_path / "other")
        other.put("a.dcm", dicom())
        landing.root.rmdir()
        graph = Graph(settings_for(tmp_path / "lake", landing.root, other.root), instance)
        (batch,) = requested(tick(graph))
        assert batch in {claim.batch_id for claim in _claims(graph) if claim.source == "landing2"}

    def test_asks_for_at_most_some_dozens_of_runs(self, tmp_path, landing, instance):
        for number in range(30):
            landing.put(f"{number:02d}/a.dcm", dicom(number + 1))
        few = {"batch_objects": 1, "batches_per_tick": 30}
        graph = Graph(settings_for(tmp_path / "lake", landing.root, claiming=few), instance)
        result = tick(graph)
        assert len(requested(result)) == 20
        assert len(registered(result)) == 30


class TestAfterACrash:
    def test_a_claim_that_was_never_registered_is_registered_and_run(self, graph, landing):
        landing.put("a.dcm", dicom())
        (batch,) = claim_only(graph)
        result = tick(graph)
        assert (registered(result), requested(result)) == ([batch], [batch])
        assert len(_claims(graph)) == 1

    def test_a_batch_that_was_registered_and_never_asked_for_is_run(self, graph, landing):
        landing.put("a.dcm", dicom())
        (batch,) = claim_only(graph)
        graph.instance.add_dynamic_partitions(BATCH.name, [batch])
        result = tick(graph)
        assert (registered(result), requested(result)) == ([], [batch])

    def test_a_batch_that_is_asked_for_twice_has_one_run_key_and_is_claimed_once(self, graph, landing):
        landing.put("a.dcm", dicom())
        first, second = tick(graph), tick(graph)
        assert requested(first) == requested(second)
        assert len(_claims(graph)) == 1

    def test_a_batch_that_started_is_never_asked_for_again(self, graph, landing):
        landing.put("a.dcm", dicom())
        (batch,) = graph.claim()
        assert graph.run(batch, select=["raw_files"]).success
        assert tick(graph).run_requests == []

    def test_batches_that_were_run_elsewhere_become_known_without_being_run_again(self, states):
        graph, _, _ = states.begin(closed)
        with dg.DagsterInstance.ephemeral() as other:
            result = tick(Graph(graph.settings, other))
        assert result.run_requests == []
        assert registered(result) == [claim.batch_id for claim in _claims(graph)]


@pytest.mark.parametrize(
    ("job", "assets", "is_one"),
    [
        ("ingest_batch", None, True),
        ("__ASSET_JOB", ["raw_files", "series", "cleanup"], True),
        ("__ASSET_JOB", ["cleanup"], False),
        ("__ASSET_JOB", ["table_maintenance"], False),
        ("maintain_lake", None, False),
    ],
)
def test_a_run_is_of_a_batch_when_it_goes_from_its_claim_to_its_books(job, assets, is_one):
    keys = None if assets is None else {dg.AssetKey(["imaging", name]) for name in assets}
    assert runs_batch(dg.DagsterRun(job_name=job, asset_selection=keys)) is is_one


class TestARunThatBrokeOff(WithoutDagster):
    @pytest.fixture
    def broken(self, graph, landing) -> tuple[Graph, str, dg.ExecuteInProcessResult]:
        """A run that fails because its source is not configured."""
        landing.put("a.dcm", dicom())
        (batch,) = graph.claim()
        renamed = graph.settings.sources[0].model_copy(update={"name": "renamed"})
        other = Graph(graph.settings.model_copy(update={"sources": (renamed,)}), graph.instance)
        result = other.run(batch)
        assert not result.success
        return graph, batch, result

    @pytest.mark.slow
    def test_marks_its_batch_failed_and_the_next_run_closes_it(self, broken):
        graph, batch, result = broken
        (failure,) = [event for event in result.all_events if event.is_failure and event.is_run_failure]
        failure_sensor(graph.settings)(
            dg.build_run_status_sensor_context(
                sensor_name="mark_failed",
                dagster_event=failure,
                dagster_instance=graph.instance,
                dagster_run=graph.instance.get_run_by_id(result.run_id),
            ).for_run_failure()
        )
        books = graph.books(batch)
        assert (books.status, books.reason, books.source) == ("failed", "The run broke off; see its log.", "landing")
        assert graph.rows("SELECT code, stage FROM ingestion_errors") == [{"code": "RUN_FAILED", "stage": "run"}]
        assert tick(graph).run_requests == []

        assert graph.run(batch).success
        assert (graph.books(batch).status, graph.books(batch).reason) == ("closed", None)
        assert graph.rows("SELECT code FROM ingestion_errors") == []

    def test_does_not_mark_a_batch_that_is_closed_paused_or_taken_over(self, states):
        graph, _, batch = states.begin(closed)
        with graph.work() as work:
            mark(work, batch, "another run")
            assert graph.books(batch).status == "closed"
            work.batch(batch).stop(Status.PAUSED, "because", "mine")
            mark(work, batch, "mine")
            assert graph.books(batch).status == "paused"
            work.batch(batch).begin("theirs")
            mark(work, batch, "mine")
            assert graph.books(batch).status == "open"

    def test_of_a_key_that_names_no_batch_has_no_books(self, graph):
        with graph.work() as work:
            mark(work, "nope", "run")
        assert graph.rows("SELECT * FROM batches") == []


def test_claiming_by_hand_claims_and_registers_and_runs_nothing(graph, landing):
    from dicom_assets.defs.graph import build_defs

    landing.put("a.dcm", dicom())
    job = build_defs(graph.settings).resolve_job_def("claim_new_files")
    assert job.execute_in_process(instance=graph.instance).success
    (claim,) = _claims(graph)
    assert graph.instance.get_dynamic_partitions(BATCH.name) == [claim.batch_id]
    assert graph.rows("SELECT * FROM batches") == []


def _claims(graph: Graph):
    with graph.work() as work:
        return work.log.claims()
