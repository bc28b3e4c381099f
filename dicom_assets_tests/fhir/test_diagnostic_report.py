"""A report is linked by the most trusted name it gives for its study, and never across patients."""

from __future__ import annotations

import base64
import json
from typing import Any

import pyarrow as pa
import pytest

from dicom_assets.fhir.diagnostic_report import Studies, Study, columns_of, linked, read
from dicom_assets.fhir.identifiers import IDENTIFIER_TYPE
from dicom_assets.schema.registry import CLINICAL
from dicom_assets_tests.fhir.rows import AT

ACSN = {"coding": [{"system": IDENTIFIER_TYPE, "code": "ACSN"}]}
HERE = Study("key1", "1.2.1", "pacs", "A1", "P1", "HOSP", False)
OTHER = Study("key2", "1.2.2", "pacs", "A2", "P1", None, False)
STRANGER = Study("key6", "1.2.6", "pacs", "A6", "P6", None, False)
SAME_NUMBER = Study("key3", "1.2.3", "pacs", "A2", "P2", None, False)
CONFLICT = Study("key4", "1.2.4", "pacs", "A4", None, None, True)
ELSEWHERE = Study("key5", "1.2.1", "archive", "A1", "P1", "HOSP", False)
STUDIES = Studies.of(
    [HERE, OTHER, SAME_NUMBER, CONFLICT, STRANGER],
    [("im1", "1.2.1"), ("im2", "1.2.2"), ("im6", "1.2.6"), ("gone", "9.9")],
)


def report(studies: Studies = STUDIES, patient: tuple[str | None, str | None] = (None, None), **elements: Any) -> Any:
    """The row of one report."""
    resource = {"resourceType": "DiagnosticReport", "id": "r", "status": "final", "code": {"text": "CT"}, **elements}
    record = {
        "source": "pacs",
        "record_key": "k",
        "record_type": "DiagnosticReport",
        "batch_id": "b",
        "object_id": "o",
        "record": 1,
        "file_key": "f",
        "version_at": AT,
        "record_values": json.dumps(resource),
        "resource_id": "r",
        "status": "final",
        "PatientID": patient[0],
        "IssuerOfPatientID": patient[1],
    }
    return linked(read(pa.Table.from_pylist([record], schema=CLINICAL.schema)), studies).to_pylist()[0]


def accession(number: str) -> dict[str, Any]:
    return {"type": ACSN, "value": number}


def test_a_reference_goes_before_a_uid_and_a_uid_before_an_accession_number():
    reference = {"reference": "ImagingStudy/im1"}
    uid = {"system": "urn:dicom:uid", "value": "urn:oid:1.2.2"}
    found = report(imagingStudy=[reference], identifier=[uid, accession("A4")])
    assert (found["study_key"], found["linked_by"], found["link_state"]) == ("key1", "imaging_study", "linked")
    found = report(imagingStudy=[{"identifier": uid}], identifier=[accession("A1")])
    assert (found["study_key"], found["linked_by"]) == ("key2", "study_uid")
    found = report(identifier=[accession("A1")])
    assert (found["study_key"], found["linked_by"]) == ("key1", "accession_number")
    found = report(basedOn=[{"identifier": accession("A1")}])
    assert (found["study_key"], found["linked_by"], found["based_on"]) == ("key1", "accession_number", ["A1"])


def test_a_name_that_leads_nowhere_leaves_the_link_to_the_next_one():
    found = report(imagingStudy=[{"reference": "ImagingStudy/unknown"}], identifier=[accession("A1")])
    assert found["linked_by"] == "accession_number"
    assert report(imagingStudy=[{"reference": "ImagingStudy/gone"}])["link_state"] == "unlinked"
    assert report()["link_state"] == "unlinked"


def test_a_report_on_several_studies_is_linked_to_all_of_them():
    found = report(imagingStudy=[{"reference": "ImagingStudy/im1"}, {"reference": "http://x/ImagingStudy/im2"}])
    assert (found["study_key"], found["study_keys"]) == ("key1", ["key1", "key2"])


def test_a_report_that_names_studies_of_two_patients_is_linked_to_none_of_them():
    found = report(imagingStudy=[{"reference": "ImagingStudy/im1"}, {"reference": "ImagingStudy/im6"}])
    assert (found["link_state"], found["study_key"], found["study_keys"]) == ("patient_conflict", None, [])


def test_an_accession_number_of_several_studies_makes_no_link():
    found = report(identifier=[accession("A2")])
    assert (found["link_state"], found["study_key"], found["study_keys"]) == ("ambiguous", None, [])


def test_a_study_that_two_sources_hold_is_the_one_of_the_reports_own_source():
    both = Studies.of([ELSEWHERE, HERE], [])
    uid = {"system": "urn:dicom:uid", "value": "1.2.1"}
    assert report(both, imagingStudy=[{"identifier": uid}])["study_key"] == "key1"


def test_a_study_with_several_patients_is_not_linked_and_says_so():
    assert report(identifier=[accession("A4")])["link_state"] == "patient_conflict"


@pytest.mark.parametrize(
    ("patient", "by", "state"),
    [
        (("P1", "HOSP"), "accession", "linked"),
        (("P1", None), "accession", "linked"),
        ((None, None), "accession", "linked"),
        (("P9", "HOSP"), "accession", "patient_mismatch"),
        (("P9", None), "uid", "patient_mismatch"),
        (("P1", "CLINIC"), "accession", "patient_mismatch"),
        (("P1", None), "uid", "linked"),
        (("P1", "CLINIC"), "uid", "patient_mismatch"),
        (("P9", "CLINIC"), "uid", "patient_mismatch"),
        ((None, "CLINIC"), "uid", "patient_mismatch"),
        ((" P1\x01", "HOSP "), "uid", "linked"),
        ((" ", "\x02"), "uid", "linked"),
    ],
)
def test_a_link_never_joins_two_patients(patient: tuple[str | None, str | None], by: str, state: str):
    """What is missing does not contradict; another id does, and another issuer."""
    uid = {"identifier": {"system": "urn:dicom:uid", "value": "1.2.1"}}
    named = {"identifier": [accession("A1")]} if by == "accession" else {"imagingStudy": [uid]}
    assert report(patient=patient, **named)["link_state"] == state


def test_the_columns_are_what_the_report_says():
    found = columns_of(
        {
            "code": {"text": "CT of chest"},
            "effectivePeriod": {"start": "2024-01-31T10:00:00Z"},
            "issued": "2024-02-01T08:00:00.000+01:00",
            "conclusion": " No finding. ",
            "basedOn": [{"reference": "ServiceRequest/1"}],
            "presentedForm": [{"contentType": "application/pdf", "data": base64.b64encode(b"x" * 10).decode()}],
        }
    )
    assert found["conclusion"] == "No finding."
    assert found["based_on"] == ["ServiceRequest/1"]
    assert (found["presented_form_type"], found["presented_form_size"]) == ("application/pdf", 10)
    assert str(found["issued_at"]) == "2024-02-01 07:00:00+00:00"
    assert (found["effective"], str(found["effective_at"])) == ("2024-01-31T10:00:00Z", "2024-01-31 10:00:00+00:00")
    assert columns_of({"presentedForm": [{"size": 7}]})["presented_form_size"] == 7


@pytest.mark.parametrize(
    ("written", "at"), [("2024-03-05", "2024-03-05"), ("2024-03", "2024-03-01"), ("2024", "2024-01-01")]
)
def test_a_report_of_a_day_month_or_year_is_of_its_beginning(written: str, at: str):
    for said in ({"effectiveDateTime": written}, {"effectivePeriod": {"start": written}}):
        found = columns_of(said)
        assert (found["effective"], str(found["effective_at"])) == (written, f"{at} 00:00:00+00:00")
