"""What a batch finds accounted for in a window that was read again: by closed batches before it, by nothing else."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from dicom_assets.batch.known import known_before
from dicom_assets.lake.delta import Lake
from dicom_assets.schema.registry import TABLES

AT = datetime(2026, 3, 1, tzinfo=UTC)
URI = "2026/03/01/08.ndjson.zst"
FIRST, SECOND, THIRD = (f"20260301T{hour:02}0000Z-00000000" for hour in (8, 9, 10))


def _put(lake: Lake, table: str, batch: str, rows: list[dict[str, object]]) -> None:
    """Replaces a batch's rows; columns that may not be NULL and say nothing here get some value."""
    schema = TABLES[table].schema
    some = {pa.string(): "x", pa.int64(): 0, pa.timestamp("us", "UTC"): AT}
    needed = {field.name: some[field.type] for field in schema if not field.nullable and field.type in some}
    lake.replace(table, [batch], pa.Table.from_pylist([{**needed, "batch_id": batch, **row} for row in rows], schema))


def account(lake: Lake, batch: str, status: str, **outcomes: str) -> None:
    """A batch over the window's file, with the outcome of each of its entries by object_id."""
    members = [{"object_id": one, "uri": URI, "member": one} for one in outcomes]
    _put(lake, "raw_files", batch, [*members, {"object_id": f"file-{batch}", "uri": URI, "member": None}])
    ledger = [{"object_id": one, "outcome": outcome} for one, outcome in outcomes.items()]
    _put(lake, "validated_batch", batch, [*ledger, {"object_id": f"file-{batch}", "outcome": "ignored"}])
    _put(lake, "batches", batch, [{"status": status}])


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> Lake:
    """Three batches over one window, each with an entry more."""
    made = Lake(str(tmp_path_factory.mktemp("known") / "lake"))
    account(made, FIRST, "closed", a="ingested", b="quarantined", c="deleted")
    account(made, SECOND, "closed", d="ignored")
    account(made, THIRD, "open", e="ingested")
    return made


def test_the_first_batch_finds_nothing_even_when_it_is_run_again_after_later_ones(lake):
    assert known_before(lake, FIRST)(URI) == set()


def test_a_batch_finds_what_earlier_ones_accounted_for_and_neither_its_own_nor_what_came_later(lake):
    assert known_before(lake, SECOND)(URI) == {"a", "c"}


def test_what_was_quarantined_may_be_mended_and_is_claimed_again(lake):
    assert known_before(lake, THIRD)(URI) == {"a", "c", "d"}


def test_batches_whose_books_are_not_closed_and_other_windows_do_not_count(lake):
    latest = known_before(lake, "20260301T110000Z-00000000")
    assert latest(URI) == {"a", "c", "d"}
    assert latest("2026/03/01/09.ndjson.zst") == set()
