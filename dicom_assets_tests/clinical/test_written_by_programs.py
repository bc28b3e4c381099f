"""Tables as programs write them: separators, titles, lines of dashes, headers once more, quotes, ends of file."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dicom_assets.clinical.tabular import ClinicalUnreadable, read_table
from dicom_assets.settings import ClinicalSettings
from dicom_assets.storage.byte_ranges import BytesSource

P = {"PatientID": "P1", "Dx": "a"}
Q = {"PatientID": "P2", "Dx": "b"}


def read(data: str | bytes, **given: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """Values of the records, and what is wrong with the others."""
    source = BytesSource(data.encode() if isinstance(data, str) else data)
    parts = list(read_table(source, ClinicalSettings(**given)))
    return (
        [json.loads(text) for part in parts for text in part.records["record_values"].to_pylist()],
        [error.detail for part in parts for error in part.errors],
    )


def refusal(data: str | bytes) -> str:
    with pytest.raises(ClinicalUnreadable) as failure:
        read(data)
    return failure.value.detail


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\r\nPatientID;Dx\r\nP1;a\r\nP2;b\r\n",
        "\ufeffsep=;\r\nPatientID;Dx\r\nP1;a\r\nP2;b\r\n",
        "SEP=,\nPatientID,Dx\nP1,a\nP2,b\n",
        '"sep=;"\nPatientID;Dx\nP1;a\nP2;b\n',
        "sep=\t\nPatientID\tDx\nP1\ta\nP2\tb\n",
        "sep=^\nPatientID^Dx\nP1^a\nP2^b\n",
        "sep=;;\nPatientID;Dx\nP1;a\nP2;b\n",
    ],
)
def test_a_separator_above_the_header_is_taken(text: str) -> None:
    assert read(text) == ([P, Q], [])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_a_separator_in_any_unicode_encoding(encoding: str) -> None:
    assert read("sep=;\r\nPatientID;Dx\r\nP1;a\r\nP2;b\r\n".encode(encoding)) == ([P, Q], [])


@pytest.mark.parametrize(
    "title",
    [
        "Laboratory export\r\n",
        "Export of the laboratory, 5 March 2024, by Dr. No\r\n\r\n",
        "Report;Laboratory\nFrom;2024-01-01\nTo;2024-12-31\n\n",
        '"A title, with commas"\n',
        "# made by a program\n# second line\n",
        "Laboratory,,,\n,,,\n",
    ],
)
def test_titles_above_the_header_are_skipped(title: str) -> None:
    assert read(title + "PatientID,Dx\r\nP1,a\r\nP2,b\r\n") == ([P, Q], [])


def test_a_title_far_above_is_one_too_but_not_for_ever() -> None:
    table = "PatientID,Dx\nP1,a\nP2,b\n"
    assert read("a title\n" * 30 + table) == ([P, Q], [])
    assert "No header" in refusal("a title\n" * 31 + table)


@pytest.mark.parametrize(
    "text",
    [
        "PatientID,Dx\n---------,--\nP1,a\nP2,b\n",
        "PatientID,Dx\n-,-\nP1,a\nP2,b\n",
        "PatientID|Dx\n---------+---\nP1|a\nP2|b\n(2 rows)\n",
        "PatientID,Dx\n=========,==\nP1,a\nP2,b\n\n(2 rows affected)\n",
        "PatientID,Dx\nP1,a\n-----,-----\nPatientID,Dx\n-----,-----\nP2,b\n",
        "PatientID;Dx\nP1;a\nP2;b\n(2 Zeilen betroffen)\n",
    ],
)
def test_lines_of_dashes_and_numbers_of_rows_are_no_records(text: str) -> None:
    assert read(text) == ([P, Q], [])


def test_a_dash_among_values_is_one() -> None:
    assert read("PatientID,Dx,n\nP1,a,-\n,-,--\n")[0][1] == {"PatientID": None, "Dx": "-", "n": "--"}


@pytest.mark.parametrize(
    "text",
    [
        "PatientID,Dx\nP1,a\nPatientID,Dx\nP2,b\n",
        "\ufeffPatientID,Dx\nP1,a\n\ufeffPatientID,Dx\nP2,b\n",
        'PatientID,Dx\nP1,a\n"PatientID","Dx"\nP2,b\n',
    ],
)
def test_the_header_once_more_is_no_record(text: str) -> None:
    assert read(text) == ([P, Q], [])


@pytest.mark.parametrize("end", ["\x1a", "\r\n\x1a", "\r\n\x1a\x1a\x1a", "\r\n" + "\0" * 100, "\r\n"])
def test_the_end_of_a_file_is_no_record(end: str) -> None:
    assert read("PatientID,Dx\r\nP1,a\r\nP2,b" + end) == ([P, Q], [])


@pytest.mark.parametrize(
    "text",
    [
        "PatientID,Dx,\r\nP1,a\r\nP2,b\r\n",
        "PatientID,Dx\r\nP1,a,\r\nP2,b,\r\n",
        "PatientID,Dx,\r\nP1,a,\r\nP2,b\r\n",
        "PatientID,Dx,,\r\nP1,a\r\nP2,b,,,,\r\n",
    ],
)
def test_a_delimiter_too_many_costs_nothing(text: str) -> None:
    found, wrong = read(text)
    assert wrong == []
    assert [{name: row[name] for name in P} for row in found] == [P, Q]


def test_a_value_behind_the_named_columns_is_kept() -> None:
    assert read("PatientID,Dx,\nP1,a,more\n") == ([{**P, "column_3": "more"}], [])


@pytest.mark.parametrize(
    "text",
    [
        'PatientID,Dx\n="P1",="a"\n="P2",b\n',
        'PatientID,Dx\n"=""P1""",a\n"=""P2""","=""b"""\n',
        '="PatientID";="Dx"\n="P1";="a"\nP2;b\n',
    ],
)
def test_texts_of_excel_are_the_texts(text: str) -> None:
    assert read(text) == ([P, Q], [])


def test_a_formula_that_is_no_text_stays_as_it_was_written() -> None:
    assert read('PatientID,Dx\nP1,=A1+"x"\n')[0] == [{"PatientID": "P1", "Dx": '=A1+"x"'}]
    assert read('PatientID,Dx\nP1,="say ""a"""\n')[0] == [{"PatientID": "P1", "Dx": 'say "a"'}]


@pytest.mark.parametrize(
    "text",
    [
        'PatientID, "Dx"\nP1, "a"\nP2, "b"\n',
        "'PatientID','Dx'\n'P1','a'\n'P2','b'\n",
        '"PatientID,Dx"\n"P1,a"\n"P2,b"\n',
        'PatientID,"Dx"\n"P1",a\nP2,"b"\n',
    ],
)
def test_quotes_in_odd_places(text: str) -> None:
    found, wrong = read(text)
    assert [{name.strip(' "'): value for name, value in row.items()} for row in found] == [P, Q]
    assert wrong == []


def test_a_space_before_a_quote_that_holds_a_delimiter() -> None:
    assert read('PatientID, "Dx"\nP1, "a, or b"\nP2, "c, d"\n')[0][0] == {"PatientID": "P1", "Dx": "a, or b"}


def test_a_list_of_patients_is_a_table_of_one_column() -> None:
    assert read("PatientID\nP1\nP2\n")[0] == [{"PatientID": "P1"}, {"PatientID": "P2"}]
    assert read("sep=;\nPatientID\nP1\n")[0] == [{"PatientID": "P1"}]


def test_nul_around_a_value_is_none_of_it_and_within_one_an_error() -> None:
    found, wrong = read("PatientID,Dx\nP1\0\0,a\0\nP2,b\0c\n")
    assert (found, wrong) == ([P], ["It holds a NUL within a value."])
