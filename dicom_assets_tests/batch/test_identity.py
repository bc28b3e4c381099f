"""Whose a study is, over the whole graph: the view, FHIR, OMOP and reports say the same, and no identifier is cut."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.steps import step_through

pytestmark = pytest.mark.slow


def report(number: int, study: int, patient: str | None = None) -> str:
    """A DiagnosticReport that names a study by its UID."""
    named: dict[str, Any] = {"identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{uid(study)}"}}
    subject = {"subject": {"reference": f"Patient/{patient}"}} if patient else {}
    return json.dumps(
        {
            "resourceType": "DiagnosticReport",
            "id": f"r{number}",
            "status": "final",
            "code": {"text": "CT"},
            "imagingStudy": [named],
            **subject,
        }
    )


def patient(name: str) -> str:
    """A Patient whose identifier and id are both this."""
    return json.dumps({"resourceType": "Patient", "id": name, "identifier": [{"value": name}]})


EVERYWHERE = """
SELECT
    substr(study.StudyInstanceUID, len($root) + 2)::INTEGER AS study, study.patient_count,
    study.ModalitiesInStudy AS modality,
    imaging_study.subject_state AS fhir, imaging_study.PatientID AS patient,
    imaging_study.IssuerOfPatientID AS issuer,
    (SELECT list(DISTINCT record_values ->> 'x' ORDER BY record_values ->> 'x') FROM study_clinical AS joined
        WHERE joined.study_key = study.study_key AND record_values ->> 'x' IS NOT NULL) AS records,
    (SELECT list(DISTINCT person_from) FROM image_occurrence_origin AS o WHERE o.study_key = study.study_key) AS person,
    (SELECT count(DISTINCT person_id) FROM image_occurrence_origin AS o JOIN image_occurrence
        USING (image_occurrence_id) WHERE o.study_key = study.study_key) AS persons,
    (SELECT list(link_state) FROM diagnostic_report AS r
        WHERE list_contains(study_uids, study.StudyInstanceUID)) AS reports
FROM study JOIN imaging_study USING (study_key, StudyInstanceUID)
ORDER BY study
"""


def everywhere(graph: Any) -> dict[int, tuple[Any, ...]]:
    """By number of the study, what each table and the view says of its patient."""
    return {row.pop("study"): tuple(row.values()) for row in graph.rows(EVERYWHERE.replace("$root", f"'{uid()}'"))}


def test_a_study_is_of_the_same_patient_everywhere_whatever_came_first(graph, landing):
    landing.put("a/1.dcm", dicom(1, 1, 1, PatientID="P1"))
    landing.put("a/2.dcm", dicom(2, 1, 1, PatientID="P2"))
    landing.put("a/3.dcm", dicom(3, 1, 1, PatientID="P3", IssuerOfPatientID="X"))
    landing.put("a/4.dcm", dicom(4, 1, 1, PatientID=None))
    landing.put("a/5.dcm", dicom(5, 1, 1, PatientID="CR3\\TEST1"))
    landing.put("a/6.dcm", dicom(6, 1, 1, PatientID="CR3\\TEST2"))
    landing.put("a/7.dcm", dicom(7, 1, 1, PatientID="P7", IssuerOfPatientID="X"))
    landing.put("a/c.csv", "PatientID,x\nP1,one\nP2,two\nP3,three\nP9,nine\nCR3,cut\nCR3\\TEST1,whole\nP7,seven\n")
    records = [patient("P2"), report(1, 1), report(2, 2, "P2"), report(3, 3), report(7, 7)]
    landing.put("a/r.ndjson", "\n".join(records))
    step_through(graph)
    landing.put("b/1.dcm", dicom(1, 2, 1, PatientID=None, Modality="SR"))
    landing.put("b/2.dcm", dicom(2, 2, 1, PatientID="P9"))
    landing.put("b/3.dcm", dicom(3, 2, 1, PatientID="P3", IssuerOfPatientID="Y"))
    landing.put("b/7.dcm", dicom(7, 1, 2, PatientID=None, Modality="SR"))
    step_through(graph)

    found = everywhere(graph)
    nobodys = (["CT"], "conflict", None, None, None, ["conflict"], 1, ["patient_conflict"])
    assert found == {
        1: (1, ["CT", "SR"], "identified", "P1", None, ["one"], ["surrogate"], 1, ["linked"]),
        2: (2, *nobodys),
        3: (2, *nobodys),
        4: (0, ["CT"], "missing", None, None, None, ["missing"], 1, None),
        5: (1, ["CT"], "identified", "CR3\\TEST1", None, ["whole"], ["surrogate"], 1, None),
        6: (1, ["CT"], "identified", "CR3\\TEST2", None, None, ["surrogate"], 1, None),
        7: (1, ["CT", "SR"], "identified", "P7", "X", ["seven"], ["surrogate"], 1, ["linked"]),
    }


@pytest.mark.parametrize("seed", [1])
def test_random_objects_in_random_batches_are_of_the_same_patient_everywhere(graph, landing, seed: int):
    chance = random.Random(seed)
    numbers = range(1, 21)
    told = {
        study: [
            (chance.choice([None, f"A{study}", f"A{study}", f"B{study}"]), chance.choice([None, None, "X", "Y"]))
            for _ in range(chance.randint(1, 3))
        ]
        for study in numbers
    }
    objects = [(study, number, *one) for study, all_told in told.items() for number, one in enumerate(all_told)]
    chance.shuffle(objects)
    texts = {
        "c.csv": "PatientID,x\n" + "".join(f"{name}{study},{name}\n" for study in numbers for name in "AB"),
        "r.ndjson": "\n".join(report(study, study) for study in numbers),
    }
    arriving = [*objects[::2], "c.csv", *objects[1::2], "r.ndjson"]
    half = chance.randint(1, len(arriving) - 1)
    for batch in (arriving[:half], arriving[half:]):
        for one in batch:
            if isinstance(one, str):
                landing.put(one, texts[one])
            else:
                study, number, patient_id, issuer = one
                data = dicom(study, number + 1, PatientID=patient_id, IssuerOfPatientID=issuer)
                landing.put(f"{study}/{number}.dcm", data)
        step_through(graph, judges=False)

    expected = {}
    for study, all_told in told.items():
        ids, issuers = ({*column} - {None} for column in zip(*all_told, strict=True))
        if not ids:
            expected[study] = ("missing", None, None, None, ["missing"], 1, ["linked"])
        elif len(ids) > 1 or len(issuers) > 1:
            expected[study] = ("conflict", None, None, None, ["conflict"], 1, ["patient_conflict"])
        else:
            (own,) = ids
            expected[study] = ("identified", own, *(issuers or {None}), [own[0]], ["surrogate"], 1, ["linked"])
    assert {state for state, *_ in expected.values()} == {"missing", "conflict", "identified"}
    assert {study: row[2:] for study, row in everywhere(graph).items()} == expected
