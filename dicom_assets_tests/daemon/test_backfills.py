"""Dagster's own command line on a project folder: backfills drained by a running daemon, single assets by hand."""

from __future__ import annotations

import dagster as dg
import pytest

from dicom_assets.defs.partitions import retire
from dicom_assets_tests.support.commands import wait_for
from dicom_assets_tests.support.projects import Project

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """A project with three closed batches of one series each, known to its own Dagster."""
    project = Project.make(tmp_path_factory.mktemp("project") / "clone")
    (project.folder / "dicom-assets.toml").write_text("[claiming]\nbatch_objects = 2\n[reading]\nworkers = 1\n")
    for study in (1, 2, 3):
        project.landing.put_series(study, 1, 2)
    done = project.run("dicom-assets", "ingest")
    assert done.returncode == 0, done.stderr
    assert len(project.closed()) == 3
    return project


def runs(project: Project) -> list[dg.DagsterRun]:
    with project.instance() as instance:
        return instance.get_runs(dg.RunsFilter(job_name="ingest_batch"))


def batches(project: Project) -> list[str]:
    """The batches in the order in which Dagster knows them."""
    with project.instance() as instance:
        return list(instance.get_dynamic_partitions("batch"))


def test_the_ingest_of_a_project_folder_is_seen_by_its_dagster(project):
    assert [run.status for run in runs(project)] == [dg.DagsterRunStatus.SUCCESS] * 3
    assert set(batches(project)) == project.closed()


def backfill(project: Project, *arguments: str) -> list[str]:
    """Asks for a backfill on the command line; the batches that it is of."""
    with project.instance() as instance:
        before = {one.backfill_id for one in instance.get_backfills()}
    made = project.run("dagster", "job", "backfill", "-j", "ingest_batch", *arguments, "--noprompt")
    assert made.returncode == 0, made.stderr
    with project.instance() as instance:
        (new,) = [one for one in instance.get_backfills() if one.backfill_id not in before]
    return list(new.partition_names or ())


def test_a_backfill_of_some_batches_is_drained_by_the_daemon(project):
    keys = batches(project)
    with project.instance() as instance:
        assert retire(instance, {keys[0]}) == (1, 1)
    known_again = project.run("dicom-assets", "batch", "register", keys[0])
    assert known_again.returncode == 0, known_again.stderr
    keys = batches(project)
    asked = [keys[0], keys[2]]
    before = {run.run_id for run in runs(project)}
    assert backfill(project, "--partitions", ",".join(asked)) == asked

    def done() -> list[dg.DagsterRun]:
        return [run for run in runs(project) if run.run_id not in before and run.is_finished]

    with project.daemon() as log:
        wait_for("the backfills", lambda: len(done()) == len(asked), seconds=280, log=log)
    assert {run.status for run in done()} == {dg.DagsterRunStatus.SUCCESS}
    assert sorted(run.tags["dagster/partition"] for run in done()) == sorted(asked)
    assert len({run.tags["dagster/backfill"] for run in done()}) == 1
    assert {one.run_id for one in project.books() if one.batch_id in asked} == {run.run_id for run in done()}
    assert project.closed() == set(keys)


def test_backfills_of_all_and_of_a_range_ask_for_the_batches_in_it(project):
    """They are drained as others are; here no daemon runs."""
    keys = batches(project)
    assert backfill(project, "--all") == keys
    assert backfill(project, "--from", keys[1], "--to", keys[2]) == keys[1:]


class TestASingleAssetByHand:
    def test_of_a_closed_batch_is_refused_with_the_command_that_makes_the_whole_of_it(self, project):
        batch = batches(project)[0]
        done = project.run(
            "dagster", "asset", "materialize", "--select", "raw_files", "--partition", batch,
            "-m", "dicom_assets.definitions",
        )  # fmt: skip
        assert done.returncode != 0
        assert f"dagster job backfill -j ingest_batch --partitions {batch} --noprompt" in done.stderr + done.stdout
        assert batch in project.closed()

    def test_of_a_partition_that_names_no_batch_says_which_there_are(self, project):
        with project.instance() as instance:
            instance.add_dynamic_partitions("batch", ["made-up"])
        done = project.run(
            "dagster", "asset", "materialize", "--select", "raw_files", "--partition", "made-up",
            "-m", "dicom_assets.definitions",
        )  # fmt: skip
        assert done.returncode != 0
        assert "No batch 'made-up' is claimed in this lake. `dicom-assets status` lists the batches" in (
            done.stderr + done.stdout
        )
