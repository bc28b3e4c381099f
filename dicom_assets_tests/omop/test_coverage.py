"""What is mapped and linked is counted, and what is not is ranked and shown without free text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from dicom_assets.lake.summaries import COUNTS
from dicom_assets.omop import coverage
from dicom_assets.schema.registry import TABLES
from dicom_assets_tests.fhir.rows import AT

Rows = Sequence[Mapping[str, Any]]


def filled(name: str, rows: Rows) -> pa.Table:
    """Rows of a table; columns that must not be NULL get something."""
    table = TABLES[name]
    anything = {"string": "x", "bool": False, "timestamp[us, tz=UTC]": AT, "int64": 0, "int32": 0}
    default = {c.name: anything.get(str(c.type)) for c in table.columns if not c.nullable}
    return pa.Table.from_pylist([{**default, **row} for row in rows], schema=table.schema)


def counted(**tables: Rows) -> pa.Table:
    """The rows of mapping_coverage over some tables, each counted as if it were one file."""
    connection = duckdb.connect()
    for name in (*coverage.LINKED, *coverage.COUNTED):
        connection.register(name, filled(name, tables.get(name, ())))
    parts = [
        connection.sql(
            "SELECT one.measure, one.value, one.mapped, count(*) AS rows "
            f"FROM (SELECT unnest({sql}) AS one FROM {name}) GROUP BY ALL"
        )
        .to_arrow_table()
        .cast(COUNTS)
        for name, sql in coverage.COUNTED.items()
    ]
    return coverage.coverage(connection, pa.concat_tables(parts))


def shares(rows: pa.Table) -> dict[str, tuple[int, int]]:
    return {one.name: (one.mapped, one.total) for one in coverage.measures(rows)}


def study(key: str, patient: str | None, issuer: str | None = None, **columns: Any) -> dict[str, Any]:
    return {"study_key": key, "PatientID": patient, "IssuerOfPatientID": issuer, "patient_count": 1, **columns}


def record(patient: str | None, issuer: str | None = None) -> dict[str, Any]:
    return {"PatientID": patient, "IssuerOfPatientID": issuer}


def linked(*patients: tuple[dict[str, Any], dict[str, Any]]) -> tuple[int, int]:
    """Studies with clinical records, and clinical patients with studies."""
    found = shares(counted(study=[s for s, _ in patients], clinical=[c for _, c in patients]))
    return found["studies with clinical records"][0], found["clinical patients with studies"][0]


def test_an_empty_lake_has_shares_of_nothing():
    rows = counted()
    assert all(one.total == 0 and one.share is None for one in coverage.measures(rows))
    assert "—" in coverage.markdown(rows)


def test_series_are_counted_by_what_is_mapped():
    def series(has_modality: bool, has_site: bool, modality: str, part: str | None, person: str) -> dict[str, Any]:
        return {
            "modality_mapped": has_modality,
            "anatomic_site_mapped": has_site,
            "modality": modality,
            "anatomic_site": part,
            "person_from": person,
        }

    made = [
        series(True, True, "CT", "CHEST", "mapping"),
        series(True, False, "CT", "BIG TOE", "surrogate"),
        series(False, False, "XX", "BIG TOE", "surrogate"),
        series(False, False, "YY", "Mr Smith, left toe", "missing"),
        series(True, False, "CT", " ", "missing"),
    ]
    table = counted(image_occurrence_origin=made)
    found = shares(table)
    assert found["series with mapped modality"] == (3, 5)
    assert found["series with mapped anatomic site"] == (1, 5)
    assert found["series with mapped person"] == (1, 5)
    assert coverage.written(table, coverage.SITE) == (1, 4)
    rows = table.to_pylist()
    sites = [(r["value"], r["total"]) for r in rows if r["value"] and r["measure"].endswith("site")]
    assert sites == [("BIG TOE", 2), ("(none)", 1), ("Mr Smith, left toe", 1)]
    people = [(r["value"], r["total"]) for r in rows if r["value"] and r["measure"].endswith("person")]
    assert people == [("missing", 2), ("surrogate", 2)]


def test_patients_are_the_same_when_identifier_and_issuer_are():
    assert linked((study("a", "1", "H"), record("1", "H"))) == (1, 1)
    assert linked((study("a", "1", "H"), record("1", "C"))) == (0, 0)
    assert linked((study("a", "01", "H"), record("1", "H"))) == (0, 0)
    assert linked((study("a", " 1 ", "H"), record("1", "H"))) == (1, 1)


def test_an_identifier_without_issuer_fits_while_it_is_not_ambiguous():
    assert linked((study("a", "1"), record("1", "H"))) == (1, 1)
    assert linked((study("a", "1", "H"), record("1"))) == (1, 1)
    assert linked((study("a", "1"), record("1", "H")), (study("b", "1", "C"), record("9"))) == (0, 0)


def test_empty_identifiers_join_nothing():
    assert linked((study("a", None), record(None))) == (0, 0)
    assert linked((study("a", ""), record(""))) == (0, 0)


def test_a_study_of_two_patients_is_nobodys():
    found = shares(counted(study=[study("a", "1", patient_count=2)], clinical=[record("1")]))
    assert found["studies with clinical records"] == (0, 1)
    assert found["studies with one known patient"] == (0, 1)


def test_reports_and_studies_are_counted_from_both_sides():
    reports = [
        {"record_key": "1", "study_keys": ["a", "b"], "link_state": "linked"},
        {"record_key": "2", "study_keys": [], "link_state": "unlinked"},
    ]
    studies = [study("a", "1"), study("b", "1"), study("c", "1")]
    found = shares(counted(diagnostic_report=reports, study=studies))
    assert found["reports linked to a study"] == (1, 2)
    assert found["studies with reports"] == (2, 3)


def test_what_is_shown_holds_codes_and_no_free_text():
    origins = [{"anatomic_site": site, "modality": "CT"} for site in ("BIG TOE", "Mr Smith, left toe")]
    shown = coverage.markdown(counted(image_occurrence_origin=origins))
    assert "BIG TOE" in shown
    assert "Smith" not in shown and "(free text)" in shown


def test_the_chart_has_a_bar_for_each_share():
    half = counted(study=[study("a", "1"), study("b", None)])
    drawn = coverage.chart(coverage.measures(half)).splitlines()
    by_name = {line.split("  ")[0].strip(): line for line in drawn[1:-1]}
    assert len(by_name) == 12
    assert by_name["studies with one known patient"].count("█") == 15
    assert by_name["studies with one known patient"].endswith("50%")
    assert by_name["series with a date"].endswith("nothing there")
