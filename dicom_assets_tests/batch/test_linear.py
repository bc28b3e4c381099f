"""Clinical records cost what they are many, not what they are many times many."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from dicom_assets.batch import versions
from dicom_assets.batch.checks import clinical_checks
from dicom_assets.batch.checks.contract import CheckContext
from dicom_assets.batch.checks.parity_checks import clinical_records_accounted, keys_are_unique
from dicom_assets.batch.checks.record_checks import clinical_equals_staged, patients_stand_in_records
from dicom_assets.batch.clinical import publish_clinical
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import connect
from dicom_assets.lake.staging import SCHEMAS, Part, Staging
from dicom_assets.schema import keys
from dicom_assets.schema.registry import CLINICAL

ROWS = 40_000
PATIENTS = 20_000
AT = datetime(2024, 1, 1, tzinfo=UTC)
EARLIER = datetime(2023, 1, 1, tzinfo=UTC)

QUADRATIC = ("nestedloopjoin", "nljoin", "iejoin", "mergejoin", "product")
"""Joins that look at pairs of rows, as DuckDB's plans call them."""


def staged(lake: Lake, batch: str, rows: Iterable[dict[str, Any]]) -> Staging:
    """A batch whose records are read."""
    own = {"batch_id": batch, "object_id": f"object of {batch}", "source": "landing", "version_at": AT}
    table = pa.Table.from_pylist([{**own, **row} for row in rows], schema=SCHEMAS[Part.CLINICAL])
    staging = Staging(lake.files, batch)
    staging.stage(Part.CLINICAL, table)
    for part in (Part.RAW, Part.ERRORS):
        staging.stage(part, SCHEMAS[part].empty_table())
    return staging


def table_row(number: int, **more: Any) -> dict[str, Any]:
    """A record of a table without keys."""
    own = {"record_key": keys.record_key("table", str(number)), "record": number, "record_values": "{}"}
    return {"record_type": "table", "file_key": "table", "PatientID": "7", **own, **more}


def resource(kind: str, number: int, **more: Any) -> dict[str, Any]:
    """A FHIR resource."""
    key = keys.record_key("landing", "", f"{kind}/{number}")
    names = {"record_type": kind, "record_key": key, "file_key": key, "resource_id": f"{number}", "server": ""}
    return {**names, "record": number, "record_values": "{}", **more}


def patients(count: int) -> list[dict[str, Any]]:
    return [
        resource("Patient", n, PatientID=f"P{n}", patient_reference=f"Patient/{n}", patient_identifiers=[f"|P{n}"])
        for n in range(count)
    ]


def conditions(count: int, of: int) -> list[dict[str, Any]]:
    return [resource("Condition", n, patient_reference=f"Patient/{n % of}") for n in range(count)]


def test_a_large_table_without_keys_and_its_newer_version_are_published_and_checked(tmp_path: Path):
    lake = Lake(str(tmp_path / "lake"))
    for batch, at in (("old", EARLIER), ("new", AT), ("oldest", datetime(2022, 1, 1, tzinfo=UTC))):
        staging = staged(lake, batch, (table_row(number, version_at=at) for number in range(ROWS)))
        assert publish_clinical(lake, staging) == (0 if batch == "oldest" else ROWS)
        counted = clinical_checks.counted(lake, staging, 20)
        assert (counted.read, counted.accounted, counted.lost) == (ROWS, ROWS, [])
    with connect(lake, ["clinical"]) as connection:
        assert connection.execute("SELECT batch_id, count(*) FROM clinical GROUP BY 1").fetchall() == [("new", ROWS)]


@pytest.mark.parametrize("is_patient_first", [True, False])
def test_many_patients_and_their_records_find_each_other_whoever_comes_first(tmp_path: Path, is_patient_first: bool):
    lake = Lake(str(tmp_path / "lake"))
    batches = [("a", patients(PATIENTS)), ("b", conditions(ROWS, PATIENTS))]
    for batch, rows in batches if is_patient_first else reversed(batches):
        staging = staged(lake, batch, rows)
        assert publish_clinical(lake, staging) == len(rows)
        assert clinical_checks.counted(lake, staging, 20).lost == []
    with connect(lake, ["clinical"]) as connection:
        wrong = connection.execute(
            "SELECT count(*) FROM clinical "
            "WHERE PatientID IS DISTINCT FROM 'P' || split_part(patient_reference, '/', 2)"
        ).fetchall()
    assert wrong == [(0,)]


def plan(connection: duckdb.DuckDBPyConnection, sql: str) -> str:
    """How DuckDB runs a statement, in small letters without spaces."""
    told = connection.execute(f"EXPLAIN {sql}").fetchall()
    return re.sub(r"[\s_]", "", "".join(row[1] for row in told)).lower()


def test_no_statement_compares_every_row_with_every_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lake = Lake(str(tmp_path / "lake"))
    publish_clinical(lake, staged(lake, "a", [*conditions(4_000, 2_000), *map(table_row, range(2_000))]))
    plans: list[str] = []
    make = versions._make

    def explained(connection: duckdb.DuckDBPyConnection, name: str, sql: str) -> None:
        plans.append(plan(connection, sql))
        make(connection, name, sql)

    monkeypatch.setattr(versions, "_make", explained)
    brought = [*patients(2_000), *conditions(2_000, 1_999), *map(table_row, range(2_000))]
    publish_clinical(lake, staged(lake, "b", brought))
    with duckdb.connect() as connection:
        rows = (
            "SELECT '' || r AS file_key, '' || r AS object_id, r AS record, '' AS batch_id, true AS is_keyed, "
            "'Condition' AS record_type, 'Patient/' || r AS patient_reference, '' || r AS PatientID, "
            "'' AS patient_system, '' AS IssuerOfPatientID, r AS last_updated, r AS version_at FROM range(4000) t(r)"
        )
        for name in ("staged", "published"):
            connection.execute(f"CREATE TABLE {name} AS {rows}")
        connection.execute("CREATE TABLE own_names AS SELECT r::UBIGINT AS name FROM range(4000) t(r)")
        connection.execute("CREATE TABLE claims AS SELECT file_key AS place_key, object_id, batch_id FROM staged")
        for name in ("UNSURE", "NEWEST", "COMPARED"):
            sql = getattr(clinical_checks, name).replace("{batch}", "'b'")
            plans.append(plan(connection, sql))
            connection.execute(f"CREATE TABLE {name.lower()} AS {sql}")
        assert "nljoin" in plan(
            connection, "FROM published JOIN staged ON published.record IN (staged.record, staged.record + 1)"
        )
    assert sum("hashjoin" in one for one in plans) >= 8
    assert [join for one in plans for join in QUADRATIC if join in one] == []


@pytest.mark.parametrize("kind", ["table", "keyed"])
def test_records_stream_through_the_checks_and_are_never_held_all_at_once(tmp_path: Path, kind: str):
    """60 MB of records, with 24 MB for Arrow and 48 MB for DuckDB, which may put nothing on the disk."""
    lake = Lake(str(tmp_path / "lake"))
    made = table_row if kind == "table" else partial(resource, "Condition")
    values = {"record_values": '{"id": "7", "note": "' + "x" * 2_000 + '"}', "PatientID": "7"}
    staging = staged(lake, "a", (made(number, **values) for number in range(30_000)))
    publish_clinical(lake, staging)
    context, before = CheckContext(lake, staging), pa.default_memory_pool()
    counted = pa.proxy_memory_pool(pa.system_memory_pool())
    lake.cursor().execute("SET GLOBAL temp_directory = ''; SET GLOBAL memory_limit = '48MB'")
    pa.set_memory_pool(counted)
    try:
        for rule in (patients_stand_in_records, clinical_equals_staged, clinical_records_accounted,
                     partial(keys_are_unique, CLINICAL)):  # fmt: skip
            assert rule(context).passed
    finally:
        pa.set_memory_pool(before)
        lake.cursor().execute("RESET GLOBAL memory_limit")
    assert 0 < counted.max_memory() < 24_000_000
