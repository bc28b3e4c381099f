"""Sequences and items of tier 1, and the values in them (PS3.5 7.5).

Belongs here: everything below the data set's own elements, and what both levels share: lengths, VRs that the element
does not tell, JSON fragments. Does not belong here: windows, columns, runs (`elements`).
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from typing import Any

import orjson

from dicom_assets.dicom.charset import codecs_of
from dicom_assets.dicom.flaws import DEPTH_CAPPED, HEADER_CAPPED, PLACED, SOUND, STRUCTURE_INVALID, VALUE_INVALID
from dicom_assets.dicom.memo import MAX_SEQUENCE, MAX_VALUE, NONE_YET, Context, Entry, Memo
from dicom_assets.dicom.references import digested, inline, is_inline, placed
from dicom_assets.dicom.syntax import Preface
from dicom_assets.dicom.values import BULK, DECODERS
from dicom_assets.dicom.vocabulary import (
    BULK_DATA,
    CHARSET,
    DELIMITER,
    IMPLICIT_LENGTH,
    LONG_LENGTH,
    NOTED,
    PIXEL_DATA,
    PIXEL_REPRESENTATION,
    PRIVATE,
    SEQUENCE,
    SHORT_LENGTH,
    SIGNED,
    UNKNOWN_VR,
    VALUE,
    Known,
    Vocabulary,
    private_vr,
)
from dicom_assets.settings import ReadingLimits
from dicom_assets.storage.byte_ranges import ByteSource

UNDEFINED = 0xFFFFFFFF
NOT_YET = b"?"
"""Stands for a Pixel Representation that may still come behind the sequence."""

_HEAD = 8  # bytes of an item's head or of a delimiter
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD


class Unusual(Exception):
    """Something that this reader leaves to tier 2; the reason is a word or two, never from the object."""

    def __init__(self, reason: str) -> None:
        """Why."""
        super().__init__(reason)
        self.reason = reason


class Short(Exception):
    """The window ends inside an element."""


class Items:
    """Reads what a data set's sequences hold. Positions count in the window that lies at `_base` of the body."""

    def __init__(self, body: ByteSource, preface: Preface, limits: ReadingLimits, memo: Memo) -> None:
        """Everything that holds for the whole data set."""
        self._body = body
        self._limits = limits
        self._memo = memo
        self._explicit = preface.explicit
        self._little = preface.little
        order = "<" if preface.little else ">"
        self._long = struct.Struct(order + "I").unpack_from
        self._item_head = struct.Struct(order + "HHI").unpack_from
        self._low, self._high = (6, 7) if preface.little else (7, 6)
        self._flaws = SOUND
        self._base = 0

    def _extent(self, data: bytes, position: int, form: int) -> tuple[int, int]:
        """Start and end of the value of the element at `position`."""
        if form == SHORT_LENGTH:
            start = position + 8
            return start, start + (data[position + self._low] | data[position + self._high] << 8)
        start = position + (12 if form == LONG_LENGTH else 8)
        return start, start + self._long(data, start - 4)[0]

    def _capped(self, known: Known, vr: str, start: int, length: int) -> Entry:
        """What stands for a value above the bounds."""
        if known.action in (PRIVATE, SIGNED):
            raise Unusual("long value of unknown VR")
        self._flaws |= HEADER_CAPPED
        element = digested(vr, self._body, self._base + start, length)
        return Entry(orjson.dumps({f"{known.tag:08X}": element})[1:-1], None, 0, None)

    def _bulk(self, tag: int, vr: str, prefix: bytes, data: bytes, start: int, end: int) -> bytes:
        """The fragment of bulk data: inline where it is short, else its place."""
        if is_inline(tag, vr, end - start, self._little):
            return inline(prefix, data[start:end])
        self._flaws |= PLACED
        return placed(prefix, self._base + start, end - start)

    def _resolve(self, known: Known, notes: dict[int, bytes], context: Context, inherited: bytes | None) -> str:
        """The VR of an element for which the element itself does not say it."""
        tag, form, action, vr, _ = known
        if action in (VALUE, NOTED, CHARSET, BULK_DATA, UNKNOWN_VR):
            return vr
        if action == SIGNED:
            pixel = notes.get(PIXEL_REPRESENTATION) or inherited
            if pixel is not None and len(pixel) != 2:
                raise Unusual("pixel representation")
            return "SS" if pixel is not None and pixel != b"\0\0" else "US"
        if action == PRIVATE:
            creator = notes.get(creator_of(tag))
            if creator is None:
                return "UN"
            names, _flaw = DECODERS["LO"](creator, self._little, context.codecs)
            vr = private_vr(tag, names[0]) if names and len(names) == 1 else "UN"
            if vr in DECODERS or vr in BULK or (vr == "SQ" and form == IMPLICIT_LENGTH):
                return vr
        raise Unusual("delimiter" if action == DELIMITER else "VR")

    def _decode(
        self, tag: int, prefix: bytes, vr: str, value: bytes, context: Context, action: int = VALUE
    ) -> tuple[bytes, list[Any] | None, int]:
        """Fragment, JSON values and flaws of one value; what is written as UN is little endian (PS3.5 6.2.2)."""
        little = self._little or action in (UNKNOWN_VR, PRIVATE)
        try:
            values, flaws = DECODERS[vr](value, little, context.codecs)
        except struct.error:
            text = base64.b64encode(value).decode("ascii")
            return prefix_of(tag, "UN") + b',"InlineBinary":"' + text.encode("ascii") + b'"}', None, VALUE_INVALID
        if values is None:
            return prefix + b"}", None, flaws
        return b'%b,"Value":%b}' % (prefix, orjson.dumps(values)), values, flaws

    def _sequence(
        self,
        known: Known,
        data: bytes,
        position: int,
        start: int,
        end: int,
        context: Context,
        depth: int,
        pixel: bytes | None,
        limit: int,
        unseen: bytes | None = None,
    ) -> tuple[bytes, int, bool]:
        """The sequence whose element stands at `position`: fragment, end, whether it was known before.

        pixel: Pixel Representation that its items inherit. limit: where the enclosing item or window ends. unseen: its
        bytes, where they were cut out and looked up already, in vain.
        """
        prefix, raw = known.prefix, unseen
        undefined = end - start == UNDEFINED
        if not undefined and end > limit:
            raise Unusual("sequence beyond its item")
        if depth > self._limits.max_depth:
            self._flaws |= DEPTH_CAPPED | PLACED
            stop = self._skip(data, start, context.vocabulary) if undefined else end
            return placed(prefix, self._base + start, stop - start - (_HEAD if undefined else 0)), stop, False
        if undefined:
            pixel = None  # pydicom hands it down only where the length is written
            latest = context.latest.get((depth, known.tag))
            if latest is not None and data.startswith(latest[0], position):
                return latest[1], position + len(latest[0]), True
        elif start == end:
            return prefix + b',"Value":[]}', end, True
        elif raw is None and end - start <= MAX_SEQUENCE:
            raw = data[position:end]
            fragment = context.sequences.get((depth, pixel), NONE_YET).get(raw)
            if fragment is not None:
                return fragment, end, True
        before, self._flaws = self._flaws, SOUND
        items: list[bytes] = []
        at = start
        while undefined or at < end:
            group, number, length = self._item_head(data, at)
            tag = group << 16 | number
            at += 8
            if tag == _ITEM:
                if length == UNDEFINED:
                    item, at = self._item(data, at, -1, context, depth, pixel, limit if undefined else end)
                else:
                    if at + length > (limit if undefined else end):
                        raise Short if undefined and limit == len(data) else Unusual("item beyond its sequence")
                    item, at = self._item(data, at, at + length, context, depth, pixel, at + length)
                items.append(item)
            elif tag == _SEQUENCE_END and undefined:
                self._flaws |= STRUCTURE_INVALID if length else SOUND
                break
            else:
                raise Unusual("no item in a sequence")
        if not undefined and at != end:
            raise Unusual("item beyond its sequence")
        fragment = b'%b,"Value":[%b]}' % (prefix, b",".join(items))
        if self._flaws == SOUND and at - position <= MAX_SEQUENCE:
            raw = raw or data[position:at]  # the same object, whose hash is known
            if undefined:
                context.latest[depth, known.tag] = (raw, fragment)
            else:
                context.sequences.setdefault((depth, pixel), {})[raw] = fragment
            self._memo.hold(len(raw) + len(fragment))
        self._flaws |= before
        return fragment, at, False

    def _item(
        self, data: bytes, position: int, end: int, context: Context, depth: int, pixel: bytes | None, limit: int
    ) -> tuple[bytes, int]:
        """The item whose first element stands at `position`; `end` is -1 where its length is not written.

        What most elements are is asked first: the loop runs for each element of each item.
        """
        vocabulary, memory = context.vocabulary, context.nested
        width, low, high, long = vocabulary.width, self._low, self._high, self._long
        parts: list[bytes] = []
        notes: dict[int, bytes] = {}
        sequences: Mapping[bytes, bytes] | None = None
        last = -1
        while position < end or end < 0:
            known = vocabulary[data[position : position + width]]
            tag, form, action, vr, prefix = known
            if tag <= last:
                raise Unusual("order of elements")
            if form == SHORT_LENGTH:
                start = position + 8
                stop = start + (data[position + low] | data[position + high] << 8)
            else:
                start = position + (12 if form == LONG_LENGTH else 8)
                stop = start + long(data, start - 4)[0]
            last = tag
            if action == VALUE and stop <= limit and stop - start <= MAX_VALUE:
                raw = data[position:stop]
                known_fragment = memory.get(raw)
                if known_fragment is None:
                    known_fragment, _, flaws = self._decode(tag, prefix, vr, data[start:stop], context)
                    if flaws:
                        self._flaws |= flaws
                    else:
                        memory[raw] = known_fragment
                        self._memo.hold(2 * len(raw))
                parts.append(known_fragment)
                position = stop
                continue
            if action == SEQUENCE:
                inherited, raw_sequence = pixel, None
                if not self._explicit:
                    inherited = notes.get(tag, pixel) if tag > PIXEL_REPRESENTATION else pixel and NOT_YET
                if 0 < stop - start <= MAX_SEQUENCE and stop <= limit:  # as `_sequence` does, without the call
                    if sequences is None or inherited is not pixel:
                        sequences = context.sequences.get((depth + 1, inherited), NONE_YET)
                    raw_sequence = data[position:stop]
                    known_fragment = sequences.get(raw_sequence)
                    if inherited is not pixel:
                        sequences = None
                    if known_fragment is not None:
                        parts.append(known_fragment)
                        position = stop
                        continue
                fragment, position, _ = self._sequence(
                    known, data, position, start, stop, context, depth + 1, inherited, limit, raw_sequence
                )
                parts.append(fragment)
                continue
            if action == DELIMITER:
                if tag != _ITEM_END or end >= 0 or stop != start:
                    raise Unusual("delimiter")
                return b"{" + b",".join(parts) + b"}", stop
            if stop > limit:
                if stop - start == UNDEFINED:
                    raise Unusual("undefined length")
                raise Short if limit == len(data) else Unusual("value beyond its item")
            if action in (BULK_DATA, PIXEL_DATA):
                parts.append(self._bulk(tag, vr, prefix, data, start, stop))
            else:
                if action == CHARSET:
                    context = self._memo.context(self._explicit, self._little, codecs_of(data[start:stop]))
                    memory, sequences = context.nested, None
                elif action == NOTED:
                    notes[tag] = data[start:stop]
                parts.append(self._nested(known, data, position, start, stop, context, depth, pixel, notes))
            position = stop
        if position != end:
            raise Unusual("value beyond its item")
        return b"{" + b",".join(parts) + b"}", position

    def _nested(
        self,
        known: Known,
        data: bytes,
        position: int,
        start: int,
        end: int,
        context: Context,
        depth: int,
        pixel: bytes | None,
        notes: dict[int, bytes],
    ) -> bytes:
        """The fragment of an element in an item that is not simply a short value."""
        tag = known.tag
        vr = self._resolve(known, notes, context, pixel)
        prefix = known.prefix if vr == known.vr else prefix_of(tag, vr)
        if vr in BULK:
            return self._bulk(tag, vr, prefix, data, start, end)
        if vr == "SQ":
            fragment, _, _ = self._sequence(
                known._replace(prefix=prefix), data, position, start, end, context, depth + 1, pixel and NOT_YET, end
            )
            return fragment
        if end - start > self._limits.max_value_bytes:
            return self._capped(known, vr, start, end - start).fragment
        fragment, _, flaws = self._decode(tag, prefix, vr, data[start:end], context, known.action)
        self._flaws |= flaws
        return fragment

    def _skip(self, data: bytes, position: int, vocabulary: Vocabulary) -> int:
        """End of a sequence of undefined length whose first item stands at `position`; without recursion."""
        inside = [_SEQUENCE_END]
        while inside:
            if inside[-1] == _SEQUENCE_END:
                group, number, length = self._item_head(data, position)
                tag = group << 16 | number
                position += 8
                if tag == _SEQUENCE_END:
                    inside.pop()
                elif tag != _ITEM:
                    raise Unusual("no item in a sequence")
                elif length == UNDEFINED:
                    inside.append(_ITEM_END)
                else:
                    position += length
                continue
            known = vocabulary[data[position : position + vocabulary.width]]
            start, end = self._extent(data, position, known.form)
            if known.tag == _ITEM_END:
                inside.pop()
                position = start
            elif end - start != UNDEFINED:
                position = end
            elif known.action == SEQUENCE:
                inside.append(_SEQUENCE_END)
                position = start
            else:
                raise Unusual("undefined length")
        if position > len(data):
            raise Short
        return position


def creator_of(tag: int) -> int:
    """Tag of the private creator that names the block of a private element (PS3.5 7.8.1)."""
    return (tag & 0xFFFF0000) | (tag >> 8 & 0xFF)


def prefix_of(tag: int, vr: str) -> bytes:
    """How the JSON of an element begins."""
    return f'"{tag:08X}":{{"vr":"{vr}"'.encode("ascii")
