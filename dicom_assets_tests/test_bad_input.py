"""What goes wrong at a user's place: each ends with a sentence that says what and what to do, and no trace of code.

The command runs in this process, but for two that are at work at once.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from typer.testing import CliRunner, Result

from dicom_assets.batch.books import all_books
from dicom_assets.batch.context import RunContext
from dicom_assets.cli.main import app
from dicom_assets.defs import runner
from dicom_assets.lake.delta import Lake
from dicom_assets_tests.support.commands import running, wait_for
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.lakes import settings_for
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import without_graph

pytestmark = pytest.mark.slow

ROOT_ONLY = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="mounting a file system needs root on Linux"
)


def ask(*arguments: str | Path) -> Result:
    """Runs `dicom-assets`; it ends with an exit code, not with an exception."""
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert isinstance(done.exception, SystemExit | None), done.exception
    assert "Traceback" not in done.stderr + done.stdout
    return done


def ingest(folder: Path, landing: str = "landing", lake: str = "lake") -> Result:
    """Runs `dicom-assets ingest` on folders below `folder`."""
    return ask("ingest", "--landing", folder / landing, "--lake", folder / lake)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The current folder is the test's, and the umask that the command sets ends with it."""
    monkeypatch.chdir(tmp_path)
    mask = os.umask(0o022)
    yield
    os.umask(mask)


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A folder with the lake of two sources, and how its ingest ended: one is not there, the other holds an object and
    records of nobody."""
    folder = tmp_path_factory.mktemp("beside")
    there = LandingFolder(folder / "there")
    there.put("a.dcm", dicom())
    there.put("c.csv", "subject;diagnosis\nsecret-4711;R91.8\nsecret-4712;M54.5\n")
    (folder / "dicom-assets.toml").write_text(
        'lake = "lake"\n[[sources]]\nname = "gone"\nroot = "gone"\n[[sources]]\nname = "there"\nroot = "there"\n'
    )
    mask = os.umask(0o022)
    with chdir(folder):
        done = ask("ingest")
    os.umask(mask)
    return folder, done


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """A file system mounted on a folder; skips where mounting is not allowed."""
    folder.mkdir(exist_ok=True)
    made = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"cannot mount here: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class TestTheLandingFolder:
    def test_that_is_missing(self, tmp_path):
        done = ingest(tmp_path, "nowhere")
        assert done.exit_code == 2
        assert done.stderr.startswith(
            f"dicom-assets: Source 'landing': {tmp_path}/nowhere is not a folder that exists."
        )
        assert "Create or mount it, or correct the source's root." in done.stderr

    def test_that_is_missing_beside_one_that_is_there(self, beside):
        folder, done = beside
        assert done.exit_code == 2
        assert "Source 'gone':" in done.stderr
        assert [(one.source, one.status) for one in all_books(Lake(str(folder / "lake")))] == [("there", "closed")]


class TestTheLakeFolder:
    def test_that_is_a_file(self, tmp_path):
        LandingFolder(tmp_path / "landing").put("a.dcm", dicom())
        (tmp_path / "lake").write_text("not a folder")
        done = ingest(tmp_path)
        assert done.exit_code == 2
        assert done.stderr == "dicom-assets: The lake folder cannot be made: File exists. Give another folder.\n"

    @ROOT_ONLY
    def test_that_is_not_writable_new_or_old(self, tmp_path):
        landing = LandingFolder(tmp_path / "landing")
        landing.put("a.dcm", dicom())
        (tmp_path / "new").mkdir()
        Lake(str(tmp_path / "old"))
        for name in ("new", "old"):
            with mounted(tmp_path / name, "--bind", str(tmp_path / name)):
                subprocess.run(["mount", "-o", "remount,ro,bind", str(tmp_path / name)], check=True)
                done = ingest(tmp_path, lake=name)
                assert done.exit_code == 2, done.stderr
                assert "Give this user write access" in done.stderr

    def test_that_holds_a_foreign_delta_table(self, tmp_path):
        LandingFolder(tmp_path / "landing").put("a.dcm", dicom())
        write_deltalake(str(tmp_path / "lake" / "study"), pa.table({"id": [1]}))
        done = ingest(tmp_path)
        assert done.exit_code == 2
        assert "The lake already holds a Delta table 'study' that this project did not make" in done.stderr
        assert "Give an empty folder." in done.stderr


class TestAClinicalFile:
    def test_without_a_patient_column_is_quarantined_and_the_remedy_names_the_setting(self, beside):
        folder, done = beside
        told = ask("errors", "--lake", folder / "lake", "-f", "csv").stdout
        assert "CLINICAL_UNREADABLE" in told
        assert "clinical.patient_id_columns" in told
        assert "secret" not in told + done.stdout + done.stderr


class TestTwoIngestsAtOnce:
    def test_the_second_says_that_it_waits_and_ends_well(self, tmp_path):
        landing = LandingFolder(tmp_path / "landing")
        landing.root.mkdir()
        log = tmp_path / "log"
        arguments = ("ingest", "--landing", landing.root, "--lake", tmp_path / "lake")
        with (
            RunContext(settings_for(tmp_path / "lake", landing.root)) as work,
            running("dicom-assets", *arguments, cwd=tmp_path, log=log) as second,
        ):
            with work.claiming(wait_seconds=60):
                wait_for("the sentence about the other ingest", lambda: "Another ingest is at work" in log.read_text())
                assert "on this lake; waiting until it has ended." in log.read_text()
            assert second.wait(240) == 0, log.read_text()
        assert "Nothing new" in log.read_text()

    def test_that_start_together_run_every_batch_once(self, tmp_path):
        landing = LandingFolder(tmp_path / "landing")
        landing.put("a.dcm", dicom())
        arguments = ("ingest", "--landing", landing.root, "--lake", tmp_path / "lake")
        logs = tmp_path / "one.log", tmp_path / "other.log"
        with (
            running("dicom-assets", *arguments, cwd=tmp_path, log=logs[0]) as one,
            running("dicom-assets", *arguments, cwd=tmp_path, log=logs[1]) as other,
        ):
            codes = one.wait(240), other.wait(240)
        printed = logs[0].read_text() + logs[1].read_text()
        assert codes == (0, 0), printed
        assert "Traceback" not in printed
        assert printed.count(": running") == 1
        assert [(books.status, books.seen) for books in all_books(Lake(str(tmp_path / "lake")))] == [("closed", 1)]


@ROOT_ONLY
class TestTheDiskFillsUp:
    def test_in_the_middle_of_a_batch_and_the_rerun_completes(self, tmp_path, monkeypatch):
        landing = LandingFolder(tmp_path / "landing")
        for number in range(60):
            landing.put(f"a/{number}.dcm", dicom(instance=number + 1, ImageComments=os.urandom(4_000).hex()))
        with mounted(tmp_path / "lake", "-t", "tmpfs", "-o", "size=4m", "tmpfs"):
            Lake(str(tmp_path / "lake"))
            free = os.statvfs(tmp_path / "lake")
            filler = tmp_path / "lake" / "filler"
            filler.write_bytes(bytes(free.f_bavail * free.f_frsize - 400_000))
            done = ingest(tmp_path)
            assert done.exit_code in (1, 2), done.stderr
            assert (
                "The disk that holds the lake is full. Free some space, then run the batch again; nothing is lost."
                in done.stderr
            )
            assert [path for path in (tmp_path / "lake" / "_staging").rglob("*") if path.is_file()]
            filler.unlink()
            without_graph(monkeypatch, runner)
            again = ingest(tmp_path)
            assert again.exit_code == 0, again.stderr
            (books,) = all_books(Lake(str(tmp_path / "lake")))
            assert (books.status, books.ingested, books.balance) == ("closed", 60, 0)
