"""Digests of an object's bytes and of its pixel data, for which it is read whole, a block at a time.

Belongs here: what of the bytes is pixel data and what is its packing. Does not belong here: where pixel data lie
(`pixels`), when objects are read whole (`header`).

Pixel data are compared as they are stored, not as they are decoded: of native ones the value (PS3.5 8.1.1) without the
byte that makes its length even; of encapsulated ones what the fragments hold (PS3.5 A.4), without the heads of items
and the Basic Offset Table, whichever way frames were cut into fragments, and without what a writer has put behind the
end of a codestream to make a fragment's length even. Pixel data that are cut off have no digest: two that were cut off
at the same place would seem to be one.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from dicom_assets.dicom.pixels import PixelData, native_bytes
from dicom_assets.storage.byte_ranges import ByteSource

BLOCK = 1 << 20
"""Bytes in memory at a time."""

_ITEM, _HEAD_BYTES = 0xFFFEE000, 8
_HELD = 16
"""Last bytes of a fragment that are looked at before they count."""
_CODESTREAM_END = b"\xff\xd9"
"""EOI of JPEG and JPEG-LS, EOC of JPEG 2000."""


class ObjectDigests(NamedTuple):
    """The columns `bytes_digest` and `pixel_digest`; None where they cannot be told."""

    bytes_digest: str | None
    pixel_digest: str | None


class _Taker(Protocol):
    """Takes the bytes of an object from the beginning, block by block."""

    def take(self, at: int, data: bytes) -> None:
        """Bytes from `at` on."""
        ...

    def digest(self) -> str | None:
        """BLAKE2b-128 of what was pixel data; None where that was not whole."""
        ...


def digest_object(
    source: ByteSource, body: ByteSource, pixels: PixelData | None, little: bool, columns: Mapping[str, Any]
) -> ObjectDigests:
    """Reads an object whole. body: what the places of `pixels` count in, the object itself or its inflated data set.

    Raises what the source raises.
    """
    taker = None if pixels is None or not pixels.length or pixels.issues else _taker(pixels, little, columns)
    whole = hashlib.sha256()
    at = 0
    while at < source.size:
        block = source.read(at, BLOCK)
        if not block:
            return ObjectDigests(None, None)  # it is not what it was; who opened it sees that
        whole.update(block)
        if taker is not None and body is source:
            taker.take(at, block)
        at += len(block)
    if taker is not None and body is not source:
        for at in range(0, body.size, BLOCK):
            taker.take(at, body.read(at, BLOCK))
    return ObjectDigests(whole.hexdigest(), None if taker is None else taker.digest())


def _taker(pixels: PixelData, little: bool, columns: Mapping[str, Any]) -> _Taker:
    if pixels.encapsulated:
        return _Fragments(pixels.offset, pixels.length, little)
    needed = native_bytes(columns)
    is_padded = needed is not None and pixels.length - needed == 1
    return _Native(pixels.offset, pixels.length - is_padded)


class _Native:
    """A value that lies in one piece."""

    def __init__(self, offset: int, length: int) -> None:
        self._next, self._end = offset, offset + length
        self._digest = hashlib.blake2b(digest_size=16)

    def take(self, at: int, data: bytes) -> None:
        piece = memoryview(data)[max(self._next - at, 0) : max(self._end - at, 0)]
        self._digest.update(piece)
        self._next += len(piece)

    def digest(self) -> str | None:
        return self._digest.hexdigest() if self._next == self._end else None


class _Fragments:
    """Items, of which the first is the Basic Offset Table."""

    def __init__(self, offset: int, length: int, little: bool) -> None:
        self._next, self._end = offset, offset + length
        self._unpack = struct.Struct("<HHI" if little else ">HHI").unpack
        self._head = b""
        self._left = 0
        self._number = -1
        self._held = self._last = b""
        self._is_whole = True
        self._digest = hashlib.blake2b(digest_size=16)

    def take(self, at: int, data: bytes) -> None:
        view = memoryview(data)[max(self._next - at, 0) : max(self._end - at, 0)]
        self._next += len(view)
        while len(view) and self._is_whole:
            if self._left:
                piece, view = view[: self._left], view[self._left :]
                self._left -= len(piece)
                if self._number:
                    self._content(piece)
                continue
            wanted = _HEAD_BYTES - len(self._head)
            self._head, view = self._head + bytes(view[:wanted]), view[wanted:]
            if len(self._head) == _HEAD_BYTES:
                group, number, self._left = self._unpack(self._head)
                self._is_whole = group << 16 | number == _ITEM
                self._head = b""
                self._number += 1
                self._let_go()

    def _content(self, piece: memoryview) -> None:
        """Bytes of a fragment; the last ones are held, until it is known that more of it follow."""
        if len(piece) >= _HELD:
            self._count(self._held)
            self._count(piece[:-_HELD])
            self._held = bytes(piece[-_HELD:])
        else:
            joined = self._held + bytes(piece)
            self._count(joined[:-_HELD])
            self._held = joined[-_HELD:]

    def _count(self, content: bytes | memoryview) -> None:
        self._digest.update(content)
        self._last = bytes(content[-1:]) or self._last

    def _let_go(self) -> None:
        """The end of a fragment: what follows the end of a codestream there is padding.

        Its mark may have been cut in two.
        """
        stripped = self._held.rstrip(b"\0")
        is_end = (self._last + stripped).endswith(_CODESTREAM_END)
        self._count(stripped if is_end else self._held)
        self._held = b""

    def digest(self) -> str | None:
        self._let_go()
        is_whole = self._is_whole and self._next == self._end and not self._left and not self._head
        return self._digest.hexdigest() if is_whole and self._number > 0 else None
