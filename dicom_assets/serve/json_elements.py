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
    write = _BY_VR.get(vr)
    if isinstance(value, list):
        if all(one is None for one in value):
            return None
        return {"vr": vr, "Value": [one if one is None or write is None else write(one) for one in value]}
    if value is None:
        return None
    return {"vr": vr, "Value": [value if write is None else write(value)]}


def put(row: dict[str, Element], keys: Sequence[str], vr: str, value: Any) -> None:
    """Puts the element of a column into a data set.

    keys: tags on the way to it. Of a private one, `creator/GGGGxxEE`: it gets a block of the group for its creator
    (PS3.5 7.8.1). An attribute in sequences gets an item for each value, or joins the only one that is there.
    """
    if len(keys) == 1:
        found = element(vr, value)
        if found is not None:
            row[_reserved(row, keys[0]) if "/" in keys[0] else keys[0]] = found
        return
    items: list[dict[str, Element]] = []
    for one in value if isinstance(value, list) else [value]:
        item: dict[str, Element] = {}
        put(item, keys[1:], vr, one)
        if item:
            items.append(item)
    if not items:
        return
    key = _reserved(row, keys[0]) if "/" in keys[0] else keys[0]
    there = row.setdefault(key, {"vr": "SQ", "Value": []})["Value"]
    if len(there) == len(items) == 1:
        there[0] |= items[0]
    else:
        there += items


def _reserved(row: dict[str, Element], key: str) -> str:
    """The tag of a private element, its creator put into the data set."""
    creator, _, place = key.rpartition("/")
    group, number = place[:4], place[-2:]
    for block in range(0x10, 0x100):
        own = row.setdefault(f"{group}00{block:02X}", {"vr": "LO", "Value": [creator]})
        if own["Value"] == [creator]:
            return f"{group}{block:02X}{number}"
    raise ValueError(f"group {group} has no block left")


def _day(value: date) -> str:
    return value.isoformat().replace("-", "")


def _clock(value: str) -> str:
    return value.replace(":", "")


def _moment(value: str) -> str:
    day, _, clock = value.partition("T")
    return day.replace("-", "") + clock.replace(":", "")


def _name(value: str) -> Any:
    return {"Alphabetic": value}


_BY_VR: dict[str, Callable[[Any], Any]] = {"DA": _day, "TM": _clock, "DT": _moment, "PN": _name}
