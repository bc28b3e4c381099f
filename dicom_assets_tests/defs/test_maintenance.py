"""Maintenance as a run of its own: fewer files, the same rows, and batches go on afterwards."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta

import dagster as dg
import pytest
from typer.testing import CliRunner

from dicom_assets.batch.books import all_books
from dicom_assets.cli.main import app
from dicom_assets.defs.graph import build_defs
from dicom_assets.defs.partitions import retire
from dicom_assets.defs.resources import work_resource
from dicom_assets.defs.sensors import new_files
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.lakes import QUIET, Graph, contents


@pytest.mark.slow
def test_maintenance_changes_no_row_and_tells_what_it_did(stepped, landing):
    graph = stepped
    for number in (1, 2):
        landing.put(f"{number}.dcm", dicom(number))
        graph.ingest()
    before = contents(graph.lake)
    job = build_defs(graph.settings).resolve_job_def("maintain_lake")
    result = job.execute_in_process(instance=graph.instance, run_config=QUIET)
    assert result.success
    (event,) = result.get_asset_materialization_events()
    told = event.materialization.metadata
    assert told["files_before"].value >= told["files_after"].value > 0
    assert "| flat_metadata |" in told["tables"].value
    assert contents(graph.lake) == before

    landing.put("3.dcm", dicom(3))
    (batch,) = graph.ingest()
    assert graph.books(batch).status == "closed"


def test_the_schedule_of_maintenance_is_on_and_asks_for_a_run(graph):
    defs = build_defs(graph.settings)
    schedule = defs.get_repository_def().get_schedule_def("nightly_maintenance")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert schedule.job_name == "maintain_lake"


@dg.op
def nothing() -> None:
    """An op that needs no lake."""


@dg.job
def ran() -> None:
    """A job whose runs are those of some batches."""
    nothing()


class TestRetiringBatches:
    @pytest.fixture
    def known(self, instance) -> list[str]:
        """Three batches that Dagster knows, each with a run that is over."""
        keys = ["b1", "b2", "b3"]
        instance.add_dynamic_partitions("batch", keys)
        for key in keys:
            add_run(instance, key, dg.DagsterRunStatus.SUCCESS)
        return keys

    def test_partitions_and_their_runs_leave_some_at_a_time_the_oldest_first(self, instance, known):
        assert retire(instance, {"b1", "b2"}, most=1) == (1, 1)
        assert partitions(instance) == ["b2", "b3"]
        assert retire(instance, {"b1", "b2"}) == (1, 1)
        assert retire(instance, {"b1", "b2"}) == (0, 0)
        assert [run.tags["dagster/partition"] for run in instance.get_runs()] == ["b3"]

    def test_a_batch_stays_that_is_being_run_or_is_to_be(self, instance, known):
        add_run(instance, "b1", dg.DagsterRunStatus.NOT_STARTED)
        add_run(instance, "b2", dg.DagsterRunStatus.STARTED)
        assert retire(instance, set(known)) == (1, 1)
        assert partitions(instance) == ["b1", "b2"]


@pytest.mark.slow
def test_a_retired_batch_keeps_its_books_is_registered_by_command_and_runs_again(graph, stepped, landing, monkeypatch):
    landing.put("1.csv", b"PatientID,n\nP1,1\n")
    (batch,) = stepped.ingest()
    add_run(graph.instance, batch, dg.DagsterRunStatus.SUCCESS)
    old = all_books(graph.lake)[0]
    assert retire(graph.instance, {batch}) == (1, 1)
    assert (graph.instance.get_runs(), partitions(graph.instance)) == ([], [])
    assert graph.books(batch).status == "closed"

    later = replace(old, closed_at=old.closed_at - timedelta(days=40))
    with monkeypatch.context() as patch:
        patch.setattr("dicom_assets.defs.sensors.all_books", lambda _: [later])
        assert registered_by_a_tick(graph) == []

    monkeypatch.setattr("dicom_assets.defs.instance.open_instance", lambda _: nullcontext(graph.instance))
    command = ["batch", "register", batch, "--lake", graph.settings.lake]
    first, again = CliRunner().invoke(app, command), CliRunner().invoke(app, command)
    assert (first.exit_code, first.stdout) == (0, "1 batch registered; known before: 0.\n")
    assert again.stdout == "0 batches registered; known before: 1.\n"
    assert graph.run(batch).success
    assert graph.books(batch).closed_at > old.closed_at

    refused = CliRunner().invoke(app, ["batch", "register", "nothing", "--lake", graph.settings.lake])
    assert (refused.exit_code, "No batch 'nothing' is claimed in this lake." in refused.stderr) == (2, True)


def registered_by_a_tick(graph: Graph) -> list[str]:
    work = work_resource(graph.settings)
    with dg.build_sensor_context(instance=graph.instance, resources={"work": work}) as context:
        return [key for one in new_files(context).dynamic_partitions_requests for key in one.partition_keys]


def add_run(instance: dg.DagsterInstance, batch: str, status: dg.DagsterRunStatus) -> None:
    instance.create_run_for_job(ran, tags={"dagster/partition": batch}, status=status)


def partitions(instance: dg.DagsterInstance) -> list[str]:
    return sorted(instance.get_dynamic_partitions("batch"))
