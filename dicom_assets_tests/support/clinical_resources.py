"""FHIR resources of one patient, P0001: a condition, two observations and a medication."""

from __future__ import annotations

import json

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


def as_ndjson() -> bytes:
    """The resources as a file that arrives."""
    return "\n".join(map(json.dumps, RESOURCES)).encode()
