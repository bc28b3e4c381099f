"""Clinical tables: every value as it was written, every record accounted for."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dicom_assets.clinical import delimited
from dicom_assets.clinical.tabular import RECORDS, ClinicalChunk, ClinicalUnreadable, read_table
from dicom_assets.settings import ClinicalSettings, Settings
from dicom_assets.storage.byte_ranges import BytesSource

DEFAULTS = ClinicalSettings()


def chunks(data: bytes | str, **given_settings: Any) -> list[ClinicalChunk]:
    source = BytesSource(data.encode() if isinstance(data, str) else data)
    return list(read_table(source, ClinicalSettings(**given_settings)))


def records(data: bytes | str, **given_settings: Any) -> list[dict[str, Any]]:
    return [row for chunk in chunks(data, **given_settings) for row in chunk.records.to_pylist()]


def values(data: bytes | str, **given_settings: Any) -> list[dict[str, Any]]:
    return [json.loads(row["record_values"]) for row in records(data, **given_settings)]


def errors(data: bytes | str) -> list[int]:
    return [error.record for chunk in chunks(data) for error in chunk.errors]


def refusal(data: bytes | str, **given_settings: Any) -> str:
    with pytest.raises(ClinicalUnreadable) as failure:
        chunks(data, **given_settings)
    assert failure.value.code == "CLINICAL_UNREADABLE"
    return failure.value.detail


class TestValues:
    def test_nothing_is_interpreted(self) -> None:
        text = "PatientID,Date,Value,Flag,Note\n007,2020-01-02,1.50,NA, x \n"
        assert values(text) == [
            {"PatientID": "007", "Date": "2020-01-02", "Value": "1.50", "Flag": "NA", "Note": " x "}
        ]

    def test_an_empty_value_is_null(self) -> None:
        assert values('PatientID,a,b\n1,,""\n') == [{"PatientID": "1", "a": None, "b": None}]

    def test_records_have_the_schema_of_the_lake(self) -> None:
        (chunk,) = chunks("PatientID,a\n1,2\n")
        assert chunk.records.schema == RECORDS
        assert chunk.records["record_type"].to_pylist() == ["table"]

    def test_names_of_columns_are_made_distinct(self) -> None:
        assert values("PatientID,a,a,,a#2\n1,2,3,4,5\n") == [
            {"PatientID": "1", "a": "2", "a#2": "3", "column_4": "4", "a#2#2": "5"}
        ]

    def test_quoted_values_hold_delimiters_quotes_and_lines(self) -> None:
        assert values('PatientID,n\n1,"a,""b""\r\nc"\n')[0]["n"] == 'a,"b"\r\nc'


class TestPatients:
    def test_leading_zeros_stay_and_surrounding_space_goes(self) -> None:
        ids = [r["PatientID"] for r in records("PatientID,a\n 007 ,1\n0,1\n-1,1\n1e5,1\n\u00a08\t,1\n")]
        assert ids == ["007", "0", "-1", "1e5", "8"]

    def test_no_identifier_is_null_so_that_it_joins_nothing(self) -> None:
        assert [r["PatientID"] for r in records("PatientID,a\n,1\n   ,2\n")] == [None, None]

    @pytest.mark.parametrize(
        "name", ["PatientID", "patient_id", "Patient Id", "PATIENT-ID", "mrn", "person_source_value"]
    )
    def test_the_column_is_found_in_its_usual_spellings(self, name: str) -> None:
        assert records(f"x,{name}\n1,42\n")[0]["PatientID"] == "42"

    def test_the_first_name_that_is_set_wins(self) -> None:
        text = "MRN,PatientID,Fallnummer\n1,2,3\n"
        assert records(text)[0]["PatientID"] == "2"
        assert records(text, patient_id_columns=("Fallnummer", "MRN"))[0]["PatientID"] == "3"

    def test_without_the_column_the_file_is_refused_with_a_way_out_and_none_of_its_names(self) -> None:
        detail = refusal("Name,Born\nJane,1970\n")
        assert "No patient id column; looked for PatientID, patient_id, MRN" in detail
        assert "clinical.patient_id_columns" in detail
        assert "Born" not in detail

    def test_the_issuer_stands_in_the_file_or_in_the_settings(self) -> None:
        text = "PatientID,Issuer\n1, HOSP \n2,\n"
        assert [r["IssuerOfPatientID"] for r in records(text)] == ["HOSP", None]
        assert [r["IssuerOfPatientID"] for r in records(text, issuer="X")] == ["HOSP", "X"]
        assert [r["IssuerOfPatientID"] for r in records("PatientID,a\n1,2\n", issuer="X")] == ["X"]


class TestRecords:
    def test_are_counted_from_one_without_blank_lines(self) -> None:
        assert [r["record"] for r in records("\n\nPatientID,a\n1,2\n\n3,4\r\n\r\n5,6")] == [1, 2, 3]

    def test_too_many_or_too_few_fields_make_an_error_of_the_record_alone(self) -> None:
        text = "PatientID,a,b\n1,2,3\n1,2\n1,2,3,4\n1,2,3,,\n5,6,7\n"
        assert errors(text) == [2, 3]
        assert [r["record"] for r in records(text)] == [1, 4, 5]
        assert "Jane" not in chunks("PatientID,a\nJane\n")[0].errors[0].detail

    def test_a_quote_that_stands_wrong_spoils_its_own_record_only(self) -> None:
        text = 'PatientID,a\n1,2\n2,"x" y\n3,4\n4,"x\n5,"6"\n6,7\n'
        found = [(r["record"], r["PatientID"]) for r in records(text)]
        assert errors(text) == [2, 4]
        assert found == [(1, "1"), (3, "3"), (5, "5"), (6, "6")]

    def test_a_quote_inside_a_value_is_a_character(self) -> None:
        assert values('PatientID,a\n1,5" tube\n')[0]["a"] == '5" tube'

    def test_a_quote_that_never_closes_refuses_the_file(self) -> None:
        assert "line 3" in refusal('PatientID,a\n1,2\n3,"4\n5,6\n')
        assert "never closed" in refusal('a title\nPatientID,a\n1,2\n2,"x" y\n3,"4\n5,6\n')
        assert "line 5" in refusal('a title\nPatientID,a\n1,2\n2,"x" y\n3,"4\n5,6\n')

    def test_a_value_or_line_without_end_refuses_the_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "never closes" in refusal('PatientID,a\n1,2\n3,"' + "x\n" * 100_000 + '"\n')
        monkeypatch.setattr(delimited, "LONGEST_LINE", 200_000)
        assert "A line is longer" in refusal("PatientID,a\n1,2\n1," + "x" * 300_000)

    def test_chunks_are_bounded_and_in_order(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(delimited, "CHUNK_RECORDS", 7)
        text = "PatientID,a\n" + "".join(f"{i},{'x' if i % 5 else 'x,y'}\n" for i in range(1, 51))
        parts = chunks(text)
        assert [len(p.records) + len(p.errors) for p in parts] == [7] * 7 + [1]
        assert [r for p in parts for r in p.records["record"].to_pylist()] == [i for i in range(1, 51) if i % 5]
        monkeypatch.setattr(delimited, "CHUNK_CHARACTERS", 1)
        assert max(len(p.records) for p in chunks(text)) == 1


class TestEncodings:
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
    def test_are_told_from_the_bytes(self, encoding: str) -> None:
        text = "PatientID;Straße\n" + "01;Müllerstraße – 5 €\n" * 50
        assert values(text.encode(encoding))[0] == {"PatientID": "01", "Straße": "Müllerstraße – 5 €"}

    def test_a_byte_that_is_not_utf8_far_behind_the_beginning_spoils_its_own_record_only(self) -> None:
        data = b"PatientID,a\n" + "1,é\n".encode() * 50_000 + b"2,\xe9\x81\n3,x\n"
        assert errors(data) == [50_001]
        found = values(data)
        assert (len(found), found[0]["a"], found[-1]["a"]) == (50_001, "é", "x")

    def test_one_that_is_set_is_taken(self) -> None:
        data = "PatientID,a\n1,Łódź\n".encode("cp1250")
        assert values(data, encoding="cp1250")[0]["a"] == "Łódź"

    def test_text_that_is_not_in_its_encoding_refuses_the_file(self) -> None:
        data = ("PatientID,a\n" + "1,2\n" * 50_000).encode("utf-16") + b"\x00\xd8\x20\x00" * 3
        assert "not valid utf-16" in refusal(data)

    @pytest.mark.parametrize("name", ["no-such", "hex"])
    def test_one_that_does_not_exist_is_a_wrong_setting(self, name: str) -> None:
        with pytest.raises(ValueError, match="no codec"):
            Settings(clinical=ClinicalSettings(encoding=name))

    def test_no_table_at_all_refuses_the_file(self) -> None:
        assert "No header" in refusal("only prose here")


def test_storage_errors_pass_through() -> None:
    class Failing(BytesSource):
        def read(self, offset: int, length: int) -> bytes:
            if offset:
                raise OSError(5, "broken off")
            return super().read(offset, length)

    with pytest.raises(OSError, match="broken off"):
        list(read_table(Failing(b"PatientID,a\n" + b"1,2\n" * 200_000), DEFAULTS))


CELLS = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\ufeff\ufffe\uffff"), max_size=12
)
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"])


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 5).flatmap(lambda n: st.lists(st.lists(CELLS, min_size=n, max_size=n), min_size=1, max_size=15)),
    st.sampled_from(",;\t|"),
    ENCODINGS,
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_any_table_reads_back_as_it_was_written(
    rows: list[list[str]], delimiter: str, encoding: str, line: str, quoting: Any
) -> None:
    header = ["PatientID", *[f"column {chr(97 + i)}" for i in range(len(rows[0]))]]
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=line, quoting=quoting)
    writer.writerows([header, *[[f"{i:04}", *row] for i, row in enumerate(rows)]])
    found = records(text.getvalue().encode(encoding))
    assert [r["PatientID"] for r in found] == [f"{i:04}" for i in range(len(rows))]
    expected = [[f"{i:04}", *row] for i, row in enumerate(rows)]
    assert [json.loads(r["record_values"]) for r in found] == [
        {name: value or None for name, value in zip(header, row, strict=True)} for row in expected
    ]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text('1a",;\n\r \t|é\0', max_size=12), max_size=12),
    st.sampled_from([str.encode, lambda s: s.encode("latin-1")]),
)
def test_any_body_ends_in_records_and_errors_numbered_once_or_in_a_refusal(
    lines: list[str], encode: Callable[[str], bytes]
) -> None:
    data = encode("PatientID,a\n1,2\n" * 1 + "3,4\n" * 20 + "\n".join(lines))
    try:
        parts = chunks(data)
    except ClinicalUnreadable:
        assume(False)
    numbers = [n for p in parts for n in [*p.records["record"].to_pylist(), *[e.record for e in p.errors]]]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 21
