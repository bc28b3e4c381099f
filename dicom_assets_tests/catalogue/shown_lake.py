"""A small lake with something of everything that pages show, and browsers without scripts that ask for its pages.

Belongs here: the lake, made once for a session, clients, what a person reads on a page. Does not belong here: what is
asserted.
"""

from __future__ import annotations

import html
import io
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
from httpx import Response
from pydicom import dcmread
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from dicom_assets.catalogue.pages import add_catalogue
from dicom_assets.serve.app import make_app
from dicom_assets.settings import Settings
from dicom_assets_tests.serve.asking import ENVIRONMENT, with_serve
from dicom_assets_tests.serve.retrievable import image
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.lakes import Graph, settings_for
from dicom_assets_tests.support.landings import DAY, LandingFolder
from dicom_assets_tests.support.steps import Stepped

ODD, SEVERAL, OTHER, PLAIN = 1, 2, 3, 4
"""Studies: one of which everything is odd, one of several patients, one of another source, one as it should be."""

NAME = "@SUM(1)<script>alert(1)</script>"
PATIENT = "=cmd|' /C calc'!A0\"><img src=x onerror=alert(2)>"
DESCRIPTION = "<b>Thorax</b> {{7*7}} & 'more'"
DIAGNOSIS = "<i>R91.8</i>"
WRONG_UID = "1.2.0363.CANARY"
MEMBER = "<u>odd</u>\x1b[31mred.dcm"
"""Names and texts with markup, escape sequences and formulas; MEMBER is the name of one in an archive."""

TOKENS = [
    {"name": "all", "variable": "ALL", "may_store": True},
    {"name": "first", "variable": "FIRST", "sources": ["landing"]},
    {"name": "some", "variable": "SOME", "condition": "PatientID LIKE 'P%'"},
]


@dataclass(frozen=True)
class Shown:
    """The lake. graph: to ask its tables."""

    settings: Settings
    graph: Graph

    @cached_property
    def plain(self) -> TestClient:
        """A browser on this machine, with no settings."""
        return self.client()

    @cached_property
    def _with_tokens(self) -> ASGIApp:
        return make_app(with_serve(self.settings, tokens=TOKENS), environment=ENVIRONMENT, adding=(add_catalogue,))

    def stranger(self) -> TestClient:
        """A browser that nobody has signed in by, of a server with TOKENS."""
        return _browser(self._with_tokens)

    def client(self, *, host: str = "127.0.0.1", base: str = "http://127.0.0.1:8050", **serve: Any) -> TestClient:
        """A browser without scripts. serve: the section of the settings."""
        app = make_app(with_serve(self.settings, **serve), host=host, environment=ENVIRONMENT, adding=(add_catalogue,))
        return _browser(app, base)


def _browser(app: ASGIApp, base: str = "http://127.0.0.1:8050") -> TestClient:
    return TestClient(app, base_url=base, headers={"Accept": "text/html"}, follow_redirects=False)


def shown_lake(root: Path) -> Shown:
    """Makes the lake."""
    first, second = LandingFolder(root / "landing"), LandingFolder(root / "landing2")
    for number in (1, 3):
        first.put(f"odd/{number}.dcm", _odd(number), age_seconds=3 * DAY)
    first.put_zip("odd.zip", {MEMBER: _odd(2)})
    first.put("odd/report.dcm", dicom(ODD, 2, 1, Modality="SR", **_ODD))
    first.put("several/1.dcm", dicom(SEVERAL, 1, 1, PatientName="Doe^Jane", AccessionNumber="ACC-2"))
    first.put("several/2.dcm", dicom(SEVERAL, 1, 2, PatientName="Roe^Ann", PatientID="P9999", AccessionNumber="ACC-2"))
    first.put("plain/1.dcm", dicom(PLAIN, 1, 1, **_PLAIN))
    second.put("other/1.dcm", dicom(OTHER, 1, 1, **_OTHER))
    second.put("other/odd.dcm", dicom(ODD, 3, 1, **_ODD))
    first.put("clinical/diagnoses.csv", _csv(PATIENT, DIAGNOSIS) + "P0004,2024-02-01,J18.9\n")
    first.put("clinical/reports.json", json.dumps(_BUNDLE))
    settings = settings_for(root / "lake", first.root, second.root)
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Stepped(settings, instance, judges=False)
        graph.ingest()
        first.put("odd/1.dcm", _odd(1, WindowCenter=40), age_seconds=DAY)
        graph.ingest()
    return Shown(settings, graph)


_ODD = {"PatientName": NAME, "PatientID": PATIENT, "StudyDescription": DESCRIPTION, "StudyDate": "20240131"}
_PLAIN = {"StudyDate": "20230630", "Modality": "MR", "BodyPartExamined": "HEAD", "StationName": "MR-ROOM-2",
          "Manufacturer": "Siemens", "ManufacturerModelName": "Avanto", "PatientName": "Müller^Änne",
          "AccessionNumber": "ACC-4", "StudyDescription": "Schädel nativ",
          "SpecificCharacterSet": "ISO_IR 192"}  # fmt: skip
_OTHER = {"StudyDate": None, "Modality": "US", "PatientName": None, "PatientID": "X-3", "StudyDescription": None}
_BUNDLE = {
    "resourceType": "Bundle",
    "type": "collection",
    "entry": [
        {"resource": {"resourceType": "Patient", "id": "one", "identifier": [{"value": "P0004"}]}},
        {
            "resource": {
                "resourceType": "DiagnosticReport",
                "id": "report-4",
                "status": "final",
                "code": {"coding": [{"system": "http://loinc.org", "code": "24590-2", "display": "MR <Brain>"}]},
                "subject": {"reference": "Patient/one"},
                "imagingStudy": [{"identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{uid(PLAIN)}"}}],
                "effectiveDateTime": "2023-07-01",
                "conclusion": "No focal lesion </p><script>",
            }
        },
    ],
}


def _csv(patient: str, diagnosis: str) -> str:
    quoted = patient.replace('"', '""')
    return f'PatientID,record_date,diagnosis\n"{quoted}",2024-01-12,{diagnosis}\n'


def _odd(number: int, **more: Any) -> bytes:
    """An image with private and nested elements; of the third one pixels are missing."""
    pixels = np.arange(8 * 8, dtype="<u2").tobytes()
    data = image((ODD, 1, number), ExplicitVRLittleEndian, pixels, (8, 8), **_ODD, SeriesDescription="Axial", **more)
    found = dcmread(io.BytesIO(data))
    found.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0C, "IS", 700)
    found.private_block(0x0029, "ACME <1>", create=True).add_new(0x01, "OB", bytes(range(200)))
    inner, outer = Dataset(), Dataset()
    inner.CodeValue, inner.CodingSchemeDesignator, inner.CodeMeaning = "T-28000", "SRT", "Lung <left>"
    outer.AnatomicRegionModifierSequence = Sequence([inner])
    outer.CodeMeaning = "Thorax"
    found.AnatomicRegionSequence = Sequence([outer])
    if number == 1:
        found.add(DataElement(0x00200052, "UI", WRONG_UID, validation_mode=IGNORE))
    sink = io.BytesIO()
    found.save_as(sink)
    return sink.getvalue() if number != 3 else sink.getvalue()[:-40]


def study(number: int) -> str:
    """The path of a study."""
    return f"/studies/{uid(number)}"


def series(number: int, of_study: int = 1) -> str:
    """The path of a series."""
    return f"{study(number)}/series/{uid(number, of_study)}"


def instance(number: int, of_study: int = 1, of_series: int = 1) -> str:
    """The path of an instance."""
    return f"{series(number, of_study)}/instances/{uid(number, of_study, of_series)}"


EVERY = ("/", study(ODD), series(ODD), instance(ODD), study(SEVERAL), study(PLAIN), study(OTHER), series(ODD, 2))
"""Pages that have something to show."""


def words(answer: Response) -> str:
    """What a person reads on a page."""
    body = re.sub(r"(?s)<(head|script|style)\b.*?</\1>", " ", answer.text)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def title(answer: Response) -> str:
    """The title of a page."""
    found = re.search(r"<title>(.*?)</title>", answer.text)
    assert found is not None
    return html.unescape(found[1])


def links(answer: Response) -> list[str]:
    """Where the links and pictures of a page lead to."""
    return [html.unescape(one) for one in re.findall(r'(?:href|src)="([^"]*)"', answer.text)]


def section(answer: Response, name: str) -> str:
    """What a person reads in a part of a page. name: the id of its heading."""
    found = re.search(rf'(?s)<section aria-labelledby="{name}">(.*?)</section>', answer.text)
    assert found is not None, f"there is no section {name}"
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", found[1])).split())
