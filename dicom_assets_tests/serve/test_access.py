"""Who is let in: this machine alone, whoever has a token, whomever a declared proxy has signed in."""

from __future__ import annotations

import hmac

import pytest

from dicom_assets.settings import ServeSettings, Settings, SettingsError
from dicom_assets_tests.serve.asking import ENVIRONMENT, TOKEN, bearer, client

ALL = {"name": "all", "variable": "ALL"}
PROXY = {"addresses": ["10.1.0.0/16"]}


class TestThisMachine:
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.7"])
    def test_needs_nothing(self, searchable: Settings, host: str):
        assert client(searchable, host=host).get("/dicom-web/studies").status_code == 200

    @pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "::", "pacs.example.org"])
    def test_any_other_host_refuses_to_start_and_says_how(self, searchable: Settings, host: str):
        with pytest.raises(SettingsError, match=r"\[\[serve.tokens\]\] or \[serve.proxy\]"):
            client(searchable, host=host)

    @pytest.mark.parametrize("host", ["0.0.0.0", "::"])
    def test_another_host_starts_with_a_token_or_a_proxy(self, searchable: Settings, host: str):
        assert client(searchable, host=host, tokens=[ALL]).get("/healthz").status_code == 200
        assert client(searchable, host=host, proxy=PROXY).get("/healthz").status_code == 200


class TestHostHeader:
    @pytest.mark.parametrize("name", ["127.0.0.1:8050", "localhost", "LOCALHOST:1", "[::1]:8050", "127.0.0.1"])
    def test_this_machine_is_asked_by_its_names(self, searchable: Settings, name: str):
        assert client(searchable).get("/dicom-web/studies", headers={"Host": name}).status_code == 200

    @pytest.mark.parametrize(
        "name", ["evil.example", "evil.example:8050", "127.0.0.1.evil.example", "localhost.evil", "[::1"]
    )
    def test_a_page_that_lets_its_name_resolve_to_this_machine_gets_nothing(self, searchable: Settings, name: str):
        answer = client(searchable).get("/dicom-web/studies", headers={"Host": name})
        assert answer.status_code == 421
        assert "`hosts`" in answer.text
        assert "evil" not in answer.text

    def test_other_names_are_set(self, searchable: Settings):
        asking = client(searchable, hosts=["pacs.example.org"])
        assert asking.get("/dicom-web/studies", headers={"Host": "pacs.example.org:80"}).status_code == 200
        assert asking.get("/dicom-web/studies", headers={"Host": "other.example.org"}).status_code == 421

    def test_an_empty_one_is_a_bad_request(self, searchable: Settings):
        assert client(searchable).get("/dicom-web/studies", headers={"Host": ""}).status_code == 400

    def test_health_is_told_under_any_name(self, searchable: Settings):
        assert client(searchable).get("/healthz", headers={"Host": "10.0.0.7"}).json() == {"status": "ok"}


class TestTokens:
    @pytest.mark.parametrize(
        "header",
        [None, "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN} ", f"Bearer {TOKEN}x", "Bearer é"],
    )
    def test_nothing_else_opens(self, searchable: Settings, header: str | None):
        headers = {} if header is None else {"Authorization": header.encode()}
        answer = client(searchable, tokens=[ALL]).get("/dicom-web/studies", headers=headers)
        if header == f"Bearer {TOKEN} ":
            assert answer.status_code == 200
        else:
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")

    @pytest.mark.parametrize("path", ["/dicom-web/studies", "/metrics", "/openapi.json", "/nothing", "/dicom-web/x/y"])
    def test_everything_but_health_needs_one(self, searchable: Settings, path: str):
        asking = client(searchable, host="0.0.0.0", tokens=[ALL])
        assert asking.get(path).status_code == 401
        assert asking.get(path, headers=bearer("ALL")).status_code in (200, 404)
        assert asking.get("/healthz").status_code == 200

    def test_the_word_bearer_is_read_in_any_case(self, searchable: Settings):
        asking = client(searchable, tokens=[ALL])
        assert asking.get("/dicom-web/about", headers={"Authorization": f"bEARER {TOKEN}"}).status_code == 200

    @pytest.mark.parametrize(
        ("environment", "words"),
        [({}, "ALL must hold at least 16"), ({"ALL": "short-secret"}, "ALL must hold at least 16"),
         ({"ALL": TOKEN, "SOME": TOKEN}, "Token 'two': .* holds the same")],
    )  # fmt: skip
    def test_what_is_no_token_is_said_at_the_start_and_never_shown(self, searchable, environment, words: str):
        tokens = [ALL, {"name": "two", "variable": "SOME"}]
        with pytest.raises(SettingsError, match=words) as raised:
            client(searchable, tokens=tokens, environment=environment)
        assert not any(value in str(raised.value) for value in environment.values())

    def test_all_are_compared_whichever_fits(self, searchable: Settings, monkeypatch: pytest.MonkeyPatch):
        asking = client(searchable, tokens=[ALL, {"name": "two", "variable": "SOME"}])
        compared: list[int] = []
        real = hmac.compare_digest
        monkeypatch.setattr(hmac, "compare_digest", lambda a, b: (compared.append(len(b)), real(a, b))[1])
        for header in (bearer("ALL"), bearer("SOME"), {"Authorization": "Bearer no"}):
            asking.get("/dicom-web/about", headers=header)
        assert compared == [32] * 6

    def test_on_this_machine_they_count_as_well(self, searchable: Settings):
        assert client(searchable, tokens=[ALL]).get("/dicom-web/studies").status_code == 401

    def test_who_may_store_is_told_to_the_endpoint(self, searchable: Settings):
        tokens = [ALL, {"name": "two", "variable": "SOME", "may_store": True}]
        asking = client(searchable, tokens=tokens)
        told = [asking.get("/dicom-web/about", headers=bearer(one)).json()["may_store"] for one in ("ALL", "SOME")]
        assert told == [False, True]

    def test_names_and_variables_are_different(self):
        for other in ({"name": "all", "variable": "X"}, {"name": "x", "variable": "ALL"}):
            with pytest.raises(ValueError, match="two tokens have the same"):
                ServeSettings.model_validate({"tokens": [ALL, other]})


class TestProxy:
    def test_whom_it_has_signed_in_is_let_in(self, searchable: Settings):
        asking = client(searchable, host="0.0.0.0", address="10.1.2.3", proxy=PROXY)
        assert asking.get("/dicom-web/about").status_code == 401
        assert asking.get("/dicom-web/about", headers={"X-Forwarded-User": "dr.who"}).status_code == 200

    def test_nobody_else_is_believed(self, searchable: Settings):
        asking = client(searchable, host="0.0.0.0", address="10.2.2.3", proxy=PROXY)
        assert asking.get("/dicom-web/about", headers={"X-Forwarded-User": "dr.who"}).status_code == 401

    def test_absolute_addresses_are_as_the_client_wrote_them(self, searchable: Settings):
        forwarded = {
            "X-Forwarded-Host": "pacs.example.org", "X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/imaging/",
            "X-Forwarded-User": "dr.who", **bearer("ALL"),
        }  # fmt: skip
        asking = client(searchable, host="0.0.0.0", address="10.1.2.3", base="http://inner:80", proxy=PROXY)
        path = "/dicom-web/landing/studies/1.2/about"
        assert (
            asking.get(path, headers=forwarded).json()["base"] == "https://pacs.example.org/imaging/dicom-web/landing"
        )
        asking = client(searchable, host="0.0.0.0", base="http://inner:81", proxy=PROXY, tokens=[ALL])
        assert asking.get("/dicom-web/about", headers=forwarded).json()["base"] == "http://inner:81/dicom-web"

    @pytest.mark.parametrize("address", ["pacs.example.org", "10.0.0.0/33", ""])
    def test_its_address_is_an_address(self, address: str):
        with pytest.raises(ValueError, match="IP addresses"):
            ServeSettings.model_validate({"proxy": {"addresses": [address]}})


def test_secrets_stand_in_no_settings():
    shown = ServeSettings.model_validate({"tokens": [ALL]}).model_dump_json()
    assert not any(value in shown for value in ENVIRONMENT.values())
