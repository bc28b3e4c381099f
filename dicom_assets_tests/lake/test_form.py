"""A lake says of which format it is: a later one is told in a sentence, by every command, and left as it is."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from typer.testing import CliRunner

from dicom_assets.cli.main import app
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.form import FILE, FORMAT, OtherFormat
from dicom_assets.lake.tables import ForeignTable
from dicom_assets.schema.registry import TABLES
from dicom_assets_tests.support.landings import LandingFolder

COMMANDS = (
    ("ingest", "--landing", "{landing}"),
    ("status",),
    ("errors",),
    ("sql", "SELECT count(*) FROM study"),
    ("omop", "{landing}-omop"),
    ("verify",),
    ("verify", "--fix"),
)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_lake_gets_the_number_and_an_existing_one_keeps_what_it_says(tmp_path):
    Lake(str(tmp_path / "lake"))
    told = (tmp_path / "lake" / FILE).read_bytes()
    assert json.loads(told)["format"] == FORMAT
    assert json.loads(told)["made_by"].startswith("dicom-assets ")
    Lake(str(tmp_path / "lake"))
    assert (tmp_path / "lake" / FILE).read_bytes() == told


@pytest.mark.parametrize("make", [True, False])
@pytest.mark.parametrize("number", [None, 1, FORMAT + 1], ids=["none", "an older one", "a newer one"])
def test_a_foreign_table_and_a_newer_number_are_refused_and_nothing_is_written(tmp_path, number, make):
    lake = tmp_path / "lake"
    write_deltalake(str(lake / "batches"), pa.table({"batch_id": ["1"]}))
    if number is not None:
        (lake / FILE).write_text(json.dumps({"format": number, "made_by": "dicom-assets 7.1"}))
    before = everything(lake)
    if number == FORMAT + 1:
        with pytest.raises(
            OtherFormat, match=rf"format {number}, made by dicom-assets 7.1.* Use dicom-assets 7.1, or a"
        ):
            Lake(str(lake), make=make)
    else:
        with pytest.raises(ForeignTable, match="'batches' that this project did not make"):
            Lake(str(lake), make=make)
    assert everything(lake) == before


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: " ".join(arguments))
def test_every_command_refuses_a_lake_of_a_later_release(tmp_path, arguments):
    landing = LandingFolder(tmp_path / "landing")
    landing.put_series(1, 1, 1)
    lake = tmp_path / "lake"
    for name in ("batches", "study"):
        write_deltalake(str(lake / name), pa.table({"batch_id": ["b"]}))
    (lake / FILE).write_text(json.dumps({"format": 9, "made_by": "dicom-assets 7.1"}))
    before = everything(lake)
    asked = [part.format(landing=landing.root) for part in arguments]
    done = CliRunner().invoke(app, [*asked, "--lake", str(lake)])
    assert done.exit_code == 2, done.stderr
    assert "format 9" in done.stderr and "Use dicom-assets 7.1" in done.stderr
    assert everything(lake) == before


@pytest.mark.slow
def test_processes_that_open_a_new_lake_at_the_same_time_all_get_it(tmp_path):
    uri = str(tmp_path / "lake")
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(tables_of, [uri] * 3))
    assert found == [len(TABLES)] * 3
    assert json.loads((tmp_path / "lake" / FILE).read_bytes())["format"] == FORMAT


def tables_of(uri: str) -> int:
    """What one of the processes does."""
    lake = Lake(uri)
    return sum(lake.row_count(name) == 0 for name in TABLES)


def test_a_number_that_cannot_be_read_is_told_with_what_to_do(tmp_path):
    Lake(str(tmp_path / "lake"))
    (tmp_path / "lake" / FILE).write_text("")
    with pytest.raises(Exception, match=r"is damaged.* `dicom-assets verify --fix`"):
        Lake(str(tmp_path / "lake"))
