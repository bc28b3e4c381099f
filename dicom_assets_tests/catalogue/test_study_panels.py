"""What the pages of a study and a series say between objects: geometry, risk, and where else the same objects are."""

from __future__ import annotations

import re

import pytest

from dicom_assets_tests.catalogue.shown_lake import TOKENS, Shown, links, section, series, study, words
from dicom_assets_tests.catalogue.wrong_lake import CLAIMED, ELSEWHERE, GAP, TWINS
from dicom_assets_tests.serve.asking import bearer

CONDITION = {"name": "own", "variable": "SOME", "condition": "StudyDescription = 'Own' OR source = 'landing'"}


def test_a_study_tells_of_each_series_whether_it_is_regular_and_its_risk(wrong: Shown):
    said = section(wrong.plain.get(study(GAP)), "series")
    assert "no regular volume claims more than is there risk 33" in said
    assert "risk 58" in section(wrong.plain.get(study(CLAIMED)), "series")
    assert "volume" not in section(wrong.plain.get(study(CLAIMED)), "series")


def test_a_series_tells_why_it_is_no_regular_volume(wrong: Shown):
    said = section(wrong.plain.get(series(GAP)), "geometry")
    assert "MISSING_SLICES Two neighbours are two or more whole spacings apart." in said
    assert "INSTANCE_NUMBERS_MISSING" in said
    for one in ("Spacing 2.5 mm", "Largest distance 5.0 mm", "Missing slices 1", "Volumes 1", "Plane axial"):
        assert one in said
    assert 'id="geometry"' not in wrong.plain.get(series(CLAIMED)).text  # it has no images


def test_a_series_tells_the_parts_of_its_score_which_add_up_to_it(wrong: Shown):
    said = section(wrong.plain.get(series(CLAIMED)), "risk")
    assert "Above 20 a series is not exported as it is" in said
    assert "Direct identifiers 30 of 30 PatientID, PatientName" in said
    assert "Annotation in the pixels 20 of 20 Burned In Annotation is YES" in said
    assert "5 of 5 1 of 1 objects that claim Patient Identity Removed" in said
    (score,) = re.findall(r"score (\d+) of 100", said)
    assert sum(int(points) for points in re.findall(r" (\d+) of (?:30|20|15|10|5) ", said)) == int(score) == 58


def test_duplicates_are_told_by_place_wherever_they_are(wrong: Shown):
    for path, here in ((study(TWINS), "this study, series"), (series(TWINS), "this series")):
        said = section(wrong.plain.get(path), "duplicates")
        assert said.count("everything") == 2
        assert here in said
        assert re.search(r"source landing 1 1\b", said) and re.search(r"source landing2 1 1\b", said)
    assert 'id="duplicates"' not in wrong.plain.get(study(GAP)).text


def test_duplicates_that_may_not_be_seen_are_not_there(wrong: Shown):
    for tokens, who in ((TOKENS, "FIRST"), ([CONDITION | {"condition": "source = 'landing'"}], "SOME")):
        page = wrong.client(tokens=tokens).get(study(TWINS), headers=bearer(who))
        assert section(page, "duplicates").count("everything") == 1
        assert "landing2" not in page.text
    page = wrong.client(tokens=[CONDITION]).get(study(ELSEWHERE), headers=bearer("SOME"))
    assert "risk 33" in words(page)


def test_places_lead_to_their_series(wrong: Shown, monkeypatch: pytest.MonkeyPatch):
    assert series(TWINS) in links(wrong.plain.get(study(TWINS)))
    monkeypatch.setattr("dicom_assets.catalogue.study_panels.MOST_PLACES", 1)
    assert "1 of 2 places." in section(wrong.plain.get(study(TWINS)), "duplicates")


def test_a_lake_that_nobody_has_curated_shows_no_risk(shown: Shown):
    assert "risk" not in words(shown.plain.get(study(1)))
