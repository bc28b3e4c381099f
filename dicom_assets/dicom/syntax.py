"""Preamble, File Meta Information and transfer syntax: where the data set begins and how it is encoded (PS3.10 7.1).

Belongs here: everything in front of the data set, and inflating it within a bound. Does not belong here: the data
set's elements (`elements`).
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from pydicom.datadict import dictionary_VR

from dicom_assets.dicom.flaws import SOUND, STRUCTURE_INVALID
from dicom_assets.dicom.rejections import NotDicom, Unreadable
from dicom_assets.dicom.signature import EXPLICIT_VRS, LONG_VRS, begins_at, has_preamble
from dicom_assets.storage.byte_ranges import ByteSource, BytesSource

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"
MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
_JPIP_DEFLATED = ("1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205")

_HEADS = {order: struct.Struct(order + "HH2sH").unpack_from for order in "<>"}
_LOOK = 4096  # bytes in which an object must begin
_MAX_META = 1 << 20  # bytes; File Meta Information beyond this is not believed


class Preface(NamedTuple):
    """What stands in front of the data set.

    start: where the data set begins. meta: elements of group 0002 as (tag, VR, raw value). complete: preamble,
    prefix and a transfer syntax were there. transfer_syntax: declared, or found by looking. deflated: from `start` on
    the object is deflated (PS3.5 A.5). flaws: STRUCTURE_INVALID where the File Meta Information is not written as
    PS3.10 7.1 asks for and could be read.
    """

    start: int
    meta: tuple[tuple[int, str, bytes], ...]
    complete: bool
    transfer_syntax: str
    explicit: bool
    little: bool
    deflated: bool
    flaws: int = SOUND

    def text(self, tag: int) -> str:
        """A UID or text of the File Meta Information without padding; "" where it is missing."""
        for number, _, raw in self.meta:
            if number == tag:
                return raw.decode("latin-1").strip(" \0")
        return ""

    @property
    def media_directory(self) -> bool:
        """Whether this is a DICOMDIR (PS3.10 8.6)."""
        return self.text(0x00020002) == MEDIA_DIRECTORY

    @property
    def encapsulated(self) -> bool:
        """Whether pixel data is a sequence of fragments (PS3.5 A.4)."""
        return is_encapsulated(self.transfer_syntax)


def is_encapsulated(transfer_syntax: str | None) -> bool:
    """Whether pixel data in a transfer syntax is a sequence of fragments (PS3.5 A.4)."""
    return transfer_syntax not in (IMPLICIT_LITTLE, EXPLICIT_LITTLE, DEFLATED, EXPLICIT_BIG)


def is_little(transfer_syntax: str | None) -> bool:
    """Whether numbers in a transfer syntax are little endian."""
    return transfer_syntax != EXPLICIT_BIG


def is_deflated(transfer_syntax: str | None) -> bool:
    """Whether a data set in a transfer syntax is deflated as a whole (PS3.5 A.5)."""
    return transfer_syntax == DEFLATED or transfer_syntax in _JPIP_DEFLATED


def read_preface(head: bytes, size: int) -> Preface:
    """The preface of an object of `size` bytes that begins with `head`.

    Raises NotDicom, Unreadable, or IndexError when it does not end within `head` and more bytes are there.
    """
    begins = begins_at(head[:_LOOK])
    if begins is None:
        raise NotDicom
    meta, start, flaws = _meta(head, begins, size)
    declared = next((raw.decode("latin-1").strip(" \0") for tag, _, raw in meta if tag == 0x00020010), "")
    if declared:
        explicit, little = declared != IMPLICIT_LITTLE, declared != EXPLICIT_BIG
    else:
        explicit, little = _look(head, start)
    found = declared or (IMPLICIT_LITTLE if not explicit else EXPLICIT_LITTLE if little else EXPLICIT_BIG)
    return Preface(
        start=start,
        meta=tuple(meta),
        complete=begins == 132 and has_preamble(head) and bool(declared),
        transfer_syntax=found,
        explicit=explicit,
        little=little,
        deflated=is_deflated(found),
        flaws=flaws,
    )


def _meta(head: bytes, start: int, size: int) -> tuple[list[tuple[int, str, bytes]], int, int]:
    """File Meta Information from `start` on: its elements, where it ends, and its flaws.

    Against PS3.10 7.1 it may be in implicit VR or in big endian: both happen. Where an element's length leads beyond
    the object, the group's length tells where the data set begins. Raises as `read_preface` does.
    """
    first = head[start : start + 6]
    written = first[4:] in EXPLICIT_VRS
    order = ">" if written and first[:2] == b"\0\2" else "<"
    implicit = not written and first[:2] == b"\2\0"
    unpack = _HEADS[order]
    meta: list[tuple[int, str, bytes]] = []
    flaws = STRUCTURE_INVALID if order == ">" else SOUND
    ends: int | None = None
    while True:
        if len(head) - start < 12:
            if len(head) < size:
                raise IndexError
            break
        group, number, vr, length = unpack(head, start)
        if group != 2:
            break
        value = start + 8
        if implicit:
            vr = _meta_vr(number)
            (length,) = struct.unpack_from("<I", head, start + 4)
        elif vr in LONG_VRS:
            (length,) = struct.unpack_from(order + "I", head, start + 8)
            value += 4
        elif vr not in EXPLICIT_VRS:  # read as pydicom would: a VR of the future, or implicit after all
            if not b"AA" <= vr <= b"ZZ":
                (length,) = struct.unpack_from("<I", head, start + 4)
            vr = b"UN"
        end = value + length
        if end > size:
            if ends is None or not start < ends < size:
                raise Unreadable("TRUNCATED_HEADER", "the object ends inside its File Meta Information", start)
            return meta, ends, flaws | STRUCTURE_INVALID
        if end > _MAX_META:
            raise Unreadable("UNPARSEABLE", "File Meta Information is beyond belief", start)
        if end > len(head):
            raise IndexError
        raw = head[value:end]
        if order == ">" and vr in (b"UL", b"US"):
            raw = raw[::-1]
        if number == 0 and len(raw) == 4:
            ends = end + int.from_bytes(raw, "little")
        meta.append((group << 16 | number, vr.decode("ascii"), raw))
        start = end
    return meta, start, flaws


def _meta_vr(number: int) -> bytes:
    try:
        return dictionary_VR(0x00020000 | number).encode("ascii")
    except KeyError:
        return b"UN"


def _look(head: bytes, start: int) -> tuple[bool, bool]:
    """(explicit, little endian) of a data set whose transfer syntax nobody tells."""
    explicit = head[start + 4 : start + 6] in EXPLICIT_VRS
    if not explicit:
        return False, True
    (group,) = struct.unpack_from("<H", head, start)
    return True, group < 0x0400  # a big-endian group up to 00FF reads as 0100 or more


def inflate(source: ByteSource, start: int, bound: int) -> tuple[bytes, int]:
    """The inflated data set from `start` on (PS3.5 A.5), and STRUCTURE_INVALID where it wears a header of zlib or gzip.

    PS3.5 asks for the bare stream of RFC 1951. Raises Unreadable when broken or longer than `bound` bytes.
    """
    try:
        return _inflated(source, start, bound, -zlib.MAX_WBITS), SOUND
    except Unreadable as bare:
        if bare.code != "UNPARSEABLE" or not _wears_header(source.read(start, 2)):
            raise
    return _inflated(source, start, bound, 32 + zlib.MAX_WBITS), STRUCTURE_INVALID


def _wears_header(first: bytes) -> bool:
    """Whether a stream begins as zlib (RFC 1950) or gzip (RFC 1952) does."""
    return first == b"\x1f\x8b" or (len(first) == 2 and first[0] & 0x0F == 8 and int.from_bytes(first, "big") % 31 == 0)


def _inflated(source: ByteSource, start: int, bound: int, window: int) -> bytes:
    inflater = zlib.decompressobj(window)
    parts: list[bytes] = []
    total, offset = 0, start
    while not inflater.eof and offset < source.size:
        block = source.read(offset, 1 << 16)
        if not block:
            break
        offset += len(block)
        try:
            part = inflater.decompress(block, bound + 1 - total)
        except zlib.error:
            raise Unreadable("UNPARSEABLE", "the deflated data set cannot be inflated", offset) from None
        total += len(part)
        if total > bound:
            raise Unreadable("TOO_LARGE", "the inflated data set exceeds the bound", offset)
        parts.append(part)
    if not inflater.eof:
        raise Unreadable("TRUNCATED_HEADER", "the deflated data set has no end", offset)
    return b"".join(parts)


def data_set(source: ByteSource, preface: Preface, bound: int) -> tuple[ByteSource, int, int]:
    """Where the data set's bytes are: (source, offset), the object itself, or what was inflated from it; and flaws."""
    if not preface.deflated:
        return source, preface.start, SOUND
    inflated, flaws = inflate(source, preface.start, bound)
    return BytesSource(inflated), 0, flaws
