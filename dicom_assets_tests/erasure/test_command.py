"""The command `dicom-assets erase`: its exit codes, its sentences, and that bad input changes nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicom_assets.batch.context import INGEST_LOCK
from dicom_assets.cli.main import app
from dicom_assets.storage import locks
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.lakes import contents


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch) -> None:
    """Away from the project, whose folder Dagster's state would lie in."""
    monkeypatch.chdir(tmp_path)


def run(*arguments: str, lake: str):
    return CliRunner().invoke(app, ["erase", *arguments, "--lake", lake])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Give one of --patient"),
        (("--patient", "P0001", "--study", "1.2"), "Give one of --patient"),
        (("--patient", " "), "Give one of --patient"),
        (("--study", "1.2", "--issuer", "A"), "--issuer is of a patient"),
        (("--patient", "NOBODY"), "holds no such patient"),
        (("--object", "0" * 20), "holds no such object"),
        (("--resume", "--patient", "P0001"), "--resume alone"),
    ],
)
def test_bad_input_is_a_sentence_and_changes_nothing(small, arguments, says):
    before = contents(small.lake)
    done = run(*arguments, lake=small.settings.lake)
    assert (done.exit_code, says in done.output) == (2, True), done.output
    assert "P0001" not in done.output
    assert contents(small.lake) == before


def test_nothing_is_erased_while_an_ingest_is_at_work(small):
    before = contents(small.lake)
    with locks.held(small.lake.files, INGEST_LOCK, 0):
        done = run("--study", uid(1), lake=small.settings.lake)
    assert (done.exit_code, "An ingest is at work" in done.output) == (2, True), done.output
    assert contents(small.lake) == before


def test_there_must_be_a_lake(tmp_path):
    done = run("--study", uid(1), lake=str(tmp_path / "none"))
    assert (done.exit_code, "There is no lake" in done.output) == (2, True)


def test_a_plan_names_counts_and_changes_nothing(small):
    before = contents(small.lake)
    done = run("--study", uid(1), "--plan", "--format", "csv", lake=small.settings.lake)
    assert done.exit_code == 0, done.output
    rows = dict(line.split(",") for line in done.stdout.splitlines())
    assert (rows["flat_metadata"], rows["study"], rows["lines of claims and returns"]) == ("2", "1", "2")
    assert contents(small.lake) == before


@pytest.mark.slow
def test_it_erases_and_its_search_finds_nothing(small):
    lake = small.settings.lake
    found = run("--patient", "P0002", "--search", lake=lake)
    assert (found.exit_code, "data file: values" in found.output) == (1, True), found.output
    done = run("--patient", "P0002", "--by", "me", lake=lake)
    assert (done.exit_code, "Nothing of it stands in any file." in done.output) == (0, True), done.output
    after = run("--patient", "P0002", "--search", lake=lake)
    assert after.exit_code == 0, after.output
    assert run("--resume", lake=lake).stdout == "No erasure is under way.\n"
    assert small.rows("SELECT erased_by, objects FROM erasure") == [{"erased_by": "me", "objects": 1}]
    assert small.rows("SELECT PatientID FROM study") == [{"PatientID": "P0001"}]


@pytest.mark.slow
def test_what_checks_have_told_dagster_of_it_goes_and_what_they_told_of_others_stays(tmp_path, landing):
    lake = str(tmp_path / "lake")

    def ingested() -> None:
        done = CliRunner().invoke(app, ["ingest", "--landing", str(landing.root), "--lake", lake])
        assert done.exit_code == 0, done.output

    landing.put_series(1, 1, 1)
    ingested()
    for name in ("one", "copy"):
        landing.put(f"{name}.dcm", dicom(2, 1, 1, Rows=4, Columns=4))
    ingested()
    told = "SELECT count(DISTINCT run_id) AS runs FROM asset_check_executions"
    (index,) = (tmp_path / "lake.dagster").rglob("index.db")
    found = run("--study", uid(2), "--search", lake=lake)
    assert "file beside the lake: SQLite page" in found.output
    assert asked(index, told) == [(2,)]
    done = run("--study", uid(2), lake=lake)
    assert (done.exit_code, "Nothing of it stands in any file." in done.output) == (0, True), done.output
    assert asked(index, told) == [(1,)]


def asked(database: Path, sql: str) -> list[tuple[object, ...]]:
    """What a database of Dagster's says."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql).fetchall()
