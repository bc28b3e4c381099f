"""Tier 1: one pass over the raw elements of a data set, bytes to JSON fragments (PS3.5 7, PS3.18 F).

Belongs here: windows over the data set, and where its own elements begin and end, in either encoding and byte order.
Whatever is unusual is raised as Unusual and left to tier 2; this reader never guesses. Does not belong here: sequences
(`items`), what values mean (`values`), columns, memory (`memo`), pixel data (`pixels`).
"""

from __future__ import annotations

import struct
from typing import Any

import orjson

from dicom_assets.dicom.charset import DEFAULT, codecs_of
from dicom_assets.dicom.columns import CODED, CONVERTERS, fill
from dicom_assets.dicom.flaws import PLACED, SOUND
from dicom_assets.dicom.items import NOT_YET, UNDEFINED, Items, Short, Unusual, creator_of, prefix_of
from dicom_assets.dicom.memo import MAX_VALUE, Context, Entry, Memo, Run
from dicom_assets.dicom.parsed import Parsed, exceeds
from dicom_assets.dicom.pixels import OFFSET_TABLES
from dicom_assets.dicom.references import INLINE, inline, is_inline, placed
from dicom_assets.dicom.rejections import Unreadable
from dicom_assets.dicom.syntax import Preface
from dicom_assets.dicom.values import BULK
from dicom_assets.dicom.vocabulary import (
    BULK_DATA,
    CHARACTER_SET,
    CHARSET,
    LONG_LENGTH,
    NOTED,
    PIXEL_DATA,
    PIXEL_REPRESENTATION,
    PRIVATE,
    SEQUENCE,
    SHORT_LENGTH,
    SIGNED,
    VALUE,
    Known,
)
from dicom_assets.settings import ReadingLimits
from dicom_assets.storage.byte_ranges import ByteSource

_HEAD, _LONGEST_HEAD = 8, 12
_MIN_WINDOW = 4096
_PIXEL_HEADS = 64  # bytes in which it is seen where pixel data lie


def parse(
    body: ByteSource, start: int, window: bytes, base: int, preface: Preface, limits: ReadingLimits, memo: Memo
) -> Parsed:
    """The data set of `body` from `start` on; `window` are its bytes from `base` on, as far as they were read.

    Raises Unusual, Unreadable(TOO_LARGE), or what the source raises.
    """
    return _Walk(body, preface, limits, memo).run(window, base, start)


class _Walk(Items):
    """One pass over one data set."""

    def __init__(self, body: ByteSource, preface: Preface, limits: ReadingLimits, memo: Memo) -> None:
        super().__init__(body, preface, limits, memo)
        self._size = body.size
        self._parts: list[bytes] = []
        self._columns: dict[str, Any] = {}
        self._notes: dict[int, bytes] = {}
        self._trail: list[tuple[int, bytes, Entry] | None] = []
        self._tables: dict[int, tuple[int, int]] = {}
        self._resume = 0
        self._last = 0

    # Windows

    def run(self, data: bytes, base: int, start: int) -> Parsed:
        """Reads window by window until pixel data or the end."""
        position = start - base
        context: Context | None = None
        least = max(self._limits.first_read_bytes, _MIN_WINDOW)
        reach = self._memo.first_reach
        done = False
        while not done:
            if position + _LONGEST_HEAD > len(data) and base + len(data) < self._size:
                passed_over = position > len(data)
                reach.note(self._resume + _LONGEST_HEAD if passed_over else least, least)
                reach = self._memo.later_reach
                base += position
                data, position = self._read(base, reach.length(least) if passed_over else least), 0
            self._base, self._resume = base, position
            try:
                if context is None:
                    context = self._context(data, position)
                done, position = self._elements(data, position, context)
            except (Short, struct.error, IndexError):
                if base + len(data) >= self._size:
                    raise Unusual("truncated") from None
                # The element at which the window ended is read again, from a larger window that begins with it.
                have = len(data) - self._resume
                base += self._resume
                reach.note(least, least)
                if have > 2 * self._limits.max_header_bytes:
                    raise Unreadable("TOO_LARGE", "one element exceeds the bound", base) from None
                data, position = self._read(base, 4 * max(have, least)), 0
            self._trail.append(None)
        assert context is not None
        reach.note(position + _PIXEL_HEADS, least)
        if any(self._trail):
            self._memo.learn(context, self._trail)
        left = self._size - base - position
        if 0 < left < _HEAD and data[position:].strip(b"\0"):
            raise Unusual("truncated")
        return Parsed(
            parts=self._parts,
            columns=self._columns,
            flaws=self._flaws & ~PLACED,
            end=base + position,
            at_pixels=left >= _HEAD,
            trailing=0 < left < _HEAD,
            last=self._last,
            tables=self._tables,
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
                raise Short
            if known.action == CHARSET:
                return self._memo.context(self._explicit, self._little, codecs_of(data[start:end]))
            position = end
        return plain

    # The data set itself

    def _elements(self, data: bytes, position: int, context: Context) -> tuple[bool, int]:
        """Elements of the data set itself from `position` on.

        (True, end) at the end or at pixel data; (False, position) where the next window begins, perhaps behind this
        one. The loop is written out for speed: it runs for each element of each object.
        """
        limit = len(data)
        base, left = self._base, min(self._size - self._base, UNDEFINED - 1)
        at_end = base + limit >= self._size
        enough = limit - (_HEAD if at_end else _LONGEST_HEAD)
        vocabulary, runs, memory = context.vocabulary, context.runs, context.top
        width, low, high, long = vocabulary.width, self._low, self._high, self._long
        parts, columns, notes, trail = self._parts, self._columns, self._notes, self._trail
        last = self._last
        while position <= enough:
            self._resume = position
            known = vocabulary[data[position : position + width]]
            tag, form, action, vr, prefix = known
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
                    parts.append(run.fragment)
                    if run.columns:
                        columns.update(run.columns)
                    if run.notes:
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
            elif action == BULK_DATA and INLINE < end - start <= left - start:  # as `_other` does, without the calls
                trail.append(None)
                parts.append(b'%b,"BulkDataURI":"?offset=%d&length=%d"}' % (prefix, base + start, end - start))
                if tag in OFFSET_TABLES:
                    self._tables[tag] = (base + start, end - start)
                last = self._last = tag
                position = end
                continue
            elif action == PIXEL_DATA:
                return True, position
            else:
                entry, end = self._other(known, data, position, start, end, context)
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
        elif action == BULK_DATA and not is_inline(tag, vr, length, self._little):
            return self._place(tag, known.prefix, start, length), end
        elif length > (self._limits.max_header_bytes if action == SEQUENCE else self._limits.max_value_bytes):
            self._trail.append(None)
            return self._capped(known, vr, start, length), end
        elif end > len(data):
            raise Short
        if action == SEQUENCE:
            return self._top_sequence(known, data, position, start, end, context)
        raw, depends = data[position:end], 0
        key: Any = raw
        if action == PRIVATE:
            depends = creator_of(tag)
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
        vr = self._resolve(known, self._notes, context, None)
        if vr == "SQ":
            return self._top_sequence(known._replace(prefix=prefix_of(tag, vr)), data, position, start, end, context)
        if vr in BULK:
            prefix = known.prefix if vr == known.vr else prefix_of(tag, vr)
            if not is_inline(tag, vr, length, self._little):
                return self._place(tag, prefix, start, length), end
            self._trail.append(None)
            entry = context.top[key] = Entry(inline(prefix, data[start:end]), None, depends, None)
            self._memo.hold(2 * len(raw))
            return entry, end
        self._trail.append(None)
        notes = {tag: data[start:end]} if action == NOTED else None
        if length <= MAX_VALUE:
            return self._entry(known, vr, data[start:end], context, key, depends, notes), end
        entry = self._entry(known, vr, data[start:end], context, None, depends, notes)
        if exceeds(self._parts, entry.fragment, self._limits):
            return self._capped(known, vr, start, length)._replace(columns=entry.columns, notes=notes), end
        return entry, end

    def _place(self, tag: int, prefix: bytes, start: int, length: int) -> Entry:
        """Bulk data by its place, which is no other object's: not remembered."""
        self._trail.append(None)
        if tag in OFFSET_TABLES:
            self._tables[tag] = (self._base + start, length)
        return Entry(placed(prefix, self._base + start, length), None, 0, None)

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
        prefix = known.prefix if vr == known.vr else prefix_of(tag, vr)
        fragment, values, flaws = self._decode(tag, prefix, vr, value, context, known.action)
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
            pixel = self._notes.get(PIXEL_REPRESENTATION) if tag > PIXEL_REPRESENTATION else NOT_YET
        fragment, stop, seen = self._sequence(known, data, position, start, end, context, 1, pixel, len(data))
        columns: dict[str, Any] | None = None
        if tag in CODED:
            columns = {}
            self._flaws |= fill(columns, tag, orjson.loads(b"{" + fragment + b"}")[f"{tag:08X}"], SOUND)
        entry = Entry(fragment, columns, depends, None)
        if len(fragment) > MAX_VALUE and exceeds(self._parts, fragment, self._limits):
            self._trail.append(None)
            length = stop - start - (_HEAD if end - start == UNDEFINED else 0)
            return self._capped(known, "SQ", start, length)._replace(columns=columns), stop
        self._trail.append((tag, data[position:stop], entry) if seen else None)
        return entry, stop
