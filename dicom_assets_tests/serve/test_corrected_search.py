"""Attributes that were corrected: searches match and give what is right, at each level, and not what was received."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from dicom_assets_tests.serve.retrievable import CORRECTED, Lake, path
from dicom_assets_tests.support.dicoms import uid

RECEIVED = f"P{CORRECTED:04d}"


@pytest.fixture(scope="module")
def client(retrievable: Lake) -> TestClient:
    return retrievable.client()


def search(client: TestClient, what: str, **keys: str) -> list[dict[str, Any]]:
    answer = client.get(what, params=keys)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


@pytest.mark.parametrize("level", ["studies", "series", "instances"])
@pytest.mark.parametrize("key", ["PatientID=TRUE", "AccessionNumber=A-9", "PatientID=TR*", "AccessionNumber=?-9"])
def test_a_search_finds_by_what_was_corrected(client: TestClient, level: str, key: str):
    keyword, value = key.split("=")
    (one,) = search(client, f"/dicom-web/{level}", **{keyword: value})
    assert one["0020000D"]["Value"] == [uid(CORRECTED)]
    assert one["00100020"] == {"vr": "LO", "Value": ["TRUE"]}
    assert one["00080050"] == {"vr": "SH", "Value": ["A-9"]}


@pytest.mark.parametrize("level", ["studies", "series", "instances"])
def test_what_was_received_finds_nothing(client: TestClient, level: str):
    assert search(client, f"/dicom-web/{level}", PatientID=RECEIVED) == []


def test_within_a_study_it_is_matched_as_well(client: TestClient):
    within = path(CORRECTED) + "/series"
    assert len(search(client, within, PatientID="TRUE", includefield="PatientID")) == 1
    assert search(client, within, PatientID=RECEIVED) == []
