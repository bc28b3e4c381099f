"""Stored headers made into metadata for a client, as bytes: parsing and writing them again costs ten times more.

Belongs here: leaving out File Meta Information, adding what only a server can say, references made absolute, corrected
values. Does not belong here: which headers.

Elements stay in ascending order (PS3.18 F.2.2). A key is told from text by its quotation marks, which text has with a
backslash in front; whether it is one of the object itself, by the braces in front of it outside of text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from dicom_assets.dicom.pixels import frame_bits
from dicom_assets.dicom.syntax import is_encapsulated
from dicom_assets.schema.attributes import ATTRIBUTES
from dicom_assets.schema.correction_tables import RECEIVED

AVAILABLE_TRANSFER_SYNTAX = "00083002"
RETRIEVE_URL = "00081190"
PIXEL_DATA = "7FE00010"

_TEXTS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_NEITHER = bytes(set(range(256)) - set(b'"\\{}'))
"""Every byte but marks of text, what escapes them, and braces."""


class _Keys(NamedTuple):
    """How the first of some keys is found: where one may stand, and behind the element before it, at whatever depth."""

    there: re.Pattern[bytes]
    behind: re.Pattern[bytes]


def _keys_but(left_out: bytes) -> _Keys:
    key = rb'"(?!%b)[0-9A-F]' % left_out
    return _Keys(re.compile(key), re.compile(rb"\}," + key))


_BEHIND_FILE_META = _keys_but(b"0002")
_FROM_RETRIEVE_URL = _keys_but(b"000(?:[0-7]|8(?:0|1(?:0|1[0-8])))")
_FROM_TRANSFER_SYNTAX = _keys_but(b"000(?:[0-7]|8(?:[0-2]|300[01]))")
_OWN = (b'"00081190":', b'"00083002":')
"""Keys of what a server says, which an object may say as well."""
_SYNTAX_KEY = AVAILABLE_TRANSFER_SYNTAX.encode()
_COMMA = ord(",")
_REFERENCE = b'"BulkDataURI":"?offset='
_MARK = _REFERENCE.index(b"?")
_TAGS = {a.keyword: (f"{a.tag:08X}", a.vr) for a in ATTRIBUTES if a.keyword in RECEIVED.values()}


class Subject(NamedTuple):
    """What is said of an instance beside its header.

    url: of the instance, absolute. row: of `instance`. pixels: of flat_metadata, for a header that was stored without
    bulk data; None for one that is whole.
    """

    url: str
    row: Mapping[str, Any]
    pixels: Mapping[str, Any] | None = None


def metadata(header: bytes, subject: Subject) -> bytes:
    """The metadata of one instance. header: as stored."""
    return b"".join(pieces(header, subject))


def pieces(header: bytes, subject: Subject) -> list[bytes | memoryview]:
    """The same in pieces, to be joined once with those of other instances. header: as stored."""
    syntax = subject.row["TransferSyntaxUID"]
    url = subject.url.encode("ascii")
    if subject.row["corrections"]:
        header = _written_again(header, subject)
    told = [(_FROM_RETRIEVE_URL, b'"%b":{"vr":"UR","Value":["%b"]}' % (RETRIEVE_URL.encode(), url))]
    if syntax:
        value = syntax.encode("ascii", "ignore")
        told.append((_FROM_TRANSFER_SYNTAX, b'"%b":{"vr":"UI","Value":["%b"]}' % (_SYNTAX_KEY, value)))
    at = _own_key(header, 1, _BEHIND_FILE_META)
    made: list[bytes | memoryview] = []
    for keys, element in told:
        place = _own_key(header, at, keys)
        if header.startswith(_OWN, place):
            return pieces(_written_again(header, subject), subject)
        if place > at:
            made += [b",", *_absolute(header, at, place if header[place - 1] != _COMMA else place - 1, url)]
        made += [b",", element]
        at = place
    if at < len(header) - 1:
        made += [b",", *_absolute(header, at, len(header) - 1, url)]
    if more := _pixel_data(subject):
        made += [b",", more]
    made[0] = b"{"  # instead of the first comma
    return [*made, b"}"]


def _absolute(header: bytes, start: int, end: int, url: bytes) -> list[bytes | memoryview]:
    """A part of a header, references made addresses below that of the instance: `bulkdata/{offset}-{length}`."""
    whole = memoryview(header)
    found: list[bytes | memoryview] = []
    begin = b'"BulkDataURI":"%b/bulkdata/' % url
    while (at := _reference(header, start, end)) >= 0:
        behind = header.index(b'"', at + len(_REFERENCE))
        place = header[at + len(_REFERENCE) : behind].replace(b"&length=", b"-", 1)
        found += [whole[start:at], begin, place.partition(b"&")[0] if b"&" in place else place]
        start = behind
    return [*found, whole[start:end]]


def _reference(header: bytes, start: int, end: int) -> int:
    """Where the first reference of a part begins, -1 where there is none: a single byte is found ten times sooner."""
    mark = header.find(b"?", start, end)
    if mark < 0 or header.startswith(_REFERENCE, max(mark - _MARK, 0)):
        return mark - _MARK if mark >= 0 else -1
    return header.find(_REFERENCE, start, end)


def _own_key(header: bytes, start: int, keys: _Keys) -> int:
    """Where the first of some keys stands among those of the object itself; its end where there is none.

    start: of a key of the object itself, or its end.
    """
    if keys.there.match(header, start):
        return start
    depth, counted = 0, start
    for found in keys.behind.finditer(header, start):
        depth += _depth(header[counted : found.start() + 1])
        if depth == 0:
            return found.start() + 2
        counted = found.start() + 1
    return len(header) - 1


def _depth(between: bytes) -> int:
    """How many more braces are opened than closed, those in text aside; `between` begins and ends outside of text.

    What is left of text is its marks. They go in pairs, unless a brace stands in a text, behind an odd number of them.
    """
    left = between.translate(None, _NEITHER).replace(b'""', b"")
    if b'"' in left or b"\\" in left:
        left = _TEXTS.sub(b"", between)
    return left.count(b"{") - left.count(b"}")


def _pixel_data(subject: Subject) -> bytes:
    """Pixel Data by reference for a header that was stored without; empty where the object has none, as far as told."""
    row = subject.pixels
    if row is None or frame_bits(row) is None:
        return b""
    encapsulated = is_encapsulated(row["TransferSyntaxUID"])
    vr = "OB" if encapsulated or (row["BitsAllocated"] or 16) <= 8 else "OW"
    return f'"{PIXEL_DATA}":{{"vr":"{vr}","BulkDataURI":"{subject.url}/bulkdata/{PIXEL_DATA}"}}'.encode("ascii")


def _written_again(header: bytes, subject: Subject) -> bytes:
    """The header with corrected values in place of those that the object says, and without what a server says."""
    elements: dict[str, Any] = orjson.loads(header)
    for tag in (RETRIEVE_URL, AVAILABLE_TRANSFER_SYNTAX):
        elements.pop(tag, None)
    if subject.row["corrections"]:
        for keyword, (tag, vr) in _TAGS.items():
            value = subject.row[keyword]
            if value is not None:
                elements[tag] = {"vr": vr, "Value": [value]}
    return orjson.dumps(dict(sorted(elements.items())))
