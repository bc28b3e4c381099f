"""The benchmark's other readers really read; what is not there is said; one that breaks costs itself alone."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from bench import others, reader
from dicom_assets_tests.support.dicoms import dicom


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """A file that is DICOM and one that is none."""
    (tmp_path / "good.dcm").write_bytes(dicom())
    (tmp_path / "bad.dcm").write_bytes(b"nothing of the kind")
    return [str(tmp_path / "good.dcm"), str(tmp_path / "bad.dcm")]


@pytest.mark.parametrize("name", others.READERS)
def test_a_reader_that_is_there_reads_what_is_dicom_and_nothing_else(name: str, paths: list[str]):
    if (absent := others.missing(name)) is not None:
        pytest.skip(absent)
    assert others.readable(name, paths) == ([paths[0]], None)


def test_a_reader_that_is_not_there_is_said_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    assert others.missing("fastdicom") == ("fastdicom is not installed: pip install -e '.[bench]' -c constraints.txt")
    assert others.missing("dcmdump") == "dcmdump is not installed: apt-get install dcmtk"


def test_a_reader_that_ends_its_process_is_said_and_keeps_the_others(paths: list[str], monkeypatch: pytest.MonkeyPatch):
    only = {"nobody": (others.with_pydicom, "pydicom"), "pydicom": others.READERS["pydicom"]}
    monkeypatch.setattr(others, "READERS", only)
    rows, remarks = reader.compare(paths, 1)
    assert [(row["reader"], row["files"]) for row in rows] == [("pydicom", 1)]
    assert rows[0]["times_ours"] > 0
    assert remarks == [
        "nobody ended its process with 1 at a file.",
        "pydicom reads 1 of 1 files that ours reads.",
    ]


def test_behind_a_file_at_which_a_process_ends_another_goes_on(
    paths: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Of three files, the second ends the process that reads it."""
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nshift 3\nfor file; do case $file in *bad*) kill -9 $$;; esac; echo +; done\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(program))
    good, bad = paths
    assert others.readable("any", [good, bad, good]) == ([good, good], "any ended its process with -9 at a file")
