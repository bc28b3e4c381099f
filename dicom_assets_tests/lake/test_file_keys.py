"""Which files of a table hold a study: told by whoever wrote them, kept for the next process, read where it is torn."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pytest

from dicom_assets.lake import file_keys
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.maintenance import tidy_all
from dicom_assets.schema.keys import study_key
from dicom_assets.schema.registry import TABLES

AT = datetime(2026, 11, 20, tzinfo=UTC)
STUDIES = [study_key("landing", f"1.2.{number}") for number in range(20)]


def rows(key: str, said: str = "") -> pa.Table:
    """One row of `study`."""
    schema = TABLES["study"].schema
    row: dict[str, object] = {
        one.name: "" if one.type == pa.string() else 0 if pa.types.is_integer(one.type) else AT
        for one in schema
        if not one.nullable
    }
    return pa.Table.from_pylist([{**row, "study_key": key, "StudyDescription": said}], schema=schema)


@pytest.fixture
def folder(empty_lake: Path, tmp_path: Path) -> Path:
    """A lake with twenty studies, each in a file of its own, and what is kept of which file holds which."""
    folder: Path = shutil.copytree(empty_lake, tmp_path / "lake")
    lake = Lake(str(folder), make=False)
    for key in STUDIES:
        lake.replace("study", [key], rows(key))
    assert len(lake.extents("study")) == len(STUDIES)
    lake.file_keys.keep("study", lake.extents("study"))
    return folder


def homes(folder: Path) -> tuple[list[int], list[str]]:
    """How many files a process of its own finds to hold each study, and which it has opened to find out."""
    lake = Lake(str(folder), make=False)
    opened: list[str] = []

    def read(name: str, paths: list[str]) -> pa.Table:
        opened.extend(paths)
        return lake._database.read_keys(name, paths)

    with mock.patch.object(lake.file_keys, "_read", read):
        found = lake.file_keys.homes("study", lake.extents("study"), {"study_key": STUDIES})
    return [len(paths) for paths in found.values()], opened


def test_another_process_opens_no_file_to_find_out_what_is_kept(folder):
    assert homes(folder) == ([1] * 20, [])


def test_a_file_that_came_since_is_opened_and_one_that_went_is_nobodys_home(folder):
    Lake(str(folder), make=False).replace("study", STUDIES[:1], rows(STUDIES[0], "again"))
    counts, opened = homes(folder)
    assert counts == [1] * 20
    assert len(opened) == 1


@pytest.mark.parametrize("how", ["gone", "empty", "cut"])
def test_without_what_is_kept_files_are_opened_again(folder, how):
    path = folder / file_keys.FOLDER / "study.arrow"
    whole = path.read_bytes()
    path.unlink() if how == "gone" else path.write_bytes(whole[: len(whole) // 2] if how == "cut" else b"")
    counts, opened = homes(folder)
    assert counts == [1] * 20
    assert len(opened) == 20


def test_what_is_kept_is_written_anew_only_when_enough_was_learned(folder):
    path = folder / file_keys.FOLDER / "study.arrow"
    before = path.stat().st_ino
    lake = Lake(str(folder), make=False)
    lake.replace("study", STUDIES[:1], rows(STUDIES[0], "again"))
    lake.file_keys.keep("study", lake.extents("study"))
    assert path.stat().st_ino == before


def test_closing_a_batch_keeps_what_it_has_learned(empty_lake, tmp_path, monkeypatch):
    monkeypatch.setattr(file_keys, "WORTH_KEEPING", 1)
    lake = Lake(str(shutil.copytree(empty_lake, tmp_path / "lake")), make=False)
    lake.replace("study", STUDIES[:1], rows(STUDIES[0]))
    tidy_all(lake)
    assert [path.name for path in (tmp_path / "lake" / file_keys.FOLDER).iterdir()] == ["study.arrow"]


def test_a_row_whose_key_is_none_of_ours_is_replaced_all_the_same(folder):
    """Another writer may have put it there: its file may hold anything, and is looked into each time."""
    lake = Lake(str(folder), make=False)
    lake.replace("study", ["odd"], rows("odd"))
    lake.replace("study", ["odd"], rows("odd", "again"))
    lake = Lake(str(folder), make=False)
    lake.replace("study", [STUDIES[3], "odd"], pa.concat_tables([rows(STUDIES[3], "new"), rows("odd", "once more")]))
    with lake.cursor() as connection:
        found = connection.execute(
            f"SELECT study_key, StudyDescription FROM {lake.scan_files('study', lake.extents('study').paths.tolist())} "
            "WHERE StudyDescription <> '' ORDER BY 2"
        ).fetchall()
    assert found == [(STUDIES[3], "new"), ("odd", "once more")]
    assert lake.row_count("study") == 21
