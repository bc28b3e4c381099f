"""The header of an instance as people read it: a line for each attribute, with its name.

Belongs here: names, values as text, depth. Does not belong here: stored headers and their corrections (`metadata`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from pydicom.datadict import dictionary_description, dictionary_has_tag, private_dictionary_description
from pydicom.uid import UID
from starlette.responses import Response

from dicom_assets.serve.attribute_names import RETRIEVE_URL
from dicom_assets.serve.call import Call
from dicom_assets.serve.metadata import elements_of

LINES_MOST = 20_000
"""Lines that a page is given: a header of a thousand frames has more of them than a browser shows with ease."""

_TEXT_MOST = 2_000
"""Characters of a value."""


async def header(call: Call) -> Response:
    """The lines of a header as JSON: [depth, tag, VR, name, value]."""
    return Response(await call.ask(lambda: _lines(call)), media_type="application/json")


def _lines(call: Call) -> bytes:
    elements = elements_of(call)
    elements.pop(RETRIEVE_URL, None)  # which no object says
    lines: list[tuple[int, str, str, str, str]] = []
    is_whole = True
    for line in lines_of(elements):
        if len(lines) == LINES_MOST:
            is_whole = False
            break
        lines.append(line)
    return orjson.dumps({"lines": lines, "whole": is_whole})


def lines_of(elements: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[int, str, str, str, str]]:
    """Depth, tag as (GGGG,EEEE), VR, name and value of each element, sequences before their items."""
    for tag in sorted(elements):
        element = elements[tag]
        if len(tag) != 8 or not isinstance(element, dict):
            continue
        vr = str(element.get("vr", ""))
        shown = f"({tag[:4]},{tag[4:]})"
        if vr != "SQ":
            yield depth, shown, vr, name_of(tag, elements), text_of(element)
            continue
        items = element.get("Value") or []
        yield depth, shown, vr, name_of(tag, elements), f"{len(items)} item{'' if len(items) == 1 else 's'}"
        for number, item in enumerate(items, 1):
            if len(items) > 1:
                yield depth + 1, "", "", f"Item {number}", ""
            yield from lines_of(item or {}, depth + 1)


def name_of(tag: str, elements: Mapping[str, Any]) -> str:
    """The name of an attribute; of a private one as far as its creator is known. elements: that it stands among."""
    number = int(tag, 16)
    if not number & 0xFFFF:
        return "Group Length"
    if not (number >> 16) & 1:
        return str(dictionary_description(number)) if dictionary_has_tag(number) else ""
    if number & 0xFFFF < 0x100:
        return "Private Creator"
    creator = _first(elements.get(f"{tag[:4]}00{tag[4:6]}"))
    try:
        return f"{private_dictionary_description(number, str(creator))} (private)"
    except KeyError:
        return "private"


def text_of(element: Mapping[str, Any]) -> str:
    """The value of an element, several with backslashes between them."""
    if "BulkDataURI" in element:
        return "bulk data, not shown"
    if "InlineBinary" in element:
        return f"{len(element['InlineBinary']) * 3 // 4} bytes"
    values = element.get("Value") or ()
    text = "\\".join(_text(one) for one in values)
    if element.get("vr") == "UI" and len(values) == 1 and (name := UID(text).name) != text:
        text = f"{text} {name}"
    return text if len(text) <= _TEXT_MOST else f"{text[:_TEXT_MOST]} … ({len(text):,} characters)"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "=".join(str(value[one]) for one in ("Alphabetic", "Ideographic", "Phonetic") if value.get(one))
    return "" if value is None else str(value)


def _first(element: Mapping[str, Any] | None) -> Any:
    return next(iter((element or {}).get("Value") or ()), None)
