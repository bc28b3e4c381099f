"""How many records a workbook has, counted by the standard library: its rows with a value, in its XML.

Belongs here: zipfile and an XML parser over the parts of one sheet. Does not belong here: what cells mean; nothing of
`dicom_assets.clinical` is used. Which of several sheets is a table, or what stands above a header, is not told here:
such a workbook is not counted.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import IO
from xml.etree import ElementTree

_MOST = 256 << 20
"""Bytes of one sheet that are read."""
_SHEET = re.compile(r"xl/worksheets/[^/]+\.xml")


class Uncounted(Exception):
    """The records cannot be told in this way."""


_SPELLING = re.compile(r"[\s_-]")
_DRAWN = re.compile(r"\s*(?:[-=+_|:*~ \t]*|\(\d+ .*)", re.DOTALL)
"""Texts that may make a row that is no record: blank, of dashes, numbers of rows."""


def names_one(header: Iterable[str], columns: Iterable[str]) -> bool:
    """Whether one of the texts is the name of a column, without regard to case, space, `_` and `-`."""
    wanted = {_SPELLING.sub("", name).casefold() for name in columns}
    return any(_SPELLING.sub("", name).casefold() in wanted for name in header)


def count_rows(file: io.RawIOBase, columns: Sequence[str]) -> int:
    """The rows below the first one of the only sheet with values, which names one of the columns.

    Raises Uncounted, and what the file raises.
    """
    try:
        with zipfile.ZipFile(file) as package:  # type: ignore[arg-type]
            filled = [rows for rows in _sheets(package) if rows]
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ElementTree.ParseError, zlib.error):
        raise Uncounted from None
    except (IndexError, ValueError):
        raise Uncounted from None  # a cell refers to a text that is not there
    if len(filled) != 1:
        raise Uncounted
    (first, *others) = filled[0]
    if len(first) < max(2, *map(len, others), 0) or first in others or not names_one(first, columns):
        raise Uncounted
    return len(others)


Row = tuple[str, ...]
"""The content of each cell that has one."""


def _sheets(package: zipfile.ZipFile) -> Iterator[list[Row]]:
    parts = {one.filename.replace("\\", "/").removeprefix("/").lower(): one for one in package.infolist()}
    sheets = [one for name, one in parts.items() if _SHEET.fullmatch(name)]
    shared = parts.get("xl/sharedstrings.xml")
    if any(one.file_size > _MOST for one in (*sheets, *filter(None, [shared]))):
        raise Uncounted
    strings: list[str] = []
    if shared is not None:
        with package.open(shared) as part:
            strings = list(_shared(part))
    for one in sheets:
        with package.open(one) as part:
            yield [row for row in _rows(part, strings) if row]


def _shared(strings: IO[bytes]) -> Iterator[str]:
    for _, element in ElementTree.iterparse(strings):
        if _local(element) == "si":
            yield "".join(one.text or "" for one in element.iter() if _local(one) == "t")
            element.clear()


def _rows(sheet: IO[bytes], strings: list[str]) -> Iterator[Row]:
    for _, element in ElementTree.iterparse(sheet):
        if _local(element) != "row":
            continue
        yield tuple(filter(None, (_cell(one, strings) for one in element)))
        element.clear()


def _cell(cell: ElementTree.Element, strings: list[str]) -> str:
    """Uncounted where a cell may make its row no record."""
    kind = cell.get("t")
    content = "".join(one.text or "" for one in cell.iter() if _local(one) in ("v", "t"))
    if kind == "s" and content:
        content = strings[int(content)]
    if kind == "e" or (content and kind in ("s", "str", "inlineStr") and _DRAWN.fullmatch(content)):
        raise Uncounted  # whether an error is a value is a matter of taste
    return content


def _local(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]
