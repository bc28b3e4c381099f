"""Records of a delimited text table (RFC 4180 with the usual liberties) as frames of text.

Belongs here: lines, records, what is wrong with a record. Does not belong here: which column is what (`tabular`), how
encoding and delimiter are found (`dialect`).

The standard library's reader cuts records, because pandas tells neither which record has too many or too few fields
nor whether a field at the end was written or is missing; the frames are pandas'.
"""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from dicom_assets.clinical.dialect import detect, errors_for
from dicom_assets.clinical.source import UNREADABLE, Bytes, ClinicalUnreadable, RecordError, SourceFile
from dicom_assets.settings import ClinicalSettings

HEAD_BYTES = 65_536
CHUNK_RECORDS = 20_000
CHUNK_CHARACTERS = 32 * 2**20
LONGEST_LINE = 16 * 2**20
"""Characters; a longer line is no line of a table, and would have to be held in memory."""

_BUFFER = 256 * 1024


@dataclass(frozen=True, slots=True)
class Frame:
    """Some records. values: one text column for each column of the file, by its name; its index is record numbers."""

    values: pd.DataFrame
    errors: tuple[RecordError, ...] = ()


def distinct(names: list[str] | tuple[str, ...]) -> list[str]:
    """Names of columns, stripped; one without a name is called by its place, a repeated one gets `#2` and so on."""
    taken: set[str] = set()
    result = []
    for place, name in enumerate(names, start=1):
        base = name.strip() or f"column_{place}"
        number, unique = 1, base
        while unique in taken:
            number += 1
            unique = f"{base}#{number}"
        taken.add(unique)
        result.append(unique)
    return result


class _Lines:
    """Lines of a text, one by one; those of the current record can be given back."""

    def __init__(self, text: io.TextIOBase) -> None:
        self._text = text
        self._given_back: deque[str] = deque()
        self.current: list[str] = []
        self.ended = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._given_back.popleft() if self._given_back else self._text.readline(LONGEST_LINE)
        if not line:
            self.ended = True
            raise StopIteration
        if len(line) >= LONGEST_LINE:
            raise ClinicalUnreadable(UNREADABLE, f"A line is longer than {LONGEST_LINE} characters.")
        self.current.append(line)
        return line

    def give_back_all_but_first(self) -> None:
        """The record ends with its first line after all; reading goes on behind that."""
        self._given_back.extendleft(reversed(self.current[1:]))


def delimited_frames(source: Bytes, settings: ClinicalSettings) -> Iterator[Frame]:
    """Frames of at most CHUNK_RECORDS records and about CHUNK_CHARACTERS characters.

    Raises ClinicalUnreadable, also after some frames: then the file as a whole is refused. Storage errors as they come.
    """
    head = source.read(0, HEAD_BYTES)
    whole = len(head) >= source.size
    dialect = detect(head, whole, encoding=settings.encoding, known=settings.patient_id_columns, doubtful=True)
    if dialect is None:
        raise ClinicalUnreadable(
            UNREADABLE, "No header with names of columns, separated by comma, semicolon, tab or bar, was found."
        )
    text = io.TextIOWrapper(
        io.BufferedReader(SourceFile(source), _BUFFER),
        dialect.encoding,
        errors=errors_for(dialect.encoding),
        newline="",
    )
    try:
        yield from _frames(_Lines(text), dialect.delimiter)
    except UnicodeError:
        raise ClinicalUnreadable(UNREADABLE, f"Its text is not valid {dialect.encoding}.") from None


def _frames(lines: _Lines, delimiter: str) -> Iterator[Frame]:
    records = _records(lines, delimiter)
    header = next(records, None)
    if not isinstance(header, list):
        raise ClinicalUnreadable(UNREADABLE, "Its header cannot be read.")
    names, width = distinct(header), len(header)
    rows: list[list[str]] = []
    numbers: list[int] = []
    errors: list[RecordError] = []
    characters = 0
    for number, fields in enumerate(records, start=1):
        if isinstance(fields, str):
            errors.append(RecordError(number, fields))
        elif len(fields) == width or (len(fields) > width and not any(fields[width:])):
            rows.append(fields[:width])
            numbers.append(number)
            characters += sum(map(len, fields))
        else:
            errors.append(RecordError(number, f"It has {len(fields)} fields, the header has {width}."))
        if len(rows) + len(errors) >= CHUNK_RECORDS or characters >= CHUNK_CHARACTERS:
            yield Frame(pd.DataFrame(rows, index=numbers, columns=names, dtype=object), tuple(errors))
            rows, numbers, errors, characters = [], [], [], 0
    if rows or errors:
        yield Frame(pd.DataFrame(rows, index=numbers, columns=names, dtype=object), tuple(errors))


def _records(lines: _Lines, delimiter: str) -> Iterator[list[str] | str]:
    """Fields of each record that is not blank, or what is wrong with it."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        lines.current.clear()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error:
            if lines.ended:
                raise ClinicalUnreadable(UNREADABLE, "A quote is opened and never closed.") from None
            if sum(map(len, lines.current)) > csv.field_size_limit():
                detail = f"A value is longer than {csv.field_size_limit()} characters, or its quote never closes."
                raise ClinicalUnreadable(UNREADABLE, detail) from None
            # A quote that stands wrong may have taken the following lines with it; they get their own chance.
            lines.give_back_all_but_first()
            yield "A quote stands where none may stand."
            continue
        if fields:
            yield fields
