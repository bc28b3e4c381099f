"""Values of columns as elements of the DICOM JSON Model (PS3.18 F.2), in the form that headers have.

Belongs here: one element from one value. Does not belong here: which elements an answer has (`answers`).

What a column does not keep does not come back: of names of persons the representations beside the alphabetic one, of
times the colons that ACR-NEMA wrote. `/metadata` has the header itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

Element = dict[str, Any]


def element(vr: str, value: Any) -> Element | None:
    """An element; None where there is no value, which is left out: viewers fall over elements without one.

    value: of a column; a list where the attribute may have several values.
    """
    written = [_write(vr)(one) if one is not None else None for one in (value if isinstance(value, list) else [value])]
    if all(one is None for one in written):
        return None
    return {"vr": vr, "Value": written}


def nested(keys: Sequence[str], vr: str, value: Any) -> tuple[str, Element] | None:
    """The element at the top that an attribute in sequences stands in, with one item for each value, and its tag."""
    values = value if isinstance(value, list) else [value]
    inner = [found for one in values if (found := element(vr, one)) is not None]
    if not inner:
        return None
    for key in reversed(keys[1:]):
        inner = [{"vr": "SQ", "Value": [{key: one}]} for one in inner]
    return keys[0], {"vr": "SQ", "Value": [item for one in inner for item in one["Value"]]}


def _write(vr: str) -> Callable[[Any], Any]:
    return _BY_VR.get(vr, _same)


def _same(value: Any) -> Any:
    return value


def _day(value: date) -> str:
    return f"{value.year:04d}{value.month:02d}{value.day:02d}"


def _clock(value: str) -> str:
    return value.replace(":", "")


def _moment(value: str) -> str:
    day, _, clock = value.partition("T")
    return day.replace("-", "") + clock.replace(":", "")


def _name(value: str) -> Any:
    return {"Alphabetic": value}


_BY_VR: dict[str, Callable[[Any], Any]] = {"DA": _day, "TM": _clock, "DT": _moment, "PN": _name}
