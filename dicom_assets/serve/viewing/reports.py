"""The content of a structured report as lines (PS3.3 C.17.3): SR documents and key object selections.

Belongs here: concept names and values of content items, in the order of the tree. Does not belong here: the header.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from pydicom.uid import UID
from starlette.responses import Response

from dicom_assets.serve.call import Call
from dicom_assets.serve.metadata import elements_of

MOST = 10_000
"""Content items of a page."""

_DEEPEST = 64
_CONCEPT, _TYPE, _CONTENT, _RELATION = "0040A043", "0040A040", "0040A730", "0040A010"
_MEANING, _CODE, _SCHEME = "00080104", "00080100", "00080102"
_COORDINATES = ("SCOORD", "SCOORD3D", "TCOORD")


async def report(call: Call) -> Response:
    """The content as JSON: title, and lines of depth, concept and value."""
    return Response(await call.ask(lambda: _content(call)), media_type="application/json")


def _content(call: Call) -> bytes:
    elements = elements_of(call)
    lines: list[tuple[int, str, str]] = []
    for line in _lines(elements, 0):
        if len(lines) == MOST:
            break
        lines.append(line)
    found = {
        "title": _meaning(elements, _CONCEPT),
        "state": " · ".join(one for one in (_value(elements, "0040A491"), _value(elements, "0040A493")) if one),
        "lines": lines,
    }
    return orjson.dumps(found)


def _lines(item: Mapping[str, Any], depth: int) -> Iterator[tuple[int, str, str]]:
    for child in (item.get(_CONTENT) or {}).get("Value") or ():
        if not isinstance(child, dict):
            continue
        yield depth, _meaning(child, _CONCEPT), _shown(child)
        if depth < _DEEPEST:
            yield from _lines(child, depth + 1)


def _shown(item: Mapping[str, Any]) -> str:
    """The value of a content item (PS3.3 C.17.3.2) as text; a container has none."""
    kind = _value(item, _TYPE)
    if kind == "CODE":
        return _meaning(item, "0040A168")
    if kind == "NUM":
        measured = _first(item, "0040A300")
        return " ".join(one for one in (_value(measured, "0040A30A"), _code(measured, "004008EA")) if one)
    if kind in _COORDINATES:
        return f"{_value(item, '00700023') or kind.lower()} (coordinates)"
    if kind in ("IMAGE", "COMPOSITE", "WAVEFORM"):
        referenced = _first(item, "00081199")
        sop_class = _value(referenced, "00081150")
        frames = _value(referenced, "00081160")
        return f"→ {UID(sop_class).name}{f', frame {frames}' if frames else ''}" if sop_class else "→ an object"
    plain = {"TEXT": "0040A160", "PNAME": "0040A123", "UIDREF": "0040A124"}
    plain |= {"DATE": "0040A121", "TIME": "0040A122", "DATETIME": "0040A120"}
    return _value(item, plain[kind]) if kind in plain else ""


def _value(item: Mapping[str, Any], tag: str) -> str:
    values = (item.get(tag) or {}).get("Value") or ()
    return ", ".join(str(one.get("Alphabetic", "")) if isinstance(one, dict) else str(one) for one in values)


def _first(item: Mapping[str, Any], tag: str) -> Mapping[str, Any]:
    values = (item.get(tag) or {}).get("Value") or ()
    return values[0] if values and isinstance(values[0], dict) else {}


def _meaning(item: Mapping[str, Any], tag: str) -> str:
    code = _first(item, tag)
    return _value(code, _MEANING) or _code(item, tag)


def _code(item: Mapping[str, Any], tag: str) -> str:
    """The value of a code, such as a unit: `mm`; that there is none (UCUM's `1`) is not shown."""
    code = _first(item, tag)
    value = _value(code, _CODE)
    return "" if value == "1" and _value(code, _SCHEME) == "UCUM" else value
