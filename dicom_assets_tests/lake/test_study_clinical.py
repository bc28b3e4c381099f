"""The view study_clinical: which clinical records belong to which studies."""

from __future__ import annotations

import pytest

from dicom_assets_tests.support.dicoms import dicom, uid

pytestmark = pytest.mark.usefixtures("as_far_as_hierarchy")


@pytest.fixture
def pairs(stepped, landing):
    """Ingests studies and records; which study meets which record."""

    def ingest(studies: list[tuple[str | None, str | None]], csv: str) -> list[tuple[str, str]]:
        for number, (patient, issuer) in enumerate(studies, 1):
            landing.put(f"{number}.dcm", dicom(number, PatientID=patient, IssuerOfPatientID=issuer))
        landing.put("c.csv", csv)
        stepped.ingest()
        found = stepped.rows(
            "SELECT StudyInstanceUID AS study, record_values::JSON->>'x' AS x FROM study_clinical ORDER BY study, x"
        )
        return [(row["study"], row["x"]) for row in found]

    return ingest


def test_records_meet_the_studies_of_their_patient_and_issuer_and_of_nobody_else(pairs):
    studies = [("007", None), ("7", None), ("007", "A"), (None, None), ("", None), (" 007 ", None)]
    csv = "PatientID,issuer,x\n007,,zeros\n7,,seven\n007,A,issued\n,,nobody\n  ,,blank\n007,B,other\n"
    assert pairs(studies, csv) == [
        (uid(1), "zeros"),
        (uid(2), "seven"),
        (uid(3), "issued"),
        (uid(6), "zeros"),
    ]
