"""What is printed, made harmless for terminals, which obey control characters, and spreadsheets, which run formulas.

Belongs here: cleaning text that came from outside, whatever is printed where. It imports nothing of the project. Does
not belong here: tables and bars (`progress`), what is printed (`cli`).

A file that only a database reads, as `dicom-assets omop` writes, is left exact.
"""

from __future__ import annotations

import base64
import csv
import json
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from itertools import count

import orjson

_HARMFUL = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0, DEL and C1: escape sequences begin with ESC or with U+009B
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of writing
    "\u2028\u2029\ud800-\udfff]"  # line breaks of Unicode; halves of characters, which cannot be encoded
)
_HALF = re.compile("[\ud800-\udfff]")
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def visible(text: str, kept: str = "") -> str:
    r"""A text with its control characters escaped, `\x1b` for instance; those in `kept` stay."""
    return _HARMFUL.sub(lambda found: found[0] if found[0] in kept else _escaped(found[0]), text)


def _escaped(character: str) -> str:
    code = ord(character)
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def counted(number: int, one: str, several: str | None = None) -> str:
    """A number with its noun: `1 object`, `2 objects`. several: the plural, where it is not made with an s."""
    return f"{number} {one if number == 1 else several or one + 's'}"


def say(sentence: str, *, err: bool = False) -> None:
    """Prints a sentence, which may have several lines, with what it quotes from outside escaped."""
    import typer

    typer.echo(visible(sentence, kept="\n\t"), err=err)


def cell(value: object) -> object:
    """A value for a CSV file that may be opened in a spreadsheet.

    A text that a spreadsheet would take for a formula gets an apostrophe before it, which spreadsheets do not show.
    Numbers stay numbers, negative ones too.
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def csv_text(names: Sequence[str], rows: Sequence[Sequence[object]], on_terminal: bool | None = None) -> str:
    """Rows as CSV; on a terminal with control characters escaped, elsewhere with every other character as it is.

    Lists and structures are JSON, and truth is `true` or `false`, so that DuckDB and others read them back.
    on_terminal: whether it goes to one; None: as stdout does.
    """
    escapes = sys.stdout.isatty() if on_terminal is None else on_terminal

    def shown(value: object) -> object:
        if isinstance(value, bool):
            return str(value).lower()
        if value is None or isinstance(value, int | float | Decimal):
            return value
        harmless = cell(_json(value) if isinstance(value, list | tuple | dict) else value)
        return visible(str(harmless)) if escapes else harmless

    lines = _Lines()
    writer = csv.writer(lines)  # with its own line ends, or it would leave a CR in a value unquoted
    writer.writerow([shown(name) for name in names])
    writer.writerows([shown(value) for value in row] for row in rows)
    return "".join(lines)


class _Lines(list[str]):
    """Takes the lines of a CSV file, each with the end that Unix gives it."""

    def write(self, line: str) -> None:
        """One line."""
        self.append(line.removesuffix("\r\n") + "\n")


def json_text(names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows as a JSON array of objects (RFC 8259); control characters are escaped as JSON does it.

    Decimals and large integers are numbers with all their digits, what is not a number (NaN, infinity) is null, bytes
    are base64. Of several columns with one name the later ones are `name_1`, `name_2`, as DuckDB calls them.
    """
    keys = distinct(names)
    text = _json([dict(zip(keys, row, strict=True)) for row in rows])
    return _HARMFUL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def distinct(names: Sequence[str]) -> list[str]:
    """Names of columns, each once: a name that is taken gets a number, `_1` first."""
    found: list[str] = []
    for name in names:
        numbered = (f"{name}_{number}" for number in count(1))
        found.append(name if name not in found else next(one for one in numbered if one not in {*found, *names}))
    return found


_WIDEST = range(-(2**63), 2**64)
"""Integers that orjson writes."""


def _json(value: object) -> str:
    return orjson.dumps(_plain(value)).decode()


def _plain(value: object) -> object:
    """A value of DuckDB's as orjson writes it."""
    match value:
        case None | bool() | float():
            return value
        case str():
            return value if _HALF.search(value) is None else orjson.Fragment(json.dumps(value))
        case int():
            return value if value in _WIDEST else orjson.Fragment(str(value))
        case Decimal():
            return orjson.Fragment(f"{value:f}") if value.is_finite() else None
        case date() | time():
            return value.isoformat()
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(value).decode()
        case Mapping():
            return {str(key): _plain(one) for key, one in value.items()}
        case list() | tuple():
            return [_plain(one) for one in value]
    return str(value)
