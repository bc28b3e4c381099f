"""What the books rest on is on the disk before anything builds on it: bytes first, then the name that leads to them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from dicom_assets.lake.delta import Lake
from dicom_assets.landing.claims import MANIFEST, ClaimLog
from dicom_assets.schema.registry import BATCHES, STUDY
from dicom_assets.storage.files import LakeError, LakeFiles

ROW = {"batch_id": "b", "source": "s", "status": "open", "seen": 1}


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of files and folders in the order in which they were synced; temporary names without their number."""
    done: list[str] = []
    fsync = os.fsync

    def recording(descriptor: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name.partition("#")[0])
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    yield done


def rows(number: int = 1) -> pa.Table:
    return pa.Table.from_pylist([ROW] * number, schema=BATCHES.schema)


def test_a_commit_syncs_its_files_then_its_entry(tmp_path, synced):
    lake = Lake(str(tmp_path / "lake"))
    synced.clear()
    lake.replace("batches", ["b"], rows())
    (data,) = [path.name for path in (tmp_path / "lake" / "batches").glob("*.parquet")]
    entry = min(synced.index(f"{1:020d}.json"), synced.index("_delta_log"))
    assert synced.index(data) < entry
    assert synced.index("batches") < entry, "the folder that names the file"


def test_an_entry_is_written_only_when_its_files_are_on_the_disk(tmp_path, synced, monkeypatch):
    lake = Lake(str(tmp_path / "lake"))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LakeError, match="disk that holds the lake is full"):
        lake.replace("batches", ["b"], rows())
    assert Lake(str(tmp_path / "lake"), make=False).row_count("batches") == 0


def test_a_checkpoint_is_synced_with_the_entry_that_it_sums_up(tmp_path, synced):
    lake = Lake(str(tmp_path / "lake"))
    for _ in range(9):
        lake.replace("batches", ["b"], rows())
    assert f"{9:020d}.checkpoint.parquet" in synced
    assert "_last_checkpoint" in synced


def test_a_claim_is_synced_before_it_has_its_name(tmp_path, synced):
    files = LakeFiles(str(tmp_path / "lake"))
    manifest = pa.Table.from_pylist(
        [{"object_id": "00" * 10, "source": "s", "uri": "u", "etag": "e", "size": 1,
          "modified_at": None, "claimed_at": 0}],
        schema=pa.schema([field for field in MANIFEST if field.name != "batch_id"]),
    )  # fmt: skip
    ClaimLog(files).append(manifest, 0)
    assert synced[0] == "000000000001.parquet"
    assert {"_claims", "lake"} <= set(synced[1:]), "the folder that names it is new itself"


def test_a_new_table_is_synced(tmp_path, synced):
    Lake(str(tmp_path / "lake"))
    assert synced.count(f"{0:020d}.json") >= 17
    assert {STUDY.name, "lake", "_lake.json"} <= set(synced)


def test_what_can_be_read_again_is_not_synced(tmp_path, synced):
    LakeFiles(str(tmp_path / "lake")).put("_staging/b/x.arrow", b"x", durable=False)
    assert synced == []


def test_who_does_not_want_it_has_nothing_synced(tmp_path, synced):
    lake = Lake(str(tmp_path / "lake"), synced=False)
    lake.replace("batches", ["b"], rows())
    lake.files.put("x", b"x")
    assert synced == []
    assert lake.row_count("batches") == 1


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    files = LakeFiles(str(tmp_path / "lake"))
    files.put("a", b"first")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LakeError, match="full"):
        files.put("a", b"second")
    assert files.get("a") == b"first"
    assert [path.name for path in (tmp_path / "lake").iterdir()] == ["a"]
