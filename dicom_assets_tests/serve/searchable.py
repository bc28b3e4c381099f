"""A small lake of two sources for the tests of searching, made once.

Belongs here: what lies in it. Does not belong here: how it is asked.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicom_assets.serve.served import ServedLake
from dicom_assets.settings import Settings
from dicom_assets_tests.serve.storing_service import publish
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.lakes import settings_for
from dicom_assets_tests.support.landings import DAY, LandingFolder

__all__ = ["dicom", "searchable", "served", "uid"]


def fill(first: LandingFolder, second: LandingFolder) -> None:
    """Study 1 in both sources, 2 in the first, which says much, 3 in the second, which says little."""
    older = {"PatientName": "Old^Name", "StudyTime": "140509.25"}
    for number in (1, 2):
        first.put(f"{number}.dcm", dicom(1, 1, number, **older), age_seconds=3 * DAY)
    first.put("other.dcm", _with_private(dicom(2, **_much())))
    newer = {**older, "PatientName": "New^Name"}
    second.put("newer.dcm", dicom(1, 1, 2, **newer, Rows=7), age_seconds=2 * DAY)
    second.put("more.dcm", dicom(1, 2, 1, **newer, Modality="SR"), age_seconds=2 * DAY)
    nothing = ("PatientName", "PatientID", "StudyDate", "Modality", "StudyDescription", "SeriesNumber")
    second.put("third.dcm", dicom(3, **dict.fromkeys(nothing)))


def _with_private(data: bytes) -> bytes:
    dataset = dcmread(io.BytesIO(data))
    dataset.private_block(0x0019, "ACME 1", create=True).add_new(0x0C, "IS", 700)
    sink = io.BytesIO()
    dataset.save_as(sink)
    return sink.getvalue()


def _much() -> dict[str, Any]:
    code, step = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "77-1", "LOCAL", "Something"
    step.ScheduledProcedureStepID = "STEP7"
    return {
        "PatientAge": "042Y",
        "StudyDate": "20240301",
        "StudyDescription": "=HYPERLINK(1)",
        "Modality": "MR",
        "AcquisitionDateTime": "20240301141500.5+0100",
        "PixelSpacing": [0.5, 0.7],
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "PatientOrientation": ["L", "P"],
        "ProcedureCodeSequence": Sequence([code]),
        "RequestAttributesSequence": Sequence([step]),
    }


@pytest.fixture(scope="session")
def searchable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """The settings of the lake."""
    root: Path = tmp_path_factory.mktemp("searchable")
    first, second = LandingFolder(root / "first"), LandingFolder(root / "second")
    fill(first, second)
    settings = settings_for(root / "lake", first.root, second.root)
    with dg.DagsterInstance.ephemeral() as instance:
        publish(settings, instance)
    yield settings


@pytest.fixture(scope="session")
def served(searchable: Settings) -> ServedLake:
    """The lake as it is served."""
    return ServedLake(searchable)
