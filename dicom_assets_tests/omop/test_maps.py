"""The user's mapping files: read as they were written, refused with a row number and never a value."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dicom_assets.omop.concepts import MappingError
from dicom_assets.omop.maps import IdMaps, load_maps


def persons(tmp_path: Path, text: str) -> IdMaps:
    path = tmp_path / "persons.csv"
    path.write_text(text, encoding="utf-8")
    return load_maps(str(path), None, None)


def test_leading_zeros_and_spaces_of_identifiers(tmp_path: Path):
    maps = persons(tmp_path, "patient_id,person id\n007,1\n7,2\n ab ,3\n")
    found = [maps.persons.get({"PatientID": one}) for one in ("007", "7", " 007 ", "ab", "8", "", None)]
    assert found == [1, 2, 1, 3, None, None, None]


def test_an_issuer_column_is_respected(tmp_path: Path):
    maps = persons(tmp_path, "PatientID,IssuerOfPatientID,person_id\n1,HOSP,10\n1,CLINIC,11\n1,,12\n")
    issuers = ["HOSP", "CLINIC", None, "OTHER"]
    found = [maps.persons.get({"PatientID": "1", "IssuerOfPatientID": issuer}) for issuer in issuers]
    assert found == [10, 11, 12, None]


def test_without_an_issuer_column_every_issuer_matches(tmp_path: Path):
    maps = persons(tmp_path, "PatientID,person_id\n1,10\n")
    assert maps.persons.get({"PatientID": "1", "IssuerOfPatientID": "HOSP"}) == 10


def test_rows_without_an_identifier_match_nobody(tmp_path: Path):
    maps = persons(tmp_path, "PatientID,person_id\n,10\n")
    assert maps.persons.get({"PatientID": ""}) is None


def test_parquet_and_csv_say_the_same(tmp_path: Path):
    path = tmp_path / "visits.parquet"
    pq.write_table(pa.table({"ACCESSION_NUMBER": ["A1"], "visit_occurrence_id": pa.array([5], pa.int64())}), path)
    assert load_maps(None, str(path), None).visits.get({"AccessionNumber": "A1"}) == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("PatientID\n1\n", "lacks the column person_id"),
        ("person_id\n1\n", "lacks the column PatientID"),
        ("PatientID,person_id\nZzyzx,12x\n", "row 2"),
        ("PatientID,person_id\nZzyzx,-3\n", "row 2"),
        ("PatientID,person_id\nZzyzx,3000000000\n", "row 2"),
        ("PatientID,person_id\nZzyzx,1\nZzyzx,2\n", "row 3"),
        ("PatientID,person_id\nZzyzx,1,2\n", "cannot be read"),
    ],
)
def test_a_wrong_file_is_refused_without_its_values(tmp_path: Path, text: str, words: str):
    with pytest.raises(MappingError, match=words) as refused:
        persons(tmp_path, text)
    assert "Zzyzx" not in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(MappingError, match=r"omop\.visit_map cannot be read"):
        load_maps(None, str(tmp_path / "missing.csv"), None)
