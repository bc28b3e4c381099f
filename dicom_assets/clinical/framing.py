"""Taking a file of FHIR JSON apart into resources, as a stream.

Belongs here: which bytes of a file are one resource: lines of NDJSON, elements of an array, entries of a Bundle, or the
file as a whole, told apart by content. A resource is handed on as the bytes that were written, so that decimals keep
their digits. Does not belong here: what the resources say (`dicom_assets.clinical.fhir_resources`).

A structural scan finds the ends of values: it needs quotes, brackets and depth, nothing else, and keeps only offsets.
So a Bundle of any size costs the memory of its largest entry plus 16 bytes for each entry, and the key order does not
matter: `entry` may stand before `resourceType`. What is inside a value, `orjson` judges. What stands between values,
other than space, commas and the brackets of arrays, is a fault of its own: a quote too many may hide all that follows.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from dicom_assets.clinical.encodings import Utf8Copy, has_text, unicode_of
from dicom_assets.storage.byte_ranges import ByteSource, BytesSource

CHUNK = 1 << 20
LINE = 1 << 20
"""Longer lines and values are scanned instead of being parsed as a whole."""
MAX_RESOURCE = 32 << 20
"""Bytes of one resource; a longer one is an error of its own."""
MAX_BUNDLES = 3
"""How deep a Bundle may lie in Bundles."""


class NotFhir(Exception):
    """The bytes are not JSON that could hold resources. The message has no value in it."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One record of a file: the bytes of a resource, or why there are none.

    full_url: `fullUrl` of the entry that held it. fault: what is wrong, in words without a value.
    """

    data: bytes
    full_url: str | None = None
    fault: str | None = None


_JSON = re.compile(rb'\s*(?:\{\s*(?:"|\}|$)|\[\s*(?:[\[{"\]\d-]|$))')
_TYPE = re.compile(rb'"resourceType"\s*+:')
_BROKEN_OFF = b" \t\r\n\x1a\0"
"""What may stand around a line: space, and what old programs fill the end of a file with."""
_BETWEEN = b"[], \t\r\n\v\f\x1a\0"
"""What may stand between values, besides a byte order mark."""
_STRAY = "something that is no JSON object stands between the records, or behind them"
_AROUND = "around its entries a Bundle is not valid JSON, or its entry is no list of objects"


def looks_like_json(head: bytes) -> bool:
    """Whether a text whose first bytes are `head`, in any Unicode encoding, begins like an object or array of JSON."""
    return _JSON.match(_plain(head)) is not None


def looks_like_fhir(head: bytes) -> bool:
    """Whether a file whose first bytes are `head` is FHIR JSON: an object or array that names a resource type."""
    text = _plain(head)
    return text.lstrip()[:1] in (b"{", b"[") and b'"resourceType"' in text


def holds_fhir(source: ByteSource) -> bool:
    """Whether JSON names a resource type, wherever in its first MAX_RESOURCE bytes: keys stand in any order.

    A longer resource is refused, and a longer Bundle has shorter entries. Raises what `source` raises.
    """
    encoding = unicode_of(source.read(0, CHUNK))
    return has_text(source, lambda data: _TYPE.search(data) is not None, encoding, MAX_RESOURCE)


def _plain(head: bytes) -> bytes:
    """The first bytes in UTF-8, without a mark."""
    encoding = unicode_of(head)
    if encoding == "utf-8":
        return head
    return head.decode(encoding, "replace").encode("utf-8", "replace")


def frames(source: ByteSource) -> Iterator[Frame]:
    """Every record of a file in its order; the entries of Bundles take the place of their Bundle.

    A line of NDJSON that is broken is one faulty frame, and the next line goes on. Raises NotFhir when the file is no
    JSON at all, ClinicalUnreadable when its encoding does not hold to its end, and whatever `source` raises.
    """
    encoding = unicode_of(source.read(0, LINE))
    if encoding in ("utf-8", "utf-8-sig"):
        yield from _utf8_frames(source)
        return
    copy = Utf8Copy(source, encoding)
    try:
        yield from _utf8_frames(copy)
    finally:
        copy.close()


def _utf8_frames(source: ByteSource) -> Iterator[Frame]:
    head = source.read(0, LINE)
    start = 3 if head.startswith(b"\xef\xbb\xbf") else 0
    text = head[start:].lstrip()
    if text[:1] not in (b"{", b"["):
        raise NotFhir("neither an object nor an array stands at the beginning")
    start = len(head) - len(text)
    if _is_lines(text):
        yield from _lines(source, start)
    else:
        yield from _document(source, start, source.size, 0)


def _is_lines(text: bytes) -> bool:
    """NDJSON: the first line is an object by itself, or the second one begins a resource as a first one would."""
    if text[:1] != b"{":
        return False
    first, _, rest = text.partition(b"\n")
    if not rest.strip() and len(text) < LINE - 3:
        return False
    if _loads(first) is not None:
        return True
    return re.match(rb'\s*\{[^\n]*"resourceType"[^\n]*\}\s*(\n|$)', rest) is not None


def _loads(data: bytes) -> object | None:
    try:
        value: object = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return value


def _lines(source: ByteSource, start: int) -> Iterator[Frame]:
    """Each line that is not blank; a line longer than LINE is scanned where it lies."""
    held, offset, position = b"", start, start
    while True:
        chunk = source.read(position, CHUNK)
        position += len(chunk)
        held += chunk
        *whole, held = held.split(b"\n")
        for line in whole:
            yield from _line(line)
            offset += len(line) + 1
        if not chunk:
            yield from _line(held)
            return
        if len(held) > LINE:
            stop = _line_end(source, position)
            yield from _document(source, offset, stop, 0)
            held, offset, position = b"", stop + 1, stop + 1


def _line_end(source: ByteSource, position: int) -> int:
    while chunk := source.read(position, CHUNK):
        found = chunk.find(b"\n")
        if found >= 0:
            return position + found
        position += len(chunk)
    return position


def _line(line: bytes) -> Iterator[Frame]:
    line = line.strip(_BROKEN_OFF).removeprefix(b"\xef\xbb\xbf")
    if line:
        yield from _value(line, None, 0)


def _value(data: bytes, full_url: str | None, depth: int) -> Iterator[Frame]:
    """One value that is in memory: a resource, or a Bundle whose entries are taken out."""
    value = _loads(data)
    if not isinstance(value, dict):
        yield Frame(b"", full_url, "not a JSON object" if value is not None else "not valid JSON")
    elif value.get("resourceType") == "Bundle":
        if depth >= MAX_BUNDLES:
            yield Frame(b"", full_url, f"Bundles lie more than {MAX_BUNDLES} deep in each other")
        elif value.get("entry"):
            for top in _scan(BytesSource(data), 0, len(data)):
                yield from _entries(BytesSource(data), top, depth)
    else:
        yield Frame(data, full_url)


@dataclass(slots=True)
class _Top:
    """What the scan learns of one value at the top: where it lies, its resource type, its entries."""

    start: int
    stop: int = 0
    resource_type: str | None = None
    entries: array[int] | None = None
    is_whole: bool = False


def _document(source: ByteSource, start: int, stop: int, depth: int) -> Iterator[Frame]:
    """The values between two offsets: one after the other, or as elements of one array."""
    behind = start
    for top in _scan(source, start, stop):
        if not _is_empty(source, behind, top.start):
            yield Frame(b"", None, _STRAY)
        behind = top.stop if top.is_whole else stop
        if top.resource_type == "Bundle" and depth >= MAX_BUNDLES:
            yield Frame(b"", None, f"Bundles lie more than {MAX_BUNDLES} deep in each other")
        elif top.resource_type == "Bundle" or (top.resource_type is None and top.entries and not top.is_whole):
            yield from _entries(source, top, depth)
        elif not top.is_whole:
            yield Frame(b"", None, "the file ends inside a resource")
        else:
            yield from _spanned(source, top.start, top.stop, depth)
    if not _is_empty(source, behind, stop):
        yield Frame(b"", None, _STRAY)


def _is_empty(source: ByteSource, start: int, stop: int) -> bool:
    """Whether nothing that could be a part of a record stands between two offsets."""
    while start < stop and (piece := source.read(start, min(CHUNK, stop - start))):
        if piece.replace(b"\xef\xbb\xbf", b"").translate(None, _BETWEEN):
            return False
        start += len(piece)
    return True


def _entries(source: ByteSource, bundle: _Top, depth: int) -> Iterator[Frame]:
    """What is in a Bundle, and a fault where something in it is no entry."""
    entries = bundle.entries if bundle.entries is not None else array("q")
    for at in range(0, len(entries), 2):
        if at and not _is_empty(source, entries[at - 1], entries[at]):
            yield Frame(b"", None, _STRAY)
        yield from _entry(source, entries[at], entries[at + 1], depth)
    if not bundle.is_whole:
        yield Frame(b"", None, "the file ends inside a Bundle")
    elif not _is_around(source, bundle, entries):
        yield Frame(b"", None, _AROUND)


def _is_around(source: ByteSource, bundle: _Top, entries: array[int]) -> bool:
    """Whether a Bundle would be valid with nothing but an empty object in place of its entries."""
    first, last = (entries[0], entries[-1]) if entries else (bundle.stop, bundle.stop)
    if first - bundle.start + bundle.stop - last > MAX_RESOURCE:
        return False
    head = source.read(bundle.start, first - bundle.start)
    tail = source.read(last, bundle.stop - last).lstrip().removeprefix(b",")
    value = _loads(head + b"{}" + tail if entries else head)
    return isinstance(value, dict) and (value.get("entry") or []) == ([{}] if entries else [])


def _spanned(source: ByteSource, start: int, stop: int, depth: int) -> Iterator[Frame]:
    if stop - start > MAX_RESOURCE:
        yield Frame(b"", None, f"a resource of more than {MAX_RESOURCE} bytes")
    else:
        yield from _value(source.read(start, stop - start), None, depth)


def _entry(source: ByteSource, start: int, stop: int, depth: int) -> Iterator[Frame]:
    """The resource of one entry of a Bundle."""
    if stop - start > MAX_RESOURCE:
        yield Frame(b"", None, f"an entry of more than {MAX_RESOURCE} bytes")
        return
    data = source.read(start, stop - start)
    value = _loads(data)
    if not isinstance(value, dict):
        yield Frame(b"", None, "not valid JSON")
        return
    url = value.get("fullUrl")
    full_url = url if isinstance(url, str) else None
    if not isinstance(value.get("resource"), dict):
        yield Frame(b"", full_url, "the entry holds no resource")
        return
    yield from _value(_member(data, b"resource"), full_url, depth + 1)


def _member(data: bytes, name: bytes) -> bytes:
    """The bytes of the object that is a member of an object, as written; of a name that stands twice the last one.

    data: a valid JSON object whose member `name` is an object.
    """
    depth, key, start, found = 0, b"", -1, b""
    for match in _TOKEN.finditer(data):
        mark = data[match.start()]
        if mark == _QUOTE:
            if depth == 1:
                key = data[match.start() + 1 : match.end(1) - 1] if match[2] else b""
        elif mark in _OPENING:
            depth += 1
            if depth == 2 and key == name:
                start = match.start()
        else:
            depth -= 1
            if depth == 1 and start >= 0:
                found, start = data[start : match.end()], -1
    return found


_QUOTE, _BACKSLASH = 0x22, 0x5C
_OPENING = b"{["
_TOKEN = re.compile(rb'("[^"\\]*+(?:\\.[^"\\]*+)*+")(\s*+:)?|[{}\[\]]|"', re.DOTALL)
"""A string and the colon that makes it a key, a bracket, or the quote of a string that does not end in these bytes."""
_STRING_REST = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_EDGE = 4096
"""Tokens that begin in so many last bytes of a chunk wait for the next one; no key is as long."""


def _scan(source: ByteSource, start: int, stop: int) -> Iterator[_Top]:
    """Finds the objects at the top, or the elements of an array at the top, and the entries of Bundles among them.

    `outer` is the depth at which they stand: 0, or 1 inside an array. Whether a `}` closes a `[` is not looked at:
    the bytes between two offsets are parsed later, each by itself.
    """
    top: _Top | None = None
    depth, outer, entry, key = 0, 0, -1, b""
    in_string, position, base, held = False, start, start, b""
    while True:
        chunk = source.read(position, min(CHUNK, stop - position)) if position < stop else b""
        position += len(chunk)
        data, at = held + chunk, 0
        if in_string:
            at = _end_of(_STRING_REST, data)
            if at < len(data) and data[at] == _QUOTE:
                in_string, at = False, at + 1
        done = at if in_string else len(data)
        edge = len(data) - _EDGE if chunk else len(data)
        for match in _TOKEN.finditer(data, at) if not in_string else ():
            here = match.start()
            if here >= edge:
                done = here
                break
            mark = data[here]
            if mark == _QUOTE:
                if match[1] is None:
                    in_string = True
                    done = here + 1 + _end_of(_STRING_REST, data[here + 1 :])
                    break
                if depth == outer + 1:
                    text = data[here + 1 : match.end(1) - 1]
                    if match[2]:
                        key = text
                    elif key == b"resourceType" and top is not None:
                        top.resource_type = text.decode("utf-8", "replace")
            elif mark in _OPENING:
                if depth == 0 and mark == _OPENING[1]:
                    outer = 1
                elif depth == outer:
                    top, key = _Top(base + here), b""
                elif depth == outer + 1 and mark == _OPENING[1] and key == b"entry" and top is not None:
                    top.entries = top.entries if top.entries is not None else array("q")
                elif depth == outer + 2 and key == b"entry" and top is not None and top.entries is not None:
                    entry = base + here
                depth += 1
            else:
                depth -= 1
                if depth == outer + 2 and entry >= 0 and top is not None and top.entries is not None:
                    top.entries.extend((entry, base + match.end()))
                    entry = -1
                elif depth == outer and top is not None:
                    top.stop, top.is_whole = base + match.end(), True
                    yield top
                    top = None
                elif depth <= 0:
                    depth = outer = 0
        if not chunk:
            break
        held, base = data[done:], base + done
    if top is not None:
        yield top


def _end_of(pattern: re.Pattern[bytes], data: bytes) -> int:
    match = pattern.match(data)
    return match.end() if match else 0
