"""What stands in a header for a value that it does not spell out, and how to get the value back.

Belongs here: which bulk values are inline, the reference that stands for all others, and reading what a reference says.
Does not belong here: which elements are bulk (`values`), opening the object (`landing.retrieval`).

PS3.18 F.2.2 lets BulkDataURI stand for any value. Ours is relative to the object:
`?offset=…&length=…[&encapsulated=1][&count=…&digest=…]`.

- offset, length: bytes of the value in the object (a member of an archive: in the member); where the transfer syntax is
  deflated, in the data set as it is inflated (PS3.5 A.5). The bytes are as the object has them: in its byte order, with
  their padding. Of a value without written length, up to its delimiter.
- encapsulated=1: the value is written as fragments (PS3.5 A.4), and these bytes are their items.
- count, digest: of a value above `reading.max_value_bytes` that would stand in the header otherwise: how many values it
  has, and BLAKE2b-128 of its bytes.

A DICOM service says references of its own, relative ones to its address. They are kept as it said them: absolute ones
as they are, all others behind `received:`. So what begins with `?` is ours, and nothing else is.

Bulk values of up to INLINE bytes are inline (InlineBinary, PS3.18 F.2.7), so that a short one costs no further read;
pixel data never is, nor are words in big endian, since InlineBinary is little endian.
"""

from __future__ import annotations

import hashlib
import re
from binascii import b2a_base64
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from dicom_assets.storage.byte_ranges import ByteSource

INLINE = 64
"""Bytes up to which a bulk value stands in the header itself."""

_RECEIVED = "received:"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
"""How an absolute URI begins (RFC 3986 3.1)."""

_WORDS = frozenset({"OD", "OF", "OL", "OV", "OW"})
_PIXEL_GROUP = 0x7FE0
_SIZES = {"AT": 4, "FD": 8, "FL": 4, "SL": 4, "SS": 2, "SV": 8, "UL": 4, "US": 2, "UV": 8}
_SINGLE = frozenset({"LT", "ST", "UT", "UR", "SQ"})
_BLOCK = 1 << 20


class NoReference(ValueError):
    """A URI that is no reference into an object."""


class ValueChanged(ValueError):
    """The object does not have at a reference what it had when its header was read."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a value lies; see the module. digest: of its bytes, where it was taken."""

    offset: int
    length: int
    encapsulated: bool = False
    digest: str | None = None


def is_inline(tag: int, vr: str, length: int, little: bool) -> bool:
    """Whether a bulk value of this length stands in the header itself."""
    return length <= INLINE and tag >> 16 != _PIXEL_GROUP and (little or vr not in _WORDS)


def inline(prefix: bytes, value: bytes) -> bytes:
    """The JSON member of a bulk value that is inline; `prefix` is how it begins, up to its VR."""
    return b'%b,"InlineBinary":"%b"}' % (prefix, b2a_base64(value, newline=False)) if value else prefix + b"}"


def placed(prefix: bytes, offset: int, length: int, *, encapsulated: bool = False) -> bytes:
    """The JSON member of a value that is referred to; an empty one needs no reference."""
    if not length:
        return prefix + b"}"
    more = b"&encapsulated=1" if encapsulated else b""
    return b'%b,"BulkDataURI":"?offset=%d&length=%d%b"}' % (prefix, offset, length, more)


def element_inline(vr: str, value: bytes) -> dict[str, Any]:
    """What `inline` gives, as a JSON element."""
    return {"vr": vr, "InlineBinary": b2a_base64(value, newline=False).decode("ascii")} if value else {"vr": vr}


def element_placed(vr: str, offset: int, length: int, *, encapsulated: bool = False) -> dict[str, Any]:
    """What `placed` gives, as a JSON element."""
    if not length:
        return {"vr": vr}
    return {"vr": vr, "BulkDataURI": f"?offset={offset}&length={length}" + "&encapsulated=1" * encapsulated}


def digested(vr: str, source: ByteSource, offset: int, length: int) -> dict[str, Any]:
    """The JSON element of a value above the bounds: its place, number of values and digest, for which it is read."""
    digest = hashlib.blake2b(digest_size=16)
    separators, at = 0, offset
    while at < offset + length:
        block = source.read(at, min(_BLOCK, offset + length - at))
        if not block:
            break
        digest.update(block)
        separators += block.count(b"\\")
        at += len(block)
    count = length // _SIZES[vr] if vr in _SIZES else 1 if vr in _SINGLE else separators + 1
    uri = f"?offset={offset}&length={length}&count={count}&digest={digest.hexdigest()}"
    return {"vr": vr, "BulkDataURI": uri}


def as_received(uri: str) -> str:
    """A reference that somebody else has said, so that nobody takes it for a place in an object of ours."""
    return uri if _SCHEME.match(uri) else f"{_RECEIVED}{uri}"


def parse(uri: str) -> Reference:
    """What a reference says. Raises NoReference."""
    query = {name: values[0] for name, values in parse_qs(uri.removeprefix("?")).items()}
    try:
        offset, length = int(query["offset"]), int(query["length"])
    except (KeyError, ValueError):
        raise NoReference("the URI is no reference into an object") from None
    if not uri.startswith("?") or offset < 0 or length < 0:
        raise NoReference("the URI is no reference into an object")
    return Reference(offset, length, query.get("encapsulated") == "1", query.get("digest"))


def retrieve(source: ByteSource, uri: str) -> bytes:
    """The bytes that a reference stands for, by one ranged read; `source`: what the offset counts in.

    Raises NoReference, ValueChanged where the object is too short or the digest, if there is one, is another one, and
    what the source raises.
    """
    reference = parse(uri)
    raw = source.read(reference.offset, reference.length)
    changed = len(raw) != reference.length
    if reference.digest is not None:
        changed |= hashlib.blake2b(raw, digest_size=16).hexdigest() != reference.digest
    if changed:
        raise ValueChanged("the value is not what it was when the header was read")
    return raw
