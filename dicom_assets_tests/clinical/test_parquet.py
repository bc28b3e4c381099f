"""Clinical tables in Parquet: every value as text."""

from __future__ import annotations

import datetime as dt
import io
import json
from decimal import Decimal
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dicom_assets.clinical import parquet
from dicom_assets.clinical.tabular import ClinicalUnreadable, read_table
from dicom_assets.settings import ClinicalSettings
from dicom_assets.storage.byte_ranges import BytesSource


def written(table: pa.Table, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def records(data: bytes) -> list[dict[str, Any]]:
    parts = read_table(BytesSource(data), ClinicalSettings())
    return [row for part in parts for row in part.records.to_pylist()]


def first(**columns: Any) -> dict[str, Any]:
    row = records(written(pa.table({"PatientID": ["1"]} | columns)))[0]
    values: dict[str, Any] = json.loads(row["record_values"])
    return values


@pytest.mark.parametrize(
    ("ids", "texts"),
    [
        (["007", " 8 ", None, ""], ["007", "8", None, None]),
        ([7, 8, None, -1], ["7", "8", None, "-1"]),
        ([7.0, float("nan"), 2.5, 12345678901234.0], ["7", None, "2.5", "12345678901234"]),
        ([Decimal("7"), None], ["7", None]),
    ],
)
def test_identifiers_are_text_and_have_no_point_zero(ids: list[Any], texts: list[str | None]) -> None:
    assert [r["PatientID"] for r in records(written(pa.table({"PatientID": ids})))] == texts


def test_identifiers_that_pandas_made_floating_for_one_missing_are_whole_again() -> None:
    buffer = io.BytesIO()
    pd.DataFrame({"PatientID": [1, None, 3], "v": [1, 2, 3]}).to_parquet(buffer)
    assert [r["PatientID"] for r in records(buffer.getvalue())] == ["1", None, "3"]


def test_values_of_every_type_are_text() -> None:
    found = first(
        whole=pa.array([5], pa.int8()),
        part=[2.5],
        small=pa.array([0.5], pa.float32()),
        yes=[True],
        day=[dt.date(2020, 1, 2)],
        moment=pa.array([dt.datetime(2020, 1, 2, 3, 4, 5)], pa.timestamp("s")),
        clock=pa.array([dt.time(3, 4, 5)], pa.time32("s")),
        exact=[Decimal("1.50")],
        category=pa.array(["x"]).dictionary_encode(),
        nothing=pa.nulls(1),
        empty=[""],
        raw=[b"abc"],
        bytes=[b"\xff\x00"],
        many=[[1, 2]],
        struct=[{"a": dt.date(2020, 1, 2), "b": None}],
        span=[dt.timedelta(seconds=5)],
    )
    assert found == {
        "PatientID": "1",
        "whole": "5",
        "part": "2.5",
        "small": "0.5",
        "yes": "true",
        "day": "2020-01-02",
        "moment": "2020-01-02 03:04:05.000",
        "clock": "03:04:05.000",
        "exact": "1.50",
        "category": "x",
        "nothing": None,
        "empty": None,
        "raw": "abc",
        "bytes": "ff00",
        "many": "[1,2]",
        "struct": '{"a":"2020-01-02","b":null}',
        "span": '"0:00:05"',
    }


def test_row_groups_are_read_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "CHUNK_RECORDS", 40)
    data = written(pa.table({"PatientID": [str(i) for i in range(100)]}), row_group_size=30)
    parts = list(read_table(BytesSource(data), ClinicalSettings()))
    assert max(len(p.records) for p in parts) <= 40
    assert [r for p in parts for r in p.records["record"].to_pylist()] == list(range(1, 101))


def test_a_table_without_the_patient_column_is_refused() -> None:
    with pytest.raises(ClinicalUnreadable, match="No patient id column"):
        records(written(pa.table({"Name": ["Jane"]})))


@pytest.mark.parametrize("cut", [slice(0, -1), slice(0, 100), slice(0, 4)])
def test_a_broken_file_is_refused(cut: slice) -> None:
    with pytest.raises(ClinicalUnreadable, match="Parquet") as failure:
        records(written(pa.table({"PatientID": ["JANE"] * 100}))[cut])
    assert "JANE" not in str(failure.value)


def test_a_file_broken_in_the_middle_is_refused() -> None:
    data = bytearray(written(pa.table({"PatientID": [f"{i}" for i in range(5_000)]})))
    data[20:2_000] = b"\xff" * 1_980
    with pytest.raises(ClinicalUnreadable, match="Parquet"):
        records(bytes(data))


def test_a_storage_that_fails_is_not_taken_for_a_broken_file() -> None:
    class Failing(BytesSource):
        def read(self, offset: int, length: int) -> bytes:
            if length > 4:
                raise OSError(5, "broken off")
            return super().read(offset, length)

    with pytest.raises(OSError, match="broken off"):
        list(read_table(Failing(written(pa.table({"PatientID": ["1"]}))), ClinicalSettings()))
