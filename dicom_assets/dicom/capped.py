"""Values that are too long for a header: what stands for them, and how to get them back.

Belongs here: the reference that is kept instead of the value. PS3.18 F.2.2 lets BulkDataURI stand for any value; ours
is relative to the object: `?offset=…&length=…&count=…&digest=…`, in bytes of the object, or of the inflated data set
where the transfer syntax is deflated. The digest is BLAKE2b-128 of the raw value. Does not belong here: the bound.
"""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import parse_qs

from dicom_assets.storage.byte_ranges import ByteSource

_SIZES = {"AT": 4, "FD": 8, "FL": 4, "SL": 4, "SS": 2, "SV": 8, "UL": 4, "US": 2, "UV": 8}
_SINGLE = frozenset({"LT", "ST", "UT", "UR", "SQ"})
_BLOCK = 1 << 20


def reference(vr: str, source: ByteSource, offset: int, length: int) -> dict[str, Any]:
    """The JSON element that stands for `length` bytes from `offset` on: place, number of values and digest."""
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


def retrieve(source: ByteSource, uri: str) -> bytes:
    """The raw value that `uri` (from `reference`) stands for. Raises ValueError when it is not what it was."""
    query = parse_qs(uri.removeprefix("?"))
    raw = source.read(int(query["offset"][0]), int(query["length"][0]))
    if hashlib.blake2b(raw, digest_size=16).hexdigest() != query["digest"][0]:
        raise ValueError("the value is not what it was when the header was read")
    return raw
