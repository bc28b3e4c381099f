"""Cases with Orthanc as a client of the lake; `test_orthanc_client` runs them in a network namespace."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pydicom
import pytest

from dicom_assets_tests.serve.client_lake import CT, ClientLake, client_lake, pydicom_file, zipped_files
from dicom_assets_tests.service import orthanc


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> Iterator[ClientLake]:
    with client_lake(tmp_path_factory.mktemp("lake")) as one:
        yield one


@pytest.fixture(scope="module")
def pacs(lake, tmp_path_factory) -> Iterator[httpx.Client]:
    """Orthanc, which knows the lake by name."""
    with (
        orthanc.running(tmp_path_factory.mktemp("orthanc"), servers={"lake": [lake.url + "/"]}) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        yield client


def test_it_searches_the_lake(pacs):
    asked = {"Uri": "/studies", "Arguments": {"PatientName": "Doe*", "ModalitiesInStudy": "CT"}}
    answer = pacs.post("/dicom-web/servers/lake/qido", json=asked)
    assert answer.status_code == 200, answer.text
    (found,) = answer.json()
    assert found["0020000D"]["Value"] == pydicom.dcmread(zipped_files()[0]).StudyInstanceUID


@pytest.mark.parametrize("level", ["study", "series", "instance"])
def test_it_retrieves_from_the_lake(pacs, level):
    wanted = pydicom.dcmread(pydicom_file(CT))
    uids = {"Study": wanted.StudyInstanceUID}
    if level != "study":
        uids["Series"] = wanted.SeriesInstanceUID
    if level == "instance":
        uids["Instance"] = wanted.SOPInstanceUID
    answer = pacs.post("/dicom-web/servers/lake/retrieve", json={"Resources": [uids], "Synchronous": True})
    assert answer.status_code == 200, answer.text
    found = pacs.post("/tools/find", json={"Level": "Instance", "Query": {"SOPInstanceUID": wanted.SOPInstanceUID}})
    (name,) = found.json()
    assert pacs.get(f"/instances/{name}/file").content == pydicom_file(CT).read_bytes()
    pacs.delete(f"/instances/{name}")


def test_it_retrieves_a_study_out_of_an_archive(pacs):
    study = pydicom.dcmread(zipped_files()[0]).StudyInstanceUID
    answer = pacs.post("/dicom-web/servers/lake/retrieve", json={"Resources": [{"Study": study}], "Synchronous": True})
    assert answer.status_code == 200, answer.text
    assert len(pacs.get("/instances").json()) == len(zipped_files())


def test_it_stores_into_the_lake(pacs, lake):
    sent = pydicom_file("examples_overlay.dcm")
    uploaded = pacs.post("/instances", content=sent.read_bytes()).json()
    answer = pacs.post(
        "/dicom-web/servers/lake/stow", json={"Resources": [uploaded["ParentStudy"]], "Synchronous": True}
    )
    assert answer.status_code == 200, answer.text
    new = [path for path in lake.landing.rglob("*.dcm") if path.read_bytes() == sent.read_bytes()]
    assert len(new) == 1
    # What the lake has already is no failure for it.
    again = {"Resources": [uploaded["ParentStudy"]], "Synchronous": True}
    assert pacs.post("/dicom-web/servers/lake/stow", json=again).status_code == 200
    lake.ingest()
    study = pydicom.dcmread(sent).StudyInstanceUID
    assert len(httpx.get(f"{lake.url}/studies/{study}/metadata").json()) == 1
