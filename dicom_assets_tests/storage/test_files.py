"""Plain files of a lake: whole or not at all, found again, deleted with everything that a kill left beside them."""

from __future__ import annotations

import pytest

from dicom_assets.storage import locks
from dicom_assets.storage.files import LakeError, LakeFiles


@pytest.fixture
def files(tmp_path) -> LakeFiles:
    return LakeFiles(str(tmp_path / "lake"))


def test_a_file_is_read_back_and_listed(files):
    files.put("a/b.txt", b"b")
    files.put("a/a.txt", b"a")
    files.put("ab/x.txt", b"x")
    assert files.get("a/b.txt") == b"b"
    assert files.names("a") == ["a/a.txt", "a/b.txt"]
    assert files.names("nothing") == []


def test_what_is_there_is_not_created_again(files):
    assert files.put("a", b"first", create=True)
    assert not files.put("a", b"second", create=True)
    assert files.get("a") == b"first"
    files.put("a", b"third")
    assert files.get("a") == b"third"


def test_a_missing_file_is_told(files):
    with pytest.raises(FileNotFoundError):
        files.get("nothing")


def test_a_deletion_takes_its_own_folder_and_nothing_else(files):
    for name in ("_staging/one/raw/0.parquet", "_staging/one/flat/0.parquet", "_staging/one2/raw/0.parquet"):
        files.put(name, b"x")
    assert files.delete("_staging/one") == 2
    assert files.names("_staging") == ["_staging/one2/raw/0.parquet"]
    assert not (files.local_root / "_staging" / "one").exists()
    assert files.delete("_staging/one") == 0


def test_a_deletion_takes_what_a_writer_that_was_killed_left(files):
    files.put("_staging/one/raw/0.parquet", b"x")
    (files.local_root / "_staging/one/raw/1.parquet#1").write_bytes(b"half")
    files.delete("_staging/one")
    assert not (files.local_root / "_staging" / "one").exists()


def test_the_root_itself_is_never_deleted(files):
    for name in ("", "/"):
        with pytest.raises(ValueError, match="root"):
            files.delete(name)


def test_a_place_that_is_no_folder_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LakeError, match=r"cannot be made: File exists\. Give another folder"):
        LakeFiles(str(tmp_path / "file"))


class TestLocks:
    def test_one_holder_at_a_time_and_by_name(self, files):
        with locks.held(files, "study", 0):
            with pytest.raises(locks.LockBusy), locks.held(files, "study", 0.1):
                pass
            with locks.held(files, "series", 0):
                pass
        with locks.held(files, "study", 0):
            pass

    def test_a_folder_that_cannot_be_written_is_told(self, files):
        (files.local_root / "_locks").write_text("in the way")
        with pytest.raises(LakeError, match=r"not writable .* Give this user write access"), locks.held(files, "x", 0):
            pass
