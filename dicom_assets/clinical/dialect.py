"""How a text table is written: where its header stands, delimiter, quotes, told from its first bytes.

Belongs here: the look at the beginning that both the sniffing of landing objects and the reading of tables rely on.
Does not belong here: encodings (`encodings`, `alphabets`), reading the table (`delimited`).

The rules. A line `sep=;` above everything names the delimiter, as Excel reads it. The header is the first line that
names a column which somebody looks for, within LINES_ABOVE lines: what stands above it is a title. Without such a name
it is the first line, which must look like names of columns. Delimiter: one of comma, semicolon, tab and bar that the
header holds and that cuts the following records into as many fields.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dicom_assets.clinical.encodings import is_utf8, unicode_of

DELIMITERS = ",;\t|"
RECORDS_LOOKED_AT = 50
LINES_ABOVE = 30
NAME_LENGTH = 128
"""Characters; a longer field of the first line is no name of a column."""
END_OF_FILE = "\x1a\0"
"""What old systems fill the end of a text with: Ctrl-Z, NUL."""

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\ufffe\uffff]")
_SEPARATOR = re.compile(r'"?sep=(\\t|[^\w\s"]|\t|\s)"?[;,\t|]*\s*', re.IGNORECASE)
_FORMULA = re.compile(r'\s*="((?:[^"]|"")*)"\s*')
_RULE_SIGNS = "-=+_|:*~ \t"
_RULE = re.compile(r"[-=:+| ]*")
_SENTENCE = re.compile(r"(?:\S+\s+){2,}\S*[.!?]$|(?:\S+\s+){9,}")
_VALUE = re.compile(r"[-+]?\d[\d.,:/T -]*")
_MARKUP = re.compile(r'\s*(?:\{|<|#!|%PDF|%!PS|\[\s*(?:[\[{"\]\d-]|$))')
_SPACED = re.compile(r'[,;\t|] +"')
_ALONE_LEAST = 8
_NO_BREAK_SPACES = "\u00a0\udca0\udcff\udcca\udc9a"
"""As a character, and as the bytes A0 (Windows, ISO 8859), FF (DOS), CA (Macintosh), 9A (KOI8) before decoding."""
_IGNORED_IN_NAMES = str.maketrans("", "", f" _-\t\r\n{_NO_BREAK_SPACES}\ufeff\u200b")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a table is written. header: names in its header as they stand there; above: lines over it that are skipped.

    quote: what encloses values. spaced: space in front of a quote is none of the value. enclosed: each line as a whole
    stands in quotes.
    """

    delimiter: str
    header: tuple[str, ...]
    above: int = 0
    quote: str = '"'
    spaced: bool = False
    enclosed: bool = False

    def records(self, lines: Iterator[str]) -> Iterator[list[str]]:
        """Fields of each record, blank ones too; csv.Error where a quote stands wrong."""
        found = csv.reader(
            lines, delimiter=self.delimiter, quotechar=self.quote, skipinitialspace=self.spaced, strict=True
        )
        if not self.enclosed:
            return found
        return (self._opened(fields) for fields in found)

    def _opened(self, fields: list[str]) -> list[str]:
        if len(fields) != 1:
            return fields
        return next(csv.reader(fields, delimiter=self.delimiter, strict=True), fields)


def plain_name(name: str) -> str:
    """A column's name as it is compared: without regard to case, space, `_` and `-`."""
    return name.translate(_IGNORED_IN_NAMES).casefold()


def unwrapped(value: str) -> str:
    """A value without the `="…"` by which Excel is told that it is a text."""
    found = _FORMULA.fullmatch(value)
    return found[1].replace('""', '"') if found else value


def is_rule(fields: Sequence[str], below_header: bool = True) -> bool:
    """Whether a record is a line of dashes, as programs draw it below a header or between pages.

    below_header: columns may be without a dash, or have but one; elsewhere dashes may be values.
    """
    drawn = "".join(fields)
    if drawn.strip(_RULE_SIGNS) or not any(sign in drawn for sign in "-=_*~"):
        return False
    return below_header or all(len(field.strip()) > 1 for field in fields)


def decode_head(head: bytes, encoding: str) -> str | None:
    """Text of a head whose last character may be cut; None when it is not in this encoding.

    Bytes that are not UTF-8 stand in it as surrogates.
    """
    try:
        errors = "surrogateescape" if is_utf8(encoding) else "strict"
        text = codecs.getincrementaldecoder(encoding)(errors).decode(head)
    except UnicodeError:
        return None
    return text.removeprefix("\ufeff")


def is_text(head: bytes) -> bool:
    """Whether these are the first bytes of a text in Unicode, or in an encoding with ASCII in it."""
    text = decode_head(head, unicode_of(head))
    return text is not None and not _CONTROL.search(text.rstrip(END_OF_FILE))


def detect(
    head: bytes, whole: bool, *, encoding: str | None = None, known: Sequence[str] = (), doubtful: bool = False
) -> Dialect | None:
    """How the table that begins with `head` is written, or None when it is no table.

    whole: `head` is all there is; otherwise its last line may be cut and is left out. encoding: taken as given instead
    of detected. known: names of columns of which one makes a line the header of a table, even of a single column.
    doubtful: take what is likeliest, however many records have another number of fields than the header.
    """
    text = decode_head(head, encoding or unicode_of(head))
    if text is None or _MARKUP.match(text):
        return None
    text = text.rstrip(END_OF_FILE) if whole else text
    lines = list(io.StringIO(text, newline=""))
    if not whole and len(lines) > 1:
        lines.pop()
    first, delimiters = _separator(lines)
    wanted = {plain_name(name) for name in known}
    found = _named(lines, first, delimiters, wanted)
    if found is not None or _CONTROL.search(text):
        return found
    return _likeliest(lines[first:], first, delimiters, doubtful, cut=not whole and len(lines) == 1)


def looks_like_table(head: bytes, whole: bool, known: Sequence[str] = (), encoding: str | None = None) -> bool:
    """Whether an object that begins with `head` is a text table with a header and records; prose with commas is not.

    A line with a known name is a header, also when nothing follows; any other one only above records, or when it fills
    `head`.
    """
    found = detect(head, whole, encoding=encoding, known=known)
    if found is None:
        return False
    wanted = {plain_name(name) for name in known}
    return not whole or any(_plain(name) in wanted for name in found.header) or _has_records(head, found, encoding)


def _has_records(head: bytes, dialect: Dialect, encoding: str | None) -> bool:
    text = decode_head(head, encoding or unicode_of(head)) or ""
    return len(_records(list(io.StringIO(text, newline=""))[dialect.above :], dialect)) > 1


def _plain(name: str) -> str:
    return plain_name(unwrapped(name).strip("'#"))


def _separator(lines: Sequence[str]) -> tuple[int, str]:
    """The number of the first line behind Excel's `sep=`, and the delimiters to choose from."""
    found = _SEPARATOR.fullmatch(lines[0]) if lines else None
    if found is None:
        return 0, DELIMITERS
    return 1, "\t" if found[1] == "\\t" else found[1]


def _named(lines: Sequence[str], first: int, delimiters: str, wanted: set[str]) -> Dialect | None:
    """The table below the first line that names a wanted column and that records fit, or the first that names one."""
    doubtful: Dialect | None = None
    for above in range(first, min(len(lines), first + LINES_ABOVE + 1)):
        plain = plain_name(lines[above])
        if above > first and not any(name in plain for name in wanted):
            continue
        found = _below(lines[above:], above, delimiters, wanted)
        if found is None or (above > first and len(found[1].header) > 1 and not _is_header(found[1].header)):
            continue
        if found[0] >= 0.5 or (above == first and len(found[1].header) > 1 and len(lines) == above + 1):
            return found[1]
        doubtful = doubtful or found[1]
    return doubtful


def _below(lines: Sequence[str], above: int, delimiters: str, wanted: set[str]) -> tuple[float, Dialect] | None:
    """The best reading in which the first record names a wanted column, with the share of records that fit it."""
    best: tuple[float, int, bool, Dialect] | None = None
    for delimiter in delimiters:
        for form in _forms(lines, delimiter):
            records = _records(lines, form)
            if not records or not any(_plain(name) in wanted for name in records[0]):
                continue
            if len(records[0]) == 1 and (delimiter != delimiters[0] or above > 1):
                continue  # of one column, whatever the delimiter: prose may have a line with such a word
            rank = (_share(records), len(records[0]), form.spaced or form.quote == "'")
            if best is None or rank > best[:3]:
                header = tuple(records[0])
                best = (*rank, Dialect(delimiter, header, above, form.quote, form.spaced, form.enclosed))
    return None if best is None else (best[0], best[3])


def _forms(lines: Sequence[str], delimiter: str) -> Iterator[Dialect]:
    """The ways in which quotes may stand, likeliest first; odd ones only where the first lines look like them."""
    yield Dialect(delimiter, ())
    some = lines[:RECORDS_LOOKED_AT]
    if any(_SPACED.search(line) for line in some):
        yield Dialect(delimiter, (), spaced=True)
    start = lines[0].lstrip()
    if start.startswith("'"):
        yield Dialect(delimiter, (), quote="'")
    if start.startswith('"') and delimiter in start and len(next(csv.reader(lines[:1], delimiter=delimiter))) == 1:
        yield Dialect(delimiter, (), enclosed=True)


def _likeliest(lines: Sequence[str], above: int, delimiters: str, doubtful: bool, *, cut: bool) -> Dialect | None:
    """The table whose first line looks most like a header."""
    best: tuple[float, int, Dialect] | None = None
    for delimiter in delimiters:
        records = _records(lines, Dialect(delimiter, ()))
        if not records or len(records[0]) < 2:
            continue
        header = records[0]
        score = _share(records) if doubtful and _is_header(header) else _score(records, cut=cut)
        if (score or doubtful) and (best is None or (score, len(header)) > best[:2]):
            best = (score, len(header), Dialect(delimiter, tuple(header), above))
    return best[2] if best else None


def _records(lines: Sequence[str], dialect: Dialect) -> list[list[str]]:
    """The first records that are not blank; those before a quote that does not close within the head."""
    records: list[list[str]] = []
    try:
        for fields in dialect.records(iter(lines)):
            if fields:
                records.append(fields)
            if len(records) > RECORDS_LOOKED_AT:
                break
    except csv.Error:
        pass
    return records


def _share(records: Sequence[Sequence[str]]) -> float:
    """Share of the records behind the header that fit it."""
    header, body = records[0], [fields for fields in records[1:] if not is_rule(fields)]
    return sum(fits(fields, header) for fields in body) / len(body) if body else 0.0


def _score(records: Sequence[Sequence[str]], cut: bool) -> float:
    """Share of records with as many fields as the header, 0 when this is no table."""
    if not _is_header(records[0]):
        return 0.0
    width, body = len(records[0]), records[1:]
    if not body:
        return 0.5 if cut and width >= _ALONE_LEAST else 0.0
    if _RULE.fullmatch("".join(body[0])) and any(body[0]):
        return 0.0
    share = _share(records)
    # Two columns are a weak sign: a letter has one comma a line, too.
    least = 0.9 if width == 2 and len(body) > 4 else 0.6 if width > 2 else 0.75
    return share if share >= least else 0.0


def named_width(header: Sequence[str]) -> int:
    """Number of columns up to the last one that has a name; a comma too many in the header makes others behind it."""
    width = len(header)
    while width > 1 and not header[width - 1].strip():
        width -= 1
    return width


def fits(fields: Sequence[str], header: Sequence[str]) -> bool:
    """Whether a record has a value for each named column, and none beyond the header."""
    if len(fields) <= len(header):
        return len(fields) >= named_width(header)
    return not any(fields[len(header) :])


def _is_header(fields: Sequence[str]) -> bool:
    """Whether these can be names of columns: at least two, short, most of them different, no sentences, no values."""
    names = [name.strip() for name in fields]
    filled = [name for name in names if name]
    if len(filled) < 2 or len(filled) < 0.5 * len(names):
        return False
    if any(len(name) > NAME_LENGTH or _SENTENCE.match(name) for name in filled):
        return False
    if len(names) == 2 and any(_VALUE.match(name) for name in filled):
        return False
    return len(set(filled)) > 0.5 * len(filled)
