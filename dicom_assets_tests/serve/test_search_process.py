"""Searching from outside: a viewer's questions to a server of its own, while batches come."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import dagster as dg
import pytest

from dicom_assets.settings import Settings
from dicom_assets_tests.serve.serving import Server, serving
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.lakes import Graph, settings_for
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import step_through

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("as_far_as_hierarchy")]

LIST = "limit=101&offset=0&fuzzymatching=true&includefield=00081030,00080060,00080090,00100030"


def studies(server: Server, more: str = "") -> set[str]:
    """UIDs of the studies that a viewer's list shows."""
    answer = server.get(f"/dicom-web/studies?{LIST}{more}", headers={"Accept": "application/dicom+json"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/dicom+json")
    return {row["0020000D"]["Value"][0] for row in answer.json()}


def test_a_closed_batch_is_seen_within_two_seconds_without_a_restart(searchable: Settings, tmp_path: Path):
    shutil.copytree(searchable.lake, tmp_path / "lake")
    landing = LandingFolder(tmp_path / "landing")
    landing.put("new.dcm", dicom(9, PatientName="Late^Comer"))
    settings = settings_for(tmp_path / "lake", landing.root)
    with serving(settings, tmp_path / "server") as server:
        assert studies(server) == {uid(1), uid(2), uid(3)}
        assert studies(server, "&PatientName=*Comer*") == set()
        with dg.DagsterInstance.ephemeral() as instance:
            step_through(Graph(settings, instance), judges=False)
        time.sleep(2)
        assert studies(server) == {uid(1), uid(2), uid(3), uid(9)}
        assert studies(server, "&PatientName=*Comer*") == {uid(9)}
        series = server.get(f"/dicom-web/studies/{uid(9)}/series?includefield=00080021,00080031,0008103E,00200011")
        assert [row["0008103E"]["Value"] for row in series.json()] == [["Series 1"]]


def test_a_question_that_takes_too_long_is_told_so(searchable: Settings, tmp_path: Path):
    with serving(searchable, tmp_path / "server", toml="[serve]\nquery_seconds = 0.000001\n") as server:
        answer = server.get("/dicom-web/studies")
        assert answer.status_code == 503
        assert server.get("/openapi.json").status_code == 200
