"""Maintenance as a run of its own: fewer files, the same rows, and batches go on afterwards."""

from __future__ import annotations

import dagster as dg

from dicom_assets.defs.graph import build_defs
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.lakes import QUIET, contents


def test_maintenance_changes_no_row_and_tells_what_it_did(graph, landing):
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
