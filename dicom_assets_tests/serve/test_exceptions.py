"""An exception ends as an answer and a line that hold nothing of its text."""

from __future__ import annotations

import duckdb
import pytest
from starlette.responses import Response, StreamingResponse

from dicom_assets.serve.call import Call
from dicom_assets.serve.problems import Refusal, bad_parameter
from dicom_assets.serve.questions import Stopped
from dicom_assets.settings import Settings
from dicom_assets.storage.files import LakeError
from dicom_assets_tests.serve.asking import client, resource

NAME = "Doe^John"


def raising(error: Exception):
    async def broken(_: Call) -> Response:
        raise error

    return resource("/broken", broken)


def test_one_that_nobody_foresaw_says_type_and_place_alone(searchable: Settings, capsys: pytest.CaptureFixture[str]):
    answer = client(searchable, [raising(ValueError(NAME))], access_log="-").get(
        f"/dicom-web/broken?PatientName={NAME}"
    )
    said = capsys.readouterr()
    assert answer.status_code == 500
    for text in (answer.text, said.err):
        assert "A fault that nobody foresaw: ValueError at" in text
        assert answer.headers["x-request-id"] in text
        assert "Doe" not in text
    assert said.out == ""


@pytest.mark.parametrize(
    ("error", "status"),
    [(LakeError(NAME), 503), (duckdb.IOException(NAME), 503), (duckdb.ConversionException(NAME), 500),
     (Refusal(418, "A teapot."), 418), (bad_parameter("limit", "a number is expected."), 400)],
)  # fmt: skip
def test_each_kind_has_its_status(searchable: Settings, error: Exception, status: int):
    answer = client(searchable, [raising(error)]).get("/dicom-web/broken")
    assert answer.status_code == status
    assert "Doe" not in answer.text
    assert ("retry-after" in answer.headers) is (status == 503)


def test_what_has_begun_is_left_without_an_end(searchable: Settings, capsys: pytest.CaptureFixture[str]):
    async def pieces():
        yield b"begun"
        raise ValueError(NAME)

    async def broken(_: Call) -> Response:
        return StreamingResponse(pieces(), media_type="text/plain")

    answer = client(searchable, [resource("/broken", broken)], access_log="-").get("/dicom-web/broken")
    assert answer.content == b"begun"  # TestClient does not tell a body without an end; a server closes the connection
    said = capsys.readouterr().err
    assert '"broken":true' in said
    assert "Doe" not in said


def test_a_client_that_has_gone_is_no_fault(searchable: Settings, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(AssertionError):  # of TestClient: no answer was begun, since nobody is there
        client(searchable, [raising(Stopped())]).get("/dicom-web/broken")
    assert "fault" not in capsys.readouterr().err
