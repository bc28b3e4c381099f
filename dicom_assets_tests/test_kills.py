"""`dicom-assets ingest` killed for real, and run again: nothing is lost, nothing runs twice, nothing is left over."""

from __future__ import annotations

import dagster as dg
import pytest

from dicom_assets.batch.books import all_books
from dicom_assets.lake.delta import Lake
from dicom_assets.landing.claims import ClaimLog
from dicom_assets_tests.support.commands import command
from dicom_assets_tests.support.crashing import STATUS
from dicom_assets_tests.support.lakes import table
from dicom_assets_tests.support.landings import LandingFolder, put_mixed
from dicom_assets_tests.support.projects import REPOSITORY

pytestmark = pytest.mark.slow


KILLS = (("landing.claims:ClaimLog", "append", "1"), ("lake.delta:Lake", "replace", "5"))
"""When the claim is durable and nothing is registered; in the middle of publishing."""


def test_ingests_that_were_killed_one_after_the_other_are_finished_by_the_next_one(tmp_path):
    put_mixed(LandingFolder(tmp_path / "landing"))
    ingest = ("ingest", "--landing", str(tmp_path / "landing"), "--lake", str(tmp_path / "lake"))
    lake = Lake(str(tmp_path / "lake"))
    for place, method, call in KILLS:
        killed = command(
            "python", "-m", "dicom_assets_tests.support.crashing", place, method, call, *ingest,
            cwd=tmp_path, environment={"PYTHONPATH": str(REPOSITORY)},
        )  # fmt: skip
        assert killed.returncode == STATUS, killed.stderr
        (claim,) = ClaimLog(lake.files).claims()
    (books,) = all_books(lake)
    assert (books.batch_id, books.status) == (claim.batch_id, "open")

    again = command("dicom-assets", *ingest, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    (books,) = all_books(lake)
    assert (books.batch_id, books.status, books.balance, books.seen) == (claim.batch_id, "closed", 0, 12)
    assert [len(table(lake, name)) for name in ("raw_files", "flat_metadata", "instance", "study")] == [12, 7, 7, 3]
    assert [path for path in (tmp_path / "lake" / "_staging").rglob("*") if path.is_file()] == []
    with dg.DagsterInstance.from_config(str(tmp_path / "lake.dagster")) as instance:
        assert all(run.is_finished for run in instance.get_runs())
