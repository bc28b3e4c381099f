"""Words by which texts and patients are compared: parts of names, identifiers, dates of birth.

Belongs here: which words a text and a patient have. Does not belong here: comparing them (`phi_risk`).

What is compared is what is written: a word of a text that equals one of a patient may mean something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date

NAME_LETTERS = 4
"""Letters of the shortest part of a name that is looked for."""
ID_CHARACTERS = 5
"""Characters of the shortest identifier that is looked for."""
TEXT_CHARACTERS = 65_536
"""Of a longer text so many are looked at."""

_LETTERS = re.compile(rf"[^\W\d_]{{{NAME_LETTERS},}}")
_IDENTIFIERS = re.compile(rf"[^\s,;:()\[\]<>\"']{{{ID_CHARACTERS},64}}")
_YEAR_FIRST = re.compile(r"(?<!\d)(\d{4})([-./]?)(\d{2})\2(\d{2})(?!\d)")
_YEAR_LAST = re.compile(r"(?<!\d)(\d{1,2})([-./])(\d{1,2})\2(\d{4})(?!\d)")
_EDGE = ".-_/\\=+*#!?"


def words_of_text(text: str) -> Iterator[str]:
    """What of a text may be of a patient."""
    text = text[:TEXT_CHARACTERS].casefold()
    for word in _LETTERS.findall(text):
        yield f"name {word}"
    for word in _IDENTIFIERS.findall(text):
        yield f"id {word}"
        bare = word.strip(_EDGE)
        if bare != word and len(bare) >= ID_CHARACTERS:
            yield f"id {bare}"
    for year, _, month, day in _YEAR_FIRST.findall(text):
        yield from _date(int(year), int(month), int(day))
    for one, _, other, year in _YEAR_LAST.findall(text):
        yield from _date(int(year), int(other), int(one))
        if one != other:
            yield from _date(int(year), int(one), int(other))


def words_of_patient(name: str | None, identifier: str | None, born: date | None) -> Iterator[str]:
    """What is looked for of a patient."""
    for word in _LETTERS.findall((name or "").casefold()):
        yield f"name {word}"
    told = (identifier or "").strip().casefold()
    if len(told) >= ID_CHARACTERS:
        yield f"id {told}"
    if born is not None:
        yield from _date(born.year, born.month, born.day)


def _date(year: int, month: int, day: int) -> Iterator[str]:
    try:
        yield f"date {date(year, month, day):%Y%m%d}"
    except ValueError:
        return  # digits that are no date
