"""Dates as hospitals write them: read where they are certain, asked about or refused where they are not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_assets.clinical.dates import DateUnreadable, OrderUnknown, is_missing, moment_of
from dicom_assets.clinical.tabular import ClinicalUnreadable, read_table
from dicom_assets.settings import ClinicalSettings, DatasetSettings
from dicom_assets.storage.byte_ranges import BytesSource

DAY = datetime(2024, 3, 5, tzinfo=UTC)
AFTERNOON = datetime(2024, 3, 25, 14, 30, tzinfo=UTC)


def labs(**given_settings: Any) -> DatasetSettings:
    return DatasetSettings(
        name="labs", files=("*",), patient_id_column="PatientID", date_column="Taken", **given_settings
    )


def read(text: str, **given_settings: Any) -> tuple[list[datetime | None], list[str]]:
    parts = list(read_table(BytesSource(text.encode()), ClinicalSettings(), labs(**given_settings)))
    return (
        [at for part in parts for at in part.records["effective_at"].to_pylist()],
        [error.detail for part in parts for error in part.errors],
    )


@pytest.mark.parametrize(
    "text",
    [
        *("2024-03-05", "20240305", "2024/03/05", "2024.3.5", "2024-3-5"),
        *("5 Mar 2024", "05-MAR-2024", "5. März 2024", "5 mars 2024", "5 de marzo de 2024", "05.Mar.2024"),
        *("March 5, 2024", "Mar 5 2024", "5th March 2024", " 2024-03-05 "),
    ],
)
def test_a_day_that_can_be_read_in_one_way_is_read(text: str) -> None:
    assert moment_of(text) == DAY


@pytest.mark.parametrize(
    "text",
    [
        *("2024-03-25 14:30", "2024-03-25T14:30:00Z", "2024-03-25T15:30:00+01:00", "2024-03-25 14:30:00.000"),
        *("20240325143000", "20240325T1430", "202403251530+0100", "25.03.2024 14:30", "25/03/2024 02:30 PM"),
        *("3/25/2024 2:30:00 pm", "25.03.2024, 14:30 Uhr", "25-Mar-2024 14:30", "03/25/2024 14:30:00"),
    ],
)
def test_a_time_is_read_with_its_day(text: str) -> None:
    assert moment_of(text) == AFTERNOON


@pytest.mark.parametrize("text", ["03/04/2024", "3.4.2024", "03-04-2024 10:00", "12/11/2024"])
def test_an_order_of_day_and_month_is_never_guessed(text: str) -> None:
    with pytest.raises(OrderUnknown):
        moment_of(text)


def test_the_order_is_the_one_that_is_given() -> None:
    assert moment_of("03/04/2024", "day-first") == datetime(2024, 4, 3, tzinfo=UTC)
    assert moment_of("03/04/2024", "month-first") == datetime(2024, 3, 4, tzinfo=UTC)
    assert moment_of("05.05.2024") == datetime(2024, 5, 5, tzinfo=UTC)
    with pytest.raises(DateUnreadable):
        moment_of("03/25/2024", "day-first")


def test_a_time_without_an_offset_is_in_the_zone_that_is_given() -> None:
    assert moment_of("25.07.2024 14:30", zone="Europe/Berlin") == datetime(2024, 7, 25, 12, 30, tzinfo=UTC)
    assert moment_of("2024-07-25T14:30Z", zone="Europe/Berlin") == datetime(2024, 7, 25, 14, 30, tzinfo=UTC)
    assert moment_of("2024-07-25", zone="Europe/Berlin") == datetime(2024, 7, 25, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        *("25.03.24", "05-MAR-24", "2024", "2024-03", "45356", "unknown", "31.02.2024", "2024-13-01", "32/01/2024"),
        *("00/00/0000", "2024-03-05 25:00", "13:30 PM", "5 Foo 2024", "2024-03/05", "20240230", "2024-03-05 1:30 XM"),
    ],
)
def test_what_is_no_date_or_not_certain_is_not_read(text: str) -> None:
    with pytest.raises(DateUnreadable):
        moment_of(text)


@given(st.text(max_size=30))
def test_any_text_is_a_point_in_time_or_refused(text: str) -> None:
    try:
        assert moment_of(text, "day-first").tzinfo is UTC
    except DateUnreadable as error:
        assert not text.strip() or text not in str(error) or len(text) < 3


@given(st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)).map(lambda at: at.replace(second=0, microsecond=0)))
def test_a_time_reads_back_in_every_form(at: datetime) -> None:
    expected = at.replace(tzinfo=UTC)
    assert moment_of(at.isoformat()) == moment_of(f"{at:%Y%m%d%H%M%S}") == expected
    assert moment_of(f"{at:%d/%m/%Y %H:%M}", "day-first") == moment_of(f"{at:%m/%d/%Y %I:%M %p}", "month-first")
    assert moment_of(f"{at:%d-%b-%Y %H:%M}") == expected


def test_nothing_written_is_no_date_and_no_error() -> None:
    assert all(map(is_missing, (None, "", "  ", "NULL", "\\N")))
    assert read("PatientID,Taken\n1,\n2,NULL\n3,2024-03-05\n") == ([None, None, DAY], [])


def test_a_record_whose_date_cannot_be_read_is_an_error_that_says_why_and_not_what() -> None:
    found, wrong = read("PatientID,Taken\n1,2024-03-05\n2,some day\n3,31.02.2024\n")
    assert found == [DAY]
    assert wrong == [
        "Its Taken is no date: it is written in no form that is read.",
        "Its Taken is no date: there is no such day or time.",
    ]


def test_a_column_of_uncertain_order_refuses_the_file_and_names_the_setting() -> None:
    text = "PatientID,Taken\n1,25/03/2024\n2,03/04/2024\n"
    with pytest.raises(ClinicalUnreadable, match="date_order"):
        read(text)
    assert read(text, date_order="day-first")[0] == [
        datetime(2024, 3, 25, tzinfo=UTC),
        datetime(2024, 4, 3, tzinfo=UTC),
    ]
    assert read("PatientID,Taken\n1,25/03/2024\n")[0] == [datetime(2024, 3, 25, tzinfo=UTC)]


def test_a_column_that_is_configured_has_to_be_there() -> None:
    with pytest.raises(ClinicalUnreadable, match="lacks the column Taken"):
        read("PatientID,Dx\n1,a\n")
    with pytest.raises(ClinicalUnreadable, match="lacks the column Issuer"):
        read("PatientID,Taken\n1,2024-03-05\n", issuer_column="Issuer")


@pytest.mark.parametrize(
    "wrong", [{"date_order": "year-first"}, {"time_zone": "Berlin"}, {"decimal": ";"}, {"encoding": "no-such"}]
)
def test_settings_that_do_not_exist_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        labs(**wrong)
