"""The views of FHIR resources: typed columns, and the records beside the studies of their patient."""

from __future__ import annotations

import json

import pytest

import dicom_assets
from dicom_assets_tests.support.dicoms import dicom

PATIENT = {"reference": "Patient/p1"}


def coded(code: str, display: str) -> dict[str, object]:
    """A CodeableConcept with one coding."""
    return {"coding": [{"system": "http://example.org/codes", "code": code, "display": display}]}


RESOURCES = [
    {"resourceType": "Patient", "id": "p1", "identifier": [{"value": "P0001"}]},
    {
        "resourceType": "Condition", "id": "c1", "subject": PATIENT, "code": coded("X", "Some disease"),
        "clinicalStatus": coded("active", "Active"), "verificationStatus": coded("confirmed", "Confirmed"),
        "severity": coded("mild", "Mild"), "onsetDateTime": "2024-03-01", "recordedDate": "2024-03-05T10:00:00Z",
    },
    {
        "resourceType": "Observation", "id": "o1", "status": "final", "subject": PATIENT,
        "code": coded("HB", "Haemoglobin"), "effectiveDateTime": "2024-03-02T08:00:00Z",
        "valueQuantity": {"value": 13.5, "unit": "g/dL"}, "interpretation": [coded("N", "Normal")],
        "referenceRange": [{"low": {"value": 12}, "high": {"value": 16}}],
    },
    {
        "resourceType": "Observation", "id": "o2", "status": "final", "subject": PATIENT, "code": coded("SM", "Smoker"),
        "valueCodeableConcept": coded("never", "Never smoked"),
    },
    {
        "resourceType": "MedicationRequest", "id": "m1", "status": "active", "intent": "order", "subject": PATIENT,
        "medicationCodeableConcept": coded("M", "Some drug"), "dosageInstruction": [{"text": "one a day"}],
    },
]  # fmt: skip


def make(graph, landing) -> None:
    """A CT study and an MR study of two patients, and the records of one."""
    landing.put("ct.dcm", dicom(1, PatientID="P0001", IssuerOfPatientID=None, Modality="CT"))
    landing.put("mr.dcm", dicom(2, PatientID="P0002", IssuerOfPatientID=None, Modality="MR"))
    landing.put("records.ndjson", "\n".join(map(json.dumps, RESOURCES)).encode())
    graph.ingest()


@pytest.fixture
def connection(states, monkeypatch):
    """The lake that is configured, as `dicom_assets.connect` shows it."""
    graph, _, _ = states.begin(make)
    monkeypatch.setenv("DICOM_ASSETS_LAKE", graph.settings.lake)
    with dicom_assets.connect() as opened:
        yield opened


@pytest.mark.slow
def test_patients_with_ct_and_a_diagnosis_are_one_readable_query(connection):
    query = "SELECT DISTINCT PatientID FROM study_condition WHERE list_contains(ModalitiesInStudy, 'CT') AND code = 'X'"
    assert connection.execute(query).fetchall() == [("P0001",)]


def test_a_condition_has_its_states_and_dates_as_types(connection):
    found = connection.execute("""
        SELECT status, verification_status, severity, recorded_date::VARCHAR, effective_at::DATE::VARCHAR FROM condition
    """).fetchall()
    assert found == [("active", "confirmed", "Mild", "2024-03-05", "2024-03-01")]


def test_observations_have_numbers_units_and_codes(connection):
    found = connection.execute("""
        SELECT code, value_number, value_unit, value_code, value_text, interpretation, reference_low, reference_high
        FROM observation ORDER BY code
    """).fetchall()
    assert found == [
        ("HB", 13.5, "g/dL", None, None, "N", 12.0, 16.0),
        ("SM", None, None, "never", "Never smoked", None, None, None),
    ]


def test_medications_say_which_resource_they_are_and_how_much_is_taken(connection):
    found = connection.execute("SELECT resource_type, code_display, intent, dosage FROM study_medication").fetchall()
    assert found == [("MedicationRequest", "Some drug", "order", "one a day")]
