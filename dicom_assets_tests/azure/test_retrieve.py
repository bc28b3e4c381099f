"""Retrieving from a lake and a landing zone in containers: the same answers, and what is told of blobs."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import httpx
import pytest
from pydicom.uid import ExplicitVRLittleEndian
from starlette.testclient import TestClient

from dicom_assets.serve.app import make_app
from dicom_assets.settings import Settings
from dicom_assets_tests.azure.azurite import Container, Proxy, new_container
from dicom_assets_tests.serve.parts import parts
from dicom_assets_tests.serve.retrievable import PIXELS, image, path
from dicom_assets_tests.support.lakes import Graph
from dicom_assets_tests.support.landings import zipped
from dicom_assets_tests.support.steps import step_through

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("as_far_as_hierarchy")]

WORDS = PIXELS.astype("<u2").tobytes()


def one(instance: int) -> bytes:
    return image((1, 1, instance), ExplicitVRLittleEndian, WORDS, (4, 6), NumberOfFrames=3)


def get(client: TestClient, what: str, accept: str = "*/*") -> httpx.Response:
    return client.get(what, headers={"Accept": accept})


def test_blobs_are_read_by_range_and_told_apart_when_they_cannot_be(
    container: Container, faults: Proxy, instance: dg.DagsterInstance, tmp_path: Path
):
    files = {number: one(number) for number in range(1, 7)}
    for number in (1, 2, 3, 4):
        container.put(f"ä b/{number}.dcm", files[number])
    container.put("all.zip", zipped({"5.dcm": files[5], "6.dcm": files[6]}))
    settings = Settings.model_validate(
        {
            "lake": new_container().url,
            "sources": [{"name": "landing", "root": container.url}],
            "claiming": {"quiet_seconds": 0},
            "reading": {"workers": 1},
        }
    )
    step_through(Graph(settings, instance), judges=False)
    client = TestClient(make_app(settings), base_url="http://localhost")

    assert len(get(client, path(1) + "/metadata").json()) == 6
    assert sorted(body for _, body in parts(get(client, path(1)))) == sorted(files.values())
    for number in (1, 5):
        assert parts(get(client, path(1, 1, number) + "/frames/2"))[0][1] == PIXELS[1].astype("<u2").tobytes()
        reference = client.get(path(1, 1, number) + "/metadata").json()[0]["7FE00010"]["BulkDataURI"]
        assert client.get(reference).content == WORDS
        assert client.get(path(1, 1, number) + "/rendered").status_code == 200
    faults.seen.clear()
    get(client, path(1, 1, 2) + "/frames/1", "application/octet-stream")
    blobs = [(method, headers) for method, what, headers in faults.seen if "2.dcm" in what]
    assert [method for method, _ in blobs] == ["GET"], "one ranged read"

    container.put("ä b/1.dcm", files[2])
    container.client.delete_blob("ä b/2.dcm")
    container.client.get_blob_client("ä b/3.dcm").set_standard_blob_tier("Archive")
    told = {number: get(client, path(1, 1, number) + "/frames/1") for number in (1, 2, 3)}
    assert {number: answer.status_code for number, answer in told.items()} == {1: 410, 2: 410, 3: 409}
    assert "archive tier" in told[3].text
    assert [get(client, path(1, 1, number)).status_code for number in (1, 2, 3, 4)] == [410, 410, 409, 200]
    assert len(get(client, path(1) + "/metadata").json()) == 6

    landing = f"/{container.client.container_name}/"
    faults.refuse = lambda method, what: 403 if landing in what else None
    answer = get(client, path(1, 1, 4) + "/frames/1")
    assert answer.status_code == 503 and answer.headers["retry-after"]
    assert len(get(client, path(1) + "/metadata").json()) == 6
