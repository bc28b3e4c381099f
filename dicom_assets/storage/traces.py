"""Where a text still stands in files, after decoding whatever they are: the search by which an erasure proves itself.

Belongs here: decoding (Parquet with its statistics, dictionaries and metadata, Arrow, SQLite with free pages and its
logs, compressed files, archives, JSON) and looking into what comes of it. Does not belong here: which files are looked
at and which texts are looked for (`batch.erasure`), how SQLite lays out its pages (`sqlite_pages`).

What is decoded is compared token by token, so that a UID is not found in one that goes on behind it. What cannot be
decoded, such as a file that was cut, is looked at byte by byte: it may tell too much, never too little.
"""

from __future__ import annotations

import bz2
import io
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dicom_assets.storage import sqlite_pages

_TOKEN = re.compile(rb"[0-9A-Za-z\x80-\xff]+(?:\.[0-9A-Za-z\x80-\xff]+)*")
_DEEPEST = 6
"""Files within files that are opened."""
_VALUES, _DICTIONARY, _STATISTICS, _METADATA, _BYTES = "values", "dictionary", "statistics", "metadata", "bytes"


@dataclass(frozen=True)
class Terms:
    """Texts that are looked for; those without a letter or digit are never found."""

    texts: frozenset[str]

    @classmethod
    def of(cls, texts: Iterable[str | None]) -> Terms:
        """The texts that say something."""
        return cls(frozenset(text for text in texts if text and _TOKEN.search(text.encode("utf-8", "surrogateescape"))))

    def __bool__(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self.texts)

    @cached_property
    def _bytes(self) -> list[bytes]:
        return [text.encode("utf-8", "surrogateescape") for text in sorted(self.texts)]

    @cached_property
    def _by_token(self) -> dict[bytes, list[bytes]]:
        """Each text by its longest token."""
        found: dict[bytes, list[bytes]] = {}
        for text in self._bytes:
            found.setdefault(max(_TOKEN.findall(text), key=len), []).append(text)
        return found

    def stand_in(self, data: bytes) -> bool:
        """Whether one of them stands in a decoded text, as whole tokens."""
        by_token = self._by_token
        tokens = by_token.keys() & set(_TOKEN.findall(data))
        return any(_stands(text, data) for token in tokens for text in by_token[token])

    def lie_in(self, data: bytes) -> bool:
        """Whether the bytes of one of them lie among others, whatever stands beside them."""
        return any(text in data for text in self._bytes)

    @property
    def longest(self) -> int:
        """Bytes of the longest one."""
        return max(map(len, self._bytes), default=0)


def _stands(text: bytes, data: bytes) -> bool:
    """Whether a text stands in data and is not a part of a longer token there."""
    escaped = re.escape(text)
    return re.search(rb"(?<![0-9A-Za-z])(?<![0-9]\.)" + escaped + rb"(?![0-9A-Za-z])(?!\.[0-9])", data) is not None


def places(data: bytes, terms: Terms, depth: int = 0) -> set[str]:
    """In which kinds of places of a file one of the texts stands; empty when nowhere.

    Values, dictionary, statistics, metadata of Parquet and Arrow; pages of SQLite; bytes of anything else, each with
    the compression or archive before it, such as `gzip: bytes`.
    """
    if not terms or not data:
        return set()
    if data.startswith(b"PAR1"):
        return _parquet(data, terms)
    if data.startswith(b"ARROW1"):
        return _arrow(data, terms)
    if sqlite_pages.is_part_of_database(data):
        return sqlite_pages.places(data, terms)
    if depth < _DEEPEST:
        for name, inside in _unpacked(data):
            if inside is None:
                return {f"{name}, cut: {_BYTES}"} if terms.lie_in(data) else set()
            found = {f"{name}: {place}" for one in inside for place in places(one, terms, depth + 1)}
            return found | ({_BYTES} if terms.stand_in(data) else set())
    return {_BYTES} if terms.stand_in(data) or _stand_in_json(data, terms) else set()


def _unpacked(data: bytes) -> Iterator[tuple[str, list[bytes] | None]]:
    """How a file is packed and what is in it, None where it cannot be unpacked; nothing for a file that is not."""
    try:
        if data.startswith(b"\x1f\x8b"):
            yield "gzip", _inflated(data)
        elif data.startswith(b"\x28\xb5\x2f\xfd"):
            yield "zstd", [_stream(data, "zstd")]
        elif data.startswith(b"\x04\x22\x4d\x18"):
            yield "lz4", [_stream(data, "lz4")]
        elif data.startswith(b"BZh"):
            yield "bzip2", [bz2.decompress(data)]
        elif data.startswith(b"\xfd7zXZ\0"):
            yield "xz", [lzma.decompress(data)]
        elif data.startswith(b"PK\x03\x04"):
            yield "zip", _members(data)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, pa.ArrowException):
        yield "packed", None


def _inflated(data: bytes) -> list[bytes]:
    """What gzip members hold, as far as they go."""
    whole: list[bytes] = []
    while data:
        inflater = zlib.decompressobj(31)
        whole.append(inflater.decompress(data))
        if not inflater.eof:
            break
        data = inflater.unused_data.lstrip(b"\0")
    return [b"".join(whole)]


def _stream(data: bytes, codec: str) -> bytes:
    parts: list[bytes] = []
    with pa.CompressedInputStream(pa.BufferReader(data), codec) as stream:
        while part := stream.read(1 << 20):
            parts.append(part)
    return b"".join(parts)


def _members(data: bytes) -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [
            *(name.filename.encode("utf-8", "surrogateescape") for name in archive.infolist()),
            *(archive.read(name) for name in archive.infolist() if not name.flag_bits & 1),
        ]


def _stand_in_json(data: bytes, terms: Terms) -> bool:
    """Whether a text stands in what JSON says where it is written with escapes."""
    if b"\\" not in data:
        return False
    for line in [data, *data.splitlines()] if data[:1] in b"{[" else data.splitlines():
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if terms.stand_in("\n".join(_texts(value)).encode("utf-8", "surrogatepass")):
            return True
    return False


def _texts(value: Any) -> Iterator[str]:
    """Every text of a JSON value, that of JSON in its texts too."""
    if isinstance(value, str):
        yield value
        if value[:1] in ("{", "["):
            try:
                yield from _texts(json.loads(value))
            except (ValueError, RecursionError):
                return
    elif isinstance(value, dict):
        for name, one in value.items():
            yield name
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


def _parquet(data: bytes, terms: Terms) -> set[str]:
    found: set[str] = set()
    try:
        with pq.ParquetFile(io.BytesIO(data)) as file:
            texts = [field.name for field in file.schema_arrow if _is_text(field.type)]
            metadata = file.metadata
            _add(found, terms, _METADATA, (part for pair in (metadata.metadata or {}).items() for part in pair))
            _add(found, terms, _STATISTICS, _statistics(metadata))
        with pq.ParquetFile(io.BytesIO(data), read_dictionary=texts) as file:
            for group in range(file.num_row_groups):
                for column in file.read_row_group(group).columns:
                    for chunk in column.chunks:
                        found |= _of_array(chunk, terms)
    except (pa.ArrowException, OSError, ValueError):
        return {f"cut Parquet: {_BYTES}"} if terms.lie_in(data) else set()
    return found


def _statistics(metadata: pq.FileMetaData) -> Iterator[bytes]:
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(column)
            statistics = chunk.statistics if chunk.is_stats_set else None
            if statistics is not None and statistics.has_min_max:
                yield from (_encoded(value) for value in (statistics.min, statistics.max))


def _encoded(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")


def _arrow(data: bytes, terms: Terms) -> set[str]:
    found: set[str] = set()
    try:
        with pa.ipc.open_file(pa.BufferReader(data)) as file:
            _add(found, terms, _METADATA, (part for pair in (file.schema.metadata or {}).items() for part in pair))
            for number in range(file.num_record_batches):
                for column in file.get_batch(number).columns:
                    found |= _of_array(column, terms)
    except (pa.ArrowException, OSError):
        return {f"cut Arrow: {_BYTES}"} if terms.lie_in(data) else set()
    return found


def _add(found: set[str], terms: Terms, place: str, texts: Iterable[bytes]) -> None:
    if terms.stand_in(b"\n".join(texts)):
        found.add(place)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _of_array(array: pa.Array, terms: Terms) -> set[str]:
    """In which kinds of places of a column one of the texts stands."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        held = _of_array(array.dictionary, terms)
        if not held:
            return set()
        used = array.dictionary.take(array.indices.unique().drop_null())
        return {_VALUES} if _of_array(used, terms) else {_DICTIONARY}
    if pa.types.is_struct(kind):
        return set().union(*(_of_array(array.field(at), terms) for at in range(kind.num_fields)))
    if pa.types.is_map(kind):
        return _of_array(array.keys, terms) | _of_array(array.items, terms)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _of_array(array.flatten(), terms)
    if _is_text(kind) or str(kind) == "string_view" or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return {_VALUES} if terms.stand_in(b"\n".join(_encoded(one) for one in array.to_pylist() if one)) else set()
    return set()
