"""Who may read what a lake and its state hold, and where DuckDB puts what does not fit into memory."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner

from dicom_assets.cli.main import app
from dicom_assets.lake.database import open_alone
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import connect
from dicom_assets.storage.files import LakeFiles
from dicom_assets_tests.support.commands import command
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.landings import LandingFolder


def _modes(*roots: Path) -> set[int]:
    return {
        stat.S_IMODE(path.stat().st_mode) & 0o077 for root in roots for path in [root, *root.rglob("*")]
        if not path.is_symlink()
    }  # fmt: skip


@pytest.fixture
def _own_umask() -> Iterator[None]:
    """The command sets it for its process, which is that of the tests here."""
    mask = os.umask(0o022)
    yield
    os.umask(mask)


@pytest.mark.slow
@pytest.mark.usefixtures("_own_umask")
@pytest.mark.parametrize(("readers", "bits"), [("owner", 0), ("group", 0o050), ("everyone", 0o055)])
def test_the_lake_and_its_state_are_for_those_whom_the_settings_name(tmp_path, monkeypatch, readers, bits):
    (tmp_path / "landing").mkdir()
    if readers == "group":  # tables and logs of a run as well, which are made under the same mask
        LandingFolder(tmp_path / "landing").put("a.dcm", dicom())
    (tmp_path / "dicom-assets.toml").write_text(f'[storage]\nreadable_by = "{readers}"\n')
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["ingest", "--landing", "landing", "--lake", "lake"])
    assert done.exit_code == 0, done.stderr
    made = [path for path in (tmp_path / "lake", tmp_path / "lake.dagster") if path.is_dir()]
    assert len(made) == 2 or readers != "group"
    found = _modes(*made) - {0o700 & 0o077}
    assert found <= {bits, bits & 0o044}
    assert bits == 0 or bits in found


class TestWhatDoesNotFitIntoMemory:
    SPILLING = "SELECT * FROM (SELECT i, i::VARCHAR || repeat('x', 30) AS s FROM range(600000) t(i)) ORDER BY hash(i)"

    def _spill(self, connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute("SET memory_limit = '20MB'")
        connection.execute("SET threads = 1")
        connection.execute(self.SPILLING).fetchmany(1)

    def test_goes_into_a_private_folder_of_the_lake(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        lake = Lake(str(tmp_path / "lake"))
        with connect(lake, ["study"], alone=True) as connection:
            self._spill(connection)
            (folder,) = (tmp_path / "lake" / "_tmp").iterdir()
            assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
        assert not (tmp_path / ".tmp").exists()

    def test_goes_into_a_folder_that_ends_with_its_database(self, tmp_path):
        files = LakeFiles(str(tmp_path / "lake"))
        connections = [open_alone(files) for _ in range(2)]
        for connection in connections:
            self._spill(connection)
        assert len([*(tmp_path / "lake" / "_tmp").iterdir()]) == 2
        connections.pop(0).close()
        assert len([*(tmp_path / "lake" / "_tmp").iterdir()]) == 1

    def test_goes_into_a_private_temporary_folder_when_the_lake_may_not_be_written(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "temporary").mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
        files = LakeFiles(str(tmp_path / "lake"))
        (tmp_path / "lake" / "_tmp").write_text("no folder, and none can be made in its place")
        connection = open_alone(files)
        self._spill(connection)
        (folder,) = (tmp_path / "temporary").iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        connection.close()
        del connection
        assert [*(tmp_path / "temporary").iterdir()] == []

    def test_is_removed_by_the_next_process_when_its_own_was_killed(self, tmp_path):
        lake = Lake(str(tmp_path / "lake"))
        host = os.uname().nodename
        left = tmp_path / "lake" / "_tmp" / f"{host}-999999999-1f"
        other = tmp_path / "lake" / "_tmp" / f"{host}-{os.getppid()}-2e"
        for folder in (left, other):
            folder.mkdir(parents=True)
            (folder / "duckdb_temp_storage.tmp").write_bytes(b"x")
        Lake(lake.uri)
        assert (left.exists(), other.exists()) == (False, True)


@pytest.mark.slow
def test_an_ingest_needs_no_room_among_temporary_files(tmp_path):
    """The page that a reading process tells its progress in was a file with a hole: a bus error on a full disk."""
    LandingFolder(tmp_path / "landing").put("a.dcm", dicom())
    arguments = ("ingest", "--landing", tmp_path / "landing", "--lake", tmp_path / "lake")
    done = command("dicom-assets", *arguments, cwd=tmp_path, environment={"TMPDIR": "/proc/nowhere"})
    assert done.returncode == 0, done.stderr
