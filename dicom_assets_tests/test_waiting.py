"""`dicom-assets` over a storage that refuses an object: what it says, how it ends, and that the object is not lost."""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from click.testing import Result
from typer.testing import CliRunner

from dicom_assets.cli.main import app
from dicom_assets_tests.support.commands import command
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.projects import REPOSITORY

REFUSING = """
import errno, os
kept, refused = os.open, os.fsencode(os.environ["TEST_REFUSED"])
def refuse(path, *arguments, **options):
    if isinstance(path, (str, bytes)) and os.fsencode(path) == refused:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    return kept(path, *arguments, **options)
os.open = refuse
"""
"""Every Python process begins with it, those that read too."""


@pytest.mark.slow
@pytest.mark.usefixtures("without_dagster", "as_far_as_hierarchy")  # but for the processes of their own
def test_an_object_that_cannot_be_read_is_told_counted_and_read_by_the_next_ingest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing = LandingFolder(tmp_path / "landing")
    landing.put("a.dcm", dicom(1))
    bad = landing.put("b.dcm", dicom(2))
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults" / "sitecustomize.py").write_text(REFUSING)
    refusing = {"TEST_REFUSED": str(bad), "PYTHONPATH": f"{tmp_path / 'faults'}:{REPOSITORY}"}

    def refused(*arguments: str) -> CompletedProcess[str]:
        return command("dicom-assets", *arguments, "--lake", tmp_path / "lake", cwd=tmp_path, environment=refusing)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--lake", str(tmp_path / "lake")])

    monkeypatch.chdir(tmp_path)
    ingest = ("ingest", "--landing", str(landing.root))
    first = refused(*ingest)
    assert first.returncode == 1, first.stderr
    assert first.stdout.splitlines()[1].split()[1:] == ["landing", "closed", "1", "1", "0", "0", "0"]
    assert "1 object could not be read and will be read again (READ_FAILED 1)" in first.stderr
    assert "b.dcm" not in first.stdout + first.stderr

    status = run("status", "--format", "json")
    assert [(row["status"], row["seen"]) for row in json.loads(status.stdout)] == [("closed", 1), ("waiting", 1)]
    assert "will be read again (READ_FAILED 1) at 20" in status.stderr

    still = refused(*ingest)
    assert still.returncode == 1
    assert "accounted for" not in still.stdout
    again = run(*ingest)
    assert again.exit_code == 0, again.stderr
    assert json.loads(run("sql", "SELECT count(*) AS n FROM instance", "-f", "json").stdout) == [{"n": 2}]
    assert [row["status"] for row in json.loads(run("status", "-f", "json").stdout)] == ["closed"] * 3
    assert run(*ingest).stdout == "Nothing new: every object of the landing zone is accounted for.\n"
