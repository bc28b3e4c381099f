"""Retrieve the values that metadata refer to (WADO-RS, PS3.18 10.4).

Belongs here: the resource, what its path stands for, byte ranges. Does not belong here: how references come into
metadata (`splicing`).

A path is `{offset}-{length}`, as metadata have it, or the tag of an element of the object itself. Either is looked up
in the stored header, so nothing can be asked for but what that refers to.
"""

from __future__ import annotations

import re
from binascii import Error, a2b_base64
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from typing import Any, NamedTuple

import orjson
from starlette.responses import Response

from dicom_assets.dicom.references import NoReference, parse
from dicom_assets.dicom.syntax import is_encapsulated, is_little
from dicom_assets.serve.bytes_of import OpenInstance, Words, header_of, read, read_on
from dicom_assets.serve.call import Call
from dicom_assets.serve.media import OCTETS, Offer, choose, ranges
from dicom_assets.serve.places import Found, explained, find
from dicom_assets.serve.problems import Refusal, not_found
from dicom_assets.serve.resource import Parameter, Resource
from dicom_assets.serve.splicing import PIXEL_DATA
from dicom_assets.serve.streaming import BLOCK, BrokenOff, Parts, Stream, finish
from dicom_assets.storage.byte_ranges import ByteSource, BytesSource

_WORD_BYTES = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})").fullmatch
_PATH = re.compile(r"(\d{1,18})-(\d{1,18})").fullmatch
_TAG = re.compile(r"[0-9A-Fa-f]{8}").fullmatch


class Value(NamedTuple):
    """A value of an object: its bytes, or where they lie."""

    vr: str
    offset: int
    length: int
    inline: bytes | None = None
    encapsulated: bool = False


async def retrieve(call: Call) -> Response:
    """One value, or a range of its bytes."""
    accepted = ranges(call.request)
    path = call.request.path_params["path"]
    found, header = await call.ask_for_body(lambda: _found(call))
    instance = OpenInstance(call.served, found)
    try:
        await read(call, instance.open)
        value = _value(header, path, instance)
        syntax = found.pixels["TransferSyntaxUID"] if value.encapsulated else None
        told = (syntax,) if syntax else ()
        choice = choose(accepted, [Offer(OCTETS, told), Offer(OCTETS, told, single=False, multipart=True)])
        source = await read(call, partial(_source, instance, value))
        kind = f"{OCTETS}; transfer-syntax={syntax}" if syntax else OCTETS
        if choice.is_multipart:
            parts = Parts(OCTETS)
            begin = parts.begin(kind)
            length = len(begin) + value.length + len(parts.end)
            pieces = _pieces(call, instance, source, value.offset, value.length, begin, parts.end)
            return Stream(pieces, 200, parts.media_type, length=length)
        return _ranged(call, instance, source, value, kind)
    except BaseException:
        await finish(instance.close)
        raise


def _found(call: Call) -> tuple[Found, bytes]:
    found = find(call, call.uids)
    return found, header_of(call.snapshot(), found)


def _value(header: bytes, path: str, instance: OpenInstance) -> Value:
    """What a path stands for. Raises Refusal (404)."""
    place = _PATH(path)
    if place is not None:
        return _placed(header, int(place[1]), int(place[2]))
    if not _TAG(path):
        raise not_found("value")
    tag = path.upper()
    element: Mapping[str, Any] = orjson.loads(header).get(tag, {})
    row = instance.pixels
    if tag == PIXEL_DATA and row.get("pixel_length"):
        encapsulated = is_encapsulated(row["TransferSyntaxUID"])
        vr = element.get("vr") or ("OB" if encapsulated or (row["BitsAllocated"] or 16) <= 8 else "OW")
        return Value(vr, row["pixel_offset"], row["pixel_length"], encapsulated=row.get("frame_offsets") is not None)
    found = _referred(element)
    if found is None:
        try:
            raw = a2b_base64(element["InlineBinary"])
        except (KeyError, Error, TypeError):
            raise not_found("value") from None
        return Value(element["vr"], 0, len(raw), raw)
    return found


def _placed(header: bytes, offset: int, length: int) -> Value:
    """The value that lies at a place, at whatever depth its element stands; a header of 100 MB is not parsed for it."""
    key = b',"BulkDataURI":"?offset=%d&length=%d' % (offset, length)
    at = header.find(key)
    while at >= 0 and header[at + len(key) : at + len(key) + 1] not in (b'"', b"&"):
        at = header.find(key, at + 1)
    if at < 3:
        raise not_found("value")
    told = header[at + len(key) : header.index(b'"', at + len(key))]
    return Value(header[at - 3 : at - 1].decode("ascii"), offset, length, encapsulated=b"&encapsulated=1" in told)


def _referred(element: Mapping[str, Any]) -> Value | None:
    try:
        reference = parse(element["BulkDataURI"])
    except (KeyError, NoReference):
        return None
    return Value(element["vr"], reference.offset, reference.length, encapsulated=reference.encapsulated)


def _source(instance: OpenInstance, value: Value) -> ByteSource:
    """What the value's offset counts in, its words in little endian. Raises Refusal."""
    if value.inline is not None:
        return BytesSource(value.inline)
    with explained():
        source = instance.data()
    unit = _WORD_BYTES.get(value.vr, 1)
    if is_little(instance.pixels["TransferSyntaxUID"]) or unit == 1:
        return source
    if value.vr == "OW" and value.offset == instance.pixels.get("pixel_offset"):
        unit = max(unit, (instance.pixels["BitsAllocated"] or 16) // 8)
    return Words(source, value.offset, unit)


def _ranged(call: Call, instance: OpenInstance, source: ByteSource, value: Value, kind: str) -> Response:
    """The whole value, or the range that was asked for (RFC 9110 14). Raises Refusal (416)."""
    headers = {"Accept-Ranges": "bytes", "ETag": f'"{instance.found.row["object_id"]}-{value.offset}-{value.length}"'}
    first, last, status = 0, value.length - 1, 200
    asked = call.request.headers.get("range")
    if asked is not None and call.request.headers.get("if-range", headers["ETag"]) == headers["ETag"]:
        span = _span(asked, value.length)
        if span is not None:
            first, last, status = *span, 206
            headers["Content-Range"] = f"bytes {first}-{last}/{value.length}"
    pieces = _pieces(call, instance, source, value.offset + first, last + 1 - first)
    return Stream(pieces, status, kind, headers, length=last + 1 - first)


def _span(text: str, length: int) -> tuple[int, int] | None:
    """First and last byte that a Range asks for; None where it is none or several, which may be left out of account."""
    found = _RANGE(text.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if found[1]:
        first, last = int(found[1]), min(int(found[2] or length), length - 1)
        if found[2] and int(found[2]) < first:
            return None
    else:
        first, last = max(length - int(found[2]), 0), length - 1
        first = length if not int(found[2]) else first
    if first >= length:
        raise Refusal(416, "Range: the value does not have so many bytes.", {"Content-Range": f"bytes */{length}"})
    return first, last


async def _pieces(
    call: Call,
    instance: OpenInstance,
    source: ByteSource,
    offset: int,
    length: int,
    begin: bytes = b"",
    end: bytes = b"",
) -> AsyncGenerator[bytes, None]:
    def block(at: int) -> bytes:
        with explained():
            piece = source.read(at, min(BLOCK, offset + length - at))
            instance.opened.verify()
            return piece

    try:
        if begin:
            yield begin
        at = offset
        while at < offset + length:
            piece = await read_on(call.served, partial(block, at))
            if not piece:
                raise BrokenOff
            yield piece
            at += len(piece)
        if end:
            yield end
    except Refusal:
        raise BrokenOff from None
    finally:
        await finish(instance.close)


RESOURCES: tuple[Resource, ...] = (
    Resource(
        "GET",
        "/studies/{study}/series/{series}/instances/{instance}/bulkdata/{path}",
        "Retrieve Bulkdata",
        "10.4",
        (OCTETS,),
        retrieve,
        (Parameter("accept", "Media types that stand for the header Accept."),),
        statuses=(200, 206, 404, 409, 410, 416),
    ),
)
