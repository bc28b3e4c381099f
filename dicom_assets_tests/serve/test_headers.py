"""Headers that every answer has, pages of other origins, and which methods a resource knows."""

from __future__ import annotations

from typing import ClassVar

import pytest
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from dicom_assets.serve.call import Call
from dicom_assets.settings import ServeSettings, Settings
from dicom_assets_tests.serve.asking import bearer, client, resource, saying

VIEWER = "https://viewer.example.org"
ALL = {"name": "all", "variable": "ALL"}
POLICY = {"Content-Security-Policy": "default-src 'self'", "Vary": "Accept"}


async def broken(_: Call) -> Response:
    raise ValueError("Doe^John")


ROUTES = (
    resource("/hello", saying(PlainTextResponse("hello"))),
    resource("/page", saying(HTMLResponse("<p>"))),
    resource("/policed", saying(HTMLResponse("<p>", headers=POLICY))),
    resource("/unchanged", saying(Response(status_code=304, headers={"ETag": 'W/"abc"'}))),
    resource("/broken", broken),
    resource("/store", saying(PlainTextResponse("stored")), "POST"),
)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/dicom-web/hello", 200), ("/dicom-web/nothing", 404), ("/dicom-web/broken", 500), ("/dicom-web/unchanged", 304),
     ("/dicom-web/page", 200), ("/healthz", 200), ("/metrics", 200), ("/openapi.json", 200), ("/dicom-web/store", 405)],
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
    answer = client(searchable, ROUTES, **serve).get("/dicom-web/hello?" + "a" * 300, headers=headers)
    assert (answer.status_code, answer.headers["x-content-type-options"]) == (status, "nosniff")
    assert len(answer.headers["x-request-id"]) == 16


def test_each_request_has_an_id_of_its_own(searchable: Settings):
    asking = client(searchable, ROUTES)
    assert len({asking.get("/dicom-web/hello").headers["x-request-id"] for _ in range(10)}) == 10


def test_pages_are_kept_apart_from_other_pages_and_keep_their_policy(searchable: Settings):
    asking = client(searchable, ROUTES)
    page, other = asking.get("/dicom-web/policed"), asking.get("/dicom-web/hello")
    assert page.headers["content-security-policy"] == "default-src 'self'"
    assert page.headers["cross-origin-opener-policy"] == "same-origin"
    assert page.headers["cross-origin-embedder-policy"] == "require-corp"
    assert "cross-origin-opener-policy" not in other.headers


class TestOtherOrigins:
    ASK: ClassVar = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}

    def test_one_that_is_set_may_ask_before_it_has_a_token(self, searchable: Settings):
        asking = client(searchable, ROUTES, origins=[VIEWER], tokens=[ALL])
        answer = asking.options("/dicom-web/hello", headers={"Origin": VIEWER, **self.ASK})
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == VIEWER
        assert "Authorization" in answer.headers["access-control-allow-headers"]
        assert {"GET", "HEAD", "OPTIONS"} <= set(answer.headers["access-control-allow-methods"].split(", "))

    @pytest.mark.parametrize(
        "origin", ["https://evil.example", "null", VIEWER + ".evil.example", "http://viewer.example.org"]
    )
    def test_any_other_may_not(self, searchable: Settings, origin: str):
        asking = client(searchable, ROUTES, origins=[VIEWER])
        preflight = asking.options("/dicom-web/hello", headers={"Origin": origin, **self.ASK})
        plain = asking.get("/dicom-web/hello", headers={"Origin": origin})
        assert preflight.status_code == 403
        for answer in (preflight, plain):
            assert "access-control-allow-origin" not in answer.headers
            assert "Origin" in answer.headers["vary"]

    @pytest.mark.parametrize("path", ["/dicom-web/hello", "/dicom-web/nothing", "/dicom-web/broken"])
    def test_answers_and_refusals_may_be_read_there(self, searchable: Settings, path: str):
        asking = client(searchable, ROUTES, origins=[VIEWER], tokens=[ALL])
        for headers in (bearer("ALL"), {}):
            answer = asking.get(path, headers={"Origin": VIEWER, **headers})
            assert answer.headers["access-control-allow-origin"] == VIEWER
            assert answer.headers["access-control-expose-headers"] == "Content-Type, ETag, Warning"
            assert answer.headers["cross-origin-resource-policy"] == "cross-origin"

    def test_vary_keeps_what_it_named(self, searchable: Settings):
        answer = client(searchable, ROUTES, origins=[VIEWER]).get("/dicom-web/policed")
        assert set(answer.headers["vary"].split(", ")) == {"Accept", "Accept-Encoding", "Origin"}

    def test_a_page_elsewhere_stores_nothing(self, searchable: Settings):
        asking = client(searchable, ROUTES, origins=[VIEWER])
        told = {
            origin: asking.post("/dicom-web/store", headers={"Origin": origin} if origin else {}).status_code
            for origin in ("", VIEWER, "http://127.0.0.1:8050", "https://evil.example", "null")
        }
        assert told == {"": 200, VIEWER: 200, "http://127.0.0.1:8050": 200, "https://evil.example": 403, "null": 403}

    @pytest.mark.parametrize(
        "origin", ["*", "viewer.example.org", "https://viewer.example.org/", "https://a.example/b"]
    )
    def test_an_origin_is_written_as_browsers_write_it(self, origin: str):
        with pytest.raises(ValueError, match="pattern"):
            ServeSettings.model_validate({"origins": [origin]})


class TestMethods:
    def test_options_say_which(self, searchable: Settings):
        asking = client(searchable, ROUTES)
        told = [asking.options(f"/dicom-web/{one}") for one in ("hello", "store")]
        assert [(one.status_code, one.headers["allow"]) for one in told] == [
            (204, "GET, HEAD, OPTIONS"), (204, "OPTIONS, POST")
        ]  # fmt: skip

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
    def test_reading_is_all_that_may_be_done(self, searchable: Settings, method: str):
        answer = client(searchable, ROUTES).request(method, "/dicom-web/hello")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")

    def test_storing_is_for_those_who_may(self, searchable: Settings):
        tokens = [ALL, {"name": "two", "variable": "SOME", "may_store": True}]
        asking = client(searchable, ROUTES, tokens=tokens)
        told = [asking.post("/dicom-web/store", headers=bearer(one)).status_code for one in ("ALL", "SOME")]
        assert told == [403, 200]
