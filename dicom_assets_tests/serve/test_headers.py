"""Headers that every answer has, pages of other origins, and what is compressed on its way."""

from __future__ import annotations

import gzip
import itertools

import pytest
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse

from dicom_assets.serve.compression import accepts_gzip
from dicom_assets.settings import ServeSettings, Settings
from dicom_assets_tests.serve.asking import bearer, client, resource, saying
from dicom_assets_tests.serve.searchable import searchable as searchable

VIEWER = "https://viewer.example.org"
ALL = {"name": "all", "variable": "ALL"}
LONG = [{"number": one} for one in range(500)]


async def pieces(size: int, count: int):
    for _ in range(count):
        yield b"[" + b"1" * (size - 1)


def tagged(tag: str) -> Response:
    return JSONResponse(LONG, headers={"ETag": tag})


ANSWERS = {
    "/long": JSONResponse(LONG),
    "/short": JSONResponse([1]),
    "/dicom": Response(b"[" + b" " * 2_000 + b"]", media_type="application/dicom+json"),
    "/frame": Response(b"\0" * 5_000, media_type="application/octet-stream"),
    "/encoded": Response(b"\0" * 5_000, media_type="application/json", headers={"Content-Encoding": "br"}),
    "/text": PlainTextResponse("x" * 5_000),
    "/page": HTMLResponse("<p>"),
    "/policed": HTMLResponse("<p>", headers={"Content-Security-Policy": "default-src 'self'", "Vary": "Accept"}),
    "/strong": tagged('"abc"'),
    "/weak": tagged('W/"abc"'),
    "/empty": Response(status_code=304, headers={"ETag": 'W/"abc"'}),
}


async def stream(call) -> Response:
    return StreamingResponse(pieces(100_000, 3), media_type="application/dicom+json")


async def brief(call) -> Response:
    return StreamingResponse(pieces(10, 3), media_type="application/dicom+json")


async def broken(call) -> Response:
    raise ValueError("Doe^John")


ROUTES = (
    *(resource(path, saying(answer)) for path, answer in ANSWERS.items()),
    resource("/stream", stream),
    resource("/brief", brief),
    resource("/broken", broken),
    resource("/store", saying(PlainTextResponse("stored")), "POST"),
)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/dicom-web/long", 200), ("/dicom-web/frame", 200), ("/dicom-web/nothing", 404), ("/dicom-web/broken", 500),
     ("/dicom-web/empty", 304), ("/healthz", 200), ("/metrics", 200), ("/dicom-web/page", 200), ("/openapi.json", 200)],
)  # fmt: skip
def test_every_answer_tells_browsers_to_do_nothing_with_it(searchable: Settings, path: str, status: int):
    answer = client(searchable, ROUTES).get(path)
    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"].startswith("private")
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in answer.headers
    assert "server" not in answer.headers


@pytest.mark.parametrize(
    ("serve", "headers", "status"),
    [({"tokens": [ALL]}, {}, 401), ({}, {"Host": "evil.example"}, 421), ({"query_bytes": 256}, {"X": "y"}, 414),
     ({"head_bytes": 1_024}, {"X": "y" * 2_000}, 431)],
)  # fmt: skip
def test_a_refusal_has_them_as_well_and_an_id(searchable: Settings, serve, headers, status: int):
    answer = client(searchable, ROUTES, **serve).get("/dicom-web/long?" + "a" * 300, headers=headers)
    assert (answer.status_code, answer.headers["x-content-type-options"]) == (status, "nosniff")
    assert len(answer.headers["x-request-id"]) == 16


def test_each_request_has_an_id_of_its_own(searchable: Settings):
    asking = client(searchable, ROUTES)
    assert len({asking.get("/dicom-web/short").headers["x-request-id"] for _ in range(10)}) == 10


def test_pages_are_kept_apart_from_other_pages_and_keep_their_policy(searchable: Settings):
    asking = client(searchable, ROUTES)
    page, other = asking.get("/dicom-web/policed"), asking.get("/dicom-web/long")
    assert page.headers["content-security-policy"] == "default-src 'self'"
    assert page.headers["cross-origin-opener-policy"] == "same-origin"
    assert page.headers["cross-origin-embedder-policy"] == "require-corp"
    assert "cross-origin-opener-policy" not in other.headers


class TestOtherOrigins:
    ASK = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}

    def test_one_that_is_set_may_ask_before_it_has_a_token(self, searchable: Settings):
        asking = client(searchable, ROUTES, origins=[VIEWER], tokens=[ALL])
        answer = asking.options("/dicom-web/long", headers={"Origin": VIEWER, **self.ASK})
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == VIEWER
        assert "Authorization" in answer.headers["access-control-allow-headers"]
        assert {"GET", "HEAD", "OPTIONS"} <= set(answer.headers["access-control-allow-methods"].split(", "))

    @pytest.mark.parametrize("origin", ["https://evil.example", "null", VIEWER + ".evil.example", "http://viewer.example.org"])
    def test_any_other_may_not(self, searchable: Settings, origin: str):
        asking = client(searchable, ROUTES, origins=[VIEWER])
        preflight = asking.options("/dicom-web/long", headers={"Origin": origin, **self.ASK})
        plain = asking.get("/dicom-web/long", headers={"Origin": origin})
        assert preflight.status_code == 403
        for answer in (preflight, plain):
            assert "access-control-allow-origin" not in answer.headers
            assert "Origin" in answer.headers["vary"]

    @pytest.mark.parametrize("path", ["/dicom-web/long", "/dicom-web/nothing", "/dicom-web/broken"])
    def test_answers_and_refusals_may_be_read_there(self, searchable: Settings, path: str):
        asking = client(searchable, ROUTES, origins=[VIEWER], tokens=[ALL])
        for headers in (bearer("ALL"), {}):
            answer = asking.get(path, headers={"Origin": VIEWER, **headers})
            assert answer.headers["access-control-allow-origin"] == VIEWER
            assert answer.headers["access-control-expose-headers"] == "Content-Type, ETag, Warning"
            assert answer.headers["cross-origin-resource-policy"] == "cross-origin"

    def test_a_page_elsewhere_stores_nothing(self, searchable: Settings):
        asking = client(searchable, ROUTES, origins=[VIEWER])
        told = {
            origin: asking.post("/dicom-web/store", headers={"Origin": origin} if origin else {}).status_code
            for origin in ("", VIEWER, "http://127.0.0.1:8050", "https://evil.example", "null")
        }
        assert told == {"": 200, VIEWER: 200, "http://127.0.0.1:8050": 200, "https://evil.example": 403, "null": 403}

    @pytest.mark.parametrize("origin", ["*", "viewer.example.org", "https://viewer.example.org/", "https://a.example/b"])
    def test_an_origin_is_written_as_browsers_write_it(self, origin: str):
        with pytest.raises(ValueError, match="pattern"):
            ServeSettings.model_validate({"origins": [origin]})


class TestMethods:
    def test_options_say_which(self, searchable: Settings):
        asking = client(searchable, ROUTES)
        told = [asking.options(f"/dicom-web/{one}") for one in ("long", "store")]
        assert [(one.status_code, one.headers["allow"]) for one in told] == [
            (204, "GET, HEAD, OPTIONS"), (204, "GET, HEAD, OPTIONS, POST")
        ]  # fmt: skip

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
    def test_reading_is_all_that_may_be_done(self, searchable: Settings, method: str):
        answer = client(searchable, ROUTES).request(method, "/dicom-web/long")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")

    def test_storing_is_for_those_who_may(self, searchable: Settings):
        tokens = [ALL, {"name": "two", "variable": "SOME", "may_store": True}]
        asking = client(searchable, ROUTES, tokens=tokens)
        assert [asking.post("/dicom-web/store", headers=bearer(one)).status_code for one in ("ALL", "SOME")] == [403, 200]


class TestCompression:
    @pytest.mark.parametrize("path", ["/long", "/dicom", "/stream"])
    def test_long_json_is_compressed_where_that_is_taken(self, searchable: Settings, path: str):
        asking = client(searchable, ROUTES)
        plain = asking.get("/dicom-web" + path, headers={"Accept-Encoding": "identity"})
        packed = asking.get("/dicom-web" + path, headers={"Accept-Encoding": "gzip"})
        assert "content-encoding" not in plain.headers
        assert packed.headers["content-encoding"] == "gzip"
        assert packed.content == plain.content
        assert "content-length" not in packed.headers
        assert all("Accept-Encoding" in one.headers["vary"] for one in (plain, packed))

    @pytest.mark.parametrize("path", ["/short", "/frame", "/encoded", "/brief", "/text", "/empty"])
    def test_what_is_short_or_no_json_is_not(self, searchable: Settings, path: str):
        with client(searchable, ROUTES).stream("GET", "/dicom-web" + path, headers={"Accept-Encoding": "gzip"}) as answer:
            assert answer.headers.get("content-encoding") in (None, "br")
            raw = b"".join(answer.iter_raw())
        assert len(raw) == {"/frame": 5_000, "/encoded": 5_000, "/text": 5_000, "/brief": 30, "/short": 3, "/empty": 0}[path]

    @pytest.mark.parametrize("path", ["/strong", "/weak"])
    def test_a_tag_holds_for_both_forms(self, searchable: Settings, path: str):
        answer = client(searchable, ROUTES).get("/dicom-web" + path, headers={"Accept-Encoding": "gzip"})
        assert answer.headers["etag"] == 'W/"abc"'

    def test_vary_keeps_what_it_named(self, searchable: Settings):
        answer = client(searchable, ROUTES, origins=[VIEWER]).get("/dicom-web/policed")
        assert set(answer.headers["vary"].split(", ")) == {"Accept", "Origin"}

    def test_head_tells_the_same_kind(self, searchable: Settings):
        answer = client(searchable, ROUTES).head("/dicom-web/long", headers={"Accept-Encoding": "gzip"})
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"] == "application/json"

    @pytest.mark.parametrize(
        ("header", "accepted"),
        [("gzip", True), ("GZIP, br", True), ("deflate", False), ("", False), ("*", True), ("gzip;q=0", False),
         ("gzip;q=0.0, *", False), ("br;q=1.0, gzip;q=0.2", True), ("gzip; q=x", False), ("identity", False),
         ("*;q=0", False), ("x-gzip", True)],
    )  # fmt: skip
    def test_acceptance_is_read_as_rfc_9110_has_it(self, header: str, accepted: bool):
        assert accepts_gzip([header]) is accepted

    def test_a_stream_is_one_gzip_member_whatever_its_pieces(self, searchable: Settings):
        with client(searchable, ROUTES).stream("GET", "/dicom-web/stream") as answer:
            raw = b"".join(answer.iter_raw())
        assert gzip.decompress(raw) == b"".join(itertools.repeat(b"[" + b"1" * 99_999, 3))
