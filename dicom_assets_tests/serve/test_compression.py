"""JSON is compressed on its way where the client takes it; images and objects never are."""

from __future__ import annotations

import gzip

import pytest
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from dicom_assets.serve.call import Call
from dicom_assets.serve.compression import accepts_gzip
from dicom_assets.settings import Settings
from dicom_assets_tests.serve.asking import client, resource, saying

LONG = [{"number": one} for one in range(500)]


async def pieces(size: int, count: int):
    for _ in range(count):
        yield b"[" + b"1" * (size - 1)


async def stream(_: Call) -> Response:
    return StreamingResponse(pieces(100_000, 3), media_type="application/dicom+json")


async def brief(_: Call) -> Response:
    return StreamingResponse(pieces(10, 3), media_type="application/dicom+json")


ANSWERS = {
    "/long": JSONResponse(LONG),
    "/short": JSONResponse([1]),
    "/dicom": Response(b"[" + b" " * 2_000 + b"]", media_type="application/dicom+json"),
    "/frame": Response(b"\0" * 5_000, media_type="application/octet-stream"),
    "/encoded": Response(b"\0" * 5_000, media_type="application/json", headers={"Content-Encoding": "br"}),
    "/text": PlainTextResponse("x" * 5_000),
    "/strong": JSONResponse(LONG, headers={"ETag": '"abc"'}),
    "/weak": JSONResponse(LONG, headers={"ETag": 'W/"abc"'}),
    "/unchanged": Response(status_code=304, headers={"ETag": 'W/"abc"'}),
}
ROUTES = (
    *(resource(path, saying(answer)) for path, answer in ANSWERS.items()),
    resource("/stream", stream),
    resource("/brief", brief),
)
SENT_AS_THEY_ARE = {"/short": 3, "/frame": 5_000, "/encoded": 5_000, "/brief": 30, "/text": 5_000, "/unchanged": 0}
"""Bytes of answers that are not compressed."""


@pytest.mark.parametrize("path", ["/long", "/dicom", "/stream"])
def test_long_json_is_compressed_where_that_is_taken(searchable: Settings, path: str):
    asking = client(searchable, ROUTES)
    plain = asking.get("/dicom-web" + path, headers={"Accept-Encoding": "identity"})
    packed = asking.get("/dicom-web" + path, headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.content == plain.content
    assert "content-length" not in packed.headers
    assert all("Accept-Encoding" in one.headers["vary"] for one in (plain, packed))


@pytest.mark.parametrize("path", SENT_AS_THEY_ARE)
def test_what_is_short_or_no_json_is_not(searchable: Settings, path: str):
    with client(searchable, ROUTES).stream("GET", "/dicom-web" + path, headers={"Accept-Encoding": "gzip"}) as answer:
        assert answer.headers.get("content-encoding") in (None, "br")
        raw = b"".join(answer.iter_raw())
    assert len(raw) == SENT_AS_THEY_ARE[path]


@pytest.mark.parametrize("path", ["/strong", "/weak"])
def test_a_tag_holds_for_both_forms(searchable: Settings, path: str):
    answer = client(searchable, ROUTES).get("/dicom-web" + path, headers={"Accept-Encoding": "gzip"})
    assert answer.headers["etag"] == 'W/"abc"'


def test_head_tells_the_same_kind(searchable: Settings):
    answer = client(searchable, ROUTES).head("/dicom-web/long", headers={"Accept-Encoding": "gzip"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == "application/json"


def test_a_stream_is_one_gzip_member_whatever_its_pieces(searchable: Settings):
    with client(searchable, ROUTES).stream("GET", "/dicom-web/stream") as answer:
        raw = b"".join(answer.iter_raw())
    assert gzip.decompress(raw) == 3 * (b"[" + b"1" * 99_999)


@pytest.mark.parametrize(
    ("header", "accepted"),
    [("gzip", True), ("GZIP, br", True), ("deflate", False), ("", False), ("*", True), ("gzip;q=0", False),
     ("gzip;q=0.0, *", False), ("br;q=1.0, gzip;q=0.2", True), ("gzip; q=x", False), ("identity", False),
     ("*;q=0", False), ("x-gzip", True)],
)  # fmt: skip
def test_acceptance_is_read_as_rfc_9110_has_it(header: str, accepted: bool):
    assert accepts_gzip([header]) is accepted
