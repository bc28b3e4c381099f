"""Headers of single objects: exactly those that are asked for, whatever lies beside them."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_assets.lake import pack
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.headers import headers
from dicom_assets.schema.registry import FLAT_METADATA, TEXTS, TIMESTAMP

BATCHES = {"b1": 7, "b2": 3}
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
