"""Staged rows: what whoever holds a batch remembers of them is what lies there."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_assets.lake import staging as module
from dicom_assets.lake.staging import SCHEMAS, Part, Staging, StagingCache, StagingMissing
from dicom_assets.storage.files import LakeError, LakeFiles

PARTS = [Part.TOUCHED, Part.LEDGER]
_numbers = count()


def rows(part: Part, value: str) -> pa.Table:
    name = SCHEMAS[part].names[0]
    return pa.Table.from_pylist([{name: value}], schema=SCHEMAS[part])


def values(staging: Staging, part: Part) -> list[str]:
    name = SCHEMAS[part].names[0]
    return staging.read(part, [name])[name].to_pylist()


steps = st.lists(
    st.tuples(st.sampled_from(["put", "clear", "remove", "read"]), st.sampled_from(PARTS), st.integers(0, 3)),
    max_size=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_whoever_holds_a_batch_reads_what_lies_there(tmp_path: Path, steps: list[tuple[str, Part, int]]) -> None:
    files = LakeFiles(str(tmp_path / "lake"))
    held = Staging(files, f"batch-{next(_numbers)}", StagingCache())
    plain = Staging(files, held.batch_id)
    for number, (step, part, file) in enumerate(steps):
        if step == "put":
            held.put(part, file, rows(part, str(number)))
        elif step == "clear":
            held.clear(part)
        elif step == "remove":
            held.remove()
        for one in PARTS:
            assert values(held, one) == values(plain, one)


@pytest.fixture
def held(tmp_path: Path) -> Staging:
    """The staging of a batch that is held, with one file whose name is known."""
    staging = Staging(LakeFiles(str(tmp_path / "lake")), "batch", StagingCache())
    staging.stage(Part.TOUCHED, rows(Part.TOUCHED, "a"))
    assert values(staging, Part.TOUCHED) == ["a"]
    return staging


def test_what_was_written_though_an_error_was_told_is_there(held, monkeypatch):
    put = held.files.put

    def breaking(path: str, data: bytes, **options: bool) -> bool:
        put(path, data, **options)
        raise LakeError("the connection broke after the file was written")

    monkeypatch.setattr(held.files, "put", breaking)
    with pytest.raises(LakeError):
        held.put(Part.TOUCHED, 1, rows(Part.TOUCHED, "b"))
    assert values(held, Part.TOUCHED) == ["a", "b"]


def test_what_was_deleted_though_an_error_was_told_is_gone(held, monkeypatch):
    delete = held.files.delete

    def breaking(prefix: str) -> int:
        delete(prefix)
        raise LakeError("the connection broke after the files were deleted")

    monkeypatch.setattr(held.files, "delete", breaking)
    with pytest.raises(LakeError):
        held.clear(Part.TOUCHED)
    assert values(held, Part.TOUCHED) == []


def test_a_part_that_is_gone_is_missed(held):
    held.require(Part.TOUCHED)
    held.remove()
    with pytest.raises(StagingMissing):
        held.require(Part.TOUCHED)


@pytest.mark.parametrize("kept", [StagingCache(), None])
def test_a_part_without_rows_is_there_once_it_is_marked(tmp_path, kept):
    staging = Staging(LakeFiles(str(tmp_path / "lake")), "batch", kept)
    with pytest.raises(StagingMissing, match=r"has no staged clinical.*Run the whole job"):
        staging.read_whole(Part.CLINICAL)
    staging.complete(Part.CLINICAL, 0)
    assert len(staging.read_whole(Part.CLINICAL)) == 0
    staging.clear(Part.CLINICAL)
    with pytest.raises(StagingMissing):
        staging.require(Part.CLINICAL)


def test_a_part_that_lost_a_file_is_not_taken_for_whole(held):
    held.put(Part.TOUCHED, 1, rows(Part.TOUCHED, "b"))
    held.complete(Part.TOUCHED, 2)
    held.files.delete(f"{held.folder}/{Part.TOUCHED}")
    with pytest.raises(StagingMissing):
        Staging(held.files, held.batch_id).read_whole(Part.TOUCHED)
    held.put(Part.TOUCHED, 0, rows(Part.TOUCHED, "a"))
    held.complete(Part.TOUCHED, 2)
    with pytest.raises(StagingMissing, match="2 rows of touched_studies were staged, 1 are there"):
        Staging(held.files, held.batch_id).read_whole(Part.TOUCHED)


@pytest.mark.parametrize("columns", [None, ["object_id", "superseded_by"]])
def test_what_an_earlier_release_has_staged_has_null_in_columns_that_came_later(tmp_path, columns):
    staging = Staging(LakeFiles(str(tmp_path / "lake")), "batch")
    row = {"batch_id": "batch", "object_id": "a", "outcome": "ignored", "kind": "other", "judged_at": datetime.now(UTC)}
    later = pa.Table.from_pylist([row], schema=SCHEMAS[Part.LEDGER])
    staging.put(Part.LEDGER, 0, later.drop_columns(["superseded_by"]))
    assert staging.read(Part.LEDGER, columns) == (later if columns is None else later.select(columns))
    assert staging.file_rows(Part.LEDGER, staging.names(Part.LEDGER)[0]) == later


def test_no_more_is_kept_than_the_bound(monkeypatch):
    monkeypatch.setattr(module, "KEPT_BYTES", 1_000)
    kept = StagingCache()
    for number in range(10):
        with kept.writing(Part.TOUCHED, f"_staging/batch/touched_studies/{number}.arrow", b"x" * 300):
            pass
    assert sum(map(len, kept.data.values())) <= 1_000
