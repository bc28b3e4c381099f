"""Whole objects: the very bytes, as parts, alone, in a zip, by WADO-URI; and what is told when they are not there."""

from __future__ import annotations

import io
import os
import re
import zipfile

import httpx
import pytest
from starlette.testclient import TestClient

from dicom_assets.landing import local
from dicom_assets.landing.store import ObjectArchived
from dicom_assets.serve import places
from dicom_assets_tests.serve import retrievable as made
from dicom_assets_tests.serve.parts import parts
from dicom_assets_tests.serve.retrievable import CHANGING, Lake, path
from dicom_assets_tests.support.dicoms import uid

DICOM = 'multipart/related; type="application/dicom"; transfer-syntax=*'


@pytest.fixture(scope="module")
def client(retrievable: Lake) -> TestClient:
    return retrievable.client()


def get(client: TestClient, what: str, accept: str = DICOM) -> httpx.Response:
    return client.get(what, headers={"Accept": accept})


@pytest.mark.parametrize("series", range(1, 9))
def test_an_object_is_the_very_bytes_of_its_file(client: TestClient, retrievable: Lake, series: int):
    data = retrievable.files[1, series, 1]
    ((headers, body),) = parts(get(client, path(1, series, 1)))
    assert body == data
    assert re.fullmatch(r"application/dicom; transfer-syntax=1\.2\.840\.10008\.1\.2[.\d]*", headers["content-type"])
    alone = get(client, path(1, series, 1), "application/dicom")
    assert (alone.content, alone.headers["content-length"]) == (data, str(len(data)))
    assert alone.headers["content-type"] == headers["content-type"]


def test_a_study_and_a_series_come_as_a_part_for_each_object_out_of_archives_too(client: TestClient, retrievable: Lake):
    for study, series in ((1, None), (made.MIDDLE, 1), (made.ZIPPED, None)):
        found = parts(get(client, path(study, series)))
        wanted = [data for name, data in retrievable.files.items() if name[0] == study]
        assert sorted(body for _, body in found) == sorted(wanted)
        assert len({headers["content-location"] for headers, _ in found}) == len(wanted)


@pytest.mark.parametrize("first", [path(1), path(1, made.RLE), path(1, made.RLE, 1)], ids=["study", "series", "object"])
def test_the_same_objects_come_whatever_was_asked_for_before_and_a_study_is_looked_up_once(
    retrievable: Lake, monkeypatch: pytest.MonkeyPatch, first: str
):
    client = retrievable.client()  # of its own, since rows are kept
    assert get(client, first).status_code == 200
    for what, series in ((path(1), range(1, 9)), (path(1, made.RLE), [made.RLE]), (path(1, made.BIG, 1), [made.BIG])):
        assert [body for _, body in parts(get(client, what))] == [retrievable.files[1, one, 1] for one in series]
        assert get(client, what + "/rendered", "image/png").status_code in (200, 422)
    monkeypatch.setattr(places, "listed", None)
    for what in (path(1), path(1, made.BITS), path(1, made.DEFLATED, 1)):
        assert get(client, what).status_code == 200


def test_a_zip_has_each_object_once(client: TestClient, retrievable: Lake):
    answer = get(client, path(made.ZIPPED), "application/zip")
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        found = {name: archive.read(name) for name in archive.namelist()}
    assert found == {f"0001/{uid(made.ZIPPED, 1, n)}.dcm": retrievable.files[made.ZIPPED, 1, n] for n in (1, 2, 3)}


def test_nothing_is_written_in_another_transfer_syntax_nor_several_objects_as_one(client: TestClient):
    other = DICOM.replace("*", "1.2.840.10008.1.2.4.90")
    assert get(client, path(1, 1, 1), other).status_code == 406
    assert get(client, path(1, made.RLE, 1), DICOM.replace("*", "1.2.840.10008.1.2.5")).status_code == 200
    assert get(client, path(made.MIDDLE), "application/dicom").status_code == 406
    assert get(client, path(1, 1, 1), "image/gif").status_code == 406


def test_head_of_an_object_says_its_length(client: TestClient, retrievable: Lake):
    answer = client.head(path(1, 1, 1), headers={"Accept": "application/dicom"})
    assert answer.headers["content-length"] == str(len(retrievable.files[1, 1, 1]))
    assert answer.content == b""


def test_what_is_not_there_is_not_found(client: TestClient):
    for what in (path(99), path(1, 99), path(1, 1, 99)):
        assert get(client, what, "*/*").status_code == 404


# Objects that are not what the lake has read


def test_an_object_that_is_gone_or_was_replaced_is_gone_whatever_is_asked_of_it(client: TestClient, retrievable: Lake):
    retrievable.file(CHANGING, 1, 1).unlink()
    retrievable.file(CHANGING, 1, 2).write_bytes(retrievable.files[CHANGING, 1, 2][:-32] + bytes(32))
    os.utime(retrievable.landing.root / "changing.zip", ns=(1, 1))
    for series, instance in ((1, 1), (1, 2), (2, 1)):
        one = path(CHANGING, series, instance)
        reference = client.get(one + "/metadata").json()[0]["7FE00010"]["BulkDataURI"]
        for what in (one, one + "/frames/1", one + "/rendered", reference):
            answer = client.get(what, headers={"Accept": "*/*"})
            assert answer.status_code == 410, what
            assert re.fullmatch(r"[A-Z].*\.\n?", answer.text) and uid(CHANGING) not in answer.text


def test_of_a_study_the_objects_that_are_there_come_and_it_is_said_that_some_do_not(
    client: TestClient, retrievable: Lake
):
    retrievable.file(CHANGING, 1, 3).unlink()
    answer = get(client, path(CHANGING, 1))
    assert answer.status_code == 206
    assert re.search(r'299 .* "\d+ of 8 objects cannot be had"', answer.headers["warning"])
    bodies = [body for _, body in parts(answer)]
    assert retrievable.files[CHANGING, 1, 4] in bodies and retrievable.files[CHANGING, 1, 3] not in bodies


def test_an_object_that_changes_while_it_is_sent_is_never_sent_to_its_end(
    client: TestClient, retrievable: Lake, monkeypatch: pytest.MonkeyPatch
):
    """Sent in blocks of 64 bytes; behind the third the file is another one."""
    from dicom_assets.serve import objects

    reads = []
    plain = local.LocalObject.read

    def read(self: local.LocalObject, offset: int, length: int) -> bytes:
        reads.append(offset)
        if offset == 128:
            os.utime(retrievable.file(CHANGING, 1, 5), ns=(1, 1))
        return plain(self, offset, length)

    monkeypatch.setattr(local.LocalObject, "read", read)
    monkeypatch.setattr(objects, "BLOCK", 64)
    answer = get(client, path(CHANGING, 1, 5), "application/dicom")
    assert reads == [0, 64, 128]
    assert answer.content == retrievable.files[CHANGING, 1, 5][:128]
    assert int(answer.headers["content-length"]) > 128, "so that whoever gets it sees that it is not whole"


def test_a_source_that_is_away_is_said_to_be_and_metadata_are_still_answered(client: TestClient, retrievable: Lake):
    root = retrievable.landing.root
    away = root.with_name("away")
    root.rename(away)
    try:
        for what in (path(1, 1, 1), path(1, 1, 1) + "/frames/1", path(1)):
            answer = client.get(what, headers={"Accept": "*/*"})
            assert answer.status_code == 503 and int(answer.headers["retry-after"]) > 0
        assert client.get(path(1) + "/metadata").status_code == 200
    finally:
        away.rename(root)
    assert get(client, path(1, 1, 1)).status_code == 200


def test_an_object_in_an_archive_tier_is_told_apart_from_one_that_is_gone(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object) -> None:
        raise ObjectArchived("archive")

    monkeypatch.setattr(local.LocalFolder, "open_for_ranges", refuse)
    for what in (path(1, 1, 1), path(1, 1, 1) + "/frames/1", path(made.ZIPPED, 1, 1)):
        answer = client.get(what, headers={"Accept": "*/*"})
        assert answer.status_code == 409 and "archive tier" in answer.text
    assert client.get(path(1, 1, 1) + "/metadata").status_code == 200


# WADO-URI


def by_uri(client: TestClient, where: tuple[int, int, int], **more: object) -> httpx.Response:
    study, series, instance = where
    asked = {
        "requestType": "WADO",
        "studyUID": uid(study),
        "seriesUID": uid(study, series),
        "objectUID": uid(study, series, instance),
        **more,
    }
    return client.get("/dicom-web", params={name: str(one) for name, one in asked.items() if one is not None})


def test_wado_uri_gives_an_object(client: TestClient, retrievable: Lake):
    for where in ((1, made.NATIVE, 1), (made.ZIPPED, 1, 2)):
        answer = by_uri(client, where, contentType="application/dicom")
        assert answer.content == retrievable.files[where]
        assert answer.headers["content-type"].startswith("application/dicom")
    assert by_uri(client, (1, made.NATIVE, 1)).content == retrievable.files[1, made.NATIVE, 1], "of several frames"


def test_wado_uri_draws_a_frame(client: TestClient):
    answer = by_uri(client, (made.COLOUR, 1, 1), contentType="image/jpeg", columns=24)
    assert (answer.status_code, answer.content[:2]) == (200, b"\xff\xd8")
    assert by_uri(client, (made.COLOUR, 1, 1)).headers["content-type"] == "image/jpeg"
    assert by_uri(client, (1, 1, 1), contentType="image/png", frameNumber=3).content[1:4] == b"PNG"
    assert by_uri(client, (1, 1, 1), contentType="image/png", frameNumber=4).status_code == 404


@pytest.mark.parametrize(
    "more",
    [
        {"requestType": None},
        {"objectUID": None},
        {"frameNumber": 0},
        {"anonymize": "yes"},
        {"contentType": "image/png", "windowCenter": 5},
    ],
)
def test_wado_uri_without_what_it_needs_is_a_bad_request(client: TestClient, more: dict[str, object]):
    assert by_uri(client, (1, 1, 1), **more).status_code == 400


def test_an_object_of_which_a_service_has_only_told_is_not_here(retrievable: Lake, monkeypatch: pytest.MonkeyPatch):
    client = retrievable.client()  # of its own, since rows are kept
    found = places._found
    monkeypatch.setattr(places, "_found", lambda row, told: found(row, {**told, "header_form": "received"}))
    for what in (path(1, 1, 1), path(1, 1, 1) + "/frames/1", path(1, 1, 1) + "/rendered"):
        answer = client.get(what, headers={"Accept": "*/*"})
        assert answer.status_code == 404 and "DICOM service" in answer.text
