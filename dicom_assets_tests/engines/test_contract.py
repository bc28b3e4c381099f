"""The data contract says what the registry says, is valid by the standard, and a lake holds it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from dicom_assets.cli.main import app
from dicom_assets.docs import FOLDER
from dicom_assets.schema.registry import TABLES
from dicom_assets_tests.engines.conftest import Told
from dicom_assets_tests.support.engines import NEEDED, PYTHON, RUNNERS, run

FILE = FOLDER / "datacontract.yaml"


def test_it_has_every_table_and_column_with_key_and_description():
    told = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    assert told["apiVersion"] == "v3.1.0" and told["kind"] == "DataContract"
    assert [one["name"] for one in told["schema"]] == [*TABLES]
    for one, table in zip(told["schema"], TABLES.values(), strict=True):
        assert one["description"] == table.description
        assert table.grain in one["dataGranularityDescription"]
        columns = {column["name"]: column for column in one["properties"]}
        assert [*columns] == table.schema.names
        for column in table.columns:
            assert columns[column.name]["description"] == column.description
            assert columns[column.name]["required"] is not column.nullable
        keys = {name: column["primaryKeyPosition"] for name, column in columns.items() if "primaryKey" in column}
        assert tuple(sorted(keys, key=keys.__getitem__)) == table.key
    books = next(one for one in told["schema"] if one["name"] == "batches")["quality"]
    assert any("seen <> ingested + quarantined + ignored + deleted" in rule["query"] for rule in books)


@NEEDED
@pytest.mark.slow
def test_it_is_valid_by_the_standard():
    said = run([PYTHON.parent / "datacontract", "lint", FILE])
    assert "Data contract is valid against ODCS v3.1.0" in said


@NEEDED
@pytest.mark.slow
def test_a_lake_holds_the_contract_that_is_printed_of_it_and_a_broken_one_is_found(changed: Told, tmp_path: Path):
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
    lines = run([RUNNERS / "in_datacontract.py", tmp_path / "held.yaml", tmp_path / "broken.yaml"], cwd=tmp_path)
    held, broken = lines.splitlines()[-2:]
    assert held.startswith("passed: ") and int(held.split()[1]) > 200
    assert broken.startswith("failed: ")
