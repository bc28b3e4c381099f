"""Pages of batches: what waits for a person with the command for it, the list, and single batches."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime

import pytest
import typer
from httpx import Response

from dicom_assets.catalogue.matters import TAKE_LANDING, complete
from dicom_assets.catalogue.seen_books import SeenBooks
from dicom_assets.cli.main import app
from dicom_assets.lake import form
from dicom_assets.landing.returns import Waiting
from dicom_assets_tests.catalogue.kept_books import Kept
from dicom_assets_tests.catalogue.shown_lake import TOKENS, title, words
from dicom_assets_tests.serve.asking import bearer


def test_what_waits_stands_on_top_each_with_its_commands(kept: Kept):
    page = kept.plain.get("/batches")
    text = words(page)
    assert page.status_code == 200 and title(page) == "Batches · dicom-assets"
    paused, emptied, claimed, every = (
        text.index(one)
        for one in (
            "A batch of source landing is paused, with 12 objects.",
            "Source landing2 looks emptied: 40 objects were found",
            "1 batch of source landing2, with 1 object: claimed, not begun.",
            "All batches",
        )
    )
    assert paused < emptied < claimed < every
    for command in (f"batch retry {kept.paused}", f"batch accept {kept.paused} --reason TEXT",
                    f"batch dismiss {kept.paused} --reason TEXT", "source confirm landing2", "ingest"):  # fmt: skip
        assert f">dicom-assets {command}</code>" in page.text
    assert "(3 hours)" in text[emptied:claimed]


def test_nothing_waits_says_that_nothing_does(kept: Kept):
    page = kept.client(tokens=[{"name": "none", "variable": "NONE", "sources": []}]).get(
        "/batches", headers=bearer("NONE")
    )
    assert "Nothing waits that you may see." in words(page) and "0 batches" in words(page)


def test_a_batch_is_told_with_its_books_outcomes_and_reasons(kept: Kept):
    text = words(kept.plain.get(f"/batches/{kept.closed}"))
    assert "seen 15 = ingested 8 + quarantined 3 + ignored 4 + deleted 0" in text
    assert "quarantined MISSING_ IDENTITY 3 Study, Series or SOP Instance UID is missing or unusable." in text
    assert "error MISSING_ IDENTITY 3 3 Supply the UIDs at the source" in text
    text = words(kept.plain.get(f"/batches/{kept.paused}"))
    assert "What can be done" in text and "Nothing is ingested of what looked like DICOM" in text


def test_a_run_leads_to_dagster_where_its_address_is_set(kept: Kept):
    address = "https://dagster.example.org/runs/"
    assert address not in kept.plain.get(f"/batches/{kept.closed}").text
    page = kept.client(dagster_url="https://dagster.example.org/").get(f"/batches/{kept.closed}")
    assert f'href="{address}' in page.text


@pytest.mark.parametrize(
    ("query", "batches"),
    [
        ("", ["claimed", "paused", "other", "closed"]),
        ("?status=closed", ["other", "closed"]),
        ("?status=claimed&source=landing2", ["claimed"]),
        ("?source=landing", ["paused", "closed"]),
        ("?source=nowhere", []),
        ("?page=2", []),
    ],
)
def test_the_list_is_narrowed_and_its_csv_holds_the_same(kept: Kept, query: str, batches: list[str]):
    wanted = [getattr(kept, one) for one in batches]
    assert _listed(kept.plain.get(f"/batches{query}")) == sorted(wanted, reverse=True)
    if "page" not in query:
        rows = csv.DictReader(io.StringIO(kept.plain.get(f"/batches.csv{query}").text))
        assert [row["batch_id"] for row in rows] == sorted(wanted, reverse=True)


def _listed(page: Response) -> list[str]:
    """The batches of the list on a page."""
    return re.findall(r'data-row href="/batches/([^"]+)"', page.text)


@pytest.mark.parametrize("query", ["?status=burnt", "?page=-77", "?page=none", "?source=" + "x" * 300])
def test_what_cannot_be_asked_is_refused_without_repeating_it(kept: Kept, query: str):
    page = kept.plain.get(f"/batches{query}")
    assert page.status_code == 400 and query.partition("=")[2] not in page.text


def test_who_sees_some_sources_sees_only_their_batches(kept: Kept):
    client = kept.client(tokens=TOKENS)
    text = client.get("/batches", headers=bearer("FIRST")).text
    assert kept.paused in text and kept.closed in text
    assert kept.other not in text and kept.claimed not in text and "landing2" not in text
    assert client.get(f"/batches/{kept.other}", headers=bearer("FIRST")).status_code == 404
    assert client.get(f"/batches/{kept.other}", headers=bearer("ALL")).status_code == 200
    assert kept.other not in client.get("/batches.csv", headers=bearer("FIRST")).text


@pytest.mark.parametrize("path", ["/batches", "/batches.csv", "/errors", "/errors.csv", "/errors/MISSING_IDENTITY"])
def test_who_is_bounded_by_a_condition_is_told_that_books_cannot_be(kept: Kept, path: str):
    page = kept.client(tokens=TOKENS).get(path, headers=bearer("SOME"))
    assert page.status_code == 403 and "bounded by a condition over studies" in words(page)


def test_migrations_and_objects_that_could_not_be_read_wait_too(kept: Kept, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(form, "entering", lambda found: form.Form(3, "a test", ("places",)))
    one = Waiting("landing", 2, {"READ_FAILED": 2}, datetime(2026, 11, 30, 8, tzinfo=UTC))
    monkeypatch.setattr(SeenBooks, "unread", lambda books: [one])
    text = words(kept.plain.get("/batches"))
    assert "The lake is of an earlier release." in text and "dicom-assets upgrade --plan" in text
    assert "2 objects of source landing could not be read" in text
    assert "READ_FAILED 2. The next attempt is at 2026-11-30 08:00 UTC." in text


def test_commands_name_the_places_that_the_server_was_given_and_take():
    given = {"--landing": "az://zone/in", "--lake": "/srv/my lake"}
    assert complete("dicom-assets batch retry B", given).endswith("B --landing az://zone/in --lake '/srv/my lake'")
    assert complete("dicom-assets batch show B", given).endswith("B --lake '/srv/my lake'")
    assert complete("dicom-assets ingest", {}) == "dicom-assets ingest"


def test_the_commands_that_take_a_landing_are_those_of_the_command_line():
    group = typer.main.get_command(app)
    told = ("ingest", "upgrade", "errors", "batch show", "batch retry", "batch accept", "batch dismiss",
            "source confirm", "selftest", "cohort verify", "cohort export", "cohort list")  # fmt: skip
    for words_of in told:
        command = group
        for word in words_of.split():
            command = command.commands[word]  # type: ignore[attr-defined]
        options = {name for one in command.params for name in one.opts}
        assert ("--landing" in options) == words_of.startswith(TAKE_LANDING), words_of
        assert "--lake" in options, words_of
