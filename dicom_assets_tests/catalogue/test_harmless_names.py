"""Names with markup, escape sequences and formulas do no harm, and get nowhere but into pages."""

from __future__ import annotations

import html
import re
import warnings

import pytest

from dicom_assets_tests.catalogue.shown_lake import (
    DESCRIPTION,
    EVERY,
    NAME,
    ODD,
    PATIENT,
    Shown,
    instance,
    series,
    study,
    title,
)
from dicom_assets_tests.serve.asking import bearer
from dicom_assets_tests.support.dicoms import uid

RAW = (NAME, PATIENT, DESCRIPTION, "<u>odd", "<i>R91", "<script>alert", "onerror=alert(2)>", "\x1b", "{{7*7}}<", ">49<")
TELLING = ("cmd|", "SUM(1)", "Thorax", "R91.8", "Müller", "P0004", "ACC-", "odd</u>", uid(1))
"""Words that tell of a patient."""


@pytest.mark.parametrize("path", EVERY)
def test_nothing_of_them_is_markup_in_a_page(shown: Shown, path: str):
    answer = shown.plain.get(path)
    assert answer.status_code == 200
    assert not [one for one in RAW if one in answer.text]
    scripts = re.findall(r"<script[^>]*>", answer.text)
    assert all('src="/static/' in one for one in scripts)
    assert not re.search(r"<[^>]* on\w+=", re.sub(r'"[^"]*"', '""', answer.text))


@pytest.mark.parametrize("path", [study(ODD), instance(ODD)])
def test_they_are_read_as_they_were_written(shown: Shown, path: str):
    assert NAME in html.unescape(shown.plain.get(path).text)


def test_escape_sequences_are_shown_as_letters(shown: Shown):
    assert r"\x1b[31mred" in html.unescape(shown.plain.get(instance(ODD, 1, 2)).text)


@pytest.mark.parametrize("asked", [NAME, '"><script>x</script>', "\x1b[31m", "=1+1"])
def test_what_is_typed_into_a_field_comes_back_harmless(shown: Shown, asked: str):
    for path, name in (("/", "patient"), (instance(ODD), "find"), ("/", "sort"), ("/", "page")):
        answer = shown.plain.get(path, params={name: asked})
        assert not [one for one in ("<script>x", "\x1b", "<script>alert(1)") if one in answer.text]


@pytest.mark.parametrize("path", EVERY)
def test_a_title_tells_of_nobody(shown: Shown, path: str):
    assert re.fullmatch(r"(Studies|Study|Series|Instance) · dicom-assets", title(shown.plain.get(path)))


def test_logs_and_error_pages_tell_of_nobody(shown: Shown, capsys: pytest.CaptureFixture[str], monkeypatch):
    asking = shown.client(access_log="-", tokens=[{"name": "all", "variable": "ALL"}], audit={"key_variable": "KEY"})
    with warnings.catch_warnings(record=True) as warned:  # which Python writes to stderr
        warnings.simplefilter("always")
        asking.get(instance(ODD), headers=bearer("ALL"))
        asking.get(series(ODD), headers=bearer("ALL"))
    assert [str(one.message) for one in warned] == []
    for path in (*EVERY, "/studies.csv", f"/?patient={NAME}", f"{study(ODD)}/series/{PATIENT}"):
        asking.get(path, headers=bearer("ALL"))
    refused = [
        asking.get(f"/{NAME}", headers=bearer("ALL")),
        asking.get(study(ODD) + f"/series/{uid(1, 9)}", headers=bearer("ALL")),
        asking.get(study(ODD)),
    ]

    def broken(*_: object) -> None:
        raise ValueError(f"of {NAME} {PATIENT} {uid(1)}")

    monkeypatch.setattr("dicom_assets.catalogue.study_page.gather", broken)
    refused.append(asking.get(study(ODD), headers=bearer("ALL")))
    assert [one.status_code for one in refused] == [404, 404, 401, 500]
    said = "".join(capsys.readouterr())
    assert '"route":"/studies/{study}"' in said
    assert not [one for one in TELLING if one in said]
    for answer in (refused[0], refused[1], refused[3]):
        assert not [one for one in TELLING if one in html.unescape(answer.text)]
        assert title(answer) in ("Not Found · dicom-assets", "Internal Server Error · dicom-assets")


def test_pages_let_a_browser_run_and_keep_nothing_of_others(shown: Shown):
    for path in (*EVERY, "/nothing", "/sign-out"):
        headers = shown.plain.get(path).headers
        assert "script-src 'self';" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] in ("no-referrer", "same-origin")
    assert shown.plain.get(series(ODD)).headers["referrer-policy"] == "no-referrer"
