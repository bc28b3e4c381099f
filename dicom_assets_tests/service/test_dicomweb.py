"""DICOMweb servers as they are: some cap the limit, some ignore it, some ignore the offset."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import orjson
import pytest

from dicom_assets.service.client import ServiceClient
from dicom_assets.service.dicomweb import (
    STUDY,
    count_studies,
    days,
    orthanc_changes,
    orthanc_window,
    search,
    snapshot,
    study_metadata,
)
from dicom_assets.service.errors import AnswerInvalid
from dicom_assets.service.feed import Window
from dicom_assets.settings import ServiceSettings
from dicom_assets_tests.service.service_model import metadata

START = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


def client(handler, **values) -> ServiceClient:
    settings = ServiceSettings.model_validate(
        {"name": "pacs", "url": "https://pacs.example/dicom-web", "kind": "dicomweb", "page_size": 10, **values}
    )
    return ServiceClient(settings, transport=httpx.MockTransport(handler), sleep=lambda _: None)


def studies(count: int) -> list[dict]:
    return [{STUDY: {"vr": "UI", "Value": [f"1.{number}"]}} for number in range(count)]


def paged(found: list[dict], cap: int = 1_000, ignore_limit: bool = False, ignore_offset: bool = False):
    def handler(request: httpx.Request) -> httpx.Response:
        limit = 10_000 if ignore_limit else min(cap, int(request.url.params["limit"]))
        offset = 0 if ignore_offset else int(request.url.params["offset"])
        page = found[offset : offset + limit]
        return httpx.Response(200, content=orjson.dumps(page)) if page else httpx.Response(204)

    return handler


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 35])
@pytest.mark.parametrize("cap", [1_000, 4])
def test_every_result_is_found_whatever_the_server_caps_its_pages_at(count, cap):
    with client(paged(studies(count), cap)) as connection:
        assert len(list(search(connection, "studies", STUDY))) == count


def test_a_server_that_gives_everything_at_once_is_taken_at_its_word():
    with client(paged(studies(35), ignore_limit=True, ignore_offset=True)) as connection:
        assert len(list(search(connection, "studies", STUDY))) == 35


@pytest.mark.parametrize("count", [10, 35])
def test_a_server_that_ignores_the_offset_is_noticed(count):
    with client(paged(studies(count), ignore_offset=True)) as connection, pytest.raises(AnswerInvalid, match="offset"):
        list(search(connection, "studies", STUDY))


def test_a_result_without_its_uid_is_an_error_not_a_gap():
    with client(paged([{}])) as connection, pytest.raises(AnswerInvalid, match="0020000D"):
        list(search(connection, "studies", STUDY))


@pytest.mark.parametrize(("written", "read"), [(3, 3), ("3", 3), (None, None), ("many", None)])
def test_counts_come_as_numbers_as_text_or_not_at_all(written, read):
    item = {STUDY: {"vr": "UI", "Value": ["1.1"]}, "00201208": {"vr": "IS", "Value": [written]}}
    with client(paged([item])) as connection:
        assert [one.instances for one in count_studies(connection)] == [read]


def test_a_study_too_large_for_one_answer_is_read_series_by_series():
    series = ["1.1.1", "1.1.2"]

    def handler(request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/dicom-web/")
        if path == "studies/1.1/metadata":
            return httpx.Response(200, content=b" " * 200_000)
        if path == "studies/1.1/series":
            if request.url.params["offset"] != "0":
                return httpx.Response(204)
            return httpx.Response(200, json=[{"0020000E": {"vr": "UI", "Value": [uid]}} for uid in series])
        uid = path.split("/")[3]
        return httpx.Response(200, content=orjson.dumps([metadata("1.1", uid, f"{uid}.1")]))

    with client(handler, page_bytes=100_000) as connection:
        found = [one["00080018"]["Value"][0] for one in study_metadata(connection, "1.1")]
    assert found == ["1.1.1.1", "1.1.2.1"]


def held(content: dict[str, dict]):
    """A server that holds one study; content by SOP Instance UID."""

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/metadata"):
            return httpx.Response(200, content=orjson.dumps(list(content.values())))
        return paged(studies(2)[1:])(request)

    return handler


def test_a_snapshot_keeps_the_entries_of_what_has_not_changed():
    content = {uid: metadata("1.1", "1.1.1", uid) for uid in ("1.1.1.1", "1.1.1.2")}
    with client(held(content)) as connection:
        first = [one for page in snapshot(connection, START, START) for one in page.entries]
        content["1.1.1.2"] = metadata("1.1", "1.1.1", "1.1.1.2", StudyDescription="corrected")
        content["1.1.1.3"] = metadata("1.1", "1.1.1", "1.1.1.3")
        second = [one for page in snapshot(connection, START, START, first) for one in page.entries]
        del content["1.1.1.1"]
        third = [one for page in snapshot(connection, START, START, second) for one in page.entries]
    assert second[0] == first[0]
    assert second[1] != first[1]
    assert [one["sequence"] for one in second] == [1, 3, 4]
    assert third == second[1:]


def test_the_days_that_a_window_touches():
    assert [f"{d:%d}" for d in days(Window(START, START + timedelta(hours=1)))] == ["01"]
    assert [f"{d:%d}" for d in days(Window(START, START + timedelta(hours=16)))] == ["01"]
    assert [f"{d:%d}" for d in days(Window(START, START + timedelta(hours=30)))] == ["01", "02"]


class Orthanc:
    """Orthanc's list of changes: one instance a minute, each with the changes of its parents in between."""

    def __init__(self, count: int) -> None:
        self.requests = 0
        self.changes = [
            {
                "ChangeType": kind,
                "Date": f"{START + timedelta(minutes=number):%Y%m%dT%H%M%S}",
                "ID": f"i{number}",
                "Seq": 3 * number + place + 1,
            }
            for number in range(count)
            for place, kind in enumerate(("NewInstance", "NewSeries", "StableStudy"))
        ]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        path = request.url.path.lstrip("/")
        if path == "changes":
            query = request.url.params
            if "last" in query:
                found = self.changes[-1:]
            else:
                found = [one for one in self.changes if one["Seq"] > int(query["since"])][: int(query["limit"])]
            return httpx.Response(200, json={"Changes": found, "Done": False, "Last": 0})
        kind, _, name = path.partition("/")
        if kind == "instances":
            if name == "i3":
                return httpx.Response(404)
            number = name[1:]
            return httpx.Response(
                200, json={"ParentSeries": "s", "MainDicomTags": {"SOPInstanceUID": f"1.1.1.{number}"}}
            )
        if kind == "series":
            return httpx.Response(200, json={"ParentStudy": "t", "MainDicomTags": {"SeriesInstanceUID": "1.1.1"}})
        if kind == "studies":
            return httpx.Response(200, json={"MainDicomTags": {"StudyInstanceUID": "1.1"}})
        parts = path.split("/")
        return httpx.Response(200, content=orjson.dumps([metadata("1.1", "1.1.1", parts[-2])]))


def test_a_window_of_orthanc_is_found_by_bisection_across_its_list_of_changes():
    orthanc = Orthanc(3_000)
    with client(orthanc) as connection:
        window = Window(START + timedelta(minutes=2_000), START + timedelta(minutes=2_060))
        found = [change for page in orthanc_changes(connection, window) for change in page]
    assert [change.orthanc_id for change in found] == [f"i{n}" for n in range(2_000, 2_060)]
    assert orthanc.requests < 12


def test_entries_of_orthanc_have_its_sequence_and_time_and_an_instance_that_is_gone_has_none():
    with client(Orthanc(6)) as connection:
        window = Window(START + timedelta(minutes=2), START + timedelta(minutes=5))
        (page,) = orthanc_window(connection, window)
    assert [one["sopInstanceUid"] for one in page.entries] == ["1.1.1.2", "1.1.1.4"]
    assert [one["sequence"] for one in page.entries] == [7, 13]
    assert page.entries[0]["timestamp"] == "2026-03-01T08:02:00Z"


def test_orthancs_own_api_is_on_the_same_host():
    with pytest.raises(ValueError, match="same host"):
        client(Orthanc(1), changes_url="https://elsewhere.example")
