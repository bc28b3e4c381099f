"""The first page: what its fields find, orders, pages, and the same as CSV."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from httpx import Response

from dicom_assets.catalogue import search_page
from dicom_assets.catalogue.study_search import SORTS, Search, find
from dicom_assets.lake.delta import Lake
from dicom_assets.serve.served import ServedLake
from dicom_assets_tests.catalogue.shown_lake import ODD, OTHER, PATIENT, PLAIN, SEVERAL, Shown, links, study, words
from dicom_assets_tests.support.dicoms import uid
from dicom_assets_tests.support.lakes import settings_for

ALL = [ODD, SEVERAL, PLAIN, OTHER]
"""In the order of dates, the newest first, those without one last; of the same date by UID."""


def listed(answer: Response) -> list[int]:
    """Numbers of the studies of a page, in order."""
    assert answer.status_code == 200
    numbers = {study(number): number for number in ALL}
    return [numbers[link] for link in links(answer) if link in numbers]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, ALL),
        ({"patient": "doe jane"}, []),
        ({"patient": "ROE"}, [SEVERAL]),
        ({"patient": "anne muller"}, [PLAIN]),
        ({"patient": "Müller^Änne"}, [PLAIN]),
        ({"patient": "0004"}, [PLAIN]),
        ({"patient": PATIENT}, [ODD]),
        ({"patient": "<script>"}, [ODD]),
        ({"patient": "%"}, []),
        ({"patient": "' OR true --"}, []),
        ({"since": "2024-01-31"}, [ODD, SEVERAL]),
        ({"until": "2023-12-31"}, [PLAIN]),
        ({"since": "2023-06-30", "until": "2023-06-30"}, [PLAIN]),
        ({"modality": "mr"}, [PLAIN]),
        ({"modality": "US, MR"}, [PLAIN, OTHER]),
        ({"modality": "SR"}, [ODD]),
        ({"body": "hea"}, [PLAIN]),
        ({"description": "schadel"}, [PLAIN]),
        ({"description": "{{7*7}}"}, [ODD]),
        ({"accession": "acc-"}, [SEVERAL, PLAIN]),
        ({"scanner": "siemens"}, [PLAIN]),
        ({"scanner": "avanto room-2"}, [PLAIN]),
        ({"scanner": "siemens", "body": "chest"}, []),
        ({"source": "landing2"}, [ODD, OTHER]),
        ({"patient": "acc-2", "accession": "acc-2"}, []),
    ],
    ids=str,
)
def test_each_field_finds_what_it_says(shown: Shown, asked: dict[str, str], found: list[int]):
    answer = shown.plain.get("/", params=asked)
    assert listed(answer) == found
    assert f"{len(found)} {'study' if len(found) == 1 else 'studies'}" in words(answer)


def test_a_source_that_does_not_exist_is_not_found(shown: Shown):
    assert shown.plain.get("/", params={"source": "nowhere"}).status_code == 404


@pytest.mark.parametrize(
    ("sort", "found"),
    [
        ("date", ALL),
        ("-date", [PLAIN, ODD, SEVERAL, OTHER]),
        ("patient", [ODD, PLAIN, SEVERAL, OTHER]),
        ("images", [ODD, SEVERAL, OTHER, PLAIN]),
        ("-images", [OTHER, PLAIN, SEVERAL, ODD]),
        ("modality", [SEVERAL, ODD, PLAIN, OTHER]),
        ("PatientName; DROP TABLE study", ALL),
    ],
)
def test_studies_come_in_the_order_that_is_asked_for(shown: Shown, sort: str, found: list[int]):
    assert listed(shown.plain.get("/", params={"sort": sort})) == found


@pytest.mark.parametrize("key", SORTS)
def test_every_order_has_two_directions_and_studies_without_a_value_come_last(shown: Shown, key: str):
    ways = [listed(shown.plain.get("/", params={"sort": way})) for way in (key, f"-{key}")]
    assert all(sorted(way) == sorted(ALL) for way in ways)
    if key in ("date", "patient", "description"):
        assert {way[-1] for way in ways} == {OTHER}


def test_a_link_of_the_page_leads_to_the_same_search_in_another_order(shown: Shown):
    answer = shown.plain.get("/", params={"modality": "US, MR", "sort": "date"})
    (by_images,) = {link for link in links(answer) if link.startswith("/?") and "sort=images" in link}
    assert listed(shown.plain.get(by_images)) == [OTHER, PLAIN]
    assert 'value="US, MR"' in shown.plain.get(by_images).text


def test_counts_of_a_study_in_two_sources_are_of_both(shown: Shown):
    answer = shown.plain.get("/", params={"patient": "<script>"})
    assert 'data-label="Images">5<' in answer.text
    assert 'data-label="Series">3<' in answer.text


def test_every_study_stands_on_one_page(shown: Shown):
    snapshot = ServedLake(shown.settings).snapshot()
    pages = [find(snapshot, Search(page=page), limit=3) for page in (1, 2)]
    assert [one.total for one in pages] == [4, 4]
    assert [row["StudyInstanceUID"] for one in pages for row in one.rows] == [uid(number) for number in ALL]
    beyond = find(snapshot, Search(page=99), limit=3)
    assert beyond.rows == pages[1].rows


def test_a_date_that_is_none_is_told_beside_its_field(shown: Shown):
    answer = shown.plain.get("/", params={"since": "31.01.2024", "patient": "roe"})
    assert answer.status_code == 400
    assert "A date such as 2024-01-31 is needed." in words(answer)
    assert 'value="roe"' in answer.text


class TestCsv:
    def rows(self, shown: Shown, **asked: str) -> list[dict[str, str]]:
        answer = shown.plain.get("/studies.csv", params=asked)
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        return [*csv.DictReader(io.StringIO(answer.text))]

    def test_it_has_what_the_page_finds(self, shown: Shown):
        found = self.rows(shown, accession="acc-", sort="-date")
        assert [one["StudyInstanceUID"] for one in found] == [uid(PLAIN), uid(SEVERAL)]
        assert (found[0]["PatientName"], found[0]["instances"], found[1]["patients"]) == ("Müller^Änne", "1", "2")

    def test_it_begins_with_the_first_study_whatever_page_is_open(self, shown: Shown):
        assert len(self.rows(shown, page="3")) == len(ALL)

    def test_it_holds_no_formula(self, shown: Shown):
        (found,) = self.rows(shown, patient="<script>")
        assert found["PatientName"].startswith("'@SUM(1)<script>")
        assert found["PatientID"] == f"'{PATIENT}"

    def test_of_too_many_it_has_the_first_and_says_so(self, shown: Shown, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(search_page, "MOST", 3)
        answer = shown.plain.get("/studies.csv")
        assert len(answer.text.splitlines()) == 4
        assert "first 3 of 4 studies" in answer.headers["warning"]
        assert "studies-first-3.csv" in answer.headers["content-disposition"]
        assert "CSV of the first 3" in words(shown.plain.get("/"))


def test_an_empty_lake_says_what_to_do(tmp_path: Path, shown: Shown):
    settings = settings_for(tmp_path / "lake", tmp_path / "landing")
    Lake(settings.lake)
    said = words(Shown(settings, shown.graph).plain.get("/"))
    assert "dicom-assets ingest --landing" in said
    assert "dicom-assets demo" in said
    assert "dicom-assets ingest" not in words(shown.plain.get("/", params={"patient": "nobody at all"}))
