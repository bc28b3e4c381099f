"""Workbooks: sheets are tables, cells are texts, dates are dates; what is passed over is told."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from dicom_assets.clinical import workbook as module
from dicom_assets.clinical.chunks import ClinicalChunk, ClinicalUnreadable
from dicom_assets.clinical.records import read_records
from dicom_assets.settings import ClinicalSettings, DatasetSettings, FhirSettings
from dicom_assets.storage.byte_ranges import BytesSource
from dicom_assets_tests.support.workbooks import workbook

P = {"PatientID": "P1", "Dx": "a"}
Q = {"PatientID": "P2", "Dx": "b"}
TABLE = [["PatientID", "Dx"], ["P1", "a"], ["P2", "b"]]


def chunks(data: bytes, dataset: DatasetSettings | None = None, **given: Any) -> list[ClinicalChunk]:
    return list(read_records(BytesSource(data), ClinicalSettings(**given), FhirSettings(), dataset))


def values(data: bytes, **given: Any) -> list[dict[str, Any]]:
    return [json.loads(text) for part in chunks(data, **given) for text in part.records["record_values"].to_pylist()]


def refusal(data: bytes) -> str:
    with pytest.raises(ClinicalUnreadable) as failure:
        chunks(data)
    assert failure.value.code == "CLINICAL_UNREADABLE"
    return failure.value.detail


def test_cells_are_texts_and_dates_are_in_iso_form() -> None:
    row = ["007", 12, 5.25, True, dt.date(2024, 3, 5), dt.datetime(2024, 3, 5, 14, 30), None, "  x "]
    assert values(workbook([["PatientID", "n", "value", "flag", "day", "at", "none", "text"], row])) == [
        {
            "PatientID": "007", "n": "12", "value": "5.25", "flag": "true", "day": "2024-03-05",
            "at": "2024-03-05T14:30:00", "none": None, "text": "  x ",
        }
    ]  # fmt: skip


def test_an_identifier_that_is_a_number_has_no_point() -> None:
    (chunk, *_) = chunks(workbook([["PatientID"], [7], [12345678.0], ["8"]]))
    assert chunk.records["PatientID"].to_pylist() == ["7", "12345678", "8"]


@pytest.mark.parametrize(
    "rows",
    [
        [["Laboratory export"], [], *TABLE],
        [*TABLE[:1], ["---------", "--"], *TABLE[1:]],
        [TABLE[0], TABLE[1], TABLE[0], TABLE[2]],
        [TABLE[0], TABLE[1], [], [None, None], TABLE[2], ["(2 rows affected)"]],
        [["PatientID", "Dx"], ['="P1"', "a"], ["P2", "b"]],
        [[None, None], *TABLE],
    ],
)
def test_what_stands_around_records_is_none(rows: list[list[Any]]) -> None:
    assert values(workbook(rows)) == [P, Q]


def test_every_sheet_with_the_column_is_a_table_hidden_ones_too() -> None:
    data = workbook(TABLE, [["Dx", "MRN"], ["c", "P3"]], hidden=2)
    assert values(data) == [P, Q, {"Dx": "c", "MRN": "P3"}]
    assert [n for part in chunks(data) for n in part.records["record"].to_pylist()] == [1, 2, 3]


def test_a_sheet_without_it_is_passed_over_and_told_of() -> None:
    data = workbook([["Legend", "x"], ["a", "appendicitis"]], TABLE, [])
    assert values(data) == [P, Q]
    assert [one for part in chunks(data) for one in part.warnings] == [
        ("SHEETS_PASSED_OVER", "1 of its 2 sheets name no patient id column.")
    ]
    assert [part.warnings for part in chunks(workbook(TABLE))] == [()]


def test_a_workbook_without_the_column_is_refused_with_a_way_out() -> None:
    detail = refusal(workbook([["Name", "Born"], ["Jane", 1970]]))
    assert "clinical.patient_id_columns" in detail
    assert "Jane" not in detail


def test_a_workbook_of_nothing_has_no_record() -> None:
    assert values(workbook([])) == values(workbook([["PatientID", "Dx"]])) == []


def test_a_dataset_reads_its_columns_and_typed_dates() -> None:
    labs = DatasetSettings(
        name="labs", files=("*",), patient_id_column="Pat No", date_column="Taken", key_columns=("lab",)
    )
    rows = [["lab", "Pat No", "Taken"], [1, "P1", dt.date(2024, 4, 3)], [2, "P2", "3 Apr 2024"], [None, "P3", "x"]]
    (chunk,) = chunks(workbook(rows), labs)
    day = dt.datetime(2024, 4, 3, tzinfo=dt.UTC)
    assert chunk.records["effective_at"].to_pylist() == [day, day]
    assert chunk.records["natural_key"].to_pylist() == ['["labs","1"]', '["labs","2"]']
    assert [error.record for error in chunk.errors] == [3]


def test_what_is_damaged_or_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = workbook(TABLE)
    assert "damaged" in refusal(data[:-30])
    assert "damaged" in refusal(data.replace(b"PK\x01\x02", b"PK\x01\x03"))
    monkeypatch.setattr(module, "MOST_BYTES", 100)
    assert "more than 100 bytes" in refusal(data)


def test_frames_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_RECORDS", 2)
    data = workbook([["PatientID", "n"], *[[f"P{n}", n] for n in range(5)]])
    assert [part.records["record"].to_pylist() for part in chunks(data)] == [[1, 2], [3, 4], [5]]


def test_storage_errors_pass_through() -> None:
    class Failing(BytesSource):
        def read(self, offset: int, length: int) -> bytes:
            if length < 65_536:
                raise OSError(5, "broken off")
            return super().read(offset, 65_536)

    with pytest.raises(OSError, match="broken off"):
        list(module.workbook_frames(Failing(workbook(TABLE)), ("PatientID",)))
