"""Whatever nullable column a later release adds: files before it have NULL there, for every reader of ours."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from dicom_assets.lake import maintenance, summaries
from dicom_assets.lake import tables as tables_module
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.form import OtherFormat
from dicom_assets.lake.query import arrow, connect, existing
from dicom_assets.lake.rewrite import get_file
from dicom_assets.schema.registry import TABLES
from dicom_assets.schema.table import Column, Table
from dicom_assets_tests.support.versions import Version, batch_name, flat_rows, publish

LATER = {
    "flat_metadata": ("SeriesDescription", "issues", "SliceThickness"),
    "instance": ("SeriesDescription", "issues", "size"),
    "series": ("SeriesDescription", "SeriesNumber"),
    "study": ("StudyDescription", "ModalitiesInStudy"),
}
"""Columns that an earlier release is made not to have."""


def earlier(table: Table) -> Table:
    return replace(table, columns=tuple(c for c in table.columns if c.name not in LATER.get(table.name, ())))


def version(batch: int, number: int) -> Version:
    return Version(1 + number % 3, 1, number, 0, 0, False, "said", "P1", 10 * batch + number, batch)


@pytest.fixture
def lake(tmp_path, monkeypatch) -> Lake:
    """Three batches of an earlier release, opened by this one."""
    old = {name: earlier(table) for name, table in TABLES.items()}
    with monkeypatch.context() as patch:
        patch.setattr(tables_module, "TABLES", old)
        before = Lake(str(tmp_path / "lake"))
        for batch in range(3):
            rows = flat_rows([version(batch, number) for number in range(3)])
            before.replace("flat_metadata", [batch_name(batch)], rows.select(old["flat_metadata"].schema.names))
        for name in ("instance", "series", "study"):
            table = old[name]
            made = pa.Table.from_pylist([filled(table, number) for number in range(4)], schema=table.schema)
            before.replace(name, made["study_key"].to_pylist(), made)
    assert DeltaTable(str(tmp_path / "lake" / "study")).version() == 1
    return Lake(str(tmp_path / "lake"))


def filled(table: Table, number: int) -> dict[str, object]:
    """A row with what must not be NULL."""
    values: dict[str, object] = {"string": f"{number:016x}", "int64": number, "timestamp[us, tz=UTC]": 1_700_000_000}
    return {c.name: values[str(c.type)] for c in table.columns if not c.nullable}


def column(lake: Lake, table: str, name: str) -> list[object]:
    with connect(lake, [table]) as connection:
        return list(arrow(connection, f'SELECT "{name}" FROM {table}')[name].to_pylist())


def test_they_are_null_in_sql_and_in_rows_of_files(lake):
    for table, names in LATER.items():
        for name in names:
            assert set(map(str, column(lake, table, name))) == {"None"}
        path = str(lake.extents(table).paths[0])
        rows = get_file(lake, lake.tables[table], path)
        assert rows.schema.equals(TABLES[table].schema)
        assert all(rows[name].null_count == len(rows) for name in names)


def test_new_rows_have_them_beside_old_ones_in_every_way_of_writing(lake):
    lake.replace("flat_metadata", [batch_name(1)], flat_rows([version(1, 7)]))
    assert sorted(map(str, column(lake, "flat_metadata", "SeriesDescription"))) == ["None"] * 6 + ["said"]
    assert maintenance.neighbours(lake.extents("flat_metadata")) == []
    publish(lake, [version(4, number) for number in range(3)])
    assert column(lake, "series", "SeriesDescription").count("said") == 3
    assert len(column(lake, "series", "SeriesDescription")) == 7
    one = TABLES["study"].schema.empty_table()
    lake.replace("study", [f"{0:016x}"], one)
    assert len(column(lake, "study", "StudyDescription")) == 6


def test_files_with_and_without_them_are_merged(lake, monkeypatch):
    publish(lake, [version(4, number) for number in range(3)])
    monkeypatch.setattr(maintenance, "NEIGHBOURS", 2)
    assert maintenance.tidy(lake, "flat_metadata") == 1
    assert len(lake.extents("flat_metadata")) == 1
    assert column(lake, "flat_metadata", "SeriesDescription").count("said") == 3


def test_what_is_counted_over_a_table_counts_all_its_files(lake):
    publish(lake, [version(4, 1)])
    measure = "[{measure: 'd', value: SeriesDescription, mapped: true}]"
    counted = summaries.counts(lake, "series", measure).to_pylist()
    assert {(row["value"], row["rows"]) for row in counted} == {(None, 4), ("said", 1)}


def test_a_reader_that_does_not_write_sees_them_before_they_are_added(tmp_path, monkeypatch):
    old = {name: earlier(table) for name, table in TABLES.items()}
    with monkeypatch.context() as patch:
        patch.setattr(tables_module, "TABLES", old)
        before = Lake(str(tmp_path / "lake"))
        rows = flat_rows([version(0, 1)])
        before.replace("flat_metadata", [batch_name(0)], rows.select(old["flat_metadata"].schema.names))
    seen = existing(str(tmp_path / "lake"))
    assert column(seen, "flat_metadata", "SliceThickness") == [None]
    assert "SliceThickness" not in seen.schema("flat_metadata").names


def test_a_table_with_columns_of_a_later_release_is_refused_and_nothing_is_added(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        more = Column("of_tomorrow", pa.string(), "What nobody knows yet")
        later = {**TABLES, "study": replace(TABLES["study"], columns=(*TABLES["study"].columns, more))}
        patch.setattr(tables_module, "TABLES", later)
        Lake(str(tmp_path / "lake"))
    before = {one for one in (tmp_path / "lake").rglob("*") if one.is_file()}
    with pytest.raises(OtherFormat, match=r"Table study has 1 columns that .* does not know \(of_tomorrow\)"):
        Lake(str(tmp_path / "lake"))
    assert {one for one in (tmp_path / "lake").rglob("*") if one.is_file()} == before
    assert not list(chain((tmp_path / "lake").rglob("_tmp")))
