"""Records of a delimited text table (RFC 4180 with the usual liberties) as frames of text.

Belongs here: lines, records, what is wrong with a record. Does not belong here: which column is what (`tabular`), where
header and delimiter are found (`dialect`), encodings (`encodings`, `alphabets`).

What is no record: blank lines, a line of dashes, the header once more (as on every page of a report, or where files
were joined), what a database client says of the number of rows, Ctrl-Z at the end.
"""

from __future__ import annotations

import csv
import io
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dicom_assets.clinical.alphabets import encoding_of
from dicom_assets.clinical.chunks import UNREADABLE, ClinicalUnreadable, RecordError
from dicom_assets.clinical.dialect import END_OF_FILE, Dialect, detect, is_rule, named_width, unwrapped
from dicom_assets.clinical.encodings import Utf8Stream, marked, undecoded, unicode_of
from dicom_assets.settings import ClinicalSettings
from dicom_assets.storage.byte_ranges import ByteSource

HEAD_BYTES = 65_536
CHUNK_RECORDS = 20_000
CHUNK_CHARACTERS = 32 * 2**20
LONGEST_LINE = 16 * 2**20
"""Characters; a longer line is no line of a table, and would have to be held in memory."""

_BUFFER = 256 * 1024


_SAID_OF_ROWS = re.compile(r"\(\d+ [^\W\d]+(?: [^\W\d]+)?\)")
"""`(3 rows affected)`, `(3 rows)`, `(3 Zeilen)`: what sqlcmd and psql write below their tables."""
_ODD = frozenset("-=_+|*~:(\"' \t")
"""First characters of lines that may be no records."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Some records. names: of the columns; rows: a text or None for each of them; numbers: of the records."""

    names: tuple[str, ...]
    rows: Sequence[Sequence[str | None]]
    numbers: Sequence[int]
    errors: tuple[RecordError, ...] = ()

    def column(self, name: str) -> list[str | None]:
        """The values of one column."""
        place = self.names.index(name)
        return [row[place] for row in self.rows]


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

    def __init__(self, text: io.TextIOBase, above: int) -> None:
        self._text = text
        self._number = above
        self._given_back: deque[str] = deque()
        self.current: list[str] = []
        self.ended = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._given_back.popleft() if self._given_back else self._text.readline(LONGEST_LINE)
        if line[-1:] in END_OF_FILE:  # the last line, or none at all
            line = line.rstrip(END_OF_FILE)
        if not line:
            self.ended = True
            raise StopIteration
        if len(line) >= LONGEST_LINE:
            raise ClinicalUnreadable(
                UNREADABLE, f"A line is longer than {LONGEST_LINE} characters: number {self._number + 1}."
            )
        self._number += 1
        self.current.append(line)
        return line

    @property
    def first_number(self) -> int:
        """The number of the first line of the current record in the file, from 1."""
        return self._number - len(self.current) + 1

    def give_back_all_but_first(self) -> None:
        """The record ends with its first line after all; reading goes on behind that."""
        self._given_back.extendleft(reversed(self.current[1:]))
        self._number -= len(self.current) - 1


def delimited_frames(source: ByteSource, settings: ClinicalSettings) -> Iterator[Frame]:
    """Frames of at most CHUNK_RECORDS records and about CHUNK_CHARACTERS characters.

    Raises ClinicalUnreadable, also after some frames: then the file as a
    whole is refused. Storage errors as they come.
    """
    head = source.read(0, HEAD_BYTES)
    whole = len(head) >= source.size
    given = None if marked(head) else settings.encoding
    codec = given or unicode_of(head)
    dialect = detect(head, whole, encoding=codec, known=settings.patient_id_columns, doubtful=True)
    if dialect is None:
        raise ClinicalUnreadable(
            UNREADABLE, "No header with names of columns, separated by comma, semicolon, tab or bar, was found."
        )
    utf8 = io.BufferedReader(Utf8Stream(source, codec, None if given else _certain), _BUFFER)
    text = io.TextIOWrapper(utf8, "utf-8", errors="surrogateescape", newline="")
    try:
        for _ in range(dialect.above):
            text.readline(LONGEST_LINE)
        yield from _frames(_Lines(text, dialect.above), dialect)
    except UnicodeError:
        raise ClinicalUnreadable(UNREADABLE, f"Its text is not valid {codec}.") from None


def _certain(sample: bytes) -> str:
    """The encoding of a text that is no Unicode."""
    found = encoding_of(sample)
    if found is None:
        raise ClinicalUnreadable(
            UNREADABLE,
            "Its text is not UTF-8, and by its letters its encoding is not certain. Set clinical.encoding, or encoding "
            "of its data set, such as cp1252, cp1250 or cp1251.",
        )
    return found


def _frames(lines: _Lines, dialect: Dialect) -> Iterator[Frame]:
    records = _records(lines, dialect)
    header = next(records, None)
    if not isinstance(header, list):
        raise ClinicalUnreadable(UNREADABLE, "Its header cannot be read.")
    names, width, least = tuple(distinct(header)), len(header), named_width(header)
    rows: list[list[str]] = []
    numbers: list[int] = []
    errors: list[RecordError] = []
    characters = number = 0
    is_below_header = True
    for fields in records:
        size = len(fields)
        if isinstance(fields, list):
            if lines.current[0][0] in _ODD and is_no_record(fields, width, is_below_header):
                continue
            if fields[0].strip("\ufeff") == header[0] and _is_again(fields, header):
                is_below_header = True
                continue
        is_below_header = False
        number += 1
        if isinstance(fields, str):
            errors.append(RecordError(number, fields))
        elif size == width or (size > width and not any(fields[width:])):
            rows.append(fields[:width])
            numbers.append(number)
            characters += sum(map(len, fields))
        elif least <= size < width:
            rows.append(fields + [""] * (width - size))
            numbers.append(number)
            characters += sum(map(len, fields))
        else:
            errors.append(RecordError(number, f"It has {size} fields, the header has {width}."))
        if len(rows) + len(errors) >= CHUNK_RECORDS or characters >= CHUNK_CHARACTERS:
            yield Frame(names, rows, numbers, tuple(errors))
            rows, numbers, errors, characters = [], [], [], 0
    if rows or errors:
        yield Frame(names, rows, numbers, tuple(errors))


def is_no_record(fields: Sequence[str], width: int, is_below_header: bool) -> bool:
    """Whether what stands in a row is a line of dashes, or what a database client says of the number of rows."""
    if is_rule(fields, is_below_header):
        return True
    said, *others = fields
    return width > 1 and not any(others) and _SAID_OF_ROWS.fullmatch(said.strip()) is not None


def _is_again(fields: Sequence[str], header: Sequence[str]) -> bool:
    """Whether a record is the header once more."""
    return [name.strip("\ufeff ") for name in fields] == [name.strip(" ") for name in header]


def _records(lines: _Lines, dialect: Dialect) -> Iterator[list[str] | str]:
    """Fields of each record that is not blank, or what is wrong with it."""
    reader = dialect.records(lines)
    while True:
        lines.current.clear()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error:
            if lines.ended:
                raise ClinicalUnreadable(
                    UNREADABLE, f"A quote is opened in line {lines.first_number} or below, and never closed."
                ) from None
            if sum(map(len, lines.current)) > csv.field_size_limit():
                detail = f"In line {lines.first_number} a value is longer than {csv.field_size_limit()} characters, "
                detail += "or its quote never closes."
                raise ClinicalUnreadable(UNREADABLE, detail) from None
            # A quote that stands wrong may have taken the following lines with it; they get their own chance.
            lines.give_back_all_but_first()
            yield "A quote stands where none may stand."
            continue
        if not fields:
            continue
        written = lines.current[0] if len(lines.current) == 1 else "".join(lines.current)
        if not written.isascii() and undecoded(written):
            yield "It holds bytes that are not of the file's encoding."
        else:
            yield _values(fields, written)


def _values(fields: list[str], written: str) -> list[str] | str:
    """The fields without what is Excel's or an old system's: `="…"`, and NUL around a value; or why not."""
    if '="' in written:
        fields = [unwrapped(field) for field in fields]
    if "\0" in written:
        fields = [field.strip("\0") for field in fields]
        if any("\0" in field for field in fields):
            return "It holds a NUL within a value."
    return fields
