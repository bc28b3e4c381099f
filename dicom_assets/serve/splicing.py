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
    """How the first of some keys is found: where one may stand, and behind the element before it, at whatever depth.

    others: elements in front of it that hold no others, at most persons' names, as far as this can be told of them.
    """

    others: re.Pattern[bytes]
    there: re.Pattern[bytes]
    behind: re.Pattern[bytes]


_SIMPLE = rb'"%b[^"]*":\{"vr":"(?:(?!SQ|PN)[^}]*|PN"(?:,"Value":\[\{[^}]*\}\])?)\},(?="[0-9A-F])'
"""An element without items that another one follows: no text has what ends it, a brace, a comma and a mark, and goes on
with a digit, since the mark would end the text."""


def _keys_but(left_out: bytes) -> _Keys:
    key = rb'"(?!%b)[0-9A-F]' % left_out
    return _Keys(re.compile(_others(left_out)), re.compile(key), re.compile(rb"\}," + key))


def _others(left_out: bytes) -> bytes:
    return rb"(?:%b)*+" % (_SIMPLE % left_out)


_FILE_META = b"0002"
_TO_RETRIEVE_URL = b"000(?:[0-7]|8(?:0|1(?:0|1[0-8])))"
_TO_TRANSFER_SYNTAX = b"000(?:[0-7]|8(?:[0-2]|300[01]))"
_PARTS = (_FILE_META, _TO_RETRIEVE_URL, _TO_TRANSFER_SYNTAX)
"""Of keys in ascending order, how those begin that stand in front of a place."""

_PLACES = tuple(map(_keys_but, _PARTS))
_AT_ONCE = re.compile(rb"\{" + b"".join(rb'(%b)(?="(?!%b)[0-9A-F])' % (_others(one), one) for one in _PARTS))
"""All three places, where only such elements stand in front of them as hold no others, and more behind."""

_OWN = (b'"00081190":', b'"00083002":')
"""Keys of what a server says, which an object may say as well."""
_URL_KEY, _SYNTAX_KEY = RETRIEVE_URL.encode(), AVAILABLE_TRANSFER_SYNTAX.encode()
_COMMA = ord(",")
_REFERENCE = b'"BulkDataURI":"?offset='
_BEFORE = _REFERENCE.index(b"?")
_BEHIND = len(_REFERENCE) - _BEFORE
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
    row = subject.row
    if row["corrections"]:
        header = _written_again(header, subject)
    at, retrieve_url, transfer_syntax = _places(header)
    if header.startswith(_OWN, retrieve_url) or header.startswith(_OWN, transfer_syntax):
        return pieces(_written_again(header, subject), subject)
    url = subject.url.encode("ascii")
    told = [(retrieve_url, b'"%b":{"vr":"UR","Value":["%b"]},' % (_URL_KEY, url))]
    if syntax := row["TransferSyntaxUID"]:
        value = syntax.encode("ascii", "ignore")
        told.append((transfer_syntax, b'"%b":{"vr":"UI","Value":["%b"]},' % (_SYNTAX_KEY, value)))
    bulk, end = url + b"/bulkdata/", len(header) - 1
    made: list[bytes | memoryview] = [b"{"]
    for place, element in told:
        if place > at:
            made += _absolute(header, at, place, bulk)
            if header[place - 1] != _COMMA:
                made.append(b",")
        made.append(element)
        at = place
    if at < end:
        made += _absolute(header, at, end, bulk)
    else:
        made[-1] = made[-1][:-1]  # no comma behind the last element
    if more := _pixel_data(subject):
        made += (b",", more)
    made.append(b"}")
    return made


def _absolute(header: bytes, start: int, end: int, begin: bytes) -> list[bytes | memoryview]:
    """A part of a header, references made addresses: `{begin}{offset}-{length}`.

    A single byte is found ten times sooner than what a reference begins with.
    """
    whole, find = memoryview(header), header.find
    found: list[bytes | memoryview] = []
    mark = find(b"?", start, end)
    while mark >= 0:
        if not header.startswith(_REFERENCE, mark - _BEFORE):  # text, perhaps of many of these
            mark = find(_REFERENCE, mark, end) + _BEFORE
            if mark < _BEFORE:
                break
        behind = find(b'"', mark)
        offset, _, more = header[mark + _BEHIND : behind].partition(b"&length=")
        found += (whole[start:mark], begin, offset, b"-", more.partition(b"&")[0])
        start = behind
        mark = find(b"?", start, end)
    found.append(whole[start:end])
    return found


def _places(header: bytes) -> tuple[int, int, int]:
    """Where elements of the object begin, and where among them RetrieveURL and AvailableTransferSyntaxUID stand."""
    found = _AT_ONCE.match(header)
    if found is not None:
        return found.end(1), found.end(2), found.end(3)
    begin = _own_key(header, 1, _PLACES[0])
    retrieve_url = _own_key(header, begin, _PLACES[1])
    return begin, retrieve_url, _own_key(header, retrieve_url, _PLACES[2])


def _own_key(header: bytes, start: int, keys: _Keys) -> int:
    """Where the first of some keys stands among those of the object itself; its end where there is none.

    start: of a key of the object itself, or its end.
    """
    passed = keys.others.match(header, start)
    start = passed.end() if passed else start
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
