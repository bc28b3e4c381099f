"""Forwarding to a real Orthanc, killed once; `test_orthanc` runs this in a network namespace."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from dicom_assets.batch.books import all_books
from dicom_assets.batch.checks.forwarding_checks import forwarded_equals_ingested
from dicom_assets.batch.forwarding import records
from dicom_assets.cli.main import app
from dicom_assets.lake.delta import Lake
from dicom_assets_tests.service import orthanc
from dicom_assets_tests.support.commands import command
from dicom_assets_tests.support.crashing import STATUS
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.landings import LandingFolder, zipped
from dicom_assets_tests.support.projects import REPOSITORY

INSTANCES = 40


def test_a_forwarding_that_was_killed_is_finished_by_the_next_one_and_nothing_is_stored_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    landing = LandingFolder(tmp_path / "landing")
    landing.put_series(1, 1, INSTANCES - 2)
    landing.put("b.zip", zipped({f"{number}.dcm": dicom(2, 1, number) for number in (1, 2)}))
    config = tmp_path / "dicom-assets.toml"

    monkeypatch.setenv("DICOM_ASSETS_CONFIG", str(config))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        return done.stdout

    with orthanc.running(tmp_path / "orthanc") as url:
        config.write_text(
            f'lake = "{tmp_path / "lake"}"\n[reading]\nworkers = 1\n'
            f'[[sources]]\nname = "landing"\nroot = "{landing.root}"\nforward_to = "orthanc"\n'
            f'[[services]]\nname = "orthanc"\nurl = "{url}/dicom-web"\nkind = "dicomweb"\n'
            'follow = "nothing"\n'
        )
        run("ingest")
        killed = command(
            "python", "-m", "dicom_assets_tests.support.crashing", "service.client:ServiceClient", "post", "9",
            "forward",
            cwd=tmp_path, environment={"PYTHONPATH": str(REPOSITORY), "DICOM_ASSETS_CONFIG": str(config)},
        )  # fmt: skip
        assert killed.returncode == STATUS, killed.stderr
        there = len(httpx.get(f"{url}/instances").json())
        assert 9 <= there < INSTANCES
        run("forward")
        instances = httpx.get(f"{url}/instances?expand").json()
        assert len(instances) == INSTANCES
        changes = httpx.get(f"{url}/changes?limit=1000").json()["Changes"]
        assert sum(one["ChangeType"] == "NewInstance" for one in changes) == INSTANCES
        assert {one["MainDicomTags"]["SOPInstanceUID"] for one in instances} >= {uid(2, 1, 1), uid(2, 1, 2)}
        assert run("forward") == "Nothing waits to be forwarded.\n"
    lake = Lake(str(tmp_path / "lake"))
    (books,) = all_books(lake)
    outcomes = records(lake.files, books.batch_id)["outcome"].to_pylist()
    assert (outcomes.count("present"), outcomes.count("stored")) == (there, INSTANCES - there)
    assert [one.passed for one in forwarded_equals_ingested(lake, books.batch_id, "orthanc")] == [True, True]
