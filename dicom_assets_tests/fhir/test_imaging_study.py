"""ImagingStudy says what the lake says, in R4B, and says it the same way every time."""

from __future__ import annotations

import hashlib
import json
from datetime import date, timedelta
from typing import Any

import pytest

from dicom_assets.fhir import imaging_study, mapping
from dicom_assets.fhir.identifiers import DATA_ABSENT
from dicom_assets.fhir.imaging_study import ndjson_files, ndjson_folder, resource_id, rows
from dicom_assets.fhir.mapping import Context
from dicom_assets.fhir.validation import fault_of
from dicom_assets.omop import concepts
from dicom_assets.schema.registry import INSTANCE, SERIES, STUDY
from dicom_assets_tests.fhir.rows import AT, instance, instances, series, series_table, studies, study

CONTEXT = Context(concepts.load(), {"HOSPITAL": "http://hospital.example/mrn"})


def build(
    study_row: dict[str, Any], series_rows: list[dict[str, Any]] | None = None, instance_rows: Any = None
) -> dict[str, Any]:
    """The resource of one study; one series of one instance unless given."""
    made = rows(
        studies([study_row]),
        series_table([series()] if series_rows is None else series_rows),
        instances([instance()] if instance_rows is None else instance_rows),
        base=None,
        context=CONTEXT,
    ).to_pylist()
    assert len(made) == 1
    resource: dict[str, Any] = json.loads(made[0]["resource"])
    assert fault_of(resource) is None, fault_of(resource)
    assert made[0]["id"] == resource["id"]
    assert made[0]["status"] == resource["status"]
    return resource


def test_a_study_becomes_the_resource_of_the_mapping():
    anatomy = {"BodyPartExamined": "CHEST", "Laterality": "R", "SeriesDescription": "Thin"}
    people = {"PerformingPhysicianName": ["Perf^Ida"], "OperatorsName": ["Op^Ed"], "Manufacturer": "ACME"}
    title = {"DocumentTitle": "Key image"}
    found = build(study(), [series(**anatomy, **people, ManufacturerModelName="X1")], [instance(**title)])
    assert found == {
        "resourceType": "ImagingStudy",
        "id": hashlib.sha256(b"pacs/ImagingStudy/1.2.1").hexdigest(),
        "meta": {"lastUpdated": "2026-11-20T08:30:15.123Z"},
        "identifier": [
            {"system": "urn:dicom:uid", "value": "urn:oid:1.2.1"},
            {
                "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN"}]},
                "value": "A1",
            },
        ],
        "status": "available",
        "modality": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "CT"}],
        "subject": {"type": "Patient", "identifier": {"value": "P1"}},
        "started": "2024-01-31T10:11:12.5+01:00",
        "referrer": {"type": "Practitioner", "display": "Dr Gregory House"},
        "numberOfSeries": 1,
        "numberOfInstances": 1,
        "description": "CT chest",
        "series": [
            {
                "uid": "1.2.1.1",
                "number": 1,
                "modality": {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "CT"},
                "description": "Thin",
                "numberOfInstances": 1,
                "bodySite": {"system": "http://snomed.info/sct", "code": "816094009", "display": "Chest"},
                "laterality": {"system": "http://snomed.info/sct", "code": "24028007", "display": "Right"},
                "started": "2024-01-31",
                "performer": [
                    {
                        "function": {
                            "coding": [
                                {"system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "code": "PRF"}
                            ]
                        },
                        "actor": {"type": "Practitioner", "display": "Ida Perf"},
                    },
                    {
                        "function": {
                            "coding": [
                                {"system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "code": "SPRF"}
                            ]
                        },
                        "actor": {"type": "Practitioner", "display": "Ed Op"},
                    },
                    {"actor": {"type": "Device", "display": "ACME X1"}},
                ],
                "instance": [
                    {
                        "uid": "1.2.1.1.1",
                        "sopClass": {"system": "urn:ietf:rfc:3986", "code": "urn:oid:1.2.840.10008.5.1.4.1.1.2"},
                        "number": 1,
                        "title": "Key image",
                    }
                ],
            }
        ],
    }


def test_counts_are_counted_not_copied():
    wrong = {"NumberOfStudyRelatedSeries": 9, "NumberOfStudyRelatedInstances": 99, "series_count": 9}
    modalities = ["CT", "PT", "SR"]  # of instances; a series has one alone
    some = [instance(1, 1, 1), instance(1, 1, 2), instance(1, 2, 1)]
    found = build(study(**wrong, ModalitiesInStudy=modalities), [series(1, 1), series(1, 2, Modality="PT")], some)
    assert (found["numberOfSeries"], found["numberOfInstances"]) == (2, 3)
    assert [s["numberOfInstances"] for s in found["series"]] == [2, 1]
    assert [m["code"] for m in found["modality"]] == modalities


def test_the_order_of_rows_makes_no_difference():
    many = [instance(1, s, i) for s in (1, 2, 10) for i in (1, 2, 10)]
    lists = [series(1, s) for s in (1, 2, 10)]
    forward, backward = build(study(), lists, many), build(study(), lists[::-1], many[::-1])
    assert json.dumps(forward) == json.dumps(backward)
    assert [s["number"] for s in forward["series"]] == [1, 2, 10]
    assert [i["number"] for i in forward["series"][0]["instance"]] == [1, 2, 10]


def test_a_study_without_instances_is_entered_in_error_and_keeps_its_id():
    alive, gone = build(study()), build(study(), [], [])
    assert gone["status"] == "entered-in-error"
    assert gone["id"] == alive["id"]
    assert (gone["numberOfSeries"], gone["numberOfInstances"]) == (0, 0)
    assert "series" not in gone


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"PatientID": None, "subject_state": "missing"}, "unknown"),
        ({"PatientID": None, "subject_state": "conflict"}, "error"),
    ],
)
def test_a_study_without_one_patient_is_nobodys_and_says_so(columns: dict[str, Any], reason: str):
    found = build(study(**columns))
    assert found["subject"] == {"extension": [{"url": DATA_ABSENT, "valueCode": reason}]}


def test_two_patients_in_one_study_leave_no_patient_in_the_table():
    made = rows(
        studies([study(PatientID=None, subject_state="conflict")]),
        series_table([series()]),
        instances([instance()]),
        base=None,
        context=CONTEXT,
    ).to_pylist()[0]
    assert (made["subject_state"], made["PatientID"], made["IssuerOfPatientID"]) == ("conflict", None, None)


@pytest.mark.parametrize(
    ("issuer", "expected"),
    [
        ("HOSPITAL", {"system": "http://hospital.example/mrn", "value": "007"}),
        ("1.2.840.1", {"system": "urn:oid:1.2.840.1", "value": "007"}),
        ("http://other.example", {"system": "http://other.example", "value": "007"}),
        ("Ward 3", {"value": "007", "assigner": {"display": "Ward 3"}}),
        (None, {"value": "007"}),
    ],
)
def test_the_issuer_is_respected_and_leading_zeros_stay(issuer: str | None, expected: dict[str, Any]):
    assert build(study(PatientID="007", IssuerOfPatientID=issuer))["subject"]["identifier"] == expected


@pytest.mark.parametrize(
    ("day", "time", "offset", "expected"),
    [
        (date(2024, 1, 31), "10:11:12", None, "2024-01-31"),
        (date(2024, 1, 31), None, "+0100", "2024-01-31"),
        (date(2024, 1, 31), "10", "-0530", "2024-01-31T10:00:00-05:30"),
        (date(2024, 1, 31), "10:11:60", "+0000", "2024-01-31"),
        (date(2024, 1, 31), "10:11:12.123456", "+0000", "2024-01-31T10:11:12.123456+00:00"),
        (date(2024, 1, 31), "10:11", "+1500", "2024-01-31"),
        (date(2024, 1, 31), "nonsense", "nonsense", "2024-01-31"),
        (None, "10:11:12", "+0100", None),
    ],
)
def test_a_time_stands_only_with_its_zone(day: date | None, time: str | None, offset: str | None, expected: str | None):
    found = build(study(StudyDate=day, StudyTime=time, TimezoneOffsetFromUTC=offset))
    assert found.get("started") == expected


def test_what_is_missing_or_unusable_is_left_out_or_says_why():
    bare = {"Modality": None, "SeriesNumber": -4, "SeriesDate": None, "SeriesInstanceUID": "1.2.bad_uid"}
    odd = {"SOPClassUID": None, "InstanceNumber": None, "SeriesInstanceUID": "1.2.bad_uid"}
    nothing = dict.fromkeys(
        ["AccessionNumber", "StudyDescription", "ReferringPhysicianName", "StudyDate", "ModalitiesInStudy"]
    )
    found = build(study(**nothing), [series(**bare)], [instance(**odd)])
    one = found["series"][0]
    absent = [{"url": DATA_ABSENT, "valueCode": "unknown"}]
    assert one["modality"] == {"extension": absent}
    assert one["instance"][0]["sopClass"] == {"extension": absent}
    assert "uid" not in one and one["_uid"] == {"extension": [{"url": DATA_ABSENT, "valueCode": "error"}]}
    assert not {"number", "started", "bodySite", "laterality", "performer"} & one.keys()
    assert not {"description", "referrer", "started", "modality"} & found.keys()
    assert len(found["identifier"]) == 1


def test_control_characters_and_empty_texts_never_reach_a_resource():
    found = build(
        study(StudyDescription="a\x00b\x1b\x0c ", ReferringPhysicianName="^^^"), [series(SeriesDescription=" ")]
    )
    assert found["description"] == "ab"
    assert "referrer" not in found
    assert "description" not in found["series"][0]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (
            {"anatomic_region_code": "39607008", "anatomic_region_scheme": "SCT", "BodyPartExamined": "CHEST"},
            {"system": "http://snomed.info/sct", "code": "39607008", "display": "Lung"},
        ),
        (
            {"anatomic_region_code": "T-28000", "anatomic_region_scheme": "SRT"},
            {"system": "http://snomed.info/sct", "code": "39607008", "display": "Lung"},
        ),
        (
            {"anatomic_region_code": "X1", "anatomic_region_scheme": "99LOCAL", "anatomic_region_meaning": "Left toe"},
            {"code": "X1", "display": "Left toe"},
        ),
        (
            {"BodyPartExamined": "c-spine"},
            {"system": "http://snomed.info/sct", "code": "122494005", "display": "Cervical spine"},
        ),
        ({"BodyPartExamined": "LEFT BIG TOE"}, {"display": "LEFT BIG TOE"}),
    ],
)
def test_the_body_site_is_a_concept_where_it_can_be(columns: dict[str, Any], expected: dict[str, str]):
    assert build(study(), [series(**columns)])["series"][0]["bodySite"] == expected


def test_reason_and_procedure_come_from_their_code_sequences():
    reason = {"reason_code": "49727002", "reason_scheme": "SCT", "reason_meaning": "Cough"}
    procedure = {"procedure_code": "P1", "procedure_scheme": "99RIS", "procedure_meaning": "CT thorax"}
    found = build(study(**reason, **procedure))
    assert found["reasonCode"] == [
        {"coding": [{"system": "http://snomed.info/sct", "code": "49727002", "display": "Cough"}], "text": "Cough"}
    ]
    assert found["procedureCode"] == [{"coding": [{"code": "P1", "display": "CT thorax"}], "text": "CT thorax"}]


def test_ids_are_hashes_of_base_type_and_uid_and_differ_between_sources():
    assert resource_id("", "1.2") == hashlib.sha256(b"ImagingStudy/1.2").hexdigest()
    assert resource_id("http://x/fhir/", "1.2") == hashlib.sha256(b"http://x/fhir/ImagingStudy/1.2").hexdigest()
    assert build(study())["id"] != build(study(source="other"))["id"]


def test_files_hold_a_thousand_resources_each_and_carry_the_batch():
    files = list(ndjson_files((f'{{"n":{n}}}' for n in range(2_345)), "20261120T083015Z-0123abcd"))
    assert [name for name, _ in files] == [
        f"ImagingStudy-20261120T083015Z-0123abcd-00000{number}.ndjson" for number in (1, 2, 3)
    ]
    assert [data.count(b"\n") for _, data in files] == [1_000, 1_000, 345]
    assert [json.loads(line)["n"] for _, data in files for line in data.splitlines()] == list(range(2_345))
    assert list(ndjson_files([], "batch")) == []
    assert ndjson_folder("pacs", AT) == "Process/Clinical/FHIR NDJSON/pacs/2026/11/20/ImagingStudy"
    assert "2026/11/21" in ndjson_folder("pacs", AT + timedelta(days=1))


def test_every_attribute_that_the_mapping_names_is_a_column_or_a_code_sequence():
    known = {c.name for table in (STUDY, SERIES, INSTANCE) for c in table.columns}
    sequences = {"AnatomicRegionSequence", "ProcedureCodeSequence", "ReasonForRequestedProcedureCodeSequence"}
    for elements in (mapping.STUDY, mapping.SERIES, mapping.INSTANCE):
        assert mapping.attributes_of(elements) <= known | sequences
    assert set(imaging_study.INSTANCE_COLUMNS) <= {c.name for c in INSTANCE.columns}


@pytest.mark.parametrize("elements", [mapping.SERIES, mapping.INSTANCE], ids=["series", "instance"])
def test_the_builder_reads_every_column_that_the_mapping_names(elements: Any):
    table, read = (
        (SERIES, imaging_study.SERIES_COLUMNS)
        if elements is mapping.SERIES
        else (INSTANCE, imaging_study.INSTANCE_COLUMNS)
    )
    named = {word for word in mapping.attributes_of(elements) if word in table}
    if "AnatomicRegionSequence" in mapping.attributes_of(elements):
        named |= {column.name for column in table.columns if column.name.startswith("anatomic_region_")}
    assert named <= set(read) <= {column.name for column in table.columns}


def test_the_printed_mapping_has_a_line_for_each_element():
    printed = mapping.table()
    for path, elements in (("", mapping.STUDY), ("series.", mapping.SERIES), ("series.instance.", mapping.INSTANCE)):
        for element in elements:
            assert f"| `{path}{element.name}` |" in printed
