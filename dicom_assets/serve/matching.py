"""What a value of a query matches, as SQL over a column (PS3.4 C.2.2.2).

Belongs here: the kinds of matching by VR. Does not belong here: which columns there are (`attribute_names`).

Values are parameters, never part of the SQL. Names of persons match without regard to case and accents, everything else
as it is written. An attribute with several values matches when one of them does. A time matches from the moment that
its first missing part begins with to the one that it ends with: `1405` is a minute.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from dicom_assets.dicom.columns import Misfit, iso_date, iso_date_time, iso_time
from dicom_assets.serve.problems import Refusal, bad_parameter

RANGED = frozenset({"DA", "TM", "DT"})
NUMBERS = frozenset({"DS", "IS", "FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"})
_WHOLE = NUMBERS - {"DS", "FD", "FL"}
WITHOUT_WILDCARDS = RANGED | NUMBERS | {"AS", "AT", "UI", "UR"}
"""VRs whose values are never patterns; `*` alone matches everything there too."""

_LISTS = {"UI": re.compile(r"[\\,]"), "CS": re.compile(r"[\\,]")}
"""By VR what stands between several values, of which any may match; repeated keys say the same."""

_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_DAY = re.compile(r"\d{8}", re.ASCII)
_LONGEST = 1_024
_MOST_VALUES = 10_000
_ZEROS = re.compile(r"(:00)+$")
_FRACTION = re.compile(r"\.(\d+)$")
_OFFSET = r"([+-]\d\d:\d\d)$"


@dataclass(frozen=True, slots=True)
class Condition:
    """SQL that is true, false or NULL, and the values of its parameters (`?`).

    column: of the table, that it is about, by name. is_counted: of a count of the lake's.
    """

    sql: str
    parameters: tuple[object, ...] = ()
    column: str = ""
    is_counted: bool = False


def condition(
    column: str, vr: str, texts: Sequence[str], name: str, *, multiple: bool = False, fuzzy: bool = False
) -> Condition | None:
    """What a column must be to match what a key has; None where everything matches.

    column: SQL for it. texts: the values of the key, each time it was given. name: of the attribute, for messages.
    fuzzy: names of persons by the beginnings of their words. Raises Refusal (400).
    """
    values = _values(vr, texts, name)
    if any(value in ("", "*") for value in values):
        return None
    if max(map(len, values)) > _LONGEST or len(values) > _MOST_VALUES:
        raise bad_parameter(name, "the value is too long.")
    if vr in _LISTS and not any(map(is_pattern, values)):
        return _one_of(column, values, multiple)
    if vr in WITHOUT_WILDCARDS and any(map(is_pattern, values)) and vr not in ("UR", "AT"):
        raise bad_parameter(name, f"values of this kind ({vr}) are matched whole: * and ? have no meaning in them.")
    found = [_single("x" if multiple else column, vr, value, name, fuzzy) for value in values]
    sql = " OR ".join(f"({one.sql})" for one in found)
    parameters = tuple(value for one in found for value in one.parameters)
    if multiple:
        sql = f"EXISTS (SELECT 1 FROM unnest({column}) AS of_list(x) WHERE {sql})"
    return Condition(sql, parameters)


def is_pattern(value: str) -> bool:
    """Whether a value has wildcards."""
    return "*" in value or "?" in value


def _values(vr: str, texts: Sequence[str], name: str) -> list[str]:
    if vr in _LISTS:
        parts = [part.strip() for text in texts for part in _LISTS[vr].split(text)]
        return [part for part in parts if part] or [""]
    if len(texts) > 1:
        raise bad_parameter(name, "is given more than once.")
    return [texts[0].strip(" ")]


def _one_of(column: str, values: Sequence[str], multiple: bool) -> Condition:
    if multiple:
        return Condition(f"list_has_any({column}, ?)", ([*values],))
    if len(values) == 1:
        return Condition(f"{column} = ?", (values[0],))
    return Condition(f"{column} IN (SELECT unnest(?))", ([*values],))


def _single(column: str, vr: str, value: str, name: str, fuzzy: bool) -> Condition:
    if vr in RANGED:
        return _ranged(column, vr, value, name)
    if vr in NUMBERS:
        return _number(column, vr, value, name)
    if vr == "PN":
        return _person(column, value, fuzzy)
    if is_pattern(value) and vr not in WITHOUT_WILDCARDS:
        return Condition(rf"{column} LIKE ? ESCAPE '\'", (pattern(value),))
    return Condition(f"{column} = ?", (value.upper() if vr == "AT" else value,))


def pattern(value: str) -> str:
    """The pattern of SQL's LIKE, with a backslash to escape, that stands for one with `*` and `?`."""
    escaped = re.sub(r"([%_\\])", r"\\\1", value)
    return escaped.replace("*", "%").replace("?", "_")


_FOLDED = "lower(strip_accents({}))"


def _person(column: str, value: str, fuzzy: bool) -> Condition:
    """Names by their alphabetic representation, which is what columns have."""
    alphabetic = value.split("=")[0]
    folded = _FOLDED.format(column)
    if is_pattern(alphabetic):
        return Condition(rf"{folded} LIKE {_FOLDED.format('?')} ESCAPE '\'", (pattern(alphabetic),))
    if not fuzzy:
        return Condition(f"rtrim({folded}, '^ ') = rtrim({_FOLDED.format('?')}, '^ ')", (alphabetic,))
    words = [word for word in re.split(r"[\^,\s]+", alphabetic) if word]
    if not words:
        return Condition("true")
    text = f"(' ' || translate({folded}, '^,', '  '))"
    return Condition(
        " AND ".join(f"contains({text}, ' ' || {_FOLDED.format('?')})" for _ in words),
        tuple(words),
    )


def _number(column: str, vr: str, value: str, name: str) -> Condition:
    if not (_INTEGER if vr in _WHOLE else _DECIMAL).fullmatch(value):
        raise bad_parameter(name, f"a {'whole ' if vr in _WHOLE else ''}number is needed.")
    return Condition(f"{column} = ?", (int(value) if vr in _WHOLE else float(value),))


_FORMS = {
    "DA": "YYYYMMDD, or a range of them: a-b, a-, -b",
    "TM": "HHMMSS.FFFFFF or the beginning of it, or a range: a-b, a-, -b",
    "DT": "YYYYMMDDHHMMSS.FFFFFF or the beginning of it, or a range: a-b, a-, -b",
}


def _ranged(column: str, vr: str, value: str, name: str) -> Condition:
    try:
        low, high = _bounds(vr, value)
    except (Misfit, ValueError):
        raise _no_moment(vr, name) from None
    text = column if vr != "DT" else f"regexp_replace({column}, '{_OFFSET}', '')"
    terms, parameters = [], []
    for comparison, bound in ((">=", low), ("<=", high)):
        if bound is not None:
            terms.append(f"{text} {comparison} ?")
            parameters.append(bound)
    return Condition(" AND ".join(terms), tuple(parameters))


def _no_moment(vr: str, name: str) -> Refusal:
    return bad_parameter(name, f"{_FORMS[vr]} is needed.")


def _bounds(vr: str, value: str) -> tuple[date | str | None, date | str | None]:
    """The first and the last moment that match, both included; None where there is no end. Raises Misfit."""
    start, end = _parted(vr, value)
    if start is None and end is None:
        raise Misfit
    if vr == "DA":
        return _day(start), _day(end)
    return (None if start is None else _first(vr, start)), (None if end is None else _last(vr, end))


def _parted(vr: str, value: str) -> tuple[str | None, str | None]:
    """Both ends of a range; of a single value it is both.

    Of a date with time, a minus sign with four digits up to 1200 behind a full time is its offset from UTC: as years
    nobody means them (PS3.4 C.2.2.2.5.1).
    """
    dashes = [at for at, char in enumerate(value) if char == "-"]
    if vr == "DT":
        dashes = [at for at in dashes if not _is_offset(value, at)]
    if not dashes:
        return value, value
    if len(dashes) > 1:
        raise Misfit
    return value[: dashes[0]].strip() or None, value[dashes[0] + 1 :].strip() or None


def _is_offset(value: str, at: int) -> bool:
    digits = re.match(r"-(\d{4})(?=-|$)", value[at:], re.ASCII)
    return digits is not None and digits[1] <= "1200" and at > 0 and value[at - 1] != "-"


def _day(text: str | None) -> date | None:
    if text is not None and not _DAY.fullmatch(text):
        raise Misfit
    return None if text is None else iso_date(text)


def _first(vr: str, text: str) -> str:
    """The first moment of what is written, as columns have it at its shortest.

    A column may be as coarse: 14 is 14:00, and stands before it as text does; so zeros at the end go.
    """
    iso = _iso(vr, text)
    day, separator, clock = iso.partition("T") if vr == "DT" else ("", "", iso)
    clock = _FRACTION.sub(lambda found: f".{found[1].rstrip('0')}".rstrip("."), clock)
    clock = clock if "." in clock else _ZEROS.sub("", clock)
    if vr == "DT" and clock in ("", "00"):
        while day.endswith("-01"):
            day = day[:-3]
        return day
    return f"{day}{separator}{clock}"


def _last(vr: str, text: str) -> str:
    """The last moment of what is written; a minute may have a leap second."""
    iso = _iso(vr, text)
    day, _, clock = iso.partition("T") if vr == "DT" else ("", "", iso)
    fraction = _FRACTION.search(clock)
    if fraction:
        clock = f"{clock[: fraction.start()]}.{fraction[1]:0<6}"
    else:
        full = "23:59:60.999999"
        clock = clock + full[len(clock) :]
    if vr != "DT":
        return clock
    return f"{day}{'-12-31'[len(day) - 4 :]}T{clock}"


def _iso(vr: str, text: str) -> str:
    if vr == "TM":
        if ":" in text:
            raise Misfit
        return iso_time(text)
    return re.sub(_OFFSET, "", iso_date_time(text))


def containing(column: str, text: str) -> Condition:
    """A text with another one somewhere in it, whatever case and accents, as people look for things."""
    return Condition(f"contains({_FOLDED.format(column)}, {_FOLDED.format('?')})", (text,))
