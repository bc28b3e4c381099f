"""Values by reference: whole and by ranges, and nothing else of the object."""

from __future__ import annotations

import numpy as np
import pytest
from starlette.testclient import TestClient

from dicom_assets_tests.serve import retrievable as made
from dicom_assets_tests.serve.parts import parts
from dicom_assets_tests.serve.retrievable import PIXELS, PRIVATE, Lake, path

WORDS = PIXELS.astype("<u2").tobytes()


@pytest.fixture(scope="module")
def client(retrievable: Lake) -> TestClient:
    return retrievable.client()


def pixels(client: TestClient, series: int) -> str:
    (one,) = client.get(path(1, series, 1) + "/metadata").json()
    return one["7FE00010"]["BulkDataURI"]


@pytest.mark.parametrize("series", [made.NATIVE, made.IMPLICIT, made.BIG, made.DEFLATED])
def test_pixel_data_come_in_little_endian(client: TestClient, series: int):
    answer = client.get(pixels(client, series))
    assert answer.content == WORDS
    assert answer.headers["content-type"] == "application/octet-stream"
    assert (answer.headers["content-length"], answer.headers["accept-ranges"]) == (str(len(WORDS)), "bytes")


@pytest.mark.parametrize("series", [made.NATIVE, made.BIG, made.DEFLATED])
@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("0-9", 0, 9),
        ("3-8", 3, 8),
        ("7-7", 7, 7),
        ("140-", 140, 143),
        ("-3", 141, 143),
        ("5-99999", 5, 143),
        ("-500", 0, 143),
    ],
)
def test_a_range_of_bytes_is_that_part_of_the_value(client: TestClient, series: int, asked: str, first: int, last: int):
    answer = client.get(pixels(client, series), headers={"Range": f"bytes={asked}"})
    assert (answer.status_code, answer.content) == (206, WORDS[first : last + 1])
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(WORDS)}"
    assert answer.headers["content-length"] == str(last + 1 - first)


def test_a_range_behind_the_end_cannot_be_satisfied(client: TestClient):
    for asked in ("144-", "999-1000", "-0"):
        answer = client.get(pixels(client, made.NATIVE), headers={"Range": f"bytes={asked}"})
        assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */144")


@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=0-1,4-5", "pages=1-2", "bytes=-", "bytes=a-b"])
def test_what_is_no_range_or_several_gets_the_whole(client: TestClient, asked: str):
    answer = client.get(pixels(client, made.NATIVE), headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, WORDS)


def test_a_range_counts_only_for_the_version_that_the_client_has(client: TestClient):
    uri = pixels(client, made.NATIVE)
    etag = client.get(uri).headers["etag"]
    asked = {"Range": "bytes=0-1"}
    assert client.get(uri, headers={**asked, "If-Range": etag}).status_code == 206
    assert client.get(uri, headers={**asked, "If-Range": '"other"'}).status_code == 200


def test_fragments_come_as_they_are_stored_and_say_so(client: TestClient, retrievable: Lake):
    answer = client.get(pixels(client, made.RLE))
    assert answer.headers["content-type"] == "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.5"
    assert answer.content in retrievable.files[1, made.RLE, 1] and answer.content[:4] == b"\xfe\xff\x00\xe0"
    decoded = {"Accept": "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"}
    assert client.get(pixels(client, made.RLE), headers=decoded).status_code == 406


def test_a_value_comes_as_a_part_where_that_is_asked_for(client: TestClient):
    for accept in ('multipart/related; type="application/octet-stream"', "multipart/related; type=application/*"):
        answer = client.get(pixels(client, made.NATIVE), headers={"Accept": accept})
        ((_, body),) = parts(answer)
        assert body == WORDS and answer.headers["content-length"] == str(len(answer.content))
    assert client.get(pixels(client, made.NATIVE), headers={"Accept": "image/png"}).status_code == 406


def test_a_value_is_found_by_its_tag_too(client: TestClient):
    one = path(1, made.NATIVE, 1)
    assert client.get(one + "/bulkdata/7FE00010").content == WORDS
    assert client.get(one + "/bulkdata/7fe00010").content == WORDS
    assert client.get(one + "/bulkdata/00420011").content == PRIVATE


def test_nothing_but_values_that_the_header_refers_to_is_given(client: TestClient, retrievable: Lake):
    one = path(1, made.NATIVE, 1)
    offset = int(pixels(client, made.NATIVE).rsplit("/", 1)[-1].partition("-")[0])
    for wrong in ("0-100", f"{offset}-143", f"{offset + 1}-144", "00100010", "00420012", "nonsense", "7FE00010-1"):
        assert client.get(f"{one}/bulkdata/{wrong}").status_code == 404
    assert client.get(path(made.PLAIN, 1, 1) + "/bulkdata/7FE00010").status_code == 404


def test_pixels_of_bytes_in_big_endian_words_come_in_their_order(client: TestClient):
    assert np.frombuffer(client.get(pixels(client, made.BIG_BYTES)).content, np.uint8)[:45].tolist() == list(range(45))
