"""Signing in by a token: the cookie, what it opens, and that it opens nothing else."""

from __future__ import annotations

import time
from http.cookies import SimpleCookie
from typing import Any

import orjson
import pytest
from httpx import Response

from dicom_assets.serve.sessions import COOKIE, Sessions
from dicom_assets_tests.catalogue.shown_lake import (
    ODD,
    OTHER,
    PLAIN,
    SEVERAL,
    TOKENS,
    Shown,
    instance,
    links,
    section,
    series,
    study,
    words,
)
from dicom_assets_tests.serve.asking import ENVIRONMENT, TOKEN, bearer
from dicom_assets_tests.support.dicoms import uid

HERE = "http://127.0.0.1:8050"


def signed_in(shown: Shown, variable: str = "ALL", **serve: Any):
    """A browser that has signed in."""
    browser = shown.client(tokens=TOKENS, **serve) if serve else shown.stranger()
    assert sign_in(browser, ENVIRONMENT[variable]).status_code == 303
    return browser


def sign_in(browser: Any, token: str, onward: str = "/", **headers: str) -> Response:
    return browser.post("/sign-in", data={"token": token, "next": onward}, headers={"Origin": HERE, **headers})


class TestTheWayIn:
    @pytest.mark.parametrize("path", ["/", study(ODD), "/studies.csv", "/?patient=doe", "/nothing"])
    def test_a_page_asks_for_a_token_and_then_leads_to_where_somebody_wanted_to_go(self, shown: Shown, path: str):
        browser = shown.stranger()
        answer = browser.get(path)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert 'type="password"' in answer.text
        assert f'name="next" value="{path}"' in answer.text
        assert sign_in(browser, TOKEN, path).headers["location"] == path
        assert browser.get(path).status_code == (404 if path == "/nothing" else 200)

    def test_programs_get_text_as_before(self, shown: Shown):
        answer = shown.stranger().get("/", headers={"Accept": "*/*"})
        assert (answer.status_code, answer.headers["content-type"]) == (401, "text/plain; charset=utf-8")

    def test_a_bearer_token_opens_pages_too(self, shown: Shown):
        assert shown.stranger().get("/", headers=bearer("ALL")).status_code == 200

    def test_the_cookie_is_for_this_site_and_for_no_script(self, shown: Shown):
        cookie = sign_in(shown.stranger(), TOKEN).headers["set-cookie"]
        parts = {one.strip().lower() for one in cookie.split(";")[1:]}
        assert {"httponly", "samesite=strict", "path=/", "max-age=43200"} <= parts
        assert "secure" not in parts
        assert TOKEN not in cookie

    def test_over_tls_the_cookie_is_for_tls_alone_and_below_the_prefix_of_a_proxy(self, shown: Shown):
        browser = shown.client(tokens=TOKENS, proxy={"addresses": ["127.0.0.0/8"]}, base="http://127.0.0.1:8050")
        browser = type(browser)(browser.app, base_url=HERE, client=("127.0.0.1", 1), follow_redirects=False)
        forwarded = {
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": "127.0.0.1",
            "X-Forwarded-Prefix": "/imaging",
            "Accept": "text/html",
        }
        page = browser.get("/", headers=forwarded)
        assert 'action="/imaging/sign-in"' in page.text
        data = {"token": TOKEN, "next": "/"}
        answer = browser.post("/sign-in", data=data, headers={**forwarded, "Origin": "https://127.0.0.1"})
        assert answer.headers["location"] == "/imaging/"
        assert "Secure" in answer.headers["set-cookie"]
        assert "Path=/imaging/" in answer.headers["set-cookie"]

    @pytest.mark.parametrize(
        "onward",
        ["https://evil.example/", "//evil.example", "/\\evil.example", "\\\\evil.example", "javascript:alert(1)", "",
         "evil", "/\n/evil.example", "///evil.example", "/ok\r\nSet-Cookie: x=y"],
    )  # fmt: skip
    def test_it_leads_to_no_other_site(self, shown: Shown, onward: str):
        assert sign_in(shown.stranger(), TOKEN, onward).headers["location"] == "/"

    @pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x", "é", "all"])
    def test_nothing_else_opens(self, shown: Shown, token: str):
        browser = shown.stranger()
        answer = sign_in(browser, token)
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
        assert "none of the tokens" in words(answer)
        assert browser.get("/").status_code == 401

    def test_trying_tokens_is_counted(self, shown: Shown):
        browser = shown.client(tokens=TOKENS, requests_per_second=0.001, burst=3)
        assert [sign_in(browser, f"guess {number}").status_code for number in range(5)] == [401, 401, 401, 429, 429]

    @pytest.mark.parametrize("origin", ["https://evil.example", "null"])
    def test_a_page_elsewhere_signs_nobody_in(self, shown: Shown, origin: str):
        answer = sign_in(shown.stranger(), TOKEN, Origin=origin)
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers

    def test_the_page_says_where_it_comes_from_or_browsers_would_call_its_form_foreign(self, shown: Shown):
        for path in ("/", "/sign-in"):
            assert shown.stranger().get(path).headers["referrer-policy"] == "same-origin"

    def test_only_forms_are_taken(self, shown: Shown):
        answer = shown.stranger().post("/sign-in", json={"token": TOKEN}, headers={"Origin": HERE})
        assert answer.status_code == 415

    def test_a_form_is_small(self, shown: Shown):
        answer = sign_in(shown.stranger(), "x" * 100_000)
        assert answer.status_code == 413
        fields = {f"field{number}": "x" for number in range(21)}
        assert shown.stranger().post("/sign-in", data=fields, headers={"Origin": HERE}).status_code == 413

    def test_without_tokens_there_is_nothing_to_sign_in_to(self, shown: Shown):
        assert shown.plain.get("/sign-in").headers["location"] == "/"
        assert "Sign out" not in words(shown.plain.get("/"))


class TestTheCookie:
    def test_opens_pages_and_dicomweb_to_look_and_not_to_store(self, shown: Shown):
        browser = signed_in(shown)
        assert browser.get(study(ODD)).status_code == 200
        assert browser.get(f"/dicom-web{series(ODD)}/thumbnail", headers={"Accept": "image/*"}).status_code == 200
        stored = browser.post("/dicom-web/studies", content=b"", headers={"Origin": HERE})
        assert stored.status_code == 403

    def test_signing_out_takes_it_away(self, shown: Shown):
        browser = signed_in(shown)
        assert "Sign out" in words(browser.get("/"))
        assert browser.get("/sign-out").status_code == 200
        assert browser.get("/").status_code == 200
        assert browser.post("/sign-out", headers={"Origin": HERE}).headers["location"] == "/"
        assert browser.get("/").status_code == 401

    def test_every_process_with_the_same_tokens_knows_it(self, shown: Shown):
        cookie = sign_in(shown.stranger(), TOKEN).headers["set-cookie"].split(";")[0]
        assert shown.client(tokens=TOKENS).get("/", headers={"Cookie": cookie}).status_code == 200

    def test_ends_with_its_token(self, shown: Shown):
        cookie = sign_in(shown.stranger(), TOKEN).headers["set-cookie"].split(";")[0]
        other = [{"name": "all", "variable": "KEY"}]
        assert shown.client(tokens=other).get("/", headers={"Cookie": cookie}).status_code == 401

    def test_ends_with_its_time_and_cannot_be_changed(self):
        from dicom_assets.serve.exchange import Caller

        tokens = [(b"1" * 32, Caller("token", "one", may_store=True)), (b"2" * 32, Caller("token", "two"))]
        sessions = Sessions(tokens, 60)
        value = sessions.cookie_of("one", now=1_000)
        _, until, mac = value.split("~")
        header = f'other={{"of": "another server"}}; {COOKIE}={value}'
        found = sessions.caller(header, now=1_059)
        assert found is not None
        assert (found.name, found.may_store) == ("one", False)
        assert sessions.caller(header, now=1_060) is None
        other = (f"two~{until}~{mac}", f"one~{until}0~{mac}", f"nobody~{until}~{mac}", f"one~-1~{mac}", f"one~é~{mac}")
        torn = (f"one~{until}~{mac[:-1]}", f"one~{until}~", f"one~{until}~{mac}x", "one", "", "~~")
        for changed in (*other, *torn):
            assert sessions.caller(f"{COOKIE}={changed}", now=1_000) is None, changed

    def test_holds_as_long_as_is_set(self, shown: Shown):
        answer = sign_in(shown.client(tokens=TOKENS, session_hours=1), TOKEN)
        value = SimpleCookie(answer.headers["set-cookie"])[COOKIE].value
        assert abs(int(value.split("~")[1]) - time.time() - 3_600) < 60


class TestWhatSomebodySees:
    def test_of_some_sources_nothing_of_the_others(self, shown: Shown):
        browser = signed_in(shown, "FIRST")
        found = [link for link in links(browser.get("/")) if link.startswith("/studies/")]
        assert found == [study(ODD), study(SEVERAL), study(PLAIN)]
        assert browser.get(study(OTHER)).status_code == 404
        assert browser.get("/", params={"source": "landing2"}).status_code == 404
        assert browser.get(series(ODD, 3)).status_code == 404
        page = browser.get(study(ODD))
        assert series(ODD, 3) not in links(page)
        assert "landing2" not in page.text
        assert uid(OTHER) not in browser.get("/studies.csv").text

    def test_of_a_condition_nothing_else(self, shown: Shown):
        browser = signed_in(shown, "SOME")
        found = [link for link in links(browser.get("/")) if link.startswith("/studies/")]
        assert found == [study(SEVERAL), study(PLAIN)]
        for path in (study(ODD), series(ODD), instance(ODD), study(OTHER)):
            assert browser.get(path).status_code == 404
        page = browser.get(study(PLAIN))
        assert "no clinical records are shown" in section(page, "clinical")
        assert "MR <Brain>" in section(page, "reports")

    def test_of_nothing_is_told_so_and_not_how_to_fill_a_lake(self, shown: Shown):
        tokens = [{"name": "none", "variable": "NONE", "sources": []}]
        said = words(shown.client(tokens=tokens).get("/", headers=bearer("NONE")))
        assert "There is no study that you may see." in said
        assert "dicom-assets ingest" not in said

    def test_searching_tells_the_same_as_dicomweb(self, shown: Shown):
        for variable in ("ALL", "FIRST", "SOME"):
            browser = signed_in(shown, variable)
            told = browser.get("/dicom-web/studies", headers={"Accept": "application/json"}).json()
            mine = [link.rsplit("/", 1)[1] for link in links(browser.get("/")) if link.startswith("/studies/")]
            assert sorted(mine) == sorted(row["0020000D"]["Value"][0] for row in told)


def test_the_audit_log_says_who_saw_whose_data(shown: Shown, tmp_path):
    log = tmp_path / "audit.ndjson"
    audit = {"file": str(log), "key_variable": "KEY"}
    browser = signed_in(shown, audit=audit)
    sign_in(browser, "wrong")
    browser.get("/", params={"patient": "roe"})
    browser.get(instance(ODD))
    lines = [orjson.loads(line) for line in log.read_bytes().splitlines()]
    assert [(one["who"], one["what"], one["status"], len(one["studies"])) for one in lines] == [
        ("all", "/sign-in", 303, 0),
        ("all", "/sign-in", 401, 0),
        ("all", "/", 200, 1),
        ("all", "/studies/{study}/series/{series}/instances/{instance}", 200, 1),
    ]
    assert uid(ODD) not in log.read_text()
    assert PLAIN and TOKEN not in log.read_text()
