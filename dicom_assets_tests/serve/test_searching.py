"""Searching: each path, key and parameter, over a small lake of two sources."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from starlette.testclient import TestClient

from dicom_assets.serve.answers import ALWAYS
from dicom_assets.serve.app import make_app
from dicom_assets.serve.search_query import MOST
from dicom_assets.settings import Settings
from dicom_assets_tests.support.dicoms import uid


@pytest.fixture(scope="module")
def client(searchable: Settings) -> TestClient:
    """A client of the whole lake."""
    return TestClient(make_app(searchable), base_url="http://localhost:8050")


def search(client: TestClient, path: str, **parameters: Any) -> list[dict[str, Any]]:
    """The rows of an answer."""
    answer = client.get(f"/dicom-web{path}", params=parameters)
    assert answer.status_code == 200, answer.text
    return list(answer.json())


def refusal(client: TestClient, path: str, **parameters: Any) -> str:
    """Why a search is refused."""
    answer = client.get(f"/dicom-web{path}", params=parameters)
    assert answer.status_code == 400, answer.text
    return answer.text


def value(row: dict[str, Any], tag: str) -> Any:
    """The one value of an element; None where it is left out."""
    return row[tag]["Value"][0] if tag in row else None


def studies(client: TestClient, path: str = "/studies", **parameters: Any) -> list[int]:
    """Which of the studies 1, 2, 3 … are found, in the order of the answer."""
    return [int(value(row, "0020000D").rsplit(".", 1)[1]) for row in search(client, path, **parameters)]


def test_each_path_answers_with_its_level_and_what_its_parents_say(client: TestClient):
    one, series, instance = uid(1), uid(1, 1), uid(1, 1, 2)
    paths = {
        "/studies": 3,
        "/series": 4,
        f"/studies/{one}/series": 2,
        "/instances": 5,
        f"/studies/{one}/instances": 3,
        f"/studies/{one}/series/{series}/instances": 2,
    }
    assert {path: len(search(client, path)) for path in paths} == paths
    of_all = next(row for row in search(client, "/instances") if value(row, "00080018") == instance)
    assert (value(of_all, "00100020"), value(of_all, "00080060"), value(of_all, "00280010")) == ("P0001", "CT", 7)
    of_study = search(client, f"/studies/{one}/instances")[-1]
    assert "00080060" in of_study and "00100020" not in of_study
    of_series = search(client, f"/studies/{one}/series/{series}/instances")[-1]
    assert "00080060" not in of_series and "00100020" not in of_series
    assert value(of_series, "0020000D") == one and value(of_series, "0020000E") == series


def test_what_is_always_given_is_there_without_being_asked_for(client: TestClient):
    study = search(client, "/studies", PatientID="P0001")[0]
    assert study["00080056"] == {"vr": "CS", "Value": ["ONLINE"]}
    assert value(study, "00081190") == f"http://localhost:8050/dicom-web/studies/{uid(1)}"
    assert study["00080020"] == {"vr": "DA", "Value": ["20240131"]}
    assert study["00080030"] == {"vr": "TM", "Value": ["140509.25"]}
    assert study["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "New^Name"}]}
    assert study["00080061"] == {"vr": "CS", "Value": ["CT", "SR"]}
    instance = search(client, f"/studies/{uid(2)}/instances")[0]
    assert value(instance, "00083002") == "1.2.840.10008.1.2.1"
    assert value(instance, "00081190") == (
        f"http://localhost:8050/dicom-web/studies/{uid(2)}/series/{uid(2, 1)}/instances/{uid(2, 1, 1)}"
    )


def test_elements_without_a_value_are_left_out(client: TestClient):
    for path in ("/studies", "/series", "/instances"):
        for row in search(client, path):
            assert [tag for tag, element in row.items() if not element.get("Value")] == []
    study = search(client, "/studies", StudyInstanceUID=uid(3))[0]
    assert {"00080061", "00100010", "00080020"} & study.keys() == set()


def test_counts_are_the_lakes_own(client: TestClient):
    study = search(client, "/studies", StudyInstanceUID=uid(1))[0]
    assert (study["00201206"], study["00201208"]) == ({"vr": "IS", "Value": [2]}, {"vr": "IS", "Value": [3]})
    assert [value(one, "00201209") for one in search(client, f"/studies/{uid(1)}/series")] == [2, 1]
    assert studies(client, NumberOfStudyRelatedInstances="3") == [1]
    assert studies(client, NumberOfStudyRelatedSeries="1") == [2, 3]


def test_a_study_of_two_sources_stands_once_and_in_each_source_as_that_has_it(client: TestClient):
    assert sorted(studies(client)) == [1, 2, 3]
    for source, name, count in (("landing", "Old^Name", 2), ("landing2", "New^Name", 2)):
        study = search(client, f"/{source}/studies", PatientID="P0001")[0]
        assert value(study, "00100010") == {"Alphabetic": name}
        assert value(study, "00201208") == count
        assert value(study, "00081190") == f"http://localhost:8050/dicom-web/{source}/studies/{uid(1)}"


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        ({"PatientID": "P0001"}, [1]),
        ({"00100020": "P0001"}, [1]),
        ({"PatientID": "p0001"}, []),
        ({"PatientID": "P000?"}, [1, 2]),
        ({"PatientID": ""}, [1, 2, 3]),
        ({"PatientName": "new*"}, [1]),
        ({"PatientName": "OLD^NAME"}, []),
        ({"PatientName": "muell nam"}, []),
        ({"PatientName": "name ne", "fuzzymatching": "true"}, [1]),
        ({"PatientName": "ame", "fuzzymatching": "true"}, []),
        ({"StudyDate": "20240131"}, [1]),
        ({"StudyDate": "20240101-20241231"}, [1, 2]),
        ({"StudyDate": "20240201-"}, [2]),
        ({"StudyDate": "-20240131"}, [1]),
        ({"StudyTime": "1405"}, [1]),
        ({"ModalitiesInStudy": "SR,MR"}, [1, 2]),
        ({"ModalitiesInStudy": "S*"}, [1]),
        ({"Modality": "MR"}, [2]),
        ({"StudyInstanceUID": f"{uid(1)},{uid(2)}"}, [1, 2]),
        ({"StudyInstanceUID": f"{uid(1)}\\{uid(3)}"}, [1, 3]),
        ({"StudyInstanceUID": [uid(2), uid(3)]}, [2, 3]),
        ({"PatientID": "' OR 1=1 --"}, []),
        ({"ProcedureCodeSequence.CodeValue": "77-1"}, [2]),
        ({"00081032.00080100": "77-1"}, [2]),
    ],
    ids=str,
)
def test_a_key_matches(client: TestClient, parameters: dict[str, Any], found: list[int]):
    assert sorted(studies(client, **parameters)) == found


def test_attributes_of_a_study_find_its_series_and_instances(client: TestClient):
    assert len(search(client, "/series", PatientName="new*")) == 2
    assert len(search(client, "/instances", PatientID="P0001", Modality="CT")) == 2
    assert len(search(client, "/instances", Modality="CT", SeriesInstanceUID=uid(1, 1))) == 2
    assert search(client, "/instances", PatientID="nobody") == []
    assert len(search(client, "/instances", SOPInstanceUID=uid(2, 1, 1))) == 1
    assert search(client, f"/studies/{uid(1)}/series", Modality="MR") == []


def test_studies_come_newest_first_and_series_and_instances_by_number(client: TestClient):
    assert studies(client) == [2, 1, 3]
    assert [value(row, "00200011") for row in search(client, f"/studies/{uid(1)}/series")] == [1, 2]
    assert [value(row, "00200013") for row in search(client, f"/studies/{uid(1)}/instances")] == [1, 1, 2]


@pytest.mark.parametrize("path", ["/studies", "/series", "/instances"])
def test_pages_never_overlap_and_leave_nothing_out(client: TestClient, path: str):
    tag = {"/studies": "0020000D", "/series": "0020000E", "/instances": "00080018"}[path]
    at_once = [value(row, tag) for row in search(client, path)]
    pages = [value(row, tag) for at in range(len(at_once)) for row in search(client, path, limit=1, offset=at)]
    assert pages == at_once
    assert search(client, path, offset=len(at_once)) == []
    assert search(client, path, offset="9" * 30) == []


def test_whenever_there_is_more_a_warning_says_so(client: TestClient):
    warned = {"Warning": "299 localhost:8050: There are additional results that can be requested"}
    for limit, more in ((0, True), (1, True), (2, True), (3, False), (4, False), (10**12, False)):
        answer = client.get("/dicom-web/studies", params={"limit": limit})
        assert len(answer.json()) == min(limit, 3)
        assert ("warning" in answer.headers) == more
        assert not more or answer.headers["warning"] == warned["Warning"]
    assert MOST == 10_000


def test_a_viewers_list_of_studies_is_answered(client: TestClient):
    found = search(
        client,
        "/studies",
        limit=101,
        offset=0,
        fuzzymatching="true",
        includefield="00081030,00080060,00080090,00100030",
        PatientName="*Na*",
    )
    assert [value(one, "00081030") for one in found] == ["Study 1"]
    assert "00080060" not in found[0]


def test_included_attributes_come_with_the_answer(client: TestClient):
    assert "00101010" not in search(client, "/studies", PatientID="P0002")[0]
    for parameters in ({"includefield": "PatientAge"}, {"includefield": ["00100030", "00101010"]}, {"PatientAge": ""}):
        assert value(search(client, "/studies", PatientID="P0002", **parameters)[0], "00101010") == "042Y"
    everything = search(client, f"/studies/{uid(2)}/instances", includefield="all")[0]
    assert everything["00280030"] == {"vr": "DS", "Value": [0.5, 0.7]}
    assert everything["0008002A"] == {"vr": "DT", "Value": ["20240301141500.5+0100"]}
    assert everything["00080008"] == {"vr": "CS", "Value": ["ORIGINAL", "PRIMARY"]}


def test_what_is_no_column_is_answered_from_headers_where_a_study_or_series_is_named(client: TestClient):
    inside = f"/studies/{uid(2)}/instances"
    row = search(client, inside, includefield="PatientOrientation,RequestAttributesSequence")[0]
    assert row["00200020"] == {"vr": "CS", "Value": ["L", "P"]}
    assert row["00400275"]["Value"][0]["00400009"]["Value"] == ["STEP7"]
    assert len(search(client, inside, PatientOrientation="P")) == 1
    assert search(client, inside, PatientOrientation="R") == []
    for key in ("RequestAttributesSequence.ScheduledProcedureStepID", "00400275.00400009"):
        assert len(search(client, inside, **{key: "STEP*"})) == 1
        assert studies(client, StudyInstanceUID=uid(2), **{key: "STEP7"}) == [2]
        assert search(client, "/series", SeriesInstanceUID=uid(2, 1), **{key: "STEP8"}) == []
    assert len(search(client, "/series", SeriesInstanceUID=uid(2, 1), PatientOrientation="L")) == 1


def test_elsewhere_it_is_refused_with_how_to_promote_it(client: TestClient):
    for path, parameters in (
        ("/studies", {"PatientOrientation": "L"}),
        ("/instances", {"includefield": "PatientOrientation"}),
        ("/series", {"RequestAttributesSequence.ScheduledProcedureStepID": "x"}),
    ):
        sentence = refusal(client, path, **parameters)
        assert "dicom-assets columns add" in sentence and "--level" in sentence


@pytest.mark.parametrize(
    ("parameters", "parameter"),
    [
        ({"NoSuchAttribute": "SECRET"}, "{attribute}"),
        ({"": "SECRET"}, "{attribute}"),
        ({"00190010": "SECRET"}, "{attribute}"),
        ({"FFFFFFFF": "SECRET"}, "{attribute}"),
        ({"PatientName.PatientID": "SECRET"}, "{attribute}"),
        ({"includefield": "SECRET"}, "{attribute}"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "SECRET"}, "limit"),
        ({"limit": "1.5"}, "limit"),
        ({"limit": ["1", "2"]}, "limit"),
        ({"offset": "-1"}, "offset"),
        ({"offset": "٣"}, "offset"),
        ({"fuzzymatching": "SECRET"}, "fuzzymatching"),
        ({"StudyDate": "2018-13-45"}, "StudyDate"),
        ({"StudyDate": "-"}, "StudyDate"),
        ({"StudyTime": "SECRET"}, "StudyTime"),
        ({"StudyInstanceUID": "1.2.SECRET*"}, "StudyInstanceUID"),
        ({"PatientSize": "SECRET"}, "PatientSize"),
        ({"PatientID": ["SECRET", "b"]}, "PatientID"),
        ({"SeriesDescription": "SECRET"}, "SeriesDescription"),
        ({"RequestAttributesSequence": "SECRET", "StudyInstanceUID": "1.2"}, "RequestAttributesSequence"),
        ({"PixelData": "SECRET", "StudyInstanceUID": "1.2"}, "PixelData"),
    ],
    ids=str,
)
def test_a_bad_query_is_refused_with_the_parameter_and_without_its_value(
    client: TestClient, parameters: dict[str, Any], parameter: str
):
    sentence = refusal(client, "/studies", **parameters)
    assert sentence.startswith(f"{parameter}: ")
    assert "SECRET" not in sentence


def test_answers_come_as_dicom_json_json_or_a_table(client: TestClient):
    for accept, kind in (
        (None, "application/dicom+json"),
        ("*/*", "application/dicom+json"),
        ('multipart/related; type="image/x", application/json', "application/json"),
        ("text/csv", "text/csv; charset=utf-8"),
    ):
        headers = {} if accept is None else {"Accept": accept}
        answer = client.get("/dicom-web/studies", headers=headers)
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    rows = list(csv.DictReader(io.StringIO(client.get("/dicom-web/studies?accept=text/csv&PatientID=P0001").text)))
    assert rows[0]["PatientName"] == "New^Name"
    assert rows[0]["ModalitiesInStudy"] == "CT\\SR"
    assert client.get("/dicom-web/studies", headers={"Accept": "image/gif"}).status_code == 406


def test_no_cell_of_a_table_is_taken_for_a_formula(client: TestClient):
    rows = csv.DictReader(io.StringIO(client.get("/dicom-web/studies?accept=text/csv&PatientID=P0002").text))
    assert next(rows)["StudyDescription"] == "'=HYPERLINK(1)"


def test_head_has_the_headers_of_an_answer(client: TestClient):
    answer = client.head("/dicom-web/studies", params={"limit": 1})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/dicom+json"
    assert "warning" in answer.headers


def test_what_is_always_given_has_columns(client: TestClient):
    for level, tags in ALWAYS.items():
        path = {"study": "/studies", "series": "/series", "instance": "/instances"}[level]
        search(client, path, includefield=",".join(tags))
