"""How many records a workbook has, counted by the standard library: its rows with a value, in its XML.

Belongs here: zipfile and an XML parser over the parts of one sheet. Does not belong here: what cells mean; nothing of
`dicom_assets.clinical` is used. Which of several sheets is a table, or what stands above a header, is not told here:
such a workbook is not counted.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from typing import IO
from xml.etree import ElementTree

_MOST = 256 << 20
"""Bytes of one sheet that are read."""
_SHEET = re.compile(r"xl/worksheets/[^/]+\.xml")


class Uncounted(Exception):
    """The records cannot be told in this way."""


_DRAWN = re.compile(r"\s*(?:[-=+_|:*~ \t]*|\(\d+ .*)", re.DOTALL)
"""Texts that may make a row that is no record: blank, of dashes, numbers of rows."""


def count_rows(file: io.RawIOBase) -> int:
    """The rows below the first one of the only sheet with values. Raises Uncounted, and what the file raises."""
    filled = []
    try:
        with zipfile.ZipFile(file) as package:  # type: ignore[arg-type]
            for part in package.infolist():
                name = part.filename.replace("\\", "/").removeprefix("/").lower()
                if part.file_size > _MOST:
                    raise Uncounted
                if name == "xl/sharedstrings.xml":
                    with package.open(part) as strings:
                        _shared(strings)
                elif _SHEET.fullmatch(name):
                    with package.open(part) as sheet:
                        rows = [row for row in _rows(sheet) if row]
                    if rows:
                        filled.append(rows)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ElementTree.ParseError):
        raise Uncounted from None
    if len(filled) != 1:
        raise Uncounted
    (first, *others) = filled[0]
    if len(first) < max(2, *map(len, others), 0) or first in others:
        raise Uncounted
    return len(others)


Row = tuple[tuple[str | None, str], ...]
"""Type and content of each cell that has one."""


def _shared(strings: IO[bytes]) -> None:
    """Uncounted where a text that cells refer to may make no record."""
    for _, element in ElementTree.iterparse(strings):
        if _local(element) == "si":
            _told("".join(one.text or "" for one in element.iter() if _local(one) == "t"))
            element.clear()


def _rows(sheet: IO[bytes]) -> Iterator[Row]:
    for _, element in ElementTree.iterparse(sheet):
        if _local(element) != "row":
            continue
        yield tuple(cell for one in element if (cell := _cell(one))[1])
        element.clear()


def _cell(cell: ElementTree.Element) -> tuple[str | None, str]:
    kind = cell.get("t")
    content = "".join(one.text or "" for one in cell.iter() if _local(one) in ("v", "t"))
    if kind == "e":
        raise Uncounted  # whether an error is a value is a matter of taste
    return kind, _told(content) if kind in ("str", "inlineStr") and content else content


def _told(text: str) -> str:
    if _DRAWN.fullmatch(text):
        raise Uncounted
    return text


def _local(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]
