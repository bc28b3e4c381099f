"""Configured clinical datasets: their own columns, types pinned once, records replaced by key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_assets.lake import datasets
from dicom_assets_tests.support.lakes import Graph, settings_for
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import step_through

LABS = {
    "name": "labs",
    "files": ["labs/*.csv", "**/labs_*.csv"],
    "patient_id_column": "Pat No",
    "issuer": "HOSP",
    "date_column": "taken",
    "key_columns": ["lab_id"],
}
VISITS = {"name": "visits", "files": ["visits.csv"], "patient_id_column": "person", "issuer_column": "site"}


@pytest.fixture
def labs(tmp_path: Any, landing: LandingFolder, instance: dg.DagsterInstance) -> Iterator[Graph]:
    yield Graph(settings_for(tmp_path / "lake", landing.root, clinical={"datasets": [LABS, VISITS]}), instance)


def test_each_dataset_has_its_own_patient_issuer_and_date_columns(labs: Graph, landing: LandingFolder):
    landing.put("labs/1.csv", "lab_id,Pat No,taken,value\n1,007,2024-01-31,5\n")
    landing.put("visits.csv", "person,site,reason\n8,CLINIC,cough\n")
    step_through(labs)
    rows = labs.rows("SELECT record_type, PatientID, IssuerOfPatientID, effective_at::VARCHAR AS at FROM clinical")
    assert sorted(tuple(row.values()) for row in rows) == [
        ("labs", "007", "HOSP", "2024-01-31 00:00:00+00"),
        ("visits", "8", "CLINIC", None),
    ]


def test_a_record_that_is_delivered_again_replaces_itself_whatever_file_it_stands_in(
    labs: Graph, landing: LandingFolder
):
    landing.put("labs/1.csv", "lab_id,Pat No,taken,value\n1,007,2024-01-31,5\n2,007,2024-01-31,6\n", age_seconds=9_000)
    step_through(labs)
    landing.put("deep/labs_2.csv", "lab_id,Pat No,taken,value\n2,007,2024-02-01,7\n3,007,2024-02-01,8\n")
    landing.put("deep/labs_2.csv", "lab_id,Pat No,taken,value\n2,007,2024-02-01,7\n", age_seconds=8_000)
    step_through(labs)
    rows = labs.rows("SELECT lab_id, value FROM clinical_labs ORDER BY lab_id")
    assert [tuple(row.values()) for row in rows] == [("1", 5), ("2", 7)]


def test_types_are_inferred_once_and_a_later_file_that_does_not_fit_gives_error_rows(
    labs: Graph, landing: LandingFolder
):
    landing.put("labs/1.csv", "lab_id,Pat No,taken,value,code\n1,007,2024-01-31,5,042\n", age_seconds=9_000)
    step_through(labs)
    landing.put(
        "labs/2.csv",
        "lab_id,Pat No,taken,value,code,extra\n2,007,2024-02-01,Zzyzx,9,1.5\n3,007,2024-02-01,6,10,\n",
        age_seconds=8_000,
    )
    (batch,) = step_through(labs)
    errors = labs.rows("SELECT record, code, detail FROM ingestion_errors")
    assert [tuple(row.values()) for row in errors] == [(1, "RECORD_INVALID", "column value is no BIGINT")]
    books = labs.books(batch)
    assert (books.clinical_records, books.clinical_rows) == (2, 1)
    described = labs.rows("SELECT column_name, column_type FROM (DESCRIBE clinical_labs)")
    types = {row["column_name"]: row["column_type"] for row in described}
    assert [types[name] for name in ("lab_id", "Pat No", "taken", "value", "code", "extra")] == [
        "VARCHAR",
        "VARCHAR",
        "DATE",
        "BIGINT",
        "VARCHAR",
        "DOUBLE",
    ]


def test_the_first_file_pins_what_all_its_values_fit(labs: Graph, landing: LandingFolder):
    landing.put("labs/1.csv", "lab_id,Pat No,taken,value\n1,007,2024-01-31,5\n2,007,2024-01-31,5.5\n")
    (first,) = step_through(labs)
    assert labs.books(first).clinical_rows == 2
    assert labs.rows("SELECT sum(value) AS s FROM clinical_labs") == [{"s": 10.5}]


def test_a_record_without_its_whole_key_is_an_error(labs: Graph, landing: LandingFolder):
    landing.put("labs/1.csv", "lab_id,Pat No,taken,value\n,007,2024-01-31,5\n2,007,2024-01-31,6\n")
    step_through(labs)
    errors = labs.rows("SELECT record, detail FROM ingestion_errors WHERE severity = 'error'")
    assert errors == [{"record": 1, "detail": "Its key is not whole: lab_id."}]
    assert labs.rows("SELECT count(*) AS n FROM clinical") == [{"n": 1}]


def test_a_file_without_a_configured_column_is_refused_with_the_columns_name(labs: Graph, landing: LandingFolder):
    landing.put("labs/1.csv", "Pat No,taken,value\n007,2024-01-31,5\n")
    step_through(labs)
    rows = labs.rows("SELECT code, detail FROM ingestion_errors")
    assert rows == [{"code": "CLINICAL_UNREADABLE", "detail": "Dataset labs lacks the column lab_id."}]


def test_a_table_that_no_dataset_names_is_read_as_before(labs: Graph, landing: LandingFolder):
    landing.put("other.csv", "PatientID,x\n1,2\n")
    step_through(labs)
    assert labs.rows("SELECT record_type, PatientID FROM clinical") == [{"record_type": "table", "PatientID": "1"}]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-2", "+3"], "BIGINT"),
        (["1", "2.5", "1e3"], "DOUBLE"),
        (["007", "1"], "VARCHAR"),
        (["true", "FALSE"], "BOOLEAN"),
        (["2024-01-31"], "DATE"),
        (["2024-01-31T10:00:00", "2024-01-31 11:00"], "TIMESTAMP"),
        (["2024-01-31", "2024-01-31T10:00:00"], "VARCHAR"),
        (["2024-02-31"], "VARCHAR"),
        ([], "VARCHAR"),
        (["99999999999999999999"], "DOUBLE"),
    ],
)
def test_the_narrowest_type_that_fits_every_value(values: list[str], kind: str):
    assert datasets.infer(values) == kind


@given(st.lists(st.text(max_size=12) | st.integers().map(str) | st.floats().map(str), max_size=5))
def test_every_value_fits_the_type_inferred_from_it(values: list[str]):
    kind = datasets.infer(values)
    assert all(datasets.FITS[kind](value.strip()) for value in values)
