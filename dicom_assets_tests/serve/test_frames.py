"""Frames, as they are stored and decoded, and what is told when there is none."""

from __future__ import annotations

import numpy as np
import pytest
from starlette.testclient import TestClient

from dicom_assets_tests.serve import retrievable as made
from dicom_assets_tests.serve.parts import parts
from dicom_assets_tests.serve.retrievable import PIXELS, Lake, path

STORED = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
DECODED = "multipart/related; type=application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"
LITTLE, RLE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5"


@pytest.fixture(scope="module")
def client(retrievable: Lake) -> TestClient:
    return retrievable.client()


def frames(client: TestClient, series: int, numbers: str, accept: str = STORED, study: int = 1, instance: int = 1):
    return client.get(path(study, series, instance) + f"/frames/{numbers}", headers={"Accept": accept})


@pytest.mark.parametrize("series", [made.NATIVE, made.IMPLICIT, made.BIG, made.DEFLATED])
def test_a_native_frame_is_little_endian_whatever_it_is_stored_in(client: TestClient, series: int):
    for number in (1, 2, 3):
        ((headers, body),) = parts(frames(client, series, str(number)))
        assert headers["content-type"] == f"application/octet-stream; transfer-syntax={LITTLE}"
        assert body == PIXELS[number - 1].astype("<u2").tobytes()


def test_a_frame_of_single_bits_begins_at_a_byte(client: TestClient):
    for number in (1, 2, 3):
        ((_, body),) = parts(frames(client, made.BITS, str(number)))
        assert (
            np.unpackbits(np.frombuffer(body, np.uint8), bitorder="little")[:15] == made.one_bit()[number - 1]
        ).all()


def test_bytes_that_are_stored_as_big_endian_words_come_in_their_order(client: TestClient):
    answer = frames(client, made.BIG_BYTES, "1,2,3")
    assert b"".join(body for _, body in parts(answer)) == bytes(range(45))


def test_a_list_of_frames_comes_in_its_order_each_with_its_transfer_syntax(client: TestClient):
    answer = frames(client, made.RLE, "3,1")
    assert [body.rstrip(b"\0") for _, body in parts(answer)] == [
        made.run_length(PIXELS[at]).rstrip(b"\0") for at in (2, 0)
    ]
    assert {headers["content-type"] for headers, _ in parts(answer)} == {
        f"application/octet-stream; transfer-syntax={RLE}"
    }
    assert [headers["content-location"][-9:] for headers, _ in parts(answer)] == ["/frames/3", "/frames/1"]


def test_an_encapsulated_frame_is_decoded_where_that_is_asked_for(client: TestClient):
    for number in (1, 2, 3):
        ((headers, body),) = parts(frames(client, made.RLE, str(number), DECODED))
        assert headers["content-type"] == f"application/octet-stream; transfer-syntax={LITTLE}"
        assert body == PIXELS[number - 1].astype("<u2").tobytes()


def test_colour_is_decoded_to_rgb(client: TestClient):
    ((_, body),) = parts(frames(client, 1, "1", DECODED, made.COLOUR))
    colours = np.frombuffer(body, np.uint8).reshape(32, 48, 3)
    assert abs(colours[16, 4].astype(int) - (254, 0, 0)).max() < 8 and colours[16, 40].max() < 8


def test_a_frame_comes_as_the_image_that_it_is_where_that_is_asked_for(client: TestClient):
    answer = frames(client, 1, "1", "multipart/related; type=image/jpeg", made.COLOUR)
    ((headers, body),) = parts(answer)
    assert headers["content-type"].startswith("image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50")
    assert body[:2] == b"\xff\xd8"
    assert 'type="image/jpeg"' in answer.headers["content-type"]


def test_who_accepts_a_single_part_only_gets_one(client: TestClient):
    answer = frames(client, made.NATIVE, "2", "application/octet-stream")
    assert answer.headers["content-type"] == f"application/octet-stream; transfer-syntax={LITTLE}"
    assert answer.content == PIXELS[1].astype("<u2").tobytes()
    assert frames(client, made.NATIVE, "1,2", "application/octet-stream").status_code == 406


def test_whatever_is_accepted_gets_parts_as_stored(client: TestClient):
    for accept in ("*/*", "text/html, */*;q=0.1", "multipart/related"):
        ((headers, _),) = parts(frames(client, made.RLE, "1", accept))
        assert headers["content-type"].endswith(RLE)


@pytest.mark.parametrize("numbers", ["0", "-1", "one", "1,", "1,0", "1.5", "99999999999"])
def test_what_is_no_number_of_a_frame_is_a_bad_request(client: TestClient, numbers: str):
    assert frames(client, made.NATIVE, numbers).status_code == 400


def test_a_frame_behind_the_last_and_pixels_that_are_none_are_not_found(client: TestClient):
    assert frames(client, made.NATIVE, "4").status_code == 404
    assert frames(client, made.RLE, "1,4").status_code == 404
    assert frames(client, 1, "1", study=made.PLAIN).status_code == 404
    assert frames(client, 1, "1", study=77).status_code == 404


@pytest.mark.parametrize(
    "accept",
    ["image/gif", "multipart/related; type=image/jp2", STORED.replace("*", "1.2.840.10008.1.2.4.90"), "nonsense"],
)
def test_what_cannot_be_given_is_not_acceptable(client: TestClient, accept: str):
    assert frames(client, made.RLE, "1", accept).status_code == 406


def test_a_frame_that_does_not_decode_is_an_error_for_itself_alone(client: TestClient):
    answer = frames(client, made.BROKEN, "2", DECODED)
    assert answer.status_code == 422 and answer.text.startswith("FRAME_UNDECODABLE: ")
    first, second, third = parts(frames(client, made.BROKEN, "1,2,3", DECODED))
    assert [first[1], third[1]] == [PIXELS[at].astype("<u2").tobytes() for at in (0, 2)]
    assert second[0]["content-type"].startswith("text/plain") and second[1].startswith(b"FRAME_UNDECODABLE: ")
    assert frames(client, made.BROKEN, "2").status_code == 200


@pytest.mark.parametrize("instance", [1, 2, 3])
def test_frames_come_out_of_archives_nested_ones_too(client: TestClient, instance: int):
    answer = frames(client, 1, "1,3", study=made.ZIPPED, instance=instance)
    assert [body for _, body in parts(answer)] == [PIXELS[at].astype("<u2").tobytes() for at in (0, 2)]
