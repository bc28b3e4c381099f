"""Requests to a service: patient, bounded, and silent about patients."""

from __future__ import annotations

import email.utils
import gzip
import logging
import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError

from dicom_assets.service.client import ServiceClient
from dicom_assets.service.errors import (
    AnswerInvalid,
    AnswerTooLarge,
    CredentialsMissing,
    RedirectRefused,
    ServiceError,
    ServiceRefused,
    ServiceUnavailable,
    clean_reason,
)
from dicom_assets.service.tokens import Entra, FromEnvironment
from dicom_assets.settings import ServiceSettings

UID = "1.2.826.0.1.3680043.8.498.12345678901234567890"


def service(**values) -> ServiceSettings:
    return ServiceSettings.model_validate({"name": "pacs", "url": "https://pacs.example", **values})


class Script:
    """Answers requests from a list; the last one is repeated. Remembers requests and waits."""

    def __init__(self, *answers):
        self.answers, self.requests, self.waits = list(answers), [], []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    def client(self, credentials=None, **values) -> ServiceClient:
        transport = httpx.MockTransport(self)
        return ServiceClient(
            service(**values), credentials, transport=transport, sleep=self.waits.append, chance=lambda: 1.0
        )


def answer(status=200, content=b"[]", **headers):
    return httpx.Response(status, content=content, headers={k.replace("_", "-"): v for k, v in headers.items()})


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_failure_is_tried_again_with_growing_waits(status):
    script = Script(answer(status), answer(status), answer(status), answer(200))
    assert script.client().get("v2/changefeed", what="changes").objects() == []
    assert script.waits == sorted(script.waits)
    assert len(script.waits) == 3 and script.waits[0] < script.waits[-1]


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ReadError, httpx.ReadTimeout, httpx.RemoteProtocolError])
def test_a_broken_connection_is_tried_again(error):
    script = Script(error("boom"), answer(200))
    assert script.client().get("v2/changefeed", what="changes").status == 200
    assert len(script.waits) == 1


def test_tries_are_bounded_and_the_error_says_how_many_and_for_what():
    script = Script(answer(503))
    with pytest.raises(ServiceUnavailable) as error:
        script.client(retries=3).get("v2/changefeed", what="changes of 2026-03-01T08:00:00Z/2026-03-01T09:00:00Z")
    assert len(script.requests) == 4
    assert "2026-03-01T08:00:00Z/2026-03-01T09:00:00Z" in str(error.value)
    assert "503 Service Unavailable" in str(error.value)
    assert "4 tries" in str(error.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (answer(401), "Check the credentials and their rights"),
        (answer(403), "Check the credentials and their rights"),
        (answer(404), "Check the url: the service has nothing at this address"),
        (answer(429), "It is busy, or down for a while: try again later"),
        (answer(503), "It is busy, or down for a while: try again later"),
        (answer(500), "its log says more"),
        (answer(504), "its log says more"),
        (httpx.ConnectError("boom"), "Check the url, and that the service runs"),
    ],
)
def test_an_error_says_what_to_do_about_what_was_answered_and_nothing_else(given, said):
    script = Script(given)
    with pytest.raises(ServiceError) as error:
        script.client(retries=1).get("v2/changefeed", what="changes")
    assert said in str(error.value)
    assert ("heck the url" in str(error.value)) == ("heck the url" in said)
    if len(script.requests) > 1:
        today = f"{datetime.now(UTC):%Y-%m-%d}"
        assert f"Gave up after 2 tries, the last one until {today}" in str(error.value)


def test_retry_after_is_honoured_in_seconds_and_as_a_date():
    script = Script(answer(429, retry_after="7"), answer(200))
    script.client().get("x", what="x")
    assert script.waits[0] >= 7
    later = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    script = Script(answer(503, retry_after=later), answer(200))
    script.client().get("x", what="x")
    assert 55 < script.waits[0] < 65


def test_a_server_that_asks_to_wait_too_long_is_given_up():
    script = Script(answer(429, retry_after="86400"))
    with pytest.raises(ServiceUnavailable, match="86400 s"):
        script.client().get("x", what="x")
    assert script.waits == []


def test_a_request_that_is_wrong_is_not_repeated():
    script = Script(answer(400, b'{"message": "The limit is not valid."}', content_type="application/json"))
    with pytest.raises(ServiceError, match="The limit is not valid") as error:
        script.client().get("v2/changefeed", what="changes", quote=True)
    assert error.value.status == 400
    assert len(script.requests) == 1


def test_what_a_server_says_is_not_repeated_where_it_may_be_about_a_patient():
    script = Script(answer(400, f"PatientName DOE^JANE {UID}".encode()))
    with pytest.raises(ServiceError) as error:
        script.client().get(f"v2/studies/{UID}/metadata", what="metadata of a study")
    assert "DOE" not in str(error.value) and UID not in str(error.value)


def test_what_is_repeated_is_cleaned():
    said = f"Study '{UID}' of DOE^JANE (MRN 1234567) born 19700101 at 2026-03-01T08:00:00Z is not valid."
    cleaned = clean_reason(said.encode(), "text/plain")
    for value in (UID, "DOE", "1234567", "19700101", "2026-03-01"):
        assert value not in cleaned
    assert cleaned == "Study … of … born … at … is not valid."
    assert clean_reason(b"Instance of Jane Doe, MRN ABC12, was refused", "") == "Instance of … was refused"
    assert clean_reason(b"<html>Error</html>", "text/html") == ""
    assert clean_reason(b'{"error": {"code": 3, "message": "Too many requests"}}', "application/json") == (
        "Too many requests"
    )


def test_a_redirect_to_another_host_is_refused():
    for location in ("https://elsewhere.example/v2/changefeed", "http://pacs.example/v2/changefeed", "", "//evil/x"):
        script = Script(answer(302, location=location), answer(200))
        with pytest.raises(RedirectRefused):
            script.client().get("v2/changefeed", what="changes")
        assert len(script.requests) == 1


def test_a_redirect_on_the_same_host_is_followed_a_few_times():
    script = Script(answer(307, location="/other"), answer(200))
    script.client().get("v2/changefeed", what="changes")
    assert script.requests[-1].url.path == "/other"
    with pytest.raises(ServiceError):
        Script(answer(307, location="/other")).client().get("x", what="x")


def test_an_answer_is_broken_off_at_its_bound():
    script = Script(answer(200, b"x" * 70_000))
    with pytest.raises(AnswerTooLarge, match="page_bytes"):
        script.client(page_bytes=65_536).get("v2/changefeed", what="changes")


def streaming(stream: httpx.SyncByteStream, headers=None, **values) -> ServiceClient:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, headers=headers, stream=stream))
    return ServiceClient(service(**values), transport=transport, sleep=lambda _: None)


def test_the_bound_counts_what_comes_out_of_compression():
    packed = gzip.compress(b"x" * 1_000_000)
    assert len(packed) < 65_536
    client = streaming(httpx.ByteStream(packed), {"content-encoding": "gzip"}, page_bytes=65_536)
    with pytest.raises(AnswerTooLarge):
        client.get("v2/changefeed", what="changes")


def test_an_answer_that_drips_is_given_up():
    class Drip(httpx.SyncByteStream):
        def __iter__(self):
            for _ in range(100):
                time.sleep(0.01)
                yield b" "

    client = streaming(Drip(), read_seconds=0.01, retries=1)
    with pytest.raises(ServiceUnavailable, match="ReadTimeout"):
        client.get("v2/changefeed", what="changes")


def test_an_answer_that_is_no_json_is_invalid():
    for body in (b"<html>", b'{"a": 1}', b"[1]"):
        with pytest.raises(AnswerInvalid):
            Script(answer(200, body)).client().get("v2/changefeed", what="changes").objects()
    assert Script(answer(204, b"")).client().get("v2/studies", what="studies").objects() == []


class Tokens:
    """A credential of azure-identity's kind that gives one token after the other."""

    def __init__(self, *seconds: float) -> None:
        self.seconds, self.asked = list(seconds), []

    def get_token(self, *scopes: str, **_: object) -> AccessToken:
        self.asked += scopes
        return AccessToken(f"t{len(self.asked)}", int(time.time() + self.seconds.pop(0)))


def test_a_token_is_fetched_once_and_again_before_it_ends():
    long, short = Tokens(3_600), Tokens(100, 3_600)
    entra = Entra(service(auth="entra"), lambda: long)
    assert entra.header() == entra.header() == "Bearer t1"
    assert long.asked == ["https://dicom.healthcareapis.azure.com/.default"]
    entra = Entra(service(auth="entra"), lambda: short)
    assert (entra.header(), entra.header()) == ("Bearer t1", "Bearer t2")


def test_a_token_that_the_server_refuses_is_replaced_once():
    tokens = Tokens(9_999, 9_999, 9_999)
    entra = Entra(service(auth="entra"), lambda: tokens)
    script = Script(answer(401), answer(200))
    script.client(entra).get("x", what="x")
    assert [r.headers["authorization"] for r in script.requests] == ["Bearer t1", "Bearer t2"]
    with pytest.raises(ServiceRefused, match="DICOM Data Reader"):
        Script(answer(401)).client(entra).get("x", what="x")


def test_without_any_credential_it_is_said_how_to_get_one():
    class Nobody:
        def get_token(self, *_: str, **__: object) -> AccessToken:
            raise ClientAuthenticationError("of somebody")

    with pytest.raises(CredentialsMissing, match=r"\(ClientAuthenticationError\)\. Sign in with the Azure CLI"):
        Entra(service(auth="entra"), Nobody).header()


def test_secrets_come_from_the_environment_alone():
    bearer = FromEnvironment(service(auth="bearer", token_variable="PACS_TOKEN"), {"PACS_TOKEN": "t"})
    assert bearer.header() == "Bearer t"
    basic = service(auth="basic", user_variable="U", password_variable="P")
    assert FromEnvironment(basic, {"U": "ann", "P": "s:e"}).header() == "Basic YW5uOnM6ZQ=="
    with pytest.raises(CredentialsMissing, match="environment variable P"):
        FromEnvironment(basic, {"U": "ann"}).header()


def test_credentials_are_not_sent_in_clear_and_not_kept_in_urls():
    with pytest.raises(ValueError, match="https only"):
        service(url="http://pacs.example", auth="bearer", token_variable="T")
    with pytest.raises(ValueError, match="user or a password"):
        service(url="https://ann:secret@pacs.example")


def test_urls_with_uids_are_not_logged(caplog):
    caplog.set_level(logging.INFO)
    Script(answer(200)).client().get(f"v2/studies/{UID}/metadata", what="metadata of a study")
    assert UID not in caplog.text


def test_the_version_may_stand_in_the_url_or_not():
    script = Script(answer(200))
    script.client(url="https://pacs.example/v2/").get("v2/changefeed", what="changes")
    assert script.requests[0].url.path == "/v2/changefeed"
    client = script.client()
    assert client.dicomweb("studies", "research") == "v2/partitions/research/studies"
