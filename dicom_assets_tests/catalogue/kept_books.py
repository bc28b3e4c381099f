"""A lake whose books have something of everything, and its pages asked in this process.

Belongs here: the lake, made once for a session, and a client. Does not belong here: what is asserted.
"""

from __future__ import annotations

import html
import re
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
from httpx import Response
from starlette.testclient import TestClient

from dicom_assets.batch.books import Status
from dicom_assets.catalogue.pages import add_catalogue
from dicom_assets.landing.looks import Look, Looks, Memory
from dicom_assets.serve.app import make_app
from dicom_assets.settings import Settings
from dicom_assets_tests.serve.asking import ENVIRONMENT, with_serve
from dicom_assets_tests.support.dicoms import dicom, without_identity
from dicom_assets_tests.support.lakes import settings_for
from dicom_assets_tests.support.landings import LandingFolder, put_mixed
from dicom_assets_tests.support.steps import Stepped

MARKUP = "<img src=x onerror=alert(1)>"
ANSI = "\x1b[31mred"
FORMULA = "=cmd|' /C calc'!A1.dcm"
TOKENS = [
    {"name": "all", "variable": "ALL"},
    {"name": "first", "variable": "FIRST", "sources": ["landing"]},
    {"name": "some", "variable": "SOME", "condition": "PatientID LIKE 'P%'"},
]


@dataclass(frozen=True)
class Kept:
    """A lake of four batches: source `landing` has a closed and a paused one, `landing2` a closed and a claimed one."""

    settings: Settings
    closed: str
    paused: str
    other: str
    claimed: str

    @cached_property
    def plain(self) -> TestClient:
        """A browser on this machine, with no settings."""
        return self.client()

    def client(self, **serve: Any) -> TestClient:
        """A browser without scripts. serve: the section of the settings."""
        app = make_app(with_serve(self.settings, **serve), environment=ENVIRONMENT, adding=(add_catalogue,))
        return TestClient(app, base_url="http://127.0.0.1:8050", headers={"Accept": "text/html"})


def kept_books(root: Path) -> Kept:
    """Makes the lake."""
    first, second = LandingFolder(root / "landing"), LandingFolder(root / "landing2")
    put_mixed(first)
    first.put_zip("odd-names.zip", {f"{MARKUP}{ANSI}.dcm": without_identity(2), FORMULA: without_identity(3)})
    second.put_series(1, 1, 2, folder="again")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of a value that is none
        second.put("mr.dcm", dicom(8, Modality="<B>MR</B>", StudyDate="20190501", PatientID=None))
    second.put("undated.dcm", dicom(9, StudyDate=None))
    settings = settings_for(root / "lake", first.root, second.root)
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Stepped(settings, instance)
        closed, other = graph.ingest()
        for number in range(12):
            first.put(f"broken/{number}.dcm", without_identity(10 + number))
        (paused,) = graph.ingest()
        assert graph.books(paused).status == Status.PAUSED
        second.put("late.dcm", dicom(8, 2, 1))
        (claimed,) = graph.claim()
        then = datetime.now(UTC) - timedelta(hours=3)
        had, has = (Look(objects, then.isoformat(), 1, "scope") for objects in (40, 0))
        Looks(graph.lake.files).remember("landing2", Memory(had, has))
    return Kept(settings, closed, paused, other, claimed)


def words(answer: Response) -> str:
    """What a person reads on a page."""
    body = re.sub(r"(?s)<(head|script|style)\b.*?</\1>", " ", answer.text)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def title(answer: Response) -> str:
    """The title of a page."""
    found = re.search(r"<title>(.*?)</title>", answer.text)
    assert found is not None
    return html.unescape(found[1])
