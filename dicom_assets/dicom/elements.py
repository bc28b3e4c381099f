"""Tier 1: one pass over the raw elements of a data set, bytes to JSON fragments (PS3.5 7, PS3.18 F).

Belongs here: where elements, items and sequences begin and end, in either encoding and byte order. Whatever is unusual
is raised as Unusual and left to pydicom; this reader never guesses. Does not belong here: what values mean (`values`),
columns, memory (`memo`), pixel data (`pixels`).
"""

from __future__ import annotations

import base64
import struct
from typing import Any

import orjson

from dicom_assets.dicom.capped import reference
from dicom_assets.dicom.charset import DEFAULT, codecs_of
from dicom_assets.dicom.columns import CODED, CONVERTERS, fill
from dicom_assets.dicom.errors import Unreadable
from dicom_assets.dicom.flaws import DEPTH_CAPPED, HEADER_CAPPED, SOUND, VALUE_INVALID
from dicom_assets.dicom.memo import MAX_SEQUENCE, MAX_VALUE, Context, Entry, Memo, Run
from dicom_assets.dicom.parsed import Parsed, exceeds
from dicom_assets.dicom.source import ByteSource
from dicom_assets.dicom.syntax import Preface
from dicom_assets.dicom.values import BULK, DECODERS
from dicom_assets.dicom.vocabulary import (
    CHARACTER_SET,
    CHARSET,
    DELIMITER,
    IMPLICIT_LENGTH,
    LONG_LENGTH,
    NOTED,
    OMITTED,
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

UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_HEAD, _LONGEST_HEAD = 8, 12
_OMITTED = Entry(None, None, 0, None)
_MIN_WINDOW = 4096
_NOT_YET = b"?"
"""Stands for a Pixel Representation that may still come behind the sequence."""


class Unusual(Exception):
    """Something that this reader leaves to pydicom; the reason is a word or two, never from the object."""

    def __init__(self, reason: str) -> None:
        """Why."""
        super().__init__(reason)
        self.reason = reason


BROKEN = frozenset(
    {
        "delimiter",
        "item beyond its sequence",
        "no item in a sequence",
        "sequence beyond its item",
        "value beyond its item",
    }
)
"""Reasons that are faults of the object itself: its header carries VALUE_INVALID, whatever pydicom makes of it."""


class _Short(Exception):
    """The window ends inside an element."""


def parse(
    body: ByteSource, start: int, window: bytes, base: int, preface: Preface, limits: ReadingLimits, memo: Memo
) -> Parsed:
    """The data set of `body` from `start` on; `window` are its bytes from `base` on, as far as they were read.

    Raises Unusual, Unreadable(TOO_LARGE), or what the source raises.
    """
    return _Walk(body, preface, limits, memo).run(window, base, start)


class _Walk:
    """One pass over one data set. Positions count in the window; `_base` is where the window lies in the body."""

    def __init__(self, body: ByteSource, preface: Preface, limits: ReadingLimits, memo: Memo) -> None:
        self._body = body
        self._size = body.size
        self._limits = limits
        self._memo = memo
        self._explicit = preface.explicit
        self._little = preface.little
        order = "<" if preface.little else ">"
        self._long = struct.Struct(order + "I").unpack_from
        self._item_head = struct.Struct(order + "HHI").unpack_from
        self._low, self._high = (6, 7) if preface.little else (7, 6)
        self._parts: list[bytes] = []
        self._columns: dict[str, Any] = {}
        self._flaws = SOUND
        self._notes: dict[int, bytes] = {}
        self._trail: list[tuple[int, bytes, Entry] | None] = []
        self._base = 0
        self._resume = 0
        self._last = 0

    # Windows

    def run(self, data: bytes, base: int, start: int) -> Parsed:
        """Reads window by window until pixel data or the end."""
        position = start - base
        context: Context | None = None
        least = max(self._limits.first_read_bytes, _MIN_WINDOW)
        done = False
        while not done:
            if position + _LONGEST_HEAD > len(data) and base + len(data) < self._size:
                base += position
                data, position = self._read(base, least), 0
            self._base, self._resume = base, position
            try:
                if context is None:
                    context = self._context(data, position)
                done, position = self._elements(data, position, context)
            except (_Short, struct.error, IndexError):
                if base + len(data) >= self._size:
                    raise Unusual("truncated") from None
                # The element at which the window ended is read again, from a larger window that begins with it.
                have = len(data) - self._resume
                base += self._resume
                if have > 2 * self._limits.max_header_bytes:
                    raise Unreadable("TOO_LARGE", "one element exceeds the bound", base) from None
                data, position = self._read(base, 4 * max(have, least)), 0
            self._trail.append(None)
        assert context is not None
        if any(self._trail):
            self._memo.learn(context, self._trail)
        left = self._size - base - position
        if 0 < left < _HEAD and data[position:].strip(b"\0"):
            raise Unusual("truncated")
        return Parsed(
            json=b",".join(self._parts),
            columns=self._columns,
            flaws=self._flaws,
            end=base + position,
            at_pixels=left >= _HEAD,
            trailing=0 < left < _HEAD,
            last=self._last,
        )

    def _read(self, offset: int, length: int) -> bytes:
        data = self._body.read(offset, length)
        if len(data) < min(length, self._size - offset):
            raise Unusual("short read")
        return data

    def _context(self, data: bytes, position: int) -> Context:
        """Memory for the character set that the data set declares; the declaration stands in front of all text."""
        plain = self._memo.context(self._explicit, self._little, DEFAULT)
        if not self._explicit and data[position + 4 : position + 6].isalpha():
            raise Unusual("explicit VR where implicit is declared")
        while len(data) - position >= _LONGEST_HEAD:
            known = plain.vocabulary[data[position : position + plain.vocabulary.width]]
            if known.tag > CHARACTER_SET or known.action not in (VALUE, CHARSET):
                break
            start, end = self._extent(data, position, known.form)
            if end > len(data):
                raise _Short
            if known.action == CHARSET:
                return self._memo.context(self._explicit, self._little, codecs_of(data[start:end]))
            position = end
        return plain

    def _extent(self, data: bytes, position: int, form: int) -> tuple[int, int]:
        """Start and end of the value of the element at `position`."""
        if form == SHORT_LENGTH:
            start = position + 8
            return start, start + (data[position + self._low] | data[position + self._high] << 8)
        start = position + (12 if form == LONG_LENGTH else 8)
        return start, start + self._long(data, start - 4)[0]

    # The data set itself

    def _elements(self, data: bytes, position: int, context: Context) -> tuple[bool, int]:
        """Elements of the data set itself from `position` on.

        (True, end) at the end or at pixel data; (False, position) where the next window begins, perhaps behind this
        one. The loop is written out for speed: it runs for each element of each object.
        """
        limit = len(data)
        at_end = self._base + limit >= self._size
        enough = limit - (_HEAD if at_end else _LONGEST_HEAD)
        vocabulary, runs, memory = context.vocabulary, context.runs, context.top
        width, low, high, long = vocabulary.width, self._low, self._high, self._long
        parts, columns, notes, trail = self._parts, self._columns, self._notes, self._trail
        last = self._last
        while position <= enough:
            self._resume = position
            known = vocabulary[data[position : position + width]]
            tag, form, action, vr, _ = known
            if tag <= last:
                raise Unusual("order of elements")
            if tag in runs:
                run: Run | None
                for run in runs[tag]:
                    if data.startswith(run.raw, position):
                        break
                else:
                    run = None
                if run is not None:
                    if run.fragment:
                        parts.append(run.fragment)
                    columns.update(run.columns)
                    notes.update(run.notes)
                    trail.append(None)
                    last = self._last = run.last
                    position += len(run.raw)
                    continue
            if form == SHORT_LENGTH:
                start = position + 8
                end = start + (data[position + low] | data[position + high] << 8)
            else:
                start = position + (12 if form == LONG_LENGTH else 8)
                end = start + long(data, start - 4)[0]
            if action == VALUE and end - start <= MAX_VALUE and end <= limit:
                raw = data[position:end]
                entry = memory.get(raw)
                if entry is None:
                    entry = self._entry(known, vr, data[start:end], context, raw)
                    trail.append(None)
                else:
                    trail.append((tag, raw, entry))
            elif action == PIXEL_DATA:
                return True, position
            else:
                entry, end = self._other(known, data, position, start, end, context)
            if entry.fragment is not None:
                parts.append(entry.fragment)
            if entry.columns is not None:
                columns.update(entry.columns)
            last = self._last = tag
            position = end
        return self._base + position >= self._size or (at_end and position <= limit), position

    def _other(
        self, known: Known, data: bytes, position: int, start: int, end: int, context: Context
    ) -> tuple[Entry, int]:
        """An element of the data set that is not simply a short value; its entry and its end."""
        tag, _, action, vr, _ = known
        length = end - start
        if length == UNDEFINED:
            if action != SEQUENCE:
                raise Unusual("undefined length")
        elif self._base + end > self._size:
            raise Unusual("truncated")
        elif action == OMITTED and length > MAX_VALUE:
            self._trail.append(None)
            return _OMITTED, end
        elif length > (self._limits.max_header_bytes if action == SEQUENCE else self._limits.max_value_bytes):
            self._trail.append(None)
            return self._capped(known, vr, start, length), end
        elif end > len(data):
            raise _Short
        if action == SEQUENCE:
            return self._top_sequence(known, data, position, start, end, context)
        raw, depends = data[position:end], 0
        key: Any = raw
        if action == PRIVATE:
            depends = _creator_of(tag)
        elif action == SIGNED:
            depends = PIXEL_REPRESENTATION
        elif action == NOTED:
            self._notes[tag] = data[start:end]
        if depends:
            key = (self._notes.get(depends), raw)
        entry = context.top.get(key) if length <= MAX_VALUE else None
        if entry is not None:
            self._trail.append((tag, raw, entry))
            return entry, end
        vr = self._resolve(known, length, self._notes, context, None)
        if vr == "SQ":
            return self._top_sequence(known._replace(prefix=_prefix(tag, vr)), data, position, start, end, context)
        self._trail.append(None)
        if vr in BULK:
            entry = Entry(None, None, depends, None)
            if length <= MAX_VALUE:
                context.top[key] = entry
                self._memo.hold(len(raw))
            return entry, end
        notes = {tag: data[start:end]} if action == NOTED else None
        remembered = key if length <= MAX_VALUE else None
        return self._entry(known, vr, data[start:end], context, remembered, depends, notes), end

    def _entry(
        self,
        known: Known,
        vr: str,
        value: bytes,
        context: Context,
        key: Any,
        depends: int = 0,
        notes: dict[int, bytes] | None = None,
    ) -> Entry:
        """Decodes one value; remembers it by `key` where there is one and nothing is wrong with it."""
        tag = known.tag
        prefix = known.prefix if vr == known.vr else _prefix(tag, vr)
        fragment, values, flaws = self._decode(tag, prefix, vr, value, context)
        columns: dict[str, Any] | None = None
        if tag in CONVERTERS:
            columns = {}
            flaws |= fill(columns, tag, {"Value": values}, flaws)
        entry = Entry(fragment, columns, depends, notes)
        if flaws:
            self._flaws |= flaws
        elif key is not None:
            context.top[key] = entry
            self._memo.hold(len(value) + len(fragment))
        return entry

    def _top_sequence(
        self, known: Known, data: bytes, position: int, start: int, end: int, context: Context
    ) -> tuple[Entry, int]:
        """A sequence of the data set itself; where codes are columns, they come from its first item."""
        tag = known.tag
        pixel, depends = None, 0
        if not self._explicit:
            depends = PIXEL_REPRESENTATION
            pixel = self._notes.get(PIXEL_REPRESENTATION) if tag > PIXEL_REPRESENTATION else _NOT_YET
        fragment, stop, seen = self._sequence(known, data, position, start, end, context, 1, pixel, len(data))
        columns: dict[str, Any] | None = None
        if tag in CODED:
            columns = {}
            self._flaws |= fill(columns, tag, orjson.loads(b"{" + fragment + b"}")[f"{tag:08X}"], SOUND)
        entry = Entry(fragment, columns, depends, None)
        if len(fragment) > MAX_VALUE and exceeds(self._parts, fragment, self._limits):
            self._trail.append(None)
            return self._capped(known, "SQ", start, stop - start)._replace(columns=columns), stop
        self._trail.append((tag, data[position:stop], entry) if seen else None)
        return entry, stop

    def _capped(self, known: Known, vr: str, start: int, length: int) -> Entry:
        """What stands for a value above the bounds."""
        if known.action in (PRIVATE, SIGNED, UNKNOWN_VR):
            raise Unusual("long value of unknown VR")
        self._flaws |= HEADER_CAPPED
        element = reference(vr, self._body, self._base + start, length)
        return Entry(orjson.dumps({f"{known.tag:08X}": element})[1:-1], None, 0, None)

    # Values

    def _resolve(
        self, known: Known, length: int, notes: dict[int, bytes], context: Context, inherited: bytes | None
    ) -> str:
        """The VR of an element for which the element itself does not say it."""
        tag, form, action, vr, _ = known
        if action in (VALUE, NOTED, CHARSET, OMITTED):
            return vr
        if action == UNKNOWN_VR:
            return vr if length < 0xFFFF else "UN"
        if action == SIGNED:
            pixel = notes.get(PIXEL_REPRESENTATION) or inherited
            if pixel is not None and len(pixel) != 2:
                raise Unusual("pixel representation")
            return "SS" if pixel is not None and pixel != b"\0\0" else "US"
        if action == PRIVATE:
            creator = notes.get(_creator_of(tag))
            if creator is None:
                return "UN"
            names, _flaw = DECODERS["LO"](creator, self._little, context.codecs)
            vr = private_vr(tag, names[0]) if names and len(names) == 1 else "UN"
            if vr in DECODERS or vr in BULK or (vr == "SQ" and form == IMPLICIT_LENGTH):
                return vr
        raise Unusual("delimiter" if action == DELIMITER else "VR")

    def _decode(
        self, tag: int, prefix: bytes, vr: str, value: bytes, context: Context
    ) -> tuple[bytes, list[Any] | None, int]:
        """Fragment, JSON values and flaws of one value."""
        try:
            values, flaws = DECODERS[vr](value, self._little, context.codecs)
        except struct.error:
            text = base64.b64encode(value).decode("ascii")
            return _prefix(tag, "UN") + b',"InlineBinary":"' + text.encode("ascii") + b'"}', None, VALUE_INVALID
        if values is None:
            return prefix + b"}", None, flaws
        return b'%b,"Value":%b}' % (prefix, orjson.dumps(values)), values, flaws

    # Sequences and items

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
    ) -> tuple[bytes, int, bool]:
        """The sequence whose element stands at `position`: fragment, end, whether it was known before.

        pixel: Pixel Representation that its items inherit. limit: where the enclosing item or window ends.
        """
        prefix = known.prefix
        undefined = end - start == UNDEFINED
        if not undefined and end > limit:
            raise Unusual("sequence beyond its item")
        if depth > self._limits.max_depth:
            self._flaws |= DEPTH_CAPPED
            return prefix + b"}", (self._skip(data, start, context.vocabulary) if undefined else end), False
        if undefined:
            pixel = None  # pydicom hands it down only where the length is written
            latest = context.latest.get((depth, known.tag))
            if latest is not None and data.startswith(latest[0], position):
                return latest[1], position + len(latest[0]), True
        elif start == end:
            return prefix + b',"Value":[]}', end, True
        elif end - start <= MAX_SEQUENCE:
            key = (depth, pixel, data[position:end])
            fragment = context.sequences.get(key)
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
                        raise _Short if undefined and limit == len(data) else Unusual("item beyond its sequence")
                    item, at = self._item(data, at, at + length, context, depth, pixel, at + length)
                items.append(item)
            elif tag == _SEQUENCE_END and undefined:
                break
            else:
                raise Unusual("no item in a sequence")
        if not undefined and at != end:
            raise Unusual("item beyond its sequence")
        fragment = b'%b,"Value":[%b]}' % (prefix, b",".join(items))
        if self._flaws == SOUND and at - position <= MAX_SEQUENCE:
            raw = data[position:at]
            if undefined:
                context.latest[depth, known.tag] = (raw, fragment)
            else:
                context.sequences[depth, pixel, raw] = fragment
            self._memo.hold(len(raw) + len(fragment))
        self._flaws |= before
        return fragment, at, False

    def _item(
        self, data: bytes, position: int, end: int, context: Context, depth: int, pixel: bytes | None, limit: int
    ) -> tuple[bytes, int]:
        """The item whose first element stands at `position`; `end` is -1 where its length is not written."""
        vocabulary, memory = context.vocabulary, context.nested
        width, low, high, long = vocabulary.width, self._low, self._high, self._long
        parts: list[bytes] = []
        notes: dict[int, bytes] = {}
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
            if action == SEQUENCE:
                inherited = pixel
                if not self._explicit:
                    inherited = notes.get(tag, pixel) if tag > PIXEL_REPRESENTATION else pixel and _NOT_YET
                fragment, position, _ = self._sequence(
                    known, data, position, start, stop, context, depth + 1, inherited, limit
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
                raise _Short if limit == len(data) else Unusual("value beyond its item")
            if action == VALUE and stop - start <= MAX_VALUE:
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
            elif action not in (OMITTED, PIXEL_DATA):
                if action == CHARSET:
                    context = self._memo.context(self._explicit, self._little, codecs_of(data[start:stop]))
                    memory = context.nested
                elif action == NOTED:
                    notes[tag] = data[start:stop]
                fragment = self._nested(known, data, position, start, stop, context, depth, pixel, notes)
                if fragment:
                    parts.append(fragment)
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
        """The fragment of an element in an item that is not simply a short value; empty where it is left out."""
        tag = known.tag
        vr = self._resolve(known, end - start, notes, context, pixel)
        if vr in BULK:
            return b""
        prefix = known.prefix if vr == known.vr else _prefix(tag, vr)
        if vr == "SQ":
            fragment, _, _ = self._sequence(
                known._replace(prefix=prefix), data, position, start, end, context, depth + 1, pixel and _NOT_YET, end
            )
            return fragment
        if end - start > self._limits.max_value_bytes:
            return self._capped(known, vr, start, end - start).fragment or b""
        fragment, _, flaws = self._decode(tag, prefix, vr, data[start:end], context)
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
            raise _Short
        return position


def _creator_of(tag: int) -> int:
    """Tag of the private creator that names the block of a private element (PS3.5 7.8.1)."""
    return (tag & 0xFFFF0000) | (tag >> 8 & 0xFF)


def _prefix(tag: int, vr: str) -> bytes:
    return f'"{tag:08X}":{{"vr":"{vr}"'.encode("ascii")
