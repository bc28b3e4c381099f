"""Headers of single objects: exactly those that are asked for, whatever lies beside them."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_assets.lake import headers as headers_module
from dicom_assets.lake import pack
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.headers import headers, with_headers
from dicom_assets.schema.registry import FLAT_METADATA, TEXTS, TIMESTAMP

BATCHES = {"b1": 11, "b2": 3}
WHEN = datetime(2026, 11, 20, tzinfo=UTC)
EVERY = {
    column.name: {pa.string(): "s", TIMESTAMP: WHEN, TEXTS: []}.get(column.type, 0)
    for column in FLAT_METADATA.columns
    if not column.nullable
}
"""What the columns have that are never NULL."""


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> Lake:
    """Two batches whose objects have the same names, in row groups of two rows."""
    lake = Lake((tmp_path_factory.mktemp("headers") / "lake").as_posix())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack, "ROW_GROUP", 2)
        for batch, count in BATCHES.items():
            rows = [{**EVERY, "batch_id": batch, "object_id": f"o{n}", "header": f"{batch} {n}"} for n in range(count)]
            lake.replace("flat_metadata", [batch], pa.Table.from_pylist(rows, schema=FLAT_METADATA.schema))
    return lake


@given(st.sets(st.sampled_from([(batch, n) for batch, count in BATCHES.items() for n in range(count)])))
def test_the_headers_of_these_objects_alone_are_read(lake: Lake, wanted: set[tuple[str, int]]):
    asked = pa.table(
        {"batch_id": [batch for batch, _ in wanted], "object_id": [f"o{n}" for _, n in wanted]},
        schema=pa.schema([("batch_id", pa.string()), ("object_id", pa.string())]),
    )
    found = [row for rows in headers(lake, asked) for row in rows.to_pylist()]
    expected = [{"batch_id": b, "object_id": f"o{n}", "header": f"{b} {n}"} for b, n in wanted]
    assert sorted(found, key=str) == sorted(expected, key=str)


@given(st.sets(st.sampled_from([(batch, n) for batch, count in BATCHES.items() for n in range(count)])))
def test_they_stream_behind_what_is_known_of_their_objects_one_at_a_time(lake: Lake, wanted: set[tuple[str, int]]):
    asked = pa.table(
        {"n": [n for _, n in wanted], "batch_id": [b for b, _ in wanted], "object_id": [f"o{n}" for _, n in wanted]},
        schema=pa.schema([("n", pa.int64()), ("batch_id", pa.string()), ("object_id", pa.string())]),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(headers_module, "HEADER_BYTES", 1)
        batches = list(with_headers(lake, asked))
    expected = [{"n": n, "batch_id": b, "object_id": f"o{n}", "header": f"{b} {n}"} for b, n in wanted]
    assert sorted((row for one in batches for row in one.to_pylist()), key=str) == sorted(expected, key=str)
    assert all(len(one) == 1 for one in batches)


def test_a_batch_of_many_row_groups_is_written_as_two_files_side_by_side_and_a_small_one_as_one(lake: Lake):
    held = lake.extents("flat_metadata")
    assert [int(held.may_hold("batch_id", [batch]).sum()) for batch in BATCHES] == [2, 1]
