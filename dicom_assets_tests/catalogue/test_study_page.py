"""The pages of a study and of a series."""

from __future__ import annotations

import pytest

from dicom_assets_tests.catalogue.shown_lake import (
    DIAGNOSIS,
    EVERY,
    ODD,
    OTHER,
    PLAIN,
    SEVERAL,
    Shown,
    instance,
    links,
    section,
    series,
    study,
    words,
)
from dicom_assets_tests.support.dicoms import uid


def test_series_of_all_sources_are_there_with_pictures_of_those_that_have_some(shown: Shown):
    answer = shown.plain.get(study(ODD))
    assert [link for link in links(answer) if link.startswith("/studies/") and link != study(ODD)] == [
        series(ODD, number) for number in (1, 2, 3)
    ]
    pictures = [link for link in links(answer) if link.endswith("/thumbnail")]
    assert pictures == [f"/dicom-web{series(ODD)}/thumbnail"]
    drawn = shown.plain.get(pictures[0], headers={"Accept": "image/*"})
    assert (drawn.status_code, drawn.headers["content-type"]) == (200, "image/jpeg")
    assert 'loading="lazy"' in answer.text


@pytest.mark.parametrize("path", EVERY)
def test_every_link_leads_somewhere(shown: Shown, path: str):
    elsewhere = ("/view/", "/batches", "/errors", "/overview")  # pages of others
    for link in dict.fromkeys(links(shown.plain.get(path))):
        if not link.startswith((*elsewhere, "#")):
            assert shown.plain.get(link, headers={"Accept": "*/*"}).status_code == 200, link


def test_what_contradicts_itself_is_told_with_every_value(shown: Shown):
    said = section(shown.plain.get(study(SEVERAL)), "conflicts")
    for value in ("PatientID", "P0002 1 object", "P9999 1 object"):
        assert value in said
    assert "AccessionNumber" not in said
    assert 'id="conflicts"' not in shown.plain.get(study(PLAIN)).text


def test_warnings_say_what_they_mean_and_what_to_do(shown: Shown):
    for path in (study(ODD), series(ODD)):
        said = section(shown.plain.get(path), "warnings")
        assert "TRUNCATED_PIXEL_DATA 1 object" in said
        assert "Send the file again from its source" in said
    assert 'id="warnings"' not in shown.plain.get(study(PLAIN)).text


def test_clinical_records_of_the_patient_stand_beside_the_images(shown: Shown):
    assert DIAGNOSIS in section(shown.plain.get(study(ODD)), "clinical")
    said = section(shown.plain.get(study(PLAIN)), "clinical")
    assert "J18.9" in said
    assert DIAGNOSIS not in said
    assert "names several patients" in section(shown.plain.get(study(SEVERAL)), "clinical")
    assert "None that name this patient" in section(shown.plain.get(study(OTHER)), "clinical")


def test_reports_stand_beside_the_images(shown: Shown):
    said = section(shown.plain.get(study(PLAIN)), "reports")
    assert "MR <Brain> final" in said
    assert "No focal lesion" in said
    assert "No report" in section(shown.plain.get(study(ODD)), "reports")


def test_ids_in_fhir_and_omop_are_those_of_the_tables(shown: Shown):
    said = section(shown.plain.get(study(ODD)), "standards")
    resources = shown.graph.rows(f"SELECT id FROM imaging_study WHERE StudyInstanceUID = '{uid(ODD)}'")
    occurrences = shown.graph.rows(
        "SELECT image_occurrence_id AS one, person_id AS two FROM image_occurrence "
        f"WHERE image_study_UID = '{uid(ODD)}'"
    )
    assert len(resources) == 2
    assert len(occurrences) >= 2
    for row in resources:
        assert row["id"] in said
    for row in occurrences:
        assert f" {row['one']} {row['two']} " in said


def test_a_series_lists_its_instances_page_by_page(shown: Shown, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dicom_assets.catalogue.series_page.PAGE", 2)
    pages = [shown.plain.get(series(ODD), params={"page": page}) for page in (1, 2, 99)]
    listed = [[link for link in links(page) if "/instances/" in link and "dicom-web" not in link] for page in pages]
    assert listed == [[instance(ODD, 1, 1), instance(ODD, 1, 2)], [instance(ODD, 1, 3)], [instance(ODD, 1, 3)]]
    assert "Page 2 of 2" in words(pages[1])
    assert "TRUNCATED_PIXEL_DATA" in words(pages[1])


@pytest.mark.parametrize(
    "path", [study(77), series(ODD, 77), series(77), instance(ODD, 1, 77), "/studies/", "/nothing"]
)
def test_what_is_not_there_is_a_page_that_says_so(shown: Shown, path: str):
    answer = shown.plain.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert uid(77) not in answer.text
