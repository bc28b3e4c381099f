"""Pages of errors: by reason, what has one, narrowed, as CSV; and that nothing in them does harm or gets elsewhere."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta

import pytest

from dicom_assets_tests.catalogue.kept_books import FORMULA, MARKUP, Kept
from dicom_assets_tests.catalogue.shown_lake import TOKENS, instance, links, title, words
from dicom_assets_tests.serve.asking import bearer

DAY = f"{datetime.now(UTC):%Y-%m-%d}"
LATER = f"{datetime.now(UTC) + timedelta(days=2):%Y-%m-%d}"


def reasons(kept: Kept, query: str = "") -> dict[str, int]:
    """Objects by reason code, as the CSV has them."""
    rows = csv.DictReader(io.StringIO(kept.plain.get(f"/errors.csv{query}").text))
    return {row["code"]: int(row["objects"]) for row in rows}


def test_reasons_stand_with_counts_meaning_and_remedy_errors_first(kept: Kept):
    page = kept.plain.get("/errors")
    text = words(page)
    assert title(page) == "Errors · dicom-assets"
    assert "error MISSING_ IDENTITY 15 15 15 Study, Series or SOP Instance UID is missing or unusable." in text
    assert "Supply the UIDs at the source; without them the instance has no place in the lake." in text
    assert text.index("MISSING_ IDENTITY") < text.index("PATIENT_ ID_ MISSING") < text.index("ARCHIVE_ EXPANDED")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("?source=landing2", {"PATIENT_ID_MISSING": 1}),
        ("?severity=warning&source=landing", {}),
        ("?state=resolved", {}),
        (f"?since={DAY}&until={LATER}&severity=error&source=landing", {"MISSING_IDENTITY": 15, "CHECK_FAILED": 0}),
        (f"?since={LATER}", {}),
        ("?until=2020-01-01", {}),
    ],
)
def test_the_list_is_narrowed_by_source_severity_state_and_period(kept: Kept, query: str, found: dict[str, int]):
    told = reasons(kept, query)
    assert {code: told.get(code) for code in found} == found
    assert found or not told
    assert "MISSING_IDENTITY" in told or "MISSING_IDENTITY" not in found


def test_the_list_is_narrowed_by_batch(kept: Kept):
    assert reasons(kept, f"?batch={kept.paused}") == {"MISSING_IDENTITY": 12, "CHECK_FAILED": 0}
    assert reasons(kept, "?batch=none") == {}


def test_a_reason_leads_to_the_objects_that_have_it_and_where_they_lie(kept: Kept):
    page = kept.plain.get(f"/errors/MISSING_IDENTITY?batch={kept.closed}")
    text = words(page)
    assert "3 rows, 3 of them open; 3 different objects" in text
    assert "odd/no-identity.dcm" in text and f"in it: {FORMULA}" in text
    assert title(page) == "MISSING_IDENTITY · dicom-assets"
    assert kept.plain.get("/errors/NO_SUCH_CODE").status_code == 404


def test_an_object_that_was_taken_in_leads_to_its_page(kept: Kept):
    (place,) = [one for one in links(kept.plain.get("/errors/PATIENT_ID_MISSING")) if "/objects/" in one]
    answer = kept.plain.get(place)
    assert (answer.status_code, answer.headers["location"]) == (303, instance(8))
    assert kept.client(tokens=TOKENS).get(place, headers=bearer("FIRST")).status_code == 404
    assert not [one for one in links(kept.plain.get("/errors/MISSING_IDENTITY")) if "/objects/" in one]


def test_names_with_markup_control_characters_and_formulas_do_no_harm(kept: Kept):
    page = kept.plain.get("/errors/MISSING_IDENTITY")
    assert MARKUP not in page.text and "&lt;img src=x onerror" in page.text
    assert "\x1b" not in page.text and r"\x1b[31mred" in page.text
    rows = list(csv.DictReader(io.StringIO(kept.plain.get("/errors/MISSING_IDENTITY.csv").text)))
    assert len(rows) == 15
    assert sorted(row["member"] for row in rows if row["member"])[0] == f"'{FORMULA}"


def test_who_sees_some_sources_sees_only_their_errors(kept: Kept):
    client = kept.client(tokens=TOKENS)
    assert "PATIENT_ ID_ MISSING" not in words(client.get("/errors", headers=bearer("FIRST")))
    assert "PATIENT_ ID_ MISSING" in words(client.get("/errors", headers=bearer("ALL")))
    assert "landing2" not in client.get("/errors", headers=bearer("FIRST")).text
    assert "Nothing has this reason" in words(client.get("/errors/PATIENT_ID_MISSING", headers=bearer("FIRST")))
    assert "mr.dcm" in client.get("/errors/PATIENT_ID_MISSING", headers=bearer("ALL")).text


def test_nothing_of_an_object_gets_into_the_log(kept: Kept, tmp_path):
    log = tmp_path / "access.log"
    client = kept.client(access_log=str(log))
    for path in ("/errors/MISSING_IDENTITY", f"/errors/MISSING_IDENTITY?batch={kept.closed}", "/batches/P0001"):
        client.get(path)
    said = log.read_text()
    assert '"route":"/errors/{code}"' in said
    assert [one for one in ("no-identity", "onerror", kept.closed, "P0001", "IDENTITY") if one in said] == []
