"""`source test` at a real Orthanc that asks for a password; `service/test_orthanc` runs it. Not collected by itself."""

from __future__ import annotations

from pathlib import Path

import httpx
import pydicom.data
import pytest

from dicom_assets.batch.reach.rights import try_places
from dicom_assets.batch.reach.trial import Result
from dicom_assets.settings import Settings
from dicom_assets_tests.service import orthanc

CT = Path(pydicom.data.__file__).parent / "test_files" / "CT_small.dcm"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("orthanc")
    # It is waited for without a password, so any answer means that it runs.
    with orthanc.running(folder, users={"reader": "right"}) as url:
        httpx.post(f"{url}/instances", content=CT.read_bytes(), auth=("reader", "right")).raise_for_status()
        yield url


def results(server: str, folder: Path, **more: str) -> dict[str, Result]:
    service = {"name": "pacs", "kind": "dicomweb", "url": f"{server}/dicom-web", "landing": str(folder / "w"), **more}
    settings = Settings.model_validate({"lake": str(folder / "lake"), "services": [service]})
    steps = try_places(settings, "pacs")
    return {step.name.removeprefix("service: "): step.result for step in steps if step.name.startswith("service")}


BASIC = {"auth": "basic", "user_variable": "PACS_USER", "password_variable": "PACS_PASSWORD"}


def test_the_right_password_may_everything(server, tmp_path, monkeypatch):
    monkeypatch.setenv("PACS_USER", "reader")
    monkeypatch.setenv("PACS_PASSWORD", "right")
    names = ("reach", "sign in", "changes", "list", "read")
    assert results(server, tmp_path, **BASIC) == dict.fromkeys(names, Result.OK)


def test_a_wrong_password_and_none_at_all_are_refused(server, tmp_path, monkeypatch):
    refused = {"reach": Result.OK, "sign in": Result.OK, "changes": Result.FAILS, "list": Result.FAILS}
    monkeypatch.setenv("PACS_USER", "reader")
    monkeypatch.setenv("PACS_PASSWORD", "wrong")
    assert results(server, tmp_path, **BASIC) == {**refused, "read": Result.NOT_TRIED}
    assert results(server, tmp_path) == {**refused, "read": Result.NOT_TRIED}
