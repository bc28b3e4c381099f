"""Dates as hospitals write them, as points in time.

Belongs here: the forms that are read, and what makes one of them uncertain. Does not belong here: which column is a
date (`tabular`), FHIR's own types (`dicom_assets.fhir.conversions`).

Read are ISO 8601 (also without signs, as in DICOM and HL7), year, month and day with any of `/ . -` between them, day
and month in either order with the year last, and months by name. A month by name or a part above twelve says which is
which; otherwise the order has to be given: it is never guessed. Neither is a century: a year has four digits. A date
alone is its beginning in UTC, as everywhere in the lake; a time without an offset is taken in the time zone that is
given, without one in UTC.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Literal
from zoneinfo import ZoneInfo

DateOrder = Literal["day-first", "month-first"]

_TIME = r"(?:[T ,]+(?P<hour>\d{1,2})[:.h](?P<minute>\d\d)(?:[:.](?P<second>\d\d)(?:[.,](?P<fraction>\d{1,9}))?)?"
_TIME += r"\s*(?P<half>[AaPp]\.?[Mm]\.?)?(?:\s*(?:Uhr|h))?\s*(?P<zone>Z|UTC|[+-]\d\d:?\d\d)?)?"
_FORMS = tuple(
    re.compile(pattern + _TIME)
    for pattern in (
        r"(?P<year>\d{4})(?P<sign>[-/.])(?P<month>\d{1,2})(?P=sign)(?P<day>\d{1,2})",
        r"(?P<first>\d{1,2})(?P<sign>[-/.])(?P<second_part>\d{1,2})(?P=sign)(?P<year>\d{4})",
        r"(?P<day>\d{1,2})(?:st|nd|rd|th|er|º|\.)?[-/ .]*(?:de\s+)?(?P<name>[^\W\d_]{3,}\.?)[-/ ,.]*(?:de\s+)?"
        r"(?P<year>\d{4})",
        r"(?P<name>[^\W\d_]{3,}\.?)[- ]*(?P<day>\d{1,2})(?:st|nd|rd|th)?,?[- ]+(?P<year>\d{4})",
    )
)
_PACKED = re.compile(
    r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)"
    r"(?:T?(?P<hour>\d\d)(?P<minute>\d\d)(?:(?P<second>\d\d)(?:\.(?P<fraction>\d{1,9}))?)?(?P<zone>Z|[+-]\d\d:?\d\d)?)?"
)
_NAMES = (
    "jan ene gen janv janvier januar january janeiro enero gennaio januari jänner",
    "feb fev fév févr février februar february fevereiro febrero febbraio februari",
    "mar mär mrz mrt mars märz march março marzo maart",
    "apr abr avr avril april abril aprile",
    "may mai mei mag maj maio mayo maggio",
    "jun juin juni june junho junio giu giugno",
    "jul juil juillet juli july julho julio lug luglio",
    "aug ago aoû août aout august agosto augustus augusti",
    "sep sept set septembre september setembro septiembre settembre",
    "oct okt out ott octobre october oktober outubro octubre ottobre",
    "nov novembre november novembro noviembre",
    "dec dez dic déc décembre december dezember dezembro diciembre dicembre",
)
_MONTHS = {name: number for number, names in enumerate(_NAMES, start=1) for name in names.split()}
_NULLS = frozenset(("", "NULL", "null", "\\N"))
"""What is written where there is no value, by databases too."""


class DateUnreadable(ValueError):
    """A text names no point in time. The message says why, without the text."""


class OrderUnknown(DateUnreadable):
    """Which number is the day and which the month is not certain, and not given."""


def is_missing(text: str | None) -> bool:
    """Whether no date is written."""
    return text is None or text.strip() in _NULLS


def moment_of(text: str, order: DateOrder | None = None, zone: str | None = None) -> datetime:
    """The point in time that a text names, in UTC. zone: a name of the IANA database, such as Europe/Berlin.

    Raises DateUnreadable; OrderUnknown where `order` decides and is not given.
    """
    text = " ".join(text.split())
    found = _PACKED.fullmatch(text) or next((match for form in _FORMS if (match := form.fullmatch(text))), None)
    if found is None:
        raise DateUnreadable("it is written in no form that is read")
    parts = found.groupdict()
    month, day = _month_and_day(parts, order)
    try:
        at = datetime(int(parts["year"]), month, day)
        if parts["hour"] is None:
            return at.replace(tzinfo=UTC)
        return (at + _clock(parts)).replace(tzinfo=_zone(parts["zone"], zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise DateUnreadable("there is no such day or time") from None


def _month_and_day(parts: dict[str, str | None], order: DateOrder | None) -> tuple[int, int]:
    name = parts.get("name")
    if name:
        month = _MONTHS.get(name.casefold().rstrip("."))
        if month is None:
            raise DateUnreadable("its month has no name that is known")
        return month, int(parts["day"] or 0)
    if parts.get("first") is None:
        return int(parts["month"] or 0), int(parts["day"] or 0)
    first, second = int(parts["first"] or 0), int(parts["second_part"] or 0)
    if order is None and first != second and first <= 12 and second <= 12:
        raise OrderUnknown("which number is the day and which the month is not told")
    if order == "month-first" or (order is None and second > 12):
        return first, second
    return second, first


def _clock(parts: dict[str, str | None]) -> timedelta:
    hour, minute, second = int(parts["hour"] or 0), int(parts["minute"] or 0), int(parts["second"] or 0)
    half = parts.get("half")
    if half:
        if not 1 <= hour <= 12:
            raise ValueError("an hour of half a day")
        hour = hour % 12 + (12 if half[0] in "pP" else 0)
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError("no time of a day")
    fraction = int((parts["fraction"] or "0")[:6].ljust(6, "0"))
    return timedelta(hours=hour, minutes=minute, seconds=second, microseconds=fraction)


def _zone(written: str | None, given: str | None) -> tzinfo:
    if written is None:
        return ZoneInfo(given) if given else UTC
    if written in ("Z", "UTC"):
        return UTC
    minutes = int(written[1:3]) * 60 + int(written[-2:])
    return timezone(timedelta(minutes=minutes if written[0] == "+" else -minutes))
