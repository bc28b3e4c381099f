"""Words by which texts and patients are compared: parts of names, identifiers, dates of birth.

Belongs here: which words a text and a patient have. Does not belong here: comparing them (`phi_risk`).

What is compared is what is written: a word of a text that equals one of a patient may mean something else. The same
letters in another form of Unicode are the same (NFKC), so are upper and lower case. Chinese, Japanese and Korean names
are short and written without blanks: of these the parts count from two characters on, and the whole name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from datetime import date

NAME_LETTERS = 4
"""Letters of the shortest part of a name that is looked for."""
SYLLABLES = 2
"""Characters of the shortest one in kana, ideographs or hangul."""
ID_CHARACTERS = 5
"""Characters of the shortest identifier that is looked for."""
TEXT_CHARACTERS = 65_536
"""Of a longer text so many are looked at."""

_LETTERS = re.compile(rf"[^\W\d_]{{{NAME_LETTERS},}}")
_SYLLABLES = re.compile(rf"[\u3041-\u30ff\u3400-\u9fff\uac00-\ud7af]{{{SYLLABLES},}}")
_IDENTIFIERS = re.compile(rf"[^\s,;:()\[\]<>\"']{{{ID_CHARACTERS},64}}")
_YEAR_FIRST = re.compile(r"(?<!\d)(\d{4})([-./]?)(\d{2})\2(\d{2})(?!\d)")
_YEAR_LAST = re.compile(r"(?<!\d)(\d{1,2})([-./])(\d{1,2})\2(\d{4})(?!\d)")
_EDGE = ".-_/\\=+*#!?"


def words_of_text(text: str) -> Iterator[str]:
    """What of a text may be of a patient."""
    text = _folded(text[:TEXT_CHARACTERS])
    yield from _names(text)
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


def words_of_patient(names: Iterable[str | None], identifier: str | None, born: date | None) -> Iterator[str]:
    """What is looked for of a patient. names: the name in each of its representations."""
    for name in names:
        text = _folded(name or "")
        yield from _names(text)
        whole = _SYLLABLES.fullmatch(text.replace("^", ""))
        if whole is not None:
            yield f"name {whole[0]}"
    told = _folded(identifier or "").strip()
    if len(told) >= ID_CHARACTERS:
        yield f"id {told}"
    if born is not None:
        yield from _date(born.year, born.month, born.day)


def _folded(text: str) -> str:
    return (text if text.isascii() else unicodedata.normalize("NFKC", text)).casefold()


def _names(text: str) -> Iterator[str]:
    for word in _LETTERS.findall(text):
        yield f"name {word}"
    if not text.isascii():
        for word in _SYLLABLES.findall(text):
            yield f"name {word}"


def _date(year: int, month: int, day: int) -> Iterator[str]:
    try:
        yield f"date {date(year, month, day):%Y%m%d}"
    except ValueError:
        return  # digits that are no date
