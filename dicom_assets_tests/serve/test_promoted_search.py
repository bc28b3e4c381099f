"""Promoted columns are searched at their level, from the moment on that the tables have them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from dicom_assets.batch.promotion import declare, fill, remove
from dicom_assets.dicom.from_header import values_of
from dicom_assets.lake.delta import Lake
from dicom_assets.schema.promoted import promoted
from dicom_assets.serve.app import make_app
from dicom_assets.settings import Settings
from dicom_assets_tests.support.dicoms import uid

STEP = "RequestAttributesSequence.ScheduledProcedureStepID"


@pytest.fixture
def own(searchable: Settings, tmp_path: Path) -> Settings:
    """A lake of its own."""
    shutil.copytree(searchable.lake, tmp_path / "lake")
    return searchable.model_copy(update={"lake": str(tmp_path / "lake")})


@pytest.mark.slow
def test_a_column_is_searched_and_given_at_its_level_while_the_server_runs(
    own: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("dicom_assets.serve.served.LOOK_SECONDS", 0.0)
    client = TestClient(make_app(own), base_url="http://localhost:8050")
    assert client.get("/dicom-web/studies", params={STEP: "STEP7"}).status_code == 400
    lake = Lake(own.lake, synced=False, take=values_of)
    declare(
        lake,
        [
            promoted(STEP, name="step", level="study"),
            promoted("PatientOrientation", level="series"),
            promoted("(0019,ACME 1,0C)", name="b_value", level="instance", vr="IS"),
        ],
    )
    fill(lake)
    for key in (STEP, "00400275.00400009", "step"):
        found = client.get("/dicom-web/studies", params={key: "STEP*"}).json()
        assert [row["0020000D"]["Value"] for row in found] == [[uid(2)]]
        assert found[0]["00400275"]["Value"] == [{"00400009": {"vr": "SH", "Value": ["STEP7"]}}]
    series = client.get("/dicom-web/series", params={"PatientOrientation": "P"}).json()
    assert [row["00200020"]["Value"] for row in series] == [["L", "P"]]
    assert client.get("/dicom-web/studies", params={"PatientOrientation": "P"}).status_code == 400
    instances = client.get("/dicom-web/instances", params={"b_value": "700"}).json()
    assert [row["0019100C"] for row in instances] == [{"vr": "IS", "Value": [700]}]
    assert instances[0]["00190010"] == {"vr": "LO", "Value": ["ACME 1"]}
    remove(lake, "step")
    assert client.get("/dicom-web/studies", params={STEP: "STEP7"}).status_code == 400
