"""Scripts for engines name every table and view, quote what people named, say who may read, and are refused clearly.

What Spark and DuckDB make of theirs is in `test_tables_elsewhere`; the others need a cloud: here their text is read, by
bash and a stand-in for the Azure CLI where it is a shell script.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from dicom_assets.cli.main import app
from dicom_assets.engines.data_contract import of_release
from dicom_assets.engines.holdings import Holdings
from dicom_assets.engines.scripts import SCRIPTS, script
from dicom_assets.lake.delta import Lake
from dicom_assets.schema.registry import TABLES
from dicom_assets.storage.azure import parse
from dicom_assets_tests.engines.questions import VIEWS
from dicom_assets_tests.support.delta_logs import asked_of_readers

ODD = 'it\'s a "`[title]`" of \\ mine'
ON_AZURE = ("synapse", "fabric", "databricks", "adx")


@pytest.fixture(scope="module")
def held() -> Holdings:
    """A lake on Azure with a promoted column and a dataset whose column has an odd title."""
    new = of_release()
    promoted = pa.field("orientation", pa.list_(pa.string()), metadata={"comment": "promoted"})
    tables = dict(new.tables) | {"series": new.tables["series"].append(promoted)}
    place = parse("az://contoso/imaging/the lake")
    return Holdings(place.url, place, tables, {"labs": {"value": "DOUBLE", ODD: "TIMESTAMPTZ", "day": "DATE"}})


@pytest.mark.parametrize("engine", SCRIPTS)
def test_a_script_has_every_table_and_says_first_what_is_needed(engine: str, held: Holdings):
    text = script(engine, held)
    for name in TABLES:
        shown = "all_clinical" if name == "clinical" else name
        assert re.search(rf"[\[\"'`]{shown}[\]\"'`]", text), name
        assert f"the lake/{name}" in text or f"the%20lake/{name}" in text or f"'{name}/'" in text, name
    head = text.split("\n\n")[0]
    assert all(line.startswith(("--", "#", "//")) for line in head.splitlines())
    assert "Storage Blob Data Reader" in head and "Needed first" in head
    assert "contoso" in head and "imaging" in head


@pytest.mark.parametrize("engine", SCRIPTS)
def test_a_script_has_the_views_or_says_why_not(engine: str, held: Holdings):
    text = script(engine, held)
    expected = ("clinical", "clinical_labs") if engine == "adx" else VIEWS
    for view in expected:
        assert re.search(rf"(VIEW|function).*\n?.*[\[\"'`.]{view}[\]\"'`]", text), view
    for view in set(VIEWS) - set(expected):
        assert view in text.split("\n\n")[0]


QUOTED = {
    "synapse": ('[it\'s a "`[title]]`" of \\ mine]', "'$.\"it''s a \\\"`[title]`\\\" of \\\\ mine\"'"),
    "fabric": ('[it\'s a "`[title]]`" of \\ mine]', "'$.\"it''s a \\\"`[title]`\\\" of \\\\ mine\"'"),
    "databricks": ('`it\'s a "``[title]``" of \\ mine`', "'it\\'s a \"`[title]`\" of \\\\ mine'"),
    "spark": ('`it\'s a "``[title]``" of \\ mine`', "'it\\'s a \"`[title]`\" of \\\\ mine'"),
    "adx": ("['it\\'s a \"`[title]`\" of \\\\ mine']", "said['it\\'s a \"`[title]`\" of \\\\ mine']"),
    "duckdb": ('"it\'s a ""`[title]`"" of \\ mine"', "'/it''s a \"`[title]`\" of \\ mine'"),
}


@pytest.mark.parametrize("engine", SCRIPTS)
def test_names_that_people_gave_are_quoted_as_identifier_and_as_text(engine: str, held: Holdings):
    text = script(engine, held)
    for one in QUOTED[engine]:
        assert one in text


def test_synapse_reads_by_explicit_columns_with_lists_as_json_and_promoted_ones_too(held: Holdings):
    text = script("synapse", held)
    (series,) = re.findall(r"VIEW \[dbo\]\.\[series\] AS.*?GO", text, re.DOTALL)
    columns = dict(re.findall(r"^    \[(\w+)\] ([A-Z0-9()]+),?$", series, re.MULTILINE))
    assert [*columns] == held.tables["series"].names
    assert columns["orientation"] == "VARCHAR(MAX)"
    assert columns["version_at"] == "DATETIME2(6)" and columns["SeriesDate"] == "DATE"
    assert "OPENROWSET(BULK 'series/', DATA_SOURCE = 'dicom_assets_lake', FORMAT = 'DELTA')" in series
    assert "https://contoso.dfs.core.windows.net/imaging/the%20lake" in text


def test_fabrics_script_makes_a_shortcut_for_each_table_and_leaves_lists_out_of_views(held: Holdings, tmp_path: Path):
    az = tmp_path / "bin" / "az"
    az.parent.mkdir()
    az.write_text('#!/bin/bash\nprintf "%s\\n" "${@: -1}" >> "$CALLS"\n')
    az.chmod(0o755)
    environment = {"PATH": f"{az.parent}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls")}
    ids = {"WORKSPACE_ID": "w", "LAKEHOUSE_ID": "l", "CONNECTION_ID": "c-1"}
    ran = ["bash", "-c", script("fabric", held)]
    refused = subprocess.run(ran, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert refused.returncode != 0 and "WORKSPACE_ID: the id of the workspace" in refused.stderr
    subprocess.run(ran, cwd=tmp_path, env=environment | ids, check=True)
    bodies = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
    assert [one["name"] for one in bodies] == ["all_clinical" if name == "clinical" else name for name in TABLES]
    assert {one["path"] for one in bodies} == {"Tables"}
    assert bodies[0]["target"] == {
        "adlsGen2": {
            "location": "https://contoso.dfs.core.windows.net",
            "subpath": "/imaging/the lake/raw_files",
            "connectionId": "c-1",
        }
    }
    views = (tmp_path / "dicom_assets_views.sql").read_text()
    assert views.count("CREATE OR ALTER VIEW") == len(VIEWS)
    assert "ModalitiesInStudy" not in views and "StudyDescription" in views


@pytest.mark.parametrize("engine", ON_AZURE)
def test_a_folder_is_refused_by_what_reads_azure_alone_and_nothing_is_printed(engine: str, tmp_path: Path):
    Lake(str(tmp_path / "lake"))
    done = CliRunner().invoke(app, ["engines", engine, "--lake", str(tmp_path / "lake")])
    assert done.exit_code == 2
    assert "reads from Azure Storage" in done.stderr and "--lake az://" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("engine", ["spark", "duckdb"])
def test_a_folder_will_do_for_what_reads_folders_and_is_not_changed(engine: str, tmp_path: Path):
    folder = tmp_path / "lake"
    Lake(str(folder))
    before = sorted(str(path) for path in folder.rglob("*"))
    done = CliRunner().invoke(app, ["engines", engine, "--lake", str(folder), "--database", "imaging"])
    assert done.exit_code == 0, done.output
    assert str(folder / "study") in done.stdout and "imaging" in done.stdout
    assert sorted(str(path) for path in folder.rglob("*")) == before
    assert asked_of_readers(folder / "study") == set()


def test_a_name_that_no_engine_takes_and_a_lake_that_is_not_there_are_told(tmp_path: Path):
    Lake(str(tmp_path / "lake"))
    odd = CliRunner().invoke(app, ["engines", "spark", "--lake", str(tmp_path / "lake"), "--database", "a; DROP"])
    assert odd.exit_code == 2 and "cannot name a database" in odd.stderr
    none = CliRunner().invoke(app, ["engines", "spark", "--lake", str(tmp_path / "nothing")])
    assert none.exit_code == 2 and "There is no lake" in none.stderr


def test_the_command_has_each_engine_that_there_is_a_script_for() -> None:
    (group,) = (one.typer_instance for one in app.registered_groups if one.name == "engines")
    assert group is not None
    assert {one.name for one in group.registered_commands} == {*SCRIPTS, "contract"}
