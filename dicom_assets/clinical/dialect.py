"""How a text table is written: encoding, delimiter, number of columns, told from its first bytes.

Belongs here: the look at the beginning that both the sniffing of landing objects and the reading of tables rely on.
Does not belong here: reading the table (`tabular`).

The rules. Encoding: a byte order mark counts; without one, text in which every other byte is zero is UTF-16, any
other is UTF-8, and a byte that is not UTF-8 is read as Windows-1252 (a superset of Latin-1's printable part), each by
itself, so that one stray byte does not spoil a file. Delimiter: one of comma, semicolon, tab and bar that the first
line holds and that cuts the following records into as many fields. The first line must look like names of columns.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

DELIMITERS = ",;\t|"
RECORDS_LOOKED_AT = 50
NAME_LENGTH = 128
"""Characters; a longer field of the first line is no name of a column."""

FALLBACK = "dicom_assets_cp1252"
"""Name of the error handler that reads a byte which is not UTF-8 as Windows-1252."""

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\ufffe\uffff]")
_RULE = re.compile(r"[-=:+| ]*")
_SENTENCE = re.compile(r"(?:\S+\s+){2,}\S*[.!?]$|(?:\S+\s+){9,}")
_VALUE = re.compile(r"[-+]?\d[\d.,:/T -]*")
_MARKUP = ("{", "[", "<", "#!", "%PDF", "%!PS", "{\\rtf")
_ALONE_LEAST = 8
_IGNORED_IN_NAMES = str.maketrans("", "", " _-\t\r\n")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a table is written. header: names in its first line as they stand there; encoding: a codec of Python."""

    encoding: str
    delimiter: str
    header: tuple[str, ...]


def _as_cp1252(error: UnicodeError) -> tuple[str, int]:
    """Decodes the bytes that UTF-8 refuses; those that Windows-1252 leaves open as Latin-1."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    bad = error.object[error.start : error.end]
    return "".join(bytes((b,)).decode("cp1252", "ignore") or chr(b) for b in bad), error.end


codecs.register_error(FALLBACK, _as_cp1252)


def errors_for(encoding: str) -> str:
    """The error handler that goes with a codec: the fallback to Windows-1252 makes sense for UTF-8 alone."""
    return FALLBACK if encoding.replace("_", "-").lower() in ("utf-8", "utf8", "utf-8-sig") else "strict"


def encoding_of(head: bytes) -> str:
    """Codec of a text that begins with `head`; to be used with the error handler that `errors_for` names."""
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return encoding
    even, odd = head[:2048:2].count(0), head[1:2048:2].count(0)
    half = len(head[:2048]) // 2
    if half and odd > 0.4 * half and even < 0.1 * half:
        return "utf-16-le"
    if half and even > 0.4 * half and odd < 0.1 * half:
        return "utf-16-be"
    return "utf-8"


def decode_head(head: bytes, encoding: str) -> str | None:
    """Text of a head whose last character may be cut; None when it is no text."""
    try:
        text = codecs.getincrementaldecoder(encoding)(errors_for(encoding)).decode(head)
    except UnicodeError:
        return None
    return None if _CONTROL.search(text) else text


def plain_name(name: str) -> str:
    """A column's name as it is compared: without regard to case, space, `_` and `-`."""
    return name.translate(_IGNORED_IN_NAMES).casefold()


def detect(
    head: bytes, whole: bool, *, encoding: str | None = None, known: Sequence[str] = (), doubtful: bool = False
) -> Dialect | None:
    """How the table that begins with `head` is written, or None when it is no table of at least two columns.

    whole: `head` is all there is; otherwise its last line may be cut and is left out. encoding: taken as given instead
    of detected. known: names of columns of which one makes any first line the header of a table. doubtful: take what
    is likeliest, however many records have another number of fields than the header.
    """
    encoding = encoding or encoding_of(head)
    text = decode_head(head, encoding)
    if text is None or text.lstrip().startswith(_MARKUP):
        return None
    lines = list(io.StringIO(text, newline=""))
    if not whole and len(lines) > 1:
        lines.pop()
    wanted = {plain_name(name) for name in known}
    best: tuple[float, int, str, list[str]] | None = None
    for delimiter in DELIMITERS:
        records = _records(lines, delimiter)
        if not records or len(records[0]) < 2:
            continue
        header = records[0]
        is_known = any(plain_name(name) in wanted for name in header)
        score = 1.0 + _share(records) if is_known else _score(records, cut=not whole and len(lines) == 1)
        if doubtful and not is_known and _is_header(header):
            score = _share(records)
        if (score or doubtful) and (best is None or (score, len(header)) > best[:2]):
            best = (score, len(header), delimiter, header)
    return Dialect(encoding, best[2], tuple(best[3])) if best else None


def looks_like_table(head: bytes, whole: bool, known: Sequence[str] = ()) -> bool:
    """Whether an object that begins with `head` is a text table with a header and records; prose with commas is not.

    Where the first line holds a known name it is a table; otherwise a header alone is one only when it fills `head`.
    """
    found = detect(head, whole, known=known)
    return found is not None and (not whole or _has_records(head, found))


def _has_records(head: bytes, dialect: Dialect) -> bool:
    text = decode_head(head, dialect.encoding) or ""
    return len(_records(list(io.StringIO(text, newline="")), dialect.delimiter)) > 1


def _records(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    """The first records that are not blank; those before a quote that does not close within the head."""
    records: list[list[str]] = []
    try:
        for fields in csv.reader(lines, delimiter=delimiter, strict=True):
            if fields:
                records.append(fields)
            if len(records) > RECORDS_LOOKED_AT:
                break
    except csv.Error:
        pass
    return records


def _share(records: Sequence[Sequence[str]]) -> float:
    """Share of the records behind the header that have as many fields."""
    width, body = len(records[0]), records[1:]
    return sum(_fits(fields, width) for fields in body) / len(body) if body else 0.0


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


def _fits(fields: Sequence[str], width: int) -> bool:
    return len(fields) == width or (len(fields) > width and not any(fields[width:]))


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
