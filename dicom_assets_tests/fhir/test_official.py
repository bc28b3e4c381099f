"""What is built passes the official definitions of FHIR, and codes and systems are those of the standards."""

from __future__ import annotations

import copy
import json
from datetime import date
from typing import Any

import pytest

from dicom_assets.fhir.imaging_study import rows
from dicom_assets.fhir.mapping import LATERALITY, Context
from dicom_assets.omop import concepts
from dicom_assets_tests.fhir import official
from dicom_assets_tests.fhir.codes import DCM, SCT, terminology_faults
from dicom_assets_tests.fhir.rows import instance, instances, series, series_table, studies, study

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built() -> list[dict[str, Any]]:
    """Resources with everything that the mapping can make, and with everything that can be missing."""
    full = {
        "BodyPartExamined": "LUNG",
        "Laterality": "L",
        "SeriesDescription": "Größe",
        "SeriesTime": "11:00:00",
        "TimezoneOffsetFromUTC": "-0330",
        "PerformingPhysicianName": ["A^B", ""],
        "OperatorsName": ["C^D"],
        "Manufacturer": "M",
    }
    bare = {"Modality": None, "SeriesNumber": -1, "SeriesDate": None, "SeriesInstanceUID": "1_2"}
    reason = {"reason_code": "49727002", "reason_scheme": "SCT", "reason_meaning": "Cough", "procedure_meaning": "CT"}
    table = rows(
        studies(
            [
                study(1, **reason, IssuerOfPatientID="1.2.3", ModalitiesInStudy=["CT", "PT"]),
                study(
                    2, PatientID=None, subject_state="conflict", ModalitiesInStudy=None, StudyDescription="\x01 \x02"
                ),
                study(3, PatientID=None, subject_state="missing", AccessionNumber=None, StudyDate=None),
                study(4),
                study(
                    5,
                    ModalitiesInStudy=["MR "],
                    StudyDate=date(1, 1, 1),
                    StudyTime="235959",
                    TimezoneOffsetFromUTC="+1400",
                ),
            ]
        ),
        series_table(
            [
                series(1, 1, **full),
                series(1, 2, Modality="PT", BodyPartExamined="SOMETHING ELSE", Laterality="X"),
                series(2, 1, **bare),
                series(3, 1, anatomic_region_code="T-D3000", anatomic_region_scheme="SRT"),
                series(5, 1, anatomic_region_meaning="Somewhere", Modality="MR "),
            ]
        ),
        instances(
            [
                instance(1, 1, 1, DocumentTitle="Title"),
                instance(1, 2, 1),
                instance(2, 1, 1, SeriesInstanceUID="1_2", SOPInstanceUID="x" * 65, SOPClassUID=None),
                instance(3, 1, 1, InstanceNumber=2**40),
                instance(5, 1, 1, InstanceNumber=None),
            ]
        ),
        base=None,
        context=Context(concepts.load()),
    )
    return [json.loads(text) for text in table["resource"].to_pylist()]


def test_resources_pass_the_structure_definitions_of_r4b(built: list[dict[str, Any]]):
    assert official.structure_faults(built) == [[] for _ in built]


def test_resources_pass_the_json_schema_of_r4(built: list[dict[str, Any]]):
    assert official.schema_faults(built) == [[] for _ in built]


def test_the_referees_would_see_a_fault(built: list[dict[str, Any]]):
    unknown_status, no_modality = copy.deepcopy(built[0]), copy.deepcopy(built[0])
    unknown_status["status"] = "finished"
    del no_modality["series"][0]["modality"]
    assert official.structure_faults([no_modality])[0]
    assert official.schema_faults([unknown_status])[0]


def test_codes_and_systems_are_those_of_the_standards(built: list[dict[str, Any]]):
    assert [list(terminology_faults(one)) for one in built] == [[] for _ in built]


@pytest.mark.parametrize(
    "path",
    [
        ("modality", 0, "system"),
        ("identifier", 0, "value"),
        ("series", 0, "modality", "system"),
        ("series", 0, "bodySite", "code"),
        ("series", 0, "laterality", "code"),
        ("series", 0, "instance", 0, "sopClass", "code"),
        ("series", 0, "performer", 0, "function", "coding", 0, "code"),
        ("status",),
    ],
    ids=lambda path: ".".join(map(str, path)),
)
def test_a_wrong_code_or_system_is_seen(built: list[dict[str, Any]], path: tuple[Any, ...]):
    wrong = copy.deepcopy(built[0])
    element: Any = wrong
    for step in path[:-1]:
        element = element[step]
    assert path[-1] in element
    element[path[-1]] = "unheard-of"
    assert list(terminology_faults(wrong))


def test_lateralities_and_statuses_are_in_the_value_sets_of_fhir_and_dicom():
    from pydicom.sr._cid_dict import cid_concepts
    from pydicom.sr._concepts_dict import concepts as known

    sides = {code for name in cid_concepts[244]["SCT"] for code in known["SCT"][name]}
    assert {code for code, _ in LATERALITY.values()} <= sides
    assert {"PRF", "SPRF"} <= official.value_set("series-performer-function")
    assert {"available", "entered-in-error"} <= official.value_set("imagingstudy-status")
    assert {"unknown", "error"} <= official.value_set("data-absent-reason")


def test_the_systems_are_those_of_the_r4b_specification():
    folder = official.node_modules() / "hl7.fhir.r4b.core"
    assert json.loads((folder / "CodeSystem-dicom-dcim.json").read_text())["url"] == DCM
    assert SCT == "http://snomed.info/sct"
