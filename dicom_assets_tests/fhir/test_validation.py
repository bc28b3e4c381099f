"""A resource that is not valid is refused with the path of its fault and never its value."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_assets.fhir.validation import R4_ONLY, fault_of

SECRET = "Zzyzx-Secret-4711"

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "p1",
    "identifier": [{"use": "usual", "system": "http://example.org/mrn", "value": "0042"}],
    "name": [{"use": "official", "family": "Test", "given": ["A"]}],
    "gender": "female",
    "birthDate": "1980-02-29",
}
PROCEDURE: dict[str, Any] = {
    "resourceType": "Procedure",
    "id": "q1",
    "status": "completed",
    "subject": {"reference": "Patient/p1"},
    "performedPeriod": {"start": "2020-01-01T10:00:00Z"},
}
REPORT: dict[str, Any] = {
    "resourceType": "DiagnosticReport",
    "id": "r1",
    "status": "final",
    "code": {"text": "CT chest"},
    "contained": [{"resourceType": "Patient", "id": "c"}],
}


@pytest.mark.parametrize("resource", [PATIENT, PROCEDURE, REPORT], ids=lambda r: r["resourceType"])
def test_a_sound_resource_has_no_fault(resource: dict[str, Any]):
    assert fault_of(resource) is None


Mutation = Callable[[dict[str, Any]], object]
MUTATIONS: list[tuple[dict[str, Any], Mutation, str]] = [
    (PATIENT, lambda r: r.update(gender=SECRET), "Patient.gender"),
    (PATIENT, lambda r: r.update(birthDate=SECRET), "Patient.birthDate"),
    (PATIENT, lambda r: r["name"][0].update(family=[SECRET]), "Patient.name[0].family"),
    (PATIENT, lambda r: r["name"][0].update(use=SECRET), "Patient.name[0].use"),
    (PATIENT, lambda r: r["name"].append(SECRET), "Patient.name[1]"),
    (PATIENT, lambda r: r.update(name={"text": SECRET}), "Patient.name"),
    (PATIENT, lambda r: r.update(name=[]), "Patient.name"),
    (PATIENT, lambda r: r["identifier"].append({}), "Patient.identifier[1]"),
    (PATIENT, lambda r: r.update(colour=SECRET), "Patient.colour"),
    (PATIENT, lambda r: r.update({SECRET: 1}), "Patient.?"),
    (PATIENT, lambda r: r.update(id="a b"), "Patient.id"),
    (PATIENT, lambda r: r.update(deceasedBoolean=True, deceasedDateTime="2020"), "Patient"),
    (PROCEDURE, lambda r: r.pop("status"), "Procedure.status"),
    (PROCEDURE, lambda r: r.pop("subject"), "Procedure.subject"),
    (PROCEDURE, lambda r: r["performedPeriod"].update(start=SECRET), "Procedure.performedPeriod.start"),
    (REPORT, lambda r: r.update(status="finished"), "DiagnosticReport.status"),
    (REPORT, lambda r: r["contained"][0].update(gender=3), "DiagnosticReport.contained[0].gender"),
    (REPORT, lambda r: r["contained"][0].update(resourceType=SECRET), "DiagnosticReport"),
    (REPORT, lambda r: r.update(resourceType=SECRET), "resourceType"),
    (REPORT, lambda r: r.update(resourceType="HumanName"), "resourceType"),
    (REPORT, lambda r: r.pop("resourceType"), "resourceType"),
]


@pytest.mark.parametrize(("resource", "mutate", "path"), MUTATIONS, ids=lambda v: v if isinstance(v, str) else "")
def test_a_mutated_resource_is_refused_with_the_path_of_the_fault(
    resource: dict[str, Any], mutate: Mutation, path: str
):
    mutated = copy.deepcopy(resource)
    mutate(mutated)
    fault = fault_of(mutated)
    assert fault is not None
    assert fault.path == path
    assert SECRET not in str(fault)


@pytest.mark.parametrize("status", ["final", "amended", "corrected", "appended", "entered-in-error"])
def test_every_code_of_a_required_list_is_taken(status: str):
    assert fault_of({**REPORT, "status": status}) is None


def test_resources_of_r4_alone_are_let_in_by_name():
    assert fault_of({"resourceType": "RiskEvidenceSynthesis", "status": "draft"}) is None
    assert all(fault_of({"resourceType": name}) is None for name in R4_ONLY)


def test_nesting_without_end_is_a_fault_not_a_crash():
    extension: dict[str, Any] = {"url": "http://example.org/x", "valueString": "x"}
    for _ in range(3_000):
        extension = {"url": "http://example.org/x", "extension": [extension]}
    assert fault_of({**PATIENT, "extension": [extension]}) is not None


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["status", "gender", "name", "code", "subject", "id", "contained", "extension", "meta"]),
        st.recursive(
            st.just(SECRET) | st.integers() | st.none() | st.booleans(),
            lambda inner: (
                st.lists(inner, max_size=2) | st.dictionaries(st.just(SECRET) | st.just("use"), inner, max_size=2)
            ),
            max_leaves=5,
        ),
    ),
    st.sampled_from(["Patient", "Procedure", "DiagnosticReport", "Observation", SECRET]),
)
def test_no_value_ever_stands_in_a_fault(elements: dict[str, Any], kind: str):
    fault = fault_of({**elements, "resourceType": kind})
    assert fault is None or SECRET not in str(fault)
