"""One row for each valid resource of a file, one error with a path for each other one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dicom_assets.clinical.chunks import ClinicalUnreadable
from dicom_assets.clinical.fhir_resources import RESOURCE_ROWS, read_resources
from dicom_assets.settings import FhirSettings
from dicom_assets.storage.byte_ranges import BytesSource

PATIENT = {
    "resourceType": "Patient",
    "id": "p1",
    "meta": {"versionId": "3", "lastUpdated": "2024-05-01T12:00:00.250+02:00"},
    "identifier": [{"system": "http://hosp/mrn", "value": " 0042 "}],
}
CONDITION = {
    "resourceType": "Condition",
    "id": "c1",
    "clinicalStatus": {"coding": [{"code": "active"}]},
    "category": [{"coding": [{"code": "encounter-diagnosis"}]}],
    "code": {"coding": [{"system": "http://snomed.info/sct", "code": "49727002", "display": "Cough"}]},
    "subject": {"reference": "https://fhir.example/r4/Patient/p1"},
    "onsetDateTime": "2024-01-31",
}


def read(*resources: Any, settings: FhirSettings | None = None) -> tuple[list[dict[str, Any]], list[tuple[int, str]]]:
    data = "\n".join(one if isinstance(one, str) else json.dumps(one) for one in resources).encode()
    chunks = list(read_resources(BytesSource(data), settings or FhirSettings()))
    assert all(chunk.records.schema == RESOURCE_ROWS for chunk in chunks)
    rows = pa.concat_tables([RESOURCE_ROWS.empty_table(), *(c.records for c in chunks)]).to_pylist()
    return rows, [(error.record, error.detail) for chunk in chunks for error in chunk.errors]


def test_a_patient_gives_its_identifier_with_its_system():
    (row,), errors = read(PATIENT)
    assert not errors
    assert (row["PatientID"], row["patient_system"], row["IssuerOfPatientID"]) == (
        "0042",
        "http://hosp/mrn",
        "http://hosp/mrn",
    )
    assert (row["record_type"], row["resource_id"], row["resource_version"]) == ("Patient", "p1", "3")
    assert str(row["last_updated"]) == "2024-05-01 10:00:00.250000+00:00"
    assert json.loads(row["record_values"]) == PATIENT


def test_a_system_becomes_the_issuer_that_dicom_knows():
    (row,), _ = read(PATIENT, settings=FhirSettings(issuer_systems={"HOSP": "http://hosp/mrn"}))
    assert (row["IssuerOfPatientID"], row["patient_system"]) == ("HOSP", "http://hosp/mrn")


def test_what_people_filter_by_is_a_column():
    (row,), _ = read(CONDITION)
    assert (row["status"], row["category"]) == ("active", "encounter-diagnosis")
    assert (row["code_system"], row["code"], row["code_display"]) == ("http://snomed.info/sct", "49727002", "Cough")
    assert str(row["effective_at"]) == "2024-01-31 00:00:00+00:00"
    assert (row["patient_reference"], row["PatientID"]) == ("Patient/p1", None)


@pytest.mark.parametrize(
    ("written", "at"), [("2024-03-05", "2024-03-05"), ("2024-03", "2024-03-01"), ("2024", "2024-01-01")]
)
def test_a_date_as_precise_as_it_is_known_can_be_compared(written: str, at: str):
    report = {"resourceType": "DiagnosticReport", "status": "final", "code": {"text": "CT"}}
    encounter = {"resourceType": "Encounter", "status": "finished", "class": {"code": "AMB"}}
    rows, _ = read(
        {**report, "id": "r1", "effectiveDateTime": written},
        {**CONDITION, "onsetDateTime": written},
        {**encounter, "id": "e1", "period": {"start": written, "end": written}},
    )
    assert [str(row["effective_at"]) for row in rows] == [f"{at} 00:00:00+00:00"] * 3
    assert [row["effective_text"] for row in rows] == [written] * 3
    assert (str(rows[2]["effective_end"]), rows[2]["effective_end_text"]) == (f"{at} 00:00:00+00:00", written)


@pytest.mark.parametrize(
    ("subject", "reference", "patient"),
    [
        ({"reference": "Patient/p1/_history/2"}, "Patient/p1", None),
        ({"reference": "urn:uuid:77"}, "urn:uuid:77", None),
        ({"identifier": {"system": "s", "value": "9"}}, None, "9"),
        ({"reference": "Patient?identifier=s|9"}, "Patient?identifier=s|9", "9"),
        ({"reference": "#inside"}, None, "7"),
        ({"reference": "Group/g"}, None, None),
        ({"type": "Group", "identifier": {"value": "9"}}, None, None),
    ],
)
def test_references_to_a_patient_come_in_many_forms(subject: Any, reference: str | None, patient: str | None):
    contained = [{"resourceType": "Patient", "id": "inside", "identifier": [{"value": "7"}]}]
    (row,), errors = read({**CONDITION, "subject": subject, "contained": contained})
    assert not errors
    assert (row["patient_reference"], row["PatientID"]) == (reference, patient)


def test_an_invalid_resource_is_an_error_with_its_number_and_path_and_the_rest_goes_on():
    secret = "Zzyzx-4711"
    rows, errors = read(PATIENT, {**PATIENT, "gender": secret}, "{broken", {**CONDITION, "id": None}, CONDITION)
    assert [row["record"] for row in rows] == [1, 5]
    assert errors == [
        (2, "Patient.gender: not one of the codes that are allowed here"),
        (3, "not valid JSON"),
        (4, "Condition.id: missing, and the entry has no fullUrl either"),
    ]
    assert secret not in str(errors)


def test_entries_of_a_bundle_without_ids_are_named_by_their_full_url():
    patient = {k: v for k, v in PATIENT.items() if k != "id"}
    bundle = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {"fullUrl": "urn:uuid:aa", "resource": patient, "request": {"method": "POST", "url": "Patient"}},
            {"fullUrl": "urn:uuid:bb", "resource": {**CONDITION, "subject": {"reference": "urn:uuid:aa"}}},
        ],
    }
    (first, second), errors = read(bundle)
    assert not errors
    assert (first["natural_key"], first["patient_reference"]) == ("urn:uuid:aa", "urn:uuid:aa")
    assert (second["natural_key"], second["patient_reference"]) == ("Condition/c1", "urn:uuid:aa")


def test_a_file_that_is_no_json_is_refused_without_a_value():
    with pytest.raises(ClinicalUnreadable) as refused:
        read("Zzyzx,1")
    assert "Zzyzx" not in str(refused.value)


_MEASURED = """
import sys
from pathlib import Path
from dicom_assets.clinical.fhir_resources import read_resources
from dicom_assets.settings import FhirSettings

class File:
    def __init__(self, path):
        self.file = open(path, "rb")
        self.size = self.file.seek(0, 2)
    def read(self, offset, length):
        self.file.seek(offset)
        return self.file.read(length)

rows = sum(len(part.records) for part in read_resources(File(sys.argv[1]), FhirSettings()))
# The kernel's mark of this program alone: getrusage would also count the process that started it.
(peak,) = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(rows, int(peak) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
def test_a_bundle_of_fifty_thousand_entries_is_read_as_a_stream(tmp_path: Path):
    """The type stands behind the entries, as the worst case; the bound is 500 MB for the whole process."""
    path = tmp_path / "bundle.json"
    narrative = {
        "text": {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">' + "x" * 800 + "</div>"}
    }
    with path.open("w", encoding="utf-8") as file:
        file.write('{"type": "collection", "entry": [')
        for number in range(50_000):
            basic = {"resourceType": "Basic", "id": f"b{number}", "code": {"text": "c"}, **narrative}
            file.write(("," if number else "") + json.dumps({"fullUrl": f"urn:uuid:{number}", "resource": basic}))
        file.write('], "resourceType": "Bundle"}')
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(path)], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    rows, megabytes = map(int, done.stdout.split())
    assert rows == 50_000
    assert megabytes < 500
