"""An error is open until what caused it is gone; the rows of closed batches say so without being changed."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dicom_assets.lake import overwritten
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import arrow, connect
from dicom_assets.schema.registry import TABLES

NOW = datetime(2026, 11, 29, tzinfo=UTC)


@dataclass(frozen=True)
class Books:
    """A lake in which rows of the books are put as a run would put them."""

    lake: Lake

    def put(self, table: str, **row: Any) -> None:
        schema = TABLES[table].schema
        with self.lake.committing(table):
            old = arrow(connect(self.lake, [table]), f"SELECT * FROM {table} WHERE batch_id = '{row['batch_id']}'")
            rows = pa.concat_tables([old.cast(schema), pa.Table.from_pylist([row], schema=schema)])
            self.lake.replace(table, [row["batch_id"]], rows)

    def batch(self, name: str, status: str = "closed", **more: Any) -> None:
        hours = int(name[1:])
        closed_at = NOW + timedelta(hours=hours) if status == "closed" else None
        self.put("batches", batch_id=name, source="landing", status=status, seen=1, closed_at=closed_at, **more)

    def error(self, batch: str, name: str, uri: str = "file:///a", code: str = "EMPTY_FILE", **more: Any) -> None:
        self.put("ingestion_errors", batch_id=batch, object_id=name, stage="read", code=code, record=0,
                 severity="error", uri=uri, occurred_at=NOW, **more)  # fmt: skip

    def judged(self, batch: str, name: str, outcome: str, **more: Any) -> None:
        row = {"outcome": outcome, "kind": "dicom", "judged_at": NOW, **more}
        self.put("validated_batch", batch_id=batch, object_id=name, **row)

    def claimed_again(self, batch: str, name: str, uri: str = "file:///a", source: str = "landing") -> None:
        row = {"source": source, "uri": uri, "member": None, "batch_id": batch, "object_id": name,
               "claimed_at": NOW + timedelta(hours=int(batch[1:]))}  # fmt: skip
        schema = pa.schema([TABLES["overwritten"].schema.field(name) for name in row])
        overwritten.enter(self.lake, pa.Table.from_pylist([row], schema=schema))

    def states(self) -> dict[str, tuple[str | None, str | None]]:
        """By object, how its error was resolved and by which batch; the row itself is as it was put."""
        with connect(self.lake) as connection:
            rows = arrow(connection, "SELECT * FROM ingestion_error_states").to_pylist()
            assert len(rows) == connection.execute("SELECT count(*) FROM ingestion_errors").fetchall()[0][0]
        assert all((row["resolution"] is None) == (row["resolved_at"] is None) for row in rows)
        return {row["object_id"]: (row["resolution"], row["resolved_by"]) for row in rows}


@pytest.fixture
def books(tmp_path: Path, empty_lake: Path) -> Books:
    made = Books(Lake(str(shutil.copytree(empty_lake, tmp_path / "lake"))))
    made.batch("b1")
    made.error("b1", "old")
    return made


def test_it_is_open_at_first(books):
    assert books.states() == {"old": (None, None)}


def test_replaced_at_its_place_it_is_resolved_when_that_batch_has_closed(books):
    books.batch("b2", "open")
    books.claimed_again("b2", "new")
    assert books.states()["old"] == (None, None)
    books.lake.replace("batches", ["b2"], TABLES["batches"].schema.empty_table())
    books.batch("b2")
    assert books.states()["old"] == ("replaced", "b2")


def test_an_error_of_a_member_is_resolved_when_its_archive_is_replaced(books):
    books.error("b1", "inside", uri="file:///a.zip", member="1.dcm")
    books.batch("b2")
    books.claimed_again("b2", "new", uri="file:///a.zip")
    assert books.states() == {"old": (None, None), "inside": ("replaced", "b2")}


def test_what_is_wrong_with_what_replaced_it_is_open(books):
    books.batch("b2")
    books.claimed_again("b2", "new")
    books.error("b2", "new")
    assert books.states() == {"old": ("replaced", "b2"), "new": (None, None)}


def test_the_same_place_of_another_source_resolves_nothing(books):
    books.batch("b2")
    books.claimed_again("b2", "new", source="elsewhere")
    assert books.states()["old"] == (None, None)


@pytest.mark.parametrize(("outcome", "state"), [("ingested", ("read again", "b2")), ("quarantined", (None, None))])
def test_an_object_that_a_later_batch_has_taken_in_is_resolved_by_that(books, outcome, state):
    books.judged("b1", "old", "quarantined")
    books.batch("b2")
    books.judged("b2", "old", outcome)
    assert books.states()["old"] == state


def test_what_the_next_reading_refused_and_a_later_one_took_in_is_resolved_by_the_later_one(books):
    for batch, outcome, by in (("b1", "quarantined", "b2"), ("b2", "quarantined", "b3"), ("b3", "ingested", None)):
        if batch != "b1":
            books.batch(batch)
        books.judged(batch, "old", outcome, superseded_by=by)
    assert books.states() == {"old": ("read again", "b3")}


def test_what_was_taken_in_stays_resolved_when_a_still_later_reading_refuses_it(books):
    for batch, outcome, by in (("b1", "quarantined", "b2"), ("b2", "ingested", "b3"), ("b3", "quarantined", None)):
        if batch != "b1":
            books.batch(batch)
        books.judged(batch, "old", outcome, superseded_by=by)
    assert books.states() == {"old": ("read again", "b2")}


def test_what_a_person_has_dismissed_is_not_open(books):
    books.batch("b3", decision="dismissed", decided_by="anna", decided_at=NOW)
    books.error("b3", "unwanted", code="DISMISSED")
    assert books.states() == {"old": (None, None), "unwanted": ("dismissed", "b3")}
