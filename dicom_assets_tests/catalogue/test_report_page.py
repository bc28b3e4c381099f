"""The report of a source: what is wrong with it in counts that agree with the tables, and the lists behind these."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_assets.curation.following import follow
from dicom_assets.lake.query import existing
from dicom_assets_tests.catalogue.kept_books import Kept
from dicom_assets_tests.catalogue.shown_lake import TOKENS, Shown, links, section, series, title, words
from dicom_assets_tests.catalogue.wrong_lake import CLAIMED, ELSEWHERE, GAP, NAME, PATIENT, TWINS
from dicom_assets_tests.serve.asking import bearer
from dicom_assets_tests.support.dicoms import uid


def test_the_books_of_a_source_balance_and_say_as_of_when(wrong: Shown):
    page = wrong.plain.get("/report/landing")
    said = section(page, "books")
    assert "seen 10 = ingested 9 + quarantined 1 + ignored 0 + deleted 0" in said
    (newest,) = wrong.graph.rows("SELECT batch_id FROM batches WHERE source = 'landing'")
    assert f"As of batch {newest['batch_id']} , closed " in words(page)


def test_what_waits_and_batches_that_are_not_closed_are_told_and_not_counted(kept: Kept):
    said = section(kept.plain.get("/report/landing"), "books")
    assert "1 thing waits for a person." in said
    assert "1 closed batch , 1 paused ." in said
    assert "seen 15 = ingested 8 + quarantined 3 + ignored 4 + deleted 0" in said


def test_errors_stand_with_meaning_and_remedy(wrong: Shown):
    said = section(wrong.plain.get("/report/landing"), "errors")
    assert "error MISSING_ IDENTITY 1 1 1 Study, Series or SOP Instance UID is missing" in said
    assert "Supply the UIDs at the source" in said
    assert "Nothing was found wrong" in section(wrong.plain.get("/report/landing2"), "errors")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("conflicts", ("study PatientID 1 1",)),
        ("duplicates", ("bytes 1 2 1 The same SOP Instance UID, header and size",)),
        ("geometry", ("1 series with images. Of 1 that are made of slices 0 are regular volumes", "room for 1 slice",
                      "MISSING_ SLICES 1 1", "INSTANCE_ NUMBERS_ MISSING 1 1")),
        ("risk", ("3 series were looked at. 1 of them claims Patient Identity Removed", "1 of 1 objects", "21-40 2 2",
                  "0 have private elements", "41-60 1 1", "contradicted 1 1", "attribute 1 1")),
        ("drift", ("ACME One, CT software 1 → 2 5 and 1 objects", "16 vanished, 2 appeared", "BurnedInAnnotation")),
    ],
)  # fmt: skip
def test_what_data_say_between_them_is_counted_by_what_it_is(wrong: Shown, name: str, told: tuple[str, ...]):
    said = section(wrong.plain.get("/report/landing"), name)
    for one in told:
        assert one in said


def test_a_count_leads_to_a_list_of_as_many(wrong: Shown):
    lists = [one for one in links(wrong.plain.get("/report/landing")) if one.startswith("/findings")]
    assert len(lists) == 8
    shown = {re.search("kind=(.*)", one)[1]: wrong.plain.get(one) for one in lists}  # type: ignore[index]
    assert series(GAP) in links(shown["irregular&value=MISSING_SLICES"])
    assert "1 line " in words(shown["irregular&value=MISSING_SLICES"])
    assert "2 lines " in words(shown["duplicate&value=bytes"])
    assert {series(GAP), series(TWINS)} <= {*links(shown["risk&value=21-40"])}
    for page in shown.values():
        for link in [one for one in links(page) if one.startswith("/studies/")][:1]:
            assert wrong.plain.get(link, headers={"Accept": "*/*"}).status_code == 200, link


def test_a_report_holds_nothing_of_a_patient_or_of_an_object(wrong: Shown):
    page = wrong.plain.get("/report/landing")
    said = [one["x"] for one in wrong.graph.rows("SELECT uri AS x FROM instance UNION SELECT object_id FROM instance")]
    for one in (*said, NAME, PATIENT, "Canary", "P9999", uid(TWINS), uid(CLAIMED)):
        assert one not in page.text
    assert title(page) == "Report · dicom-assets"
    assert title(wrong.plain.get("/findings?source=landing&kind=duplicate&value=bytes")) == "Duplicates · dicom-assets"


def test_a_token_for_some_sources_sees_its_own_and_what_is_only_among_these(wrong: Shown):
    client = wrong.client(tokens=TOKENS)
    said = words(client.get("/report", headers=bearer("FIRST")))
    assert "landing 3 1 1" in said and "landing2" not in said
    page = client.get("/report/landing", headers=bearer("FIRST"))
    assert "bytes 1 2 1" in section(page, "duplicates")  # two files in its own source
    assert "landing2" not in page.text
    assert "Conflicts: none." in section(page, "conflicts")  # its study is told by both sources
    for path in ("/report/landing2", "/report/nothing", "/findings?source=landing2&kind=duplicate&value=bytes"):
        assert client.get(path, headers=bearer("FIRST")).status_code == 404
    assert uid(ELSEWHERE) not in client.get("/findings?source=landing&kind=risk&value=21-40").text


def test_whoever_is_bounded_by_a_condition_is_refused_with_a_sentence(wrong: Shown):
    client = wrong.client(tokens=TOKENS)
    for path in ("/report", "/report/landing", "/findings?source=landing&kind=duplicate&value=bytes"):
        answer = client.get(path, headers=bearer("SOME"))
        assert answer.status_code == 403
        assert "bounded by a condition over studies" in words(answer)


def test_what_is_not_counted_yet_is_said(shown: Shown):
    page = shown.plain.get("/report/landing")
    assert "2 closed batches of this source are not counted here yet" in section(page, "risk")
    assert "2 closed batches of this source are not counted here yet" in section(page, "drift")


def test_tables_that_a_lake_of_an_earlier_release_lacks_are_said(wrong: Shown, tmp_path: Path):
    lake = Path(shutil.copytree(wrong.settings.lake, tmp_path / "lake"))
    for name in ("phi_risk", "tag_profile_part", "series_geometry", "duplicate", "conflict"):
        shutil.rmtree(lake / name)
    old = Shown(wrong.settings.model_copy(update={"lake": str(lake)}), wrong.graph)
    page = old.plain.get("/report/landing")
    assert page.status_code == 200
    for name, table in (("risk", "phi_risk"), ("drift", "tag_profile_part"), ("geometry", "series_geometry"),
                        ("duplicates", "duplicate"), ("conflicts", "conflict")):  # fmt: skip
        assert f"This lake has no table {table} yet" in section(page, name)


@pytest.mark.parametrize("query", ["", "?kind=nothing", "?kind=duplicate&page=x"])
def test_lists_that_cannot_be_are_refused(wrong: Shown, query: str):
    assert wrong.plain.get(f"/findings{query}").status_code == 400


def test_what_was_told_before_is_told_anew_when_its_tables_have_changed(shown: Shown, tmp_path: Path):
    shutil.copytree(shown.settings.lake, tmp_path / "lake")
    settings = shown.settings.model_copy(update={"lake": str(tmp_path / "lake")})
    client = replace(shown, settings=settings).client()
    before = client.get("/report/landing")
    assert "2 closed batches of this source are not counted here yet" in section(before, "drift")
    follow(existing(settings.lake))
    after = client.get("/report/landing")
    assert "are not counted here yet" not in section(after, "drift")
