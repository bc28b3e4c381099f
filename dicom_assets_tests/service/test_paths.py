"""Names from a server never lead a request to another resource of its host."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import unquote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_assets.service import dicomweb
from dicom_assets.service.client import ServiceClient
from dicom_assets.service.dicomweb import instance_metadata, instances_of, orthanc_window, study_metadata
from dicom_assets.service.errors import AnswerInvalid
from dicom_assets.service.feed import Window
from dicom_assets.service.paths import CLIMBING, resource
from dicom_assets.settings import ServiceSettings
from dicom_assets_tests.service.feed_server import FeedServer, running

HOSTILE = ["1.2/../../../admin/shutdown", "../../admin", "1?delete=1", "1#x", "1%2f..%2fadmin", "\r\nHost: x", "a/b"]


@pytest.fixture(scope="module")
def server() -> Iterator[FeedServer]:
    with running(partitions=None) as one:
        yield one


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_uids_stay_below_the_studies_of_the_service(server: FeedServer, name: str) -> None:
    server.asked.clear()
    with ServiceClient(server.settings()) as client:
        assert instances_of(client, name) == set()
        assert list(study_metadata(client, name)) == []
        assert list(instance_metadata(client, [(name, name, name)])) == []
    assert len(server.asked) == 3
    assert all(asked.startswith("GET /v2/studies/") for asked in server.asked)


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_sent_holds_each_name_in_one_part(name: str) -> None:
    sent: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request.url.raw_path)
        return httpx.Response(404)

    service = ServiceSettings(name="pacs", url="http://127.0.0.1:1/base")
    with ServiceClient(service, transport=httpx.MockTransport(answer)) as client:
        instances_of(client, name, partition=name)
    (path,) = sent
    parts = path.decode().split("?")[0].split("/")
    assert parts[:4] == ["", "base", "v2", "partitions"]
    assert [unquote(parts[4]), parts[5], unquote(parts[6]), parts[7]] == [name, "studies", name, "instances"]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_name_is_one_part_or_refused(name: str) -> None:
    if name in CLIMBING:
        with pytest.raises(AnswerInvalid, match="cannot be part of a path"):
            resource("pacs", "studies", name)
        return
    head, _, part = resource("pacs", "studies", name).partition("/")
    assert head == "studies"
    assert "/" not in part
    assert unquote(part) == name
    assert httpx.URL(f"http://h/{part}").raw_path == f"/{part}".encode()


def test_an_instance_that_cannot_be_asked_for_keeps_no_other_from_being_landed(monkeypatch: pytest.MonkeyPatch) -> None:
    at = datetime(2026, 11, 20, 12, tzinfo=UTC)
    changes = [dicomweb.OrthancChange(number, at, str(number)) for number in (1, 2)]
    keys = {"1": ("1.2", "..", "1.2.3"), "2": ("1.2", "1.2.1", "1.2.4")}
    good = {tag: {"vr": "UI", "Value": [uid]} for tag, uid in zip(("0020000D", "0020000E", "00080018"), keys["2"])}  # noqa: B905
    monkeypatch.setattr(dicomweb, "orthanc_changes", lambda client, window: iter([changes]))
    monkeypatch.setattr(dicomweb, "_orthanc_key", lambda client, one, known: keys[one])

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=[good])

    service = ServiceSettings(name="orthanc", url="http://127.0.0.1:1/dicom-web", kind="dicomweb")
    with ServiceClient(service, transport=httpx.MockTransport(answer)) as client:
        window = Window(at, at.replace(hour=13))
        (page,) = orthanc_window(client, window)
    assert [(one["sequence"], bool(one["metadata"])) for one in page.entries] == [(1, False), (2, True)]
