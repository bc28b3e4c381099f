"""Tables say what they and their columns hold, whatever is done to them, and ask for the first Delta protocol alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from deltalake import DeltaTable

from dicom_assets.batch.promotion import declare, fill, remove
from dicom_assets.batch.upgrade import plan
from dicom_assets.dicom.from_header import values_of
from dicom_assets.lake import maintenance, table_form
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.history import forget
from dicom_assets.lake.query import existing
from dicom_assets.schema.promoted import promoted
from dicom_assets.schema.registry import TABLES
from dicom_assets_tests.support.delta_logs import asked_of_readers, assert_plain_and_described, comments, metadata
from dicom_assets_tests.support.versions import Version, publish

SAID = "PatientOrientation CS, promoted in this lake"
LATER = ("SeriesDescription", "size")
"""Columns that the lake of an earlier release does not have."""


def some(batch: int) -> list[Version]:
    return [Version(1 + n % 2, 1, n, 0, 0, False, "said", "P1", 10 * batch + n, batch) for n in range(2)]


def versions(lake: Path) -> dict[str, int]:
    return {name: DeltaTable(str(lake / name)).version() for name in TABLES}


def test_a_new_lake_says_what_its_columns_hold_and_opening_it_again_commits_nothing(tmp_path):
    Lake(str(tmp_path / "lake"))
    assert_plain_and_described(tmp_path / "lake")
    Lake(str(tmp_path / "lake"))
    assert set(versions(tmp_path / "lake").values()) == {0}


@pytest.mark.slow
def test_they_stay_through_rewriting_checkpoints_merges_promotion_removal_vacuum_and_forgetting(tmp_path, monkeypatch):
    folder = tmp_path / "lake"
    monkeypatch.setattr("dicom_assets.lake.tables.CHECKPOINT_COMMITS", 3)
    lake = Lake(str(folder), take=values_of)
    for batch in range(4):
        publish(lake, some(batch))
    assert list((folder / "instance" / "_delta_log").glob("*.checkpoint.parquet"))
    monkeypatch.setattr(maintenance, "NEIGHBOURS", 2)
    assert maintenance.tidy(lake, "flat_metadata") > 0
    assert_plain_and_described(folder)

    for name in ("orientation", "again"):
        declare(lake, [promoted("PatientOrientation", name=name, level="series")])
        fill(lake)
    remove(lake, "again")
    publish(lake, some(20))
    more = {name: {"orientation": SAID} for name in ("flat_metadata", "instance", "series")}
    assert_plain_and_described(folder, more)

    for name in ("flat_metadata", "study"):
        DeltaTable(str(folder / name)).vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
        forget(lake, name)
    assert_plain_and_described(folder, more)


@pytest.fixture
def earlier(tmp_path, monkeypatch) -> Path:
    """A lake whose tables were made before they said what they hold, without some columns, with a promoted one."""
    older = {
        name: replace(table, columns=tuple(c for c in table.columns if c.name not in LATER), description="")
        for name, table in TABLES.items()
    }
    with monkeypatch.context() as patch:
        patch.setattr(table_form, "described", lambda columns: table_form.pa.schema([c.field for c in columns]))
        patch.setattr("dicom_assets.lake.tables.TABLES", older)
        lake = Lake(str(tmp_path / "lake"), take=values_of)
        declare(lake, [promoted("PatientOrientation", name="orientation", level="series")])
        fill(lake)
    assert set(comments(tmp_path / "lake" / "study").values()) == {None}
    return tmp_path / "lake"


def test_a_lake_made_before_gains_them_in_its_log_alone_when_it_is_opened(earlier):
    files = {path for path in earlier.rglob("*.parquet") if "_delta_log" not in str(path)}
    told = {(one.kind, one.name): one.count for one in plan(existing(str(earlier)))}
    lacking = {*LATER} & {column.name for column in TABLES["series"].columns}
    assert told["comments", "series"] == len(TABLES["series"].columns) + 1 - len(lacking)
    assert told["columns", "series"] == len(lacking)
    lake = Lake(str(earlier), take=values_of)
    more = {name: {"orientation": SAID} for name in ("flat_metadata", "instance", "series")}
    assert_plain_and_described(earlier, more)
    assert plan(lake) == []
    assert {path for path in earlier.rglob("*.parquet") if "_delta_log" not in str(path)} == files
    assert lake.is_mixed("series")  # its files lack what was added, and readers still know
    nullable = {field.name: field.nullable for field in DeltaTable(str(earlier / "series")).schema().fields}
    assert [name for name, may in nullable.items() if not may] == [
        column.name for column in TABLES["series"].columns if not column.nullable
    ]
    before = versions(earlier)
    publish(Lake(str(earlier), take=values_of), some(0))
    assert versions(earlier)["erasure"] == before["erasure"]


def test_what_somebody_else_wrote_there_is_set_right_and_a_reader_sets_nothing(tmp_path):
    folder = tmp_path / "lake"
    Lake(str(folder))
    table = DeltaTable(str(folder / "study"))
    table.alter.set_column_metadata("StudyDate", {"comment": "what a person thought"})
    table.alter.set_table_description("studies")
    Lake(str(folder), make=False)
    assert comments(folder / "study")["StudyDate"] == "what a person thought"
    Lake(str(folder))
    assert_plain_and_described(folder)


def test_what_a_newer_protocol_asks_for_is_seen(tmp_path):
    Lake(str(tmp_path / "lake"))
    shutil.copytree(tmp_path / "lake" / "study", tmp_path / "study")
    table = DeltaTable(str(tmp_path / "study"))
    table.alter.set_table_properties({"delta.enableDeletionVectors": "true"}, raise_if_not_exists=False)
    assert {"deletionVectors", "delta.enableDeletionVectors"} <= asked_of_readers(tmp_path / "study")
    assert metadata(tmp_path / "study")["name"] == "study"
