"""Records of the sheets of an XLSX workbook (ECMA-376, Transitional and Strict) as frames of text.

Belongs here: which sheets are tables, where a table begins, cells as text. Does not belong here: which column is what
(`tabular`), telling a workbook from another ZIP file (`dicom_assets.landing.recognition`).

Every sheet, hidden ones too, is a table from the row on that names a wanted column; records are counted through the
sheets. A sheet without such a row is passed over and told of; a workbook of such sheets is refused. Cells are text: a
date, a time and both in ISO form, a whole number without a point, an empty cell null; of a formula what it last gave.

The cells are read by calamine (python-calamine: alive, wheels of 1 MB for all systems; openpyxl has had no release
since 2024). It holds a sheet as a whole, so what a workbook inflates to is bounded.
"""

from __future__ import annotations

import datetime as dt
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from typing import TYPE_CHECKING

from python_calamine import CalamineError, CalamineWorkbook, SheetTypeEnum

from dicom_assets.clinical.chunks import UNREADABLE, ClinicalUnreadable
from dicom_assets.clinical.delimited import CHUNK_RECORDS, Frame, distinct, is_no_record
from dicom_assets.clinical.dialect import LINES_ABOVE, named_width, plain_name, unwrapped
from dicom_assets.storage.byte_file import ByteFile
from dicom_assets.storage.byte_ranges import ByteSource

if TYPE_CHECKING:
    from python_calamine import CalamineSheet

MOST_BYTES = 512 << 20
"""Bytes to which all parts of a workbook inflate; a larger table is better delivered as CSV or Parquet."""

_BUFFER = 1 << 20
_EXACT = 2.0**53
"""Whole floating point numbers below it are exact."""

Cell = int | float | str | bool | dt.date | dt.datetime | dt.time | dt.timedelta


@dataclass(frozen=True, slots=True)
class Sheets:
    """The frames of a workbook, and how many of its sheets are passed over, which is known when all are read."""

    total: int
    passed_over: int


def workbook_frames(source: ByteSource, known: Sequence[str]) -> Iterator[Frame | Sheets]:
    """Frames of at most CHUNK_RECORDS records, and at last what became of the sheets that are not empty.

    known: names of the columns of which a table has at least one. Raises ClinicalUnreadable, also after some frames;
    storage errors as they come.
    """
    raw = ByteFile(source)
    wanted = {plain_name(name) for name in known}
    total = passed_over = number = 0
    try:
        _bounded(raw)
        with CalamineWorkbook.from_filelike(BufferedReader(raw, _BUFFER)) as book:  # type: ignore[arg-type]
            for meta in book.sheets_metadata:
                if meta.typ is not SheetTypeEnum.WorkSheet:
                    continue
                rows = _rows(book.get_sheet_by_name(meta.name))
                first = next(rows, None)
                if first is None:
                    continue
                total += 1
                header = _header(first, rows, wanted)
                if header is None:
                    passed_over += 1
                    continue
                for frame in _frames(header, rows, number):
                    number = frame.numbers[-1]
                    yield frame
    except (CalamineError, zipfile.BadZipFile, NotImplementedError, OSError, ValueError, KeyError) as error:
        if raw.failure is not None:
            raise raw.failure from None
        if isinstance(error, ClinicalUnreadable):
            raise
        raise ClinicalUnreadable(UNREADABLE, "The workbook cannot be read: it is damaged or encrypted.") from None
    if total and passed_over == total:
        raise ClinicalUnreadable(
            UNREADABLE,
            f"No patient id column in any of its {total} sheets; looked for {', '.join(known)}. "
            "Set clinical.patient_id_columns to the column's name.",
        )
    yield Sheets(total, passed_over)


def _bounded(raw: ByteFile) -> None:
    """ClinicalUnreadable where the parts, as the directory says, inflate to too much."""
    with zipfile.ZipFile(raw) as package:
        size = sum(part.file_size for part in package.infolist())
    if size > MOST_BYTES:
        raise ClinicalUnreadable(
            UNREADABLE, f"The workbook inflates to more than {MOST_BYTES} bytes; deliver it as CSV or Parquet."
        )
    raw.seek(0)


def _rows(sheet: CalamineSheet) -> Iterator[list[str]]:
    """The rows of a sheet that are not blank, as texts."""
    for cells in sheet.iter_rows():
        texts = [as_text(cell) for cell in cells]
        if any(texts):
            yield texts


def _header(first: list[str], rows: Iterator[list[str]], wanted: set[str]) -> list[str] | None:
    """The first of the rows at the beginning that names a wanted column."""
    row: list[str] | None = first
    for _ in range(LINES_ABOVE + 1):
        if row is None:
            return None
        if any(plain_name(unwrapped(name)) in wanted for name in row):
            return row
        row = next(rows, None)
    return None


def _frames(header: list[str], rows: Iterator[list[str]], number: int) -> Iterator[Frame]:
    """Frames of the rows below a header; number: of the last record before them."""
    found: list[list[str | None]] = []
    width = named_width(header)
    first, is_below_header = number + 1, True
    names = tuple(distinct(header))
    for row in rows:
        if row == header or is_no_record(row, width, is_below_header):
            is_below_header = row == header
            continue
        is_below_header = False
        number += 1
        found.append([text or None for text in row])
        if len(found) >= CHUNK_RECORDS:
            yield Frame(names, found, range(first, number + 1))
            found, first = [], number + 1
    if found:
        yield Frame(names, found, range(first, number + 1))


def as_text(cell: Cell) -> str:
    """A cell as text, empty where it is."""
    if isinstance(cell, str):
        return unwrapped(cell)
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() and abs(cell) < _EXACT else repr(cell)
    if isinstance(cell, dt.datetime):
        return cell.date().isoformat() if cell.time() == dt.time() else cell.isoformat()
    return cell.isoformat() if isinstance(cell, dt.date | dt.time) else str(cell)
