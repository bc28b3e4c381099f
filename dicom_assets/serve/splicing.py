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

_TEXT = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_VALUE = rb'(?:[^"{}]|%b|\{(?:[^"{}]|%b)*\})*' % (_TEXT, _TEXT)
_FILE_META = re.compile(rb'\{(?:"0002[0-9A-F]{4}":\{%b\},?)*' % _VALUE)
_TEXTS = re.compile(_TEXT)
_NEITHER = bytes(set(range(256)) - set(b'"\\{}'))
"""Every byte but marks of text, what escapes them, and braces."""
_FROM_RETRIEVE_URL = re.compile(
    rb'"(?:0008(?:119[0-9A-F]|11[A-F]|1[2-9A-F]|[2-9A-F])|000[9A-F]|00[1-9A-F]|0[1-9A-F]|[1-9A-F])[0-9A-F]*":\{"vr"'
)
_FROM_TRANSFER_SYNTAX = re.compile(
    rb'"(?:0008(?:300[2-9A-F]|30[1-9A-F]|3[1-9A-F]|[4-9A-F])|000[9A-F]|00[1-9A-F]|0[1-9A-F]|[1-9A-F])[0-9A-F]*":\{"vr"'
)
_OWN = (b'"00081190":', b'"00083002":')
"""Keys of what a server says, which an object may say as well."""
_REFERENCE = b'"BulkDataURI":"?offset='
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
    syntax = subject.row["TransferSyntaxUID"]
    url = subject.url.encode("ascii")
    if subject.row["corrections"]:
        header = _written_again(header, subject)
    begin = _FILE_META.match(header)
    at = begin.end() if begin else 1
    spliced = [b"{"]
    pairs = [(_FROM_RETRIEVE_URL, b'"%b":{"vr":"UR","Value":["%b"]}' % (RETRIEVE_URL.encode(), url))]
    if syntax:
        told = b'"%b":{"vr":"UI","Value":["%b"]}' % (
            AVAILABLE_TRANSFER_SYNTAX.encode(),
            syntax.encode("ascii", "ignore"),
        )
        pairs.append((_FROM_TRANSFER_SYNTAX, told))
    for pattern, element in pairs:
        place = _own_key(header, at, pattern)
        if header.startswith(_OWN, place):
            return metadata(_written_again(header, subject), subject)
        before = header[at:place].rstrip(b",")
        spliced += [before, b",", element, b","] if before else [element, b","]
        at = place
    rest = header[at:]
    more = _pixel_data(subject)
    if more:
        rest = rest.rstrip(b"}") if rest == b"}" else rest[:-1] + b","
        spliced += [rest, more, b"}"]
    elif rest == b"}":
        spliced[-1] = b"}"
    else:
        spliced.append(rest)
    return _absolute(b"".join(spliced), url)


def _absolute(elements: bytes, url: bytes) -> bytes:
    """References made addresses below that of the instance: `bulkdata/{offset}-{length}`."""
    first, *others = elements.split(_REFERENCE)
    pieces = [first]
    for one in others:
        told, _, behind = one.partition(b'"')
        offset, _, length = told.partition(b"&length=")
        pieces.append(b'"BulkDataURI":"%b/bulkdata/%b-%b"%b' % (url, offset, length.partition(b"&")[0], behind))
    return b"".join(pieces)


def _own_key(header: bytes, start: int, pattern: re.Pattern[bytes]) -> int:
    """Where the first key that a pattern finds stands among those of the object itself; its end where there is none."""
    depth, counted = 0, start
    for found in pattern.finditer(header, start):
        depth += _depth(header[counted : found.start()])
        if depth == 0:
            return found.start()
        counted = found.start()
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
