"""Spark, DuckDB's own Delta reader and ClickHouse read the lake as we do: rows, types, nested lists, times, views; and
it holds its data contract.

None of them reads by delta-rs's Python package. They run in an environment of their own (`make engines`), each once
for all tests.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from dicom_assets.cli.main import app
from dicom_assets.docs import FOLDER
from dicom_assets.schema.registry import TABLES
from dicom_assets_tests.engines.conftest import Told
from dicom_assets_tests.engines.questions import (
    VIEWS,
    in_spark,
    of_tables,
    ordered,
    our_answers,
    our_tables,
    readme,
    script,
    synapse_views,
)
from dicom_assets_tests.support.engines import NEEDED, RUNNERS, asked, run

pytestmark = [NEEDED, pytest.mark.slow]

CONTRACT = FOLDER / "datacontract.yaml"
Lakes = dict[str, Path]


@pytest.fixture(scope="module")
def lakes(changed: Told, earlier: Path) -> Lakes:
    return {"changed": changed.folder, "earlier": earlier}


@pytest.fixture(scope="module")
def answers(lakes: Lakes, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """What an engine answers, asked once."""
    known: dict[str, dict[str, Any]] = {}

    def of(engine: str) -> dict[str, Any]:
        if engine not in known:
            views = {f"view {name}": f"SELECT * FROM imaging.{name}" for name in VIEWS}
            queries, statements = of_tables(engine, lakes), []
            if engine != "clickhouse":
                statements = script(engine, lakes["changed"], "imaging")
                queries |= views
            tsql = []
            if engine == "duckdb":
                tables = {"all_clinical" if name == "clinical" else name: name for name in TABLES}
                statements += ["CREATE SCHEMA dbo"]
                statements += [
                    f"CREATE VIEW dbo.{shown} AS FROM delta_scan('{lakes['changed'] / name}')"
                    for shown, name in tables.items()
                ]
                tsql = synapse_views(lakes["changed"])
                queries |= {f"tsql {name}": f"SELECT * FROM dbo.{name}" for name in VIEWS}
            if engine == "spark":
                # pysail 0.7 forgets quotes around names when it stores a view; Spark stores its text.
                (odd,) = [one for one in statements if "`clinical_labs`" in one]
                queries["view clinical_labs"] = odd.split(" AS\n", 1)[1]
                statements += ["USE DATABASE imaging"]
                queries |= in_spark()
            known[engine] = asked(engine, statements, queries, tmp_path_factory.getbasetemp(), tsql)
        return known[engine]

    return of


@pytest.fixture(scope="module")
def ours(lakes: Lakes) -> dict[str, Any]:
    return our_tables(lakes)


@pytest.mark.parametrize("engine", ["spark", "duckdb", "clickhouse"])
def test_an_engine_reads_every_table_as_it_is(engine: str, answers, ours):
    theirs = answers(engine)
    for name, expected in ours.items():
        assert theirs[name]["types"] == expected["types"], name
        assert rows(theirs[name], engine) == rows(expected, engine), name
    assert len(ours) == 2 * len(TABLES)


def rows(answer: dict[str, Any], engine: str) -> list[str]:
    return ordered(answer, without_null_lists=engine == "clickhouse")


@pytest.mark.parametrize("engine", ["spark", "duckdb"])
def test_the_views_of_a_script_say_what_ours_say(engine: str, answers, lakes):
    expected = our_answers(lakes["changed"], {f"view {name}": f"FROM {name}" for name in VIEWS})
    theirs = answers(engine)
    for name, view in expected.items():
        assert view["rows"], name
        assert {*theirs[name]["types"]} == {*view["types"]}, name
        assert ordered(theirs[name]) == ordered(view), name


def test_the_views_of_synapse_say_what_ours_say_once_their_sql_is_translated(answers, lakes):
    """Not run by Synapse: its SQL is translated for DuckDB, which reads the tables. Offsets stay in DATETIMEOFFSET."""
    expected = our_answers(lakes["changed"], {name: f"FROM {name}" for name in VIEWS})
    theirs = answers("duckdb")
    for name, view in expected.items():
        kept = [column for column in view["types"] if column != "taken_offset"]
        rows = [{column: row[column] for column in kept} for row in view["rows"]]
        assert ordered(theirs[f"tsql {name}"]) == ordered({**view, "rows": rows}), name


def test_sparks_answers_equal_duckdbs_for_every_query_of_the_readme(answers, lakes):
    expected = our_answers(lakes["changed"], readme())
    theirs = answers("spark")
    assert len(expected) >= 7
    for name, answer in expected.items():
        assert values(theirs[name]) == values(answer), name
    assert sum(bool(one["rows"]) for one in expected.values()) >= 4


def values(answer: dict[str, Any]) -> list[str]:
    """The rows without the names of columns, which nobody has given to what is counted."""
    return sorted(repr([*row.values()]) for row in answer["rows"])


def test_these_lakes_have_what_is_hard_to_read(ours):
    filled = {name for name, answer in ours.items() if answer["rows"]}
    assert {
        f"{lake}.{name}" for lake in ("changed", "earlier") for name in ("instance", "clinical", "batches")
    } <= filled
    flat = ours["changed.flat_metadata"]["rows"]
    assert any(len(row["frame_offsets"] or []) > 1 for row in flat)
    assert any(row["frame_offsets"] is None for row in flat)
    assert any(row["orientation"] == ["A", "F"] for row in flat)
    assert {row["operation"] for row in flat} == {"upsert", "delete"}
    assert {"changed.overwritten", "changed.patient_link", "changed.correction"} <= filled


def test_the_contract_is_valid_by_the_standard_and_a_lake_holds_its_own_and_no_broken_one(
    changed: Told, tmp_path: Path
):
    done = CliRunner().invoke(app, ["engines", "contract", "--lake", str(changed.folder)])
    assert done.exit_code == 0, done.output
    told = yaml.safe_load(done.stdout)
    series = next(one for one in told["schema"] if one["name"] == "series")
    assert series["properties"][-1]["name"] == "orientation"
    assert series["properties"][-1]["description"] == "PatientOrientation CS, promoted in this lake"
    few = [one for one in told["schema"] if one["name"] in ("study", "series", "instance", "batches", "clinical")]
    (tmp_path / "held.yaml").write_text(yaml.safe_dump({**told, "schema": few}), encoding="utf-8")
    few[0]["properties"] = [{"name": "no_such_column", "logicalType": "string", "required": True}]
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump({**told, "schema": few}), encoding="utf-8")
    contracts = [CONTRACT, tmp_path / "held.yaml", tmp_path / "broken.yaml"]
    lines = run([RUNNERS / "in_datacontract.py", *contracts], cwd=tmp_path)
    valid, held, broken = lines.splitlines()[-3:]
    assert valid.startswith("passed: ")
    assert held.startswith("passed: ") and int(held.split()[1]) > 200
    assert broken.startswith("failed: ")
