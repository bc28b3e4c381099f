"""From values of the DICOM JSON Model to the typed columns of the registry.

Belongs here: how a value becomes a date, a time in ISO form, a number, a text; which attributes are columns is the
registry's (`schema.attributes`). Does not belong here: bytes.

A value that does not fit its type is None and carries VALUE_INVALID; what was written stays in the header. So do
several values of an attribute that has one (value multiplicity 1, PS3.5 6.4): a text is taken as it was written, with
its backslashes, never its first part alone, or two patients would become one; what is no text is None.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

from dicom_assets.dicom.flaws import CHARSET_LOST, SOUND, UID_INVALID, VALUE_INVALID
from dicom_assets.schema.attributes import ATTRIBUTES, CODE_PARTS, TYPE_OF_VR

Converter = Callable[[Any], Any]

_DATE = re.compile(r"(\d{4})(\.?)(\d\d)\2(\d\d)", re.ASCII)
_TIME = re.compile(r"(\d\d)(?:(:?)(\d\d)(?:\2(\d\d)(\.\d{1,6})?)?)?", re.ASCII)
_DATE_TIME = re.compile(
    r"(\d{4})(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(\.\d{1,6})?)?)?)?)?)?([+-]\d{4})?", re.ASCII
)
_UID = re.compile(r"[0-2](?:\.(?:0|[1-9]\d*))+", re.ASCII)


class Misfit(ValueError):
    """A value that does not fit its column. Has no message: it would hold the value."""


def iso_date(text: str) -> date:
    """DA, also in ACR-NEMA's form YYYY.MM.DD (PS3.5 6.2 note). Raises Misfit."""
    match = _DATE.fullmatch(text.strip(" \0"))
    if match is None:
        raise Misfit
    try:
        return date(int(match[1]), int(match[3]), int(match[4]))
    except ValueError:
        raise Misfit from None


def iso_time(text: str) -> str:
    """TM as ISO 8601, its precision kept: 14, 14:05, 14:05:09, 14:05:09.123456. Raises Misfit."""
    match = _TIME.fullmatch(text.strip(" \0"))
    if match is None:
        raise Misfit
    hour, _, minute, second, fraction = match.groups()
    return _clock(hour, minute, second, fraction)


def _clock(hour: str, minute: str | None, second: str | None, fraction: str | None) -> str:
    if hour > "23" or (minute or "00") > "59" or (second or "00") > "60":  # 60 is a leap second (PS3.5 6.2)
        raise Misfit
    return hour + (f":{minute}" if minute else "") + (f":{second}" if second else "") + (fraction or "")


def iso_date_time(text: str) -> str:
    """DT as ISO 8601, its precision kept; the offset from UTC stands behind a time, never invented. Raises Misfit."""
    match = _DATE_TIME.fullmatch(text.strip(" \0"))
    if match is None:
        raise Misfit
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    try:
        date(int(year), int(month or 1), int(day or 1))
    except ValueError:
        raise Misfit from None
    written = "-".join(part for part in (year, month, day) if part)
    if offset and (offset == "-0000" or offset[3:] > "59" or not -1200 <= int(offset) <= 1400):
        raise Misfit
    if hour is None:
        return written  # ISO 8601 has no offset for a date; it stays in the header
    return f"{written}T{_clock(hour, minute, second, fraction)}" + (f"{offset[:3]}:{offset[3:]}" if offset else "")


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value.strip(" \0\t\r\n") or None
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, dict):
        return str(value.get("Alphabetic", "")).strip() or None
    raise Misfit


def _name(value: Any) -> str | None:
    return _text(value)


def _whole(value: Any) -> int:
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    raise Misfit


def _real(value: Any) -> float:
    if isinstance(value, (int, float)):
        return float(value)
    raise Misfit


def _dated(convert: Callable[[str], Any]) -> Converter:
    def converter(value: Any) -> Any:
        if not isinstance(value, str):
            raise Misfit
        return convert(value) if value.strip(" \0") else None

    return converter


_BY_VR: dict[str, Converter] = {
    "DA": _dated(iso_date),
    "TM": _dated(iso_time),
    "DT": _dated(iso_date_time),
    "DS": _real,
    "FD": _real,
    "FL": _real,
    **{vr: _whole for vr in TYPE_OF_VR if vr not in ("DA", "DS", "FD", "FL")},
    "PN": _name,
}


def converter_of(vr: str) -> Converter:
    """What makes one value of the DICOM JSON Model a value of a column of this VR; raises Misfit."""
    return _BY_VR.get(vr, _text)


CONVERTERS: dict[int, tuple[str, Converter, bool, bool]] = {
    a.tag: (a.keyword, _BY_VR.get(a.vr, _text), a.multiple, a.vr == "UI") for a in ATTRIBUTES
}
"""By tag: column, converter of one value, whether the column is a list, whether it holds UIDs."""

PATIENT_NAME = 0x00100010
_PARTS: dict[int, list[tuple[str, str]]] = {}
for _part in CODE_PARTS:
    _PARTS.setdefault(_part.path[0], []).append((_part.column, f"{_part.path[1]:08X}"))

CODED: Mapping[int, Sequence[tuple[str, str]]] = _PARTS
"""By tag of a code sequence: columns taken from its first item, each with the part's key in JSON."""


def column(tag: int, values: list[Any] | None, flaws: int = SOUND) -> tuple[Any, int]:
    """The column's value for these JSON values, and flaws; (None, …) where there is no value or it does not fit."""
    if not values or flaws & CHARSET_LOST:
        return None, SOUND
    _, convert, multiple, uid = CONVERTERS[tag]
    try:
        if multiple:
            result: Any = [None if value is None else convert(value) for value in values]
            if all(value is None for value in result):
                return None, SOUND
        elif len(values) > 1:
            return _undivided(tag, values), VALUE_INVALID | (UID_INVALID if uid else SOUND)
        else:
            result = None if values[0] is None else convert(values[0])
    except Misfit:
        return None, VALUE_INVALID
    if uid and not valid_uids(result if multiple else [result]):
        return result, UID_INVALID
    return result, SOUND


def _undivided(tag: int, values: list[Any]) -> str | None:
    """Several values of an attribute that has one, as they were written; None where the column is no plain text."""
    if CONVERTERS[tag][1] not in (_text, _name):
        return None
    texts = [_text("" if value is None else value) or "" for value in values]
    return "\\".join(texts) if any(texts) else None


def valid_uids(uids: Sequence[str | None]) -> bool:
    """Whether all of them keep the rules of PS3.5 9.1; absent ones do."""
    return all(uid is None or (len(uid) <= 64 and _UID.fullmatch(uid) is not None) for uid in uids)


def fill(columns: dict[str, Any], tag: int, element: dict[str, Any], flaws: int) -> int:
    """Puts what the columns take from one element of the data set into `columns`; returns the flaws found."""
    if tag in CONVERTERS:
        values = element.get("Value")
        value, found = column(tag, values, flaws)
        if value is not None:
            columns[CONVERTERS[tag][0]] = value
        if tag == PATIENT_NAME and values and len(values) == 1 and isinstance(values[0], (str, dict)):
            name_parts(columns, _text(values[0]) or "")
            if isinstance(values[0], dict):
                name_groups(columns, values[0])
        return found
    if tag in CODED:
        items = element.get("Value")
        if element.get("vr") == "SQ" and items:
            for name, key in CODED[tag]:
                part = items[0].get(key, {}).get("Value") or ()
                text = "\\".join(value.strip() for value in part if isinstance(value, str))
                if text:
                    columns[name] = text
                flaws |= VALUE_INVALID if len(part) > 1 else SOUND
    return flaws & VALUE_INVALID


def name_groups(columns: dict[str, Any], name: Mapping[str, Any]) -> None:
    """The patient's name in its representations beside the alphabetic one (PS3.5 6.2.1.2), each if there is one."""
    for group in ("Ideographic", "Phonetic"):
        if text := str(name.get(group) or "").strip():
            columns[f"patient_{group.lower()}_name"] = text


def name_parts(columns: dict[str, Any], alphabetic: str) -> None:
    """The patient's family and given name from the alphabetic representation (PS3.5 6.2.1), each if it is sound."""
    for name, part in zip(("patient_family_name", "patient_given_name"), alphabetic.split("^"), strict=False):
        if (text := part.strip()) and "\\" not in text:  # no name has a backslash but for bytes that were refused
            columns[name] = text
