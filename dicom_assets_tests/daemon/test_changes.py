"""Windows of changes on a project folder: a backfill of any past range, drained by a running daemon, one at a time."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from dicom_assets.defs.windows import KEY, border
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import connect
from dicom_assets_tests.service.feed_server import running
from dicom_assets_tests.service.service_model import ServiceModel, metadata
from dicom_assets_tests.support.commands import wait_for
from dicom_assets_tests.support.projects import Project

pytestmark = pytest.mark.slow

FIVE = timedelta(minutes=5)
CONFIG = """
[[services]]
name = "pacs"
url = "{url}"

[changes]
start = {start}
window_minutes = 5
delay_minutes = 0

[claiming]
quiet_seconds = 0

[reading]
workers = 1
"""


def test_a_past_range_is_read_window_by_window_and_ends_in_the_lake(tmp_path, monkeypatch):
    start = border(datetime.now(UTC), 5) - 4 * FIVE
    keys = [(start + number * FIVE).strftime(KEY) for number in range(3)]
    with running(ServiceModel.at(start)) as server:
        for number in range(3):
            server.model.store(metadata(f"1.{number}", f"1.{number}.1", f"1.{number}.1.1"))
            server.model.advance(300)
        project = Project.make(tmp_path / "clone")
        config = CONFIG.format(url=server.url, start=start.strftime("%Y-%m-%dT%H:%M:%SZ"))
        (project.folder / "dicom-assets.toml").write_text(config)
        with project.daemon() as log:
            asked = project.run(
                "dagster", "job", "backfill", "-j", "sync_dicom_changes",
                "--from", keys[0], "--to", keys[2], "--noprompt",
            )  # fmt: skip
            assert asked.returncode == 0, asked.stderr

            def studies() -> set[str]:
                if not project.closed():
                    return set()
                with connect(Lake(str(project.folder / "data" / "lake")), ["study"]) as connection:
                    return {uid for (uid,) in connection.execute("SELECT StudyInstanceUID FROM study").fetchall()}

            wait_for("the studies in the lake", lambda: studies() == {"1.0", "1.1", "1.2"}, log=log)
        monkeypatch.chdir(project.folder)  # paths in dagster.yaml are relative to where a command runs
        with dg.DagsterInstance.from_config(str(project.folder)) as instance:
            records = instance.get_run_records(dg.RunsFilter(job_name="sync_dicom_changes"))
            assert set(keys) <= {record.dagster_run.tags["dagster/partition"] for record in records}
            spans = sorted((record.start_time, record.end_time) for record in records if record.end_time)
            assert all(ended <= began for (_, ended), (began, _) in itertools.pairwise(spans))
            assert set(keys) <= instance.get_materialized_partitions(dg.AssetKey("dicom_changes"))
