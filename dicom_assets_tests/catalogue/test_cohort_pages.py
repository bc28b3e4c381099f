"""Making a cohort of what a search finds: who may, of what, and what they see of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from httpx import Response
from starlette.testclient import TestClient

from dicom_assets.curation.cohorts import frozen
from dicom_assets.curation.cohorts.selection import create_cohort
from dicom_assets.lake.delta import Lake
from dicom_assets_tests.catalogue.shown_lake import Shown, links, section, study, title, words
from dicom_assets_tests.catalogue.wrong_lake import CLAIMED, ELSEWHERE, GAP, NAME, TWINS
from dicom_assets_tests.serve.asking import ENVIRONMENT, bearer
from dicom_assets_tests.support.dicoms import uid

HERE = "http://127.0.0.1:8050"
MAKERS: list[dict[str, Any]] = [
    {"name": "all", "variable": "ALL", "may_make_cohorts": True},
    {"name": "first", "variable": "FIRST", "sources": ["landing"], "may_make_cohorts": True},
    {"name": "some", "variable": "SOME", "condition": "source = 'landing2'", "may_make_cohorts": True},
    {"name": "none", "variable": "NONE", "may_store": True},
]


@pytest.fixture
def own(wrong: Shown, tmp_path: Path) -> Shown:
    """The lake with everything wrong, to write cohorts into."""
    lake = shutil.copytree(wrong.settings.lake, tmp_path / "lake")
    return Shown(wrong.settings.model_copy(update={"lake": str(lake)}), wrong.graph)


def make(browser: TestClient, name: str, origin: str | None = HERE, who: str | None = None, **search: str) -> Response:
    headers = {**({"Origin": origin} if origin else {}), **(bearer(who) if who else {})}
    return browser.post("/cohorts", data={"name": name, **search}, headers=headers)


def held(own: Shown, name: str) -> set[tuple[str, str]]:
    """The objects of a cohort: source, SOPInstanceUID."""
    found = frozen.rows(Lake(own.settings.lake).files, name, ["source", "SOPInstanceUID"])
    return {(row["source"], row["SOPInstanceUID"]) for part in found for row in part.to_pylist()}


def test_what_a_search_finds_is_made_a_cohort_which_leads_to_its_commands(own: Shown):
    page = own.plain.get("/", params={"description": "study"})
    assert "Make a cohort of these studies" in words(page)
    assert '<input type="hidden" name="description" value="study">' in page.text
    assert page.headers["referrer-policy"] == "same-origin"
    made = make(own.plain, "three", description="study")
    assert (made.status_code, made.headers["location"]) == (303, "/cohorts/three")
    assert held(own, "three") == {
        *(("landing", uid(GAP, 1, one)) for one in (1, 2, 3, 5, 6)),
        *((source, uid(TWINS, 1, 1)) for source in ("landing", "landing2")),
        ("landing", uid(TWINS, 1, 2)),
        ("landing", uid(CLAIMED, 1, 1)),
    }
    shown = own.plain.get("/cohorts/three")
    assert "Studies 3 Series 3 Objects 9" in words(shown)
    for command in ("verify three", "export three DEST --deidentify"):
        assert f"dicom-assets cohort {command}" in section(shown, "commands")
    assert "created" in section(shown, "log")
    listed = own.plain.get("/cohorts")
    assert "/cohorts/three" in links(listed) and "3 3 9" in words(listed)
    assert title(shown) == "Cohort · dicom-assets" and NAME not in shown.text
    assert frozen.read(Lake(own.settings.lake).files, "three").studies == 3


def test_why_none_is_made_is_said_with_the_form_to_try_again(own: Shown, monkeypatch: pytest.MonkeyPatch):
    create_cohort(Lake(own.settings.lake), "taken", studies=[uid(GAP)], by="test")
    for name, search, sentence in (
        ("taken", {}, "There is a cohort taken already"),
        ("no <name>", {}, "A cohort is called by letters"),
        ("", {}, "A cohort is called by letters"),
        ("none", {"patient": "nobody-has-this"}, "The search finds no study"),
    ):
        answer = make(own.plain, name, **search)
        assert answer.status_code == 409
        assert sentence in words(answer)
        assert f'name="name" value="{name.replace("<", "&lt;").replace(">", "&gt;")}"' in answer.text
    assert make(own.plain, "dated", since="yesterday").status_code == 400
    monkeypatch.setattr("dicom_assets.catalogue.cohort_pages.MOST_STUDIES", 2)
    answer = make(own.plain, "many")
    assert answer.status_code == 409 and "The search finds 4 studies, and a cohort of up to 2" in words(answer)
    monkeypatch.setattr("dicom_assets.catalogue.search_page.MOST_STUDIES", 2)
    page = own.plain.get("/")
    assert "A cohort of up to 2 studies is made here" in words(page) and 'action="/cohorts"' not in page.text
    assert frozen.names(Lake(own.settings.lake).files) == ["taken"]


def test_a_cohort_holds_nothing_that_its_maker_may_not_see(own: Shown):
    client = own.client(tokens=MAKERS)
    assert make(client, "of-first", who="FIRST").status_code == 303
    assert {source for source, _ in held(own, "of-first")} == {"landing"}
    assert make(client, "of-some", who="SOME").status_code == 303
    assert held(own, "of-some") == {("landing2", uid(TWINS, 1, 1)), ("landing2", uid(ELSEWHERE, 1, 1))}
    assert make(client, "of-source", who="ALL", source="landing2").status_code == 303
    assert held(own, "of-source") == held(own, "of-some")
    assert make(client, "elsewhere", who="FIRST", source="landing2").status_code == 404


def test_whoever_is_limited_sees_the_cohorts_that_they_have_made_and_no_other(own: Shown):
    client = own.client(tokens=MAKERS)
    make(client, "mine", who="FIRST")
    make(client, "yours", who="ALL")
    for who, seen in (("FIRST", {"mine"}), ("SOME", set()), ("ALL", {"mine", "yours"}), ("NONE", {"mine", "yours"})):
        said = client.get("/cohorts", headers=bearer(who))
        assert {one for one in ("mine", "yours") if f"/cohorts/{one}" in links(said)} == seen
        for name in ("mine", "yours", "nothing", "no <name>"):
            assert (client.get(f"/cohorts/{name}", headers=bearer(who)).status_code == 200) == (name in seen)
    assert "by token first" in words(client.get("/cohorts/mine", headers=bearer("FIRST")))


def test_only_whoever_may_makes_cohorts_signed_in_or_by_token(own: Shown):
    client = own.client(tokens=MAKERS)
    assert make(client, "no").status_code == 401
    refused = make(client, "no", who="NONE")
    assert refused.status_code == 403 and "may_make_cohorts" in words(refused)
    assert 'action="/cohorts"' not in client.get("/", headers=bearer("NONE")).text
    client.post("/sign-in", data={"token": ENVIRONMENT["ALL"], "next": "/"}, headers={"Origin": HERE})
    assert 'action="/cohorts"' in client.get("/").text
    assert make(client, "by-cookie").status_code == 303
    assert frozen.names(Lake(own.settings.lake).files) == ["by-cookie"]


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://viewer.example"])
def test_no_page_elsewhere_makes_one(wrong: Shown, origin: str):
    client = wrong.client(origins=["https://viewer.example"])
    assert make(client, "stolen", origin).status_code == 403
    assert frozen.names(wrong.graph.lake.files) == []


def test_only_small_forms_are_taken(wrong: Shown):
    headers = {"Origin": HERE}
    assert wrong.plain.post("/cohorts", json={"name": "x"}, headers=headers).status_code == 415
    assert make(wrong.plain, "x", patient="y" * 70_000).status_code == 413
    assert make(wrong.plain, "x", **{f"f{n}": "v" for n in range(30)}).status_code == 413


def test_a_lake_that_cannot_be_written_is_said(own: Shown, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: Any, **__: Any) -> None:
        from dicom_assets.storage.files import LakeError

        raise LakeError("The place /secret cannot be written.")

    monkeypatch.setattr("dicom_assets.catalogue.cohort_pages.create_cohort", broken)
    answer = make(own.plain, "x")
    assert answer.status_code == 503 and "secret" not in answer.text
    assert "cannot be written by this server" in words(answer)


def test_no_name_and_no_search_gets_into_the_log(own: Shown, tmp_path: Path):
    log = tmp_path / "access.log"
    client = own.client(access_log=str(log))
    make(client, "canary-cohort", patient="canary")
    client.get("/cohorts/canary-cohort")
    said = log.read_text()
    assert '"route":"/cohorts"' in said and '"route":"/cohorts/{cohort}"' in said
    assert "anary" not in said and study(GAP) not in said
