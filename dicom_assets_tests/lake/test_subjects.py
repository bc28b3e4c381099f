"""What SQL over `study` says of a study's patient is what `imaging_study` says."""

from __future__ import annotations

import duckdb
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_assets.fhir.imaging_study import rows
from dicom_assets.fhir.mapping import Context
from dicom_assets.lake.subjects import SUBJECTS
from dicom_assets.omop import concepts
from dicom_assets_tests.fhir.rows import instances, series_table, studies, study

COLUMNS = ("PatientID", "IssuerOfPatientID", "subject_state", "AccessionNumber")
VALUES = st.one_of(
    st.none(),
    st.text(alphabet=" \t\n\r\x01\x0b\x1c\x7f\x85\xa0\u2003\u3000\u200bA1é", max_size=6),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(VALUES, VALUES, VALUES, st.sampled_from([None, 0, 1, 2])), min_size=1, max_size=8))
def test_both_say_the_same_of_every_study(values):
    made = studies(
        [
            study(number, PatientID=patient, IssuerOfPatientID=issuer, AccessionNumber=accession, patient_count=count)
            for number, (patient, issuer, accession, count) in enumerate(values)
        ]
    )
    resources = rows(made, series_table([]), instances([]), base=None, context=Context(concepts.load()))
    with duckdb.connect() as connection:
        connection.register("study", made)
        found = connection.execute(f"SELECT {', '.join(COLUMNS)} FROM ({SUBJECTS}) ORDER BY study_key").fetchall()
    expected = sorted(resources.to_pylist(), key=lambda row: row["study_key"])
    assert found == [tuple(row[column] for column in COLUMNS) for row in expected]
