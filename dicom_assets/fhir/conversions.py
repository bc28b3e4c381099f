"""Single values on their way from DICOM to FHIR: text, names, dates with times, UIDs.

Belongs here: rules of FHIR's primitive types (R4B 2.24) against those of DICOM's VRs (PS3.5 6.2). Does not belong
here: which element takes which attribute (`mapping`).
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone
from functools import lru_cache

_REMEMBERED = 1_024
"""Names and codes repeat within a study."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_TIME = re.compile(r"^(\d\d)(?::?(\d\d))?(?::?(\d\d))?(?:\.(\d{1,6}))?$")
_OFFSET = re.compile(r"^([+-])(\d\d):?(\d\d)$")
_ID = re.compile(r"^[A-Za-z0-9\-.]{1,64}$")
_INSTANT = re.compile(
    r"^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(?:\.(\d+))?)?\s*(Z|[+-]\d\d:\d\d)?$",
)
_PARTIAL = re.compile(r"^[0-9]{4}(-[0-9]{2}(-[0-9]{2})?)?$")


def text(value: str | None) -> str | None:
    """A FHIR string: without control characters and surrounding space, None when nothing is left."""
    if not value:
        return None
    if value.isprintable():  # mostly, and quicker to find out
        return value.strip() or None
    return _CONTROL.sub("", value).strip() or None


@lru_cache(_REMEMBERED)
def code(value: str | None) -> str | None:
    """A FHIR code: words with one space between them, None when empty."""
    return " ".join((text(value) or "").split()) or None


def is_id(value: str | None) -> bool:
    """Whether a text can stand in an element of type id, as UIDs of series and instances must."""
    return bool(value) and _ID.match(value or "") is not None


@lru_cache(_REMEMBERED)
def person_name(value: str | None) -> str | None:
    """A PN as people write it: prefix, given, middle, family name, suffix of its first component group with text."""
    for group in (text(value) or "").split("="):
        parts = [part.strip() for part in group.split("^")] + [""] * 5
        family, given, middle, prefix, suffix = parts[:5]
        name = " ".join(part for part in (prefix, given, middle, family, suffix) if part)
        if name:
            return name
    return None


def date_time(day: date | None, time: str | None, offset: str | None) -> str | None:
    """A FHIR dateTime from DA, TM (ISO form) and Timezone Offset From UTC; the date alone where time or zone lack.

    FHIR asks for a zone wherever there is a time, and for seconds; hours or minutes alone are filled with zeros. A
    leap second, which FHIR tools refuse, leaves the date alone too.
    """
    if day is None or day.year < 1:
        return None
    plain = f"{day.year:04d}-{day.month:02d}-{day.day:02d}"
    clock, zone = _TIME.match(time or ""), _OFFSET.match((offset or "").strip())
    if not clock or not zone:
        return plain
    hour, minute, second = (int(part or 0) for part in clock.group(1, 2, 3))
    zone_minutes = int(zone[2]) * 60 + int(zone[3])
    if hour > 23 or minute > 59 or second > 59 or zone_minutes > 14 * 60 or int(zone[3]) > 59:
        return plain
    fraction = f".{clock[4]}" if clock[4] else ""
    return f"{plain}T{hour:02d}:{minute:02d}:{second:02d}{fraction}{zone[1]}{zone[2]}:{zone[3]}"


def instant(value: datetime) -> str:
    """A FHIR instant in UTC, with milliseconds."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03d}Z"


def beginning(value: object) -> datetime | None:
    """The point in time at which what a FHIR dateTime names begins; None for what is no dateTime.

    A day, a month or a year alone (R4B 2.24.0.1, dateTime) is its beginning in UTC, so that all can be compared.
    """
    if isinstance(value, str) and _PARTIAL.match(value.strip()):
        day = value.strip() + "-01-01"[len(value.strip()) - 4 :]
        value = f"{day}T00:00:00Z"
    return moment(value)


def moment(value: object) -> datetime | None:
    """The point in time that a FHIR instant or dateTime names; None for a date alone, or for what is none of these."""
    match = _INSTANT.match(value.strip()) if isinstance(value, str) else None
    if not match or not match[2] or not match[4]:
        return None
    clock = match[2] if len(match[2]) == 8 else f"{match[2]}:00"
    zone = UTC
    if match[4] != "Z":
        minutes = int(match[4][1:3]) * 60 + int(match[4][4:6])
        zone = timezone(timedelta(minutes=minutes if match[4][0] == "+" else -minutes)) if minutes < 24 * 60 else UTC
    try:
        at = datetime.fromisoformat(f"{match[1]}T{clock}").replace(tzinfo=zone)
        return (at + timedelta(microseconds=int((match[3] or "0")[:6].ljust(6, "0")))).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
