"""How many records a clinical file has, counted by other means than those that read it.

Belongs here: Parquet's footer, Arrow's CSV reader, the standard library's JSON decoder. Nothing of
`dicom_assets.clinical` is used, and nothing is said of what a record holds: a record that cannot be read counts too.
Sheets of workbooks are counted by `sheet_recount`.

Where the first line is no header, or lines that are no records may stand among them (titles, lines of dashes, headers
once more, numbers of rows), how many records there are depends on which columns somebody looks for: such a table is not
counted.
"""

from __future__ import annotations

import codecs
import csv as stdlib_csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from dicom_assets.batch.checks.sheet_recount import Uncounted, count_rows, names_one

__all__ = ["Uncounted", "count_records"]

_HEAD = 65_536
_CHUNK = 1 << 20
_LONGEST = 32 << 20
"""Bytes or characters of one value that are held."""
_CSV_BLOCK = 8 << 20
_BUNDLES = 3
"""How deep a Bundle may lie in Bundles; deeper ones are one record."""


def count_records(file: io.RawIOBase, columns: Sequence[str]) -> int:
    """The records of a table or of FHIR JSON. Raises Uncounted, and what the file raises.

    columns: names of which the header of a text table or a sheet has one.
    """
    head = file.read(_HEAD) or b""
    file.seek(0)
    if head.startswith(b"PAR1"):
        return _parquet(file)
    if head.startswith(b"PK"):
        return count_rows(file, columns)
    wide = _wide(head)
    if wide is not None:
        return _json_of(file, wide)
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if text[:1] in (b"{", b"["):
        return _json(file, text)
    return _delimited(file, head, columns)


def _parquet(file: io.RawIOBase) -> int:
    try:
        with pq.ParquetFile(pa.PythonFile(file, mode="r")) as found:
            return int(found.metadata.num_rows)
    except pa.ArrowException:
        raise Uncounted from None


def _wide(head: bytes) -> str | None:
    """The codec of JSON in UTF-16 or UTF-32, by its mark or by the zeros around its first sign (RFC 4627 3)."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        encoding = "utf-32"
    elif head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    else:
        zeros = tuple(byte == 0 for byte in head[:4])
        known = {(True, True, True, False): "utf-32-be", (False, True, True, True): "utf-32-le"}
        known |= {(True, False, True, False): "utf-16-be", (False, True, False, True): "utf-16-le"}
        if zeros not in known:
            return None
        encoding = known[zeros]
    text = head[: len(head) // 4 * 4].decode(encoding, "replace").lstrip()
    return encoding if text[:1] in ("{", "[") else None


def _json_of(file: io.RawIOBase, encoding: str) -> int:
    data = file.read(_LONGEST + 1) or b""
    while len(data) <= _LONGEST and (more := file.read(_LONGEST)):
        data += more
    if len(data) > _LONGEST:
        raise Uncounted
    try:
        text = data.decode(encoding).encode("utf-8")
    except UnicodeError:
        raise Uncounted from None
    return _json(io.BytesIO(text), text.lstrip())  # type: ignore[arg-type]


_MAY_BE_DRAWN = re.compile(rb"[\r\n][-=_+|:*~ \t,;\"'(]")
"""How a line may begin that is no record; quick to look for, and rare."""
_DRAWN = re.compile(rb"[\r\n](?:[-=_+|:*~ \t,;\"']*[-=_*~][-=_+|:*~ \t,;\"']*|[ \t\"]*\(\d+ [^\r\n]*)(?:[\r\n]|$)")
"""Lines of dashes, and lines that begin like `(3 rows affected)`."""
_SPACED = re.compile(rb"[,;\t|] +\"")
_SEPARATOR = re.compile(r"sep=(.)", re.IGNORECASE)
_LOOKED_AT = 50


def _is_plain(file: io.RawIOBase, wide: bool, header: bytes, above: int) -> bool | None:
    """Whether no line behind the header may be anything but a record; None where that is so, and it is no UTF-8.

    The file is read through, and set back. above: lines over the header, 0 or 1.
    """
    held, decoder, is_utf8 = b"", codecs.getincrementaldecoder("utf-8")(), True
    while True:
        piece = file.read(_CHUNK) or b""
        data = held + (piece.replace(b"\0", b"") if wide else piece)
        if _has_other_lines(data) or data.count(b"\n" + header) > above:
            return False
        above = 0
        if is_utf8 and not wide:
            try:
                decoder.decode(piece, not piece)
            except UnicodeDecodeError:
                is_utf8 = False
        if not piece:
            break
        held = data[-4096:]
        held = held[held.find(b"\n") + 1 :]
    file.seek(0)
    return True if is_utf8 else None


def _has_other_lines(data: bytes) -> bool:
    """Whether there are ends of a file, quotes behind a space, or lines that are drawn."""
    if b"\x1a" in data or b"\0" in data or (b' "' in data and _SPACED.search(data)):
        return True
    return _MAY_BE_DRAWN.search(data) is not None and _DRAWN.search(data) is not None


def _has_header(lines: list[str], delimiter: str, columns: Sequence[str]) -> bool:
    """Whether the first line names a column, and most others have as many fields: a title over a table does not."""
    header, *others = [row for row in stdlib_csv.reader(lines[:_LOOKED_AT], delimiter=delimiter) if row]
    if not names_one(header, columns):
        return False
    least = len(header) - (not header[-1].strip())
    fitting = sum(len(row) >= least and not any(row[len(header) :]) for row in others)
    return 2 * fitting >= len(others)


def _delimited(file: io.RawIOBase, head: bytes, columns: Sequence[str]) -> int:
    """Rows but the first; a row with too few or too many fields is one, a blank line is none."""
    wide = head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    if (not wide and b"\0" in head) or head.startswith(codecs.BOM_UTF32_LE):
        raise Uncounted
    text = head.decode("utf-16", "replace") if wide else head.removeprefix(codecs.BOM_UTF8).decode("latin-1")
    first = text.lstrip("\r\n").splitlines()
    named = _SEPARATOR.fullmatch(first[0].strip()) if first else None
    if named:
        first = first[1:]
        written = [(1, named[1]), (0, "")] if first else []
    else:
        written = sorted(((first[0].count(mark), mark) for mark in ",;\t|"), reverse=True) if first else []
    if not written or not written[0][0] or written[0][0] == written[1][0]:
        raise Uncounted
    try:
        if not _has_header(first, written[0][1], columns):
            raise Uncounted
    except stdlib_csv.Error:
        raise Uncounted from None
    plain = _is_plain(file, wide, first[0].encode("utf-8" if wide else "latin-1"), int(named is not None))
    if plain is False or (plain is None and written[0][1] == "|"):  # which may be part of a character
        raise Uncounted
    wrong = 0

    def refuse(row: Any) -> str:
        nonlocal wrong
        wrong += 1
        return "skip"

    try:
        reader = csv.open_csv(
            pa.PythonFile(file, mode="r"),
            csv.ReadOptions(
                use_threads=False,
                block_size=_CSV_BLOCK,
                autogenerate_column_names=True,
                encoding="utf-16" if wide else "utf8" if plain else "latin-1",
            ),
            csv.ParseOptions(
                delimiter=written[0][1], newlines_in_values=True, ignore_empty_lines=True, invalid_row_handler=refuse
            ),
            csv.ConvertOptions(check_utf8=False, include_columns=["f0"], column_types={"f0": pa.binary()}),
        )
        rows = sum(len(batch) for batch in reader)
    except (pa.ArrowException, UnicodeError):
        raise Uncounted from None
    return rows + wrong - (2 if named else 1)


def _json(file: io.RawIOBase, text: bytes) -> int:
    """Resources: lines of NDJSON, elements of an array, entries of Bundles, or values one after the other."""
    lines = text.split(b"\n", 2)
    if text[:1] == b"{" and len(lines) > 1 and (_whole(lines[0]) or _whole(lines[1])):
        return _lines(file)
    decoder = _Values(io.TextIOWrapper(io.BufferedReader(file, _CHUNK), "utf-8-sig", errors="replace"))
    try:
        return decoder.count()
    except (ValueError, RecursionError):
        raise Uncounted from None


def _whole(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _lines(file: io.RawIOBase) -> int:
    total = 0
    for line in _split(file):
        if not line.strip(b" \t\r\n\x1a\0"):
            continue
        if b'"Bundle"' not in line:
            total += 1
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            total += 1  # a line that is broken is one record that cannot be read
            continue
        total += _resources(value, 0)
    return total


def _split(file: io.RawIOBase) -> Iterator[bytes]:
    held = b""
    while piece := file.read(_CHUNK):
        *whole, held = (held + piece).split(b"\n")
        if len(held) > _CHUNK:
            raise Uncounted  # what such a line is depends on how it is taken apart
        yield from whole
    yield held


def _resources(value: Any, depth: int) -> int:
    """How many records one value is; a Bundle is its entries."""
    if not isinstance(value, dict) or value.get("resourceType") != "Bundle" or depth >= _BUNDLES:
        return 1
    entries = value.get("entry") or []
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        raise Uncounted
    return sum(_entry(one, depth) for one in entries)


def _entry(entry: Any, depth: int) -> int:
    if not isinstance(entry, dict):
        raise Uncounted
    resource = entry.get("resource")
    return _resources(resource, depth + 1) if isinstance(resource, dict) else 1


class _Values:
    """JSON values of a text one after the other, and of a Bundle one entry after the other, however long it is."""

    def __init__(self, text: io.TextIOBase) -> None:
        self._text = text
        self._held, self._at = "", 0
        self._decode = json.JSONDecoder().raw_decode

    def count(self) -> int:
        total = 0
        while mark := self._next():
            if mark == "[":
                total += sum(self._value_at_top() for _ in self._elements())
            else:
                total += self._value_at_top()
        return total

    def _more(self) -> bool:
        """Reads on, at least as much as is held, so that a long value is not tried again and again."""
        self._held = self._held[self._at :]
        self._at = 0
        if len(self._held) > _LONGEST:
            raise Uncounted
        piece = self._text.read(max(_CHUNK, len(self._held)))
        self._held += piece
        return bool(piece)

    def _next(self) -> str:
        """The next character that is no space, without taking it; empty at the end."""
        while True:
            while self._at < len(self._held) and self._held[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._held):
                return self._held[self._at]
            if not self._more():
                return ""

    def _take(self, wanted: str) -> None:
        if self._next() != wanted:
            raise ValueError
        self._at += 1

    def _value(self) -> Any:
        self._next()
        while True:
            try:
                value, end = self._decode(self._held, self._at)
            except ValueError:
                if not self._more():
                    raise
                continue
            if end == len(self._held) and self._more():
                continue  # a number may go on
            self._at = end
            return value

    def _elements(self) -> Iterator[None]:
        """Once for each element of an array, which whoever asks takes."""
        self._take("[")
        if self._next() == "]":
            self._take("]")
            return
        while True:
            yield
            if self._next() == ",":
                self._take(",")
                continue
            self._take("]")
            return

    def _value_at_top(self) -> int:
        """The records of one object, whose entries are taken one by one."""
        self._take("{")
        kind, entries = None, 0
        if self._next() == "}":
            self._take("}")
            return 1
        while True:
            key = self._value()
            self._take(":")
            if key == "entry" and self._next() == "[":
                entries = sum(_entry(self._value(), 0) for _ in self._elements())
            else:
                value = self._value()
                kind = value if key == "resourceType" else kind
                if key == "entry" and value:
                    raise Uncounted
            if self._next() == ",":
                self._take(",")
                continue
            self._take("}")
            return entries if kind == "Bundle" else 1
