"""What a search answers with: the elements of each row, as DICOM JSON, or as a table for people (PS3.18 10.6.1.3).

Belongs here: which attributes an answer has, and its media types. Does not belong here: which rows (`search_plan`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from dicom_assets.printing import cell
from dicom_assets.schema.attributes import Level
from dicom_assets.serve.addresses import address
from dicom_assets.serve.attribute_names import AVAILABILITY, RETRIEVE_URL, Attribute, Names, named
from dicom_assets.serve.json_elements import Element, put
from dicom_assets.serve.newest import LEVELS
from dicom_assets.serve.search_plan import Page, Path
from dicom_assets.serve.search_query import Query

ALWAYS: Mapping[Level, tuple[str, ...]] = {
    Level.STUDY: (
        *("00080020", "00080030", "00080050", "00080061", "00080090", "00080201", "00081030", "00100010", "00100020"),
        *("00100030", "00100040", "0020000D", "00200010", "00201206", "00201208"),
    ),
    Level.SERIES: (
        *("00080021", "00080031", "00080060", "0008103E", "00180015", "0020000D", "0020000E", "00200011", "00201209"),
    ),
    Level.INSTANCE: (
        *("00080016", "00080018", "00083002", "0020000D", "0020000E", "00200013"),
        *("00280008", "00280010", "00280011", "00280100"),
    ),
}
"""Tags that an answer has whoever asks, where there are values; beside InstanceAvailability and RetrieveURL."""

_UIDS = ("0020000D", "0020000E", "00080018")


class Answer:
    """The elements of one answer. base: the address that references begin with."""

    def __init__(self, query: Query, names: Names, base: str) -> None:
        """names: those of the lake that is searched."""
        self._query, self._names, self._base = query, names, base
        self._attributes = {level: self._of(level) for level in LEVELS[: LEVELS.index(query.level) + 1]}

    @property
    def columns(self) -> dict[Level, list[str]]:
        """The columns that it needs, by level."""
        return {
            level: [one.column for one in found if one.column is not None] for level, found in self._attributes.items()
        }

    def elements(self, page: Page) -> list[dict[str, Element]]:
        """One data set for each row."""
        return [self._row(page, path) for path in page.paths]

    def _of(self, level: Level) -> list[Attribute]:
        """The attributes of a level: always given ones unless its UID is in the path, and what is asked for."""
        query = self._query
        found: list[Attribute] = []
        if level is query.level or level not in query.path:
            found += map(self._names.find, ALWAYS[level])
        asked = [*(one.attribute for one in query.matches), *query.included]
        found += [one for one in asked if one.level is level]
        if query.everything and (level is query.level or level not in query.path):
            found += self._names.of_level(level)
        return list(dict.fromkeys(one for one in found if one.key not in _UIDS))

    def _row(self, page: Page, path: Path) -> dict[str, Element]:
        made: dict[str, Element] = {}
        for key in (one.key for one in page.headers.attributes):
            found = page.headers.elements.get(path, {}).get(key)
            if found is not None:
                made[key] = found
        for depth, (level, attributes) in enumerate(self._attributes.items(), 1):
            row = page.values.get(level, {}).get(path[:depth], {})
            for one in attributes:
                if (value := row.get(one.column or "")) is not None:
                    put(made, one.keys, one.vr, value)
        for key, uid in zip(_UIDS, path, strict=False):
            made[key] = {"vr": "UI", "Value": [uid]}
        made[AVAILABILITY] = {"vr": "CS", "Value": ["ONLINE"]}
        made[RETRIEVE_URL] = {"vr": "UR", "Value": [address(self._base, path)]}
        return dict(sorted(made.items()))


def as_json(rows: Sequence[Mapping[str, Element]]) -> bytes:
    """The DICOM JSON Model."""
    return orjson.dumps(rows)


def as_csv(rows: Sequence[Mapping[str, Element]]) -> bytes:
    """A table with a column for each attribute that some row has, by keyword; several values with backslashes between.

    A text that a spreadsheet would take for a formula is led by an apostrophe.
    """
    keys = list(dict.fromkeys(key for row in rows for key in row))
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\r\n")
    writer.writerow([named(key) for key in sorted(keys)])
    for row in rows:
        writer.writerow([_text(row.get(key)) for key in sorted(keys)])
    return sink.getvalue().encode()


def _text(found: Element | None) -> str:
    values: Iterable[Any] = (found or {}).get("Value") or ()
    texts = [_plain(one) for one in values]
    text = "\\".join(texts)
    is_number = found is not None and all(isinstance(one, (int, float)) for one in found.get("Value") or ())
    return text if is_number else str(cell(text))


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return str(value["Alphabetic"]) if "Alphabetic" in value else orjson.dumps(value).decode()
    return "" if value is None else str(value)
