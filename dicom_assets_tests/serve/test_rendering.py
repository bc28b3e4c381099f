"""Images and thumbnails as they are looked at, compared with what pydicom makes of the same object."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import RLELossless
from starlette.testclient import TestClient

from dicom_assets.serve import drawers, rendering
from dicom_assets.serve.decoding import Undecodable
from dicom_assets.serve.drawers import Drawers
from dicom_assets_tests.serve import retrievable as made
from dicom_assets_tests.serve.retrievable import PIXELS, Lake, path

PNG = {"Accept": "image/png"}


@pytest.fixture(scope="module")
def client(retrievable: Lake) -> TestClient:
    return retrievable.client()


def drawn(client: TestClient, what: str, **parameters: str) -> np.ndarray:
    answer = client.get(what, params=parameters, headers=PNG)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png"), answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def scaled(frame: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.round(255 * np.clip((frame.astype(float) - low) / (high - low), 0, 1))


@pytest.mark.parametrize("series", [made.NATIVE, made.IMPLICIT, made.RLE, made.BIG, made.DEFLATED])
def test_a_frame_without_a_window_is_drawn_from_its_darkest_to_its_lightest_value(client: TestClient, series: int):
    for number in (1, 3):
        frame = PIXELS[number - 1]
        image = drawn(client, path(1, series, 1) + f"/frames/{number}/rendered")
        assert (image == scaled(frame, frame.min(), frame.max())).all()


def test_without_a_number_the_frame_in_the_middle_is_drawn(client: TestClient):
    one = path(1, made.NATIVE, 1)
    assert (
        drawn(client, one + "/rendered", window="20000,9000")
        == drawn(client, one + "/frames/2/rendered", window="20000,9000")
    ).all()


def test_a_window_is_that_of_ps3_3(client: TestClient):
    one = path(1, made.NATIVE, 1) + "/frames/2/rendered"
    centre, width = 25_000.0, 9_000.0
    linear = scaled(PIXELS[1], centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2)
    exact = scaled(PIXELS[1], centre - width / 2, centre + width / 2)
    sigmoid = np.round(255 / (1 + np.exp(-4 * (PIXELS[1] - centre) / width)))
    for function, wanted in ((",linear", linear), ("", linear), (",linear-exact", exact), (",sigmoid", sigmoid)):
        image = drawn(client, one, window=f"{centre},{width}{function}")
        assert abs(image.astype(float) - wanted).max() <= 1, function


def test_series_and_study_are_shown_by_the_instance_in_the_middle(client: TestClient):
    for what in (path(made.MIDDLE), path(made.MIDDLE, 1)):
        assert (drawn(client, what + "/rendered") == 255).all()
        assert (drawn(client, what + "/thumbnail") == 255).all()
    assert (drawn(client, path(made.MIDDLE, 1, 1) + "/rendered") == 0).all()


def test_colour_stays_colour(client: TestClient):
    image = drawn(client, path(made.COLOUR, 1, 1) + "/rendered")
    assert image.shape == (32, 48, 3)
    assert abs(image[16, 4].astype(int) - (254, 0, 0)).max() < 8


def test_an_image_is_fitted_into_a_viewport_and_cut_to_a_part(client: TestClient):
    one = path(made.COLOUR, 1, 1) + "/rendered"
    assert drawn(client, one, viewport="24,100").shape == (16, 24, 3)
    assert drawn(client, one, viewport="96,64").shape == (64, 96, 3)
    part = drawn(client, one, viewport="20,10,0,0,20,10")
    assert part.shape == (10, 20, 3) and (part[..., 0] > 200).all()
    mirrored = drawn(client, one, viewport="48,32,0,0,-48,32")
    assert mirrored[16, 4].max() < 8 and mirrored[16, 44, 0] > 200
    assert drawn(client, path(1, made.NATIVE, 1) + "/thumbnail").shape == (133, 200)


def test_what_a_viewport_leaves_out_of_its_part_is_the_corner_or_all_of_it(client: TestClient):
    one = path(made.COLOUR, 1, 1) + "/rendered"
    whole = drawn(client, one)
    for said, part in (
        ("48,16,,16", whole[16:]),
        ("24,32,24", whole[:, 24:]),
        ("24,32,,,24,32", whole[:, :24]),
        ("24,32,24,0,24", whole[:, 24:]),
    ):
        assert (drawn(client, one, viewport=said) == part).all(), said


def test_who_asks_for_annotations_is_told_that_there_are_none(client: TestClient):
    one = path(made.COLOUR, 1, 1) + "/rendered"
    assert "annotation" in client.get(one, params={"annotation": "patient"}).headers["warning"]
    assert "warning" not in client.get(one).headers


def test_jpeg_is_what_comes_unless_something_else_is_asked_for_and_has_a_quality(client: TestClient):
    one = path(made.COLOUR, 1, 1) + "/rendered"
    sizes = []
    for quality in ("5", "95"):
        answer = client.get(one, params={"quality": quality})
        assert answer.headers["content-type"] == "image/jpeg" and answer.content[:2] == b"\xff\xd8"
        sizes.append(len(answer.content))
    assert sizes[0] < sizes[1]
    assert client.get(one, headers={"Accept": "image/gif"}).status_code == 406


@pytest.mark.parametrize(
    "asked",
    [
        "quality=0",
        "quality=101",
        "quality=high",
        "viewport=10",
        "viewport=0,10",
        "viewport=nan,10",
        "viewport=10,10,0,0,5,5,5",
        "viewport=8193,10",
        "viewport=9,9,500,0,5,5",
        "window=5",
        "window=5,0",
        "window=1,2,3",
        "window=a,b",
        "window=inf,1",
    ],
)
def test_a_parameter_that_is_wrong_is_a_bad_request(client: TestClient, asked: str):
    answer = client.get(path(made.COLOUR, 1, 1) + f"/rendered?{asked}")
    assert answer.status_code == 400 and answer.text.startswith(asked.partition("=")[0])


def test_without_pixels_there_is_nothing_to_be_drawn(client: TestClient):
    for what in (path(made.PLAIN), path(made.PLAIN, 1), path(made.PLAIN, 1, 1), path(made.PLAIN, 1, 1) + "/frames/1"):
        for ending in ("/rendered", "/thumbnail"):
            assert client.get(what + ending).status_code == 404
    assert client.get(path(1, 1, 1) + "/frames/4/rendered").status_code == 404
    assert client.get(path(1, 1, 1) + "/frames/0/rendered").status_code == 400


def test_a_frame_that_does_not_decode_says_so_with_a_code(client: TestClient):
    answer = client.get(path(1, made.BROKEN, 1) + "/frames/2/rendered")
    assert answer.status_code == 422 and answer.text.startswith("FRAME_UNDECODABLE: ")
    assert client.get(path(1, made.BROKEN, 1) + "/frames/1/rendered").status_code == 200


def test_where_a_decoder_is_lacking_it_is_said_what_brings_it(client: TestClient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rendering, "decoder_of", lambda syntax: None)
    answer = client.get(path(1, made.RLE, 1) + "/rendered")
    assert answer.status_code == 406
    assert answer.text.startswith("Nothing that is installed here decodes RLE Lossless. `pip install ")


class Left:
    """Questions of somebody who goes before there is an answer."""

    @contextmanager
    def broken_off_by(self, interrupt: Callable[[], None]) -> Iterator[None]:
        going = threading.Timer(0.05, interrupt)
        going.start()
        yield
        going.join()


def test_a_job_that_nobody_waits_for_may_end_but_not_take_long(monkeypatch: pytest.MonkeyPatch):
    row = {"Rows": 4, "Columns": 6, "BitsAllocated": 16, "BitsStored": 16, "SamplesPerPixel": 1}
    row |= {"PixelRepresentation": 0, "PhotometricInterpretation": "MONOCHROME2", "TransferSyntaxUID": RLELossless}
    job = "decode", (made.run_length(PIXELS[1]), row)
    patient = Drawers()
    monkeypatch.setattr(drawers, "GRACE_SECONDS", 60)
    assert patient.run(Left(), *job) == PIXELS[1].astype("<u2").tobytes()
    monkeypatch.setattr(drawers, "GRACE_SECONDS", 0)
    with pytest.raises(Undecodable):
        Drawers().run(Left(), *job)
