"""Where the elements of an unusual data set begin and end (PS3.5 7), found with as little loss as its faults allow.

Belongs here: lengths, items, delimiters, and where to go on behind a fault. What is found is kept in pydicom's classes,
which the look-up of VRs wants (`fallback`). Does not belong here: values, columns.

A fault inside one element costs that element. The rules, which are those of dcmdump where PS3.5 has none:

- A delimiter where none belongs is passed over; an item without its delimiter ends at the next item, or with its
  sequence; a sequence without its delimiter ends before the first element that can stand behind it.
- An element that ends behind its item, or an item that ends behind its sequence, counts as it stands if a sound element
  follows; otherwise what encloses it counts.
- A sequence that cannot be read ends where its length says, or, without one, at the first delimiter that a sound
  element follows.
- Eight zeros are no element, nor is what has no credible tag and length: they are passed over up to sound ones. Where
  nothing sound follows, reading ends.
"""

from __future__ import annotations

import struct

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from dicom_assets.dicom.charset import DEFAULT, codecs_of
from dicom_assets.dicom.flaws import HEADER_INCOMPLETE, SOUND, STRUCTURE_INVALID, VALUE_INVALID
from dicom_assets.dicom.heads import (
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    UNDEFINED,
    UNKNOWN,
    Encoding,
    Head,
    Heads,
    Level,
    Misplaced,
    in_dictionary,
)
from dicom_assets.dicom.known_vr import known_vr
from dicom_assets.dicom.pixels import PIXELS
from dicom_assets.dicom.signature import EXPLICIT_VRS
from dicom_assets.settings import ReadingLimits
from dicom_assets.storage.byte_ranges import ByteSource

_CHARACTER_SET = 0x00080005
_MAX_SCAN = 1 << 16  # bytes of an object in which elements are looked for behind others that cannot be read
_BROKEN = STRUCTURE_INVALID | VALUE_INVALID


class _Fault(Exception):
    """Bytes that cannot be read as what they must be; the sequence around them deals with it."""


class Structure(Heads):
    """Reads one data set.

    flaws: bits of `flaws`. truncated: the object ends inside an element. end: where reading ended. encoding: as found.
    extents: by where the value of a sequence begins, its length. unread: likewise values without length that are no
    sequences, and whether they are fragments.
    """

    def __init__(self, source: ByteSource, limits: ReadingLimits) -> None:
        """Nothing found yet."""
        super().__init__(source)
        self.limits = limits
        self.flaws = SOUND
        self.truncated = False
        self.end = 0
        self.encoding = UNKNOWN
        self.extents: dict[int, int] = {}
        self.unread: dict[int, bool] = {}
        self._scan = _MAX_SCAN

    def command_set(self, start: int) -> Dataset:
        """Elements of group 0000 from `start` on, always in implicit little endian (PS3.7 6.3)."""
        level = self._level(Dataset(), self.source.size, False, UNKNOWN, DEFAULT, 1)
        position = start
        while self._size - position >= 8:
            head = self._head(position, UNKNOWN)
            if head.tag >> 16 or head.value + head.length > self._size or not any(self._bytes(position, 8)):
                break
            self._keep(level, head)
            position = head.value + head.length
        self.end = position
        return level.ds

    def data_set(self, start: int, encoding: Encoding) -> Dataset:
        """The data set from `start` on, up to pixel data or its end; `encoding`: as declared."""
        self.encoding = self._look(start, encoding)
        level = self._level(Dataset(), self._size, False, self.encoding, DEFAULT, 1)
        self.end = self._elements(level, start)
        return level.ds

    def _look(self, start: int, declared: Encoding) -> Encoding:
        """The encoding in which an element begins at `start`: the declared one, or the one that fits."""
        other = Encoding(not declared.explicit, declared.little)
        for encoding in (declared, other, Encoding(True, not declared.little), UNKNOWN):
            if self._sound(start, Level(Dataset(), self._size, False, encoding, DEFAULT, 1)):
                return encoding
        written = self._bytes(start + 4, 2)
        capitals = len(written) == 2 and all(0x40 < byte < 0x5B for byte in written)
        return Encoding(capitals, declared.little) if len(written) == 2 else declared

    # Elements

    def _level(
        self, ds: Dataset, limit: int, open_: bool, encoding: Encoding, codecs: tuple[str, ...], depth: int
    ) -> Level:
        ds.set_original_encoding(not encoding.explicit, encoding.little, list(codecs))
        return Level(ds, limit, open_, encoding, codecs, depth)

    def _elements(self, level: Level, position: int) -> int:
        """Reads the elements of one level from `position` on; where it ends, which may be behind its limit."""
        top = level.depth == 1
        while position < level.limit:
            if level.limit - position < 8:
                return self._remainder(level, position)
            head = self._head(position, level.encoding)
            if head.tag >> 16 == 0xFFFE:
                following = self._delimiter(level, head)
                if following is None:
                    return head.value if head.tag == ITEM_END else position
                position = following
            elif top and head.tag in PIXELS:
                return position
            elif not any(self._bytes(position, 8)):
                following = self._behind_zeros(level, position)
                if following is None:
                    return position if top else level.limit
                position = following
            else:
                following = self._element(level, head, position)
                if following is None:
                    following = self._behind_junk(level, position) if top else level.limit
                    if following is None:
                        return position
                else:
                    level.last = max(level.last, head.tag)
                position = following
        if level.open and position >= level.limit:
            self._cut(level)
        return position

    def _cut(self, level: Level) -> None:
        """Notes that a level does not end where it must: with the object, or with what is around it."""
        if level.limit >= self._size:
            self.truncated = True
        else:
            self.flaws |= _BROKEN

    def _remainder(self, level: Level, position: int) -> int:
        """Less than a head is left."""
        if level.depth > 1:
            self._cut(level)
            return level.limit
        if self._bytes(position, 8).strip(b"\0"):
            self.truncated = True
        return position

    def _delimiter(self, level: Level, head: Head) -> int | None:
        """Where to go on behind a delimiter or an item among elements; None where it ends the level."""
        if level.open:
            self.flaws |= _BROKEN if head.tag != ITEM_END else STRUCTURE_INVALID if head.length else SOUND
            if head.tag in (ITEM_END, SEQUENCE_END, ITEM):
                return None
        self.flaws |= _BROKEN
        if head.tag == ITEM and head.length != UNDEFINED and not self._sound(head.value, level):
            behind = head.value + head.length
            if behind <= level.limit and self._sound(behind, level):
                return behind
        return head.value

    def _behind_zeros(self, level: Level, position: int) -> int | None:
        """The first sound element behind zeros; None where the level has none any more."""
        at = position
        while at < level.limit:
            block = self._bytes(at, min(4096, level.limit - at))
            left = block.lstrip(b"\0")
            if left or not block:
                at += len(block) - len(left)
                break
            at += len(block)
        for start in (at, at - 1):  # the first byte of a tag may be a zero itself
            if position < start < level.limit and self._sound(start, level):
                self.flaws |= HEADER_INCOMPLETE | VALUE_INVALID
                return start
        self.flaws |= HEADER_INCOMPLETE
        return None

    def _behind_junk(self, level: Level, position: int) -> int | None:
        """The first of some known elements in a row behind bytes that are none; None where no such row begins."""
        block = self.source.read(position, min(self._scan, level.limit - position))
        for at in range(1, len(block) - 7):
            if level.encoding.explicit and block[at + 4 : at + 6] not in EXPLICIT_VRS:
                continue
            if self._row(position + at, level):
                self.flaws |= HEADER_INCOMPLETE | VALUE_INVALID
                self._scan -= at
                return position + at
        return None

    def _element(self, level: Level, head: Head, position: int) -> int | None:
        """Keeps the element whose head this is; where it ends, None where nothing can be read from here on."""
        if level.encoding.explicit and (head.vr is None or head.vr.encode() not in EXPLICIT_VRS):
            odd = self._odd_vr(level, head, position)
            if odd is None:
                self.flaws |= HEADER_INCOMPLETE
                return None
            head = odd
        if head.length == UNDEFINED:
            return self._undefined(level, head, position)
        end = head.value + head.length
        if end > level.limit:
            return self._beyond(level, head, end)
        if self._vr(level, head) == "SQ":
            return self._sequence(level, head, end)
        self._keep(level, head)
        return end

    def _odd_vr(self, level: Level, head: Head, position: int) -> Head | None:
        """A VR that is not in PS3.5: its length has two bytes, or four, as what follows tells.

        Two capitals are a VR of the future; anything else is no VR, and the dictionary has it. Where nothing sound
        follows in any way, the length is read as pydicom reads it, unless the tag is none either.
        """
        order = "<" if level.encoding.little else ">"
        raw = self._bytes(position, 12)
        choices = [head, Head(head.tag, head.vr, struct.unpack_from(order + "H", raw, 6)[0], position + 8, head.form)]
        if len(raw) == 12:
            (length,) = struct.unpack_from(order + "I", raw, 8)
            choices.append(Head(head.tag, head.vr, length, position + 12, head.form))
        for choice in choices:
            if choice.length == UNDEFINED or self._sound(choice.value + choice.length, level, head.tag - 1):
                self.flaws |= SOUND if choice is head else _BROKEN
                return choice
        return head if head.tag & 0x10000 or in_dictionary(head.tag) else None

    def _beyond(self, level: Level, head: Head, end: int) -> int | None:
        """An element that ends behind its level."""
        credible = head.tag > level.last and (
            (head.vr is not None and head.vr.encode() in EXPLICIT_VRS)
            if level.encoding.explicit
            else bool(head.tag >> 16 & 1) or in_dictionary(head.tag)
        )
        if level.depth == 1 and not credible:
            self.flaws |= HEADER_INCOMPLETE
            return None
        if level.open:
            raise _Fault
        if level.limit == self._size and credible:
            self.truncated = True
            if self._vr(level, head) == "SQ":
                self._sequence(level, head, level.limit)
            else:
                self._keep(level, head)
            return level.limit
        self.flaws |= _BROKEN
        if credible and not self._begins(level.limit, level) and self._begins(end, level):
            self._keep(level, head)
            return end
        return level.limit

    def _vr(self, level: Level, head: Head) -> str:
        """The VR by which an element is taken apart: written, or by the dictionaries (PS3.5 6.2.2)."""
        if head.vr is not None and head.vr != "UN":
            return head.vr
        return known_vr(RawDataElement(BaseTag(head.tag), head.vr, 0, None, 0, True, True), level.ds)

    def _keep(self, level: Level, head: Head) -> None:
        """Keeps an element that is no sequence; a long value stays where it is."""
        value: bytes | None = None
        if head.length <= self.limits.max_value_bytes or head.tag == _CHARACTER_SET:
            value = self._bytes(head.value, min(head.length, self._size - head.value)) if head.length else b""
        if head.tag == _CHARACTER_SET and value is not None:
            level.codecs = codecs_of(value)
            level.ds.set_original_encoding(not level.encoding.explicit, level.encoding.little, list(level.codecs))
        form = UNKNOWN if head.vr == "UN" else head.form
        implicit = not form.explicit
        raw = RawDataElement(BaseTag(head.tag), head.vr, head.length, value, head.value, implicit, form.little)
        level.ds._dict[raw.tag] = raw

    # Sequences

    def _undefined(self, level: Level, head: Head, position: int) -> int | None:
        """An element without length: a sequence, or fragments up to their delimiter."""
        vr = self._vr(level, head)
        little = self._little(level, head)
        tag, _ = self._tag(head.value, little)
        unknown = vr == "UN" or head.vr == "UN"
        if vr == "SQ" or (unknown and tag in (ITEM, SEQUENCE_END)):
            return self._sequence(level, head, None)
        try:
            if tag != ITEM:
                raise _Fault
            end = self._fragments(level, head.value, little)
        except _Fault:
            if level.depth > 1:
                raise
        else:
            self._lose(level, head, end - 8 - head.value, head.vr)
            self.unread[head.value] = True
            return end
        found = self._delimited(level, head.value, little)
        if found is None:
            self.flaws |= HEADER_INCOMPLETE
            return None
        self.flaws |= _BROKEN
        self._lose(level, head, found - 8 - head.value, head.vr)
        self.unread[head.value] = False
        return found

    def _little(self, level: Level, head: Head) -> bool:
        """Byte order of what stands in a sequence: little endian in UN, unless its first tag says otherwise."""
        if head.vr != "UN" or level.encoding.little:
            return level.encoding.little
        return self._tag(head.value, False)[0] not in (ITEM, SEQUENCE_END)

    def _fragments(self, level: Level, position: int, little: bool) -> int:
        """The end of fragments (PS3.5 A.4) in an item, such as those of an icon."""
        while True:
            tag, length = self._tag(position, little)
            if tag == SEQUENCE_END:
                return position + 8
            if tag != ITEM or length == UNDEFINED:
                raise _Fault
            position += 8 + length

    def _sequence(self, level: Level, head: Head, end: int | None) -> int | None:
        """A sequence whose items begin at the value of `head`; `end`: None where its length is not written."""
        items: list[Dataset] = []
        little = self._little(level, head)
        encoding = Encoding(level.encoding.explicit and head.vr != "UN", little)
        sequence = DataElement(BaseTag(head.tag), "SQ", [], head.value, is_undefined_length=end is None)
        before = level.ds._dict.get(BaseTag(head.tag))
        try:
            if level.depth > self.limits.max_depth:
                stop = end if end is not None else self._skip(head.value, encoding)
            else:
                stop = self._items(level, head, items, encoding, end)
        except _Fault:
            self.flaws |= _BROKEN
            if end is not None:
                self._lose(level, head, head.length, "SQ")
                if not self._begins(end, level) and (found := self._delimited(level, head.value, little, head.tag)):
                    return found
                return end
            found = self._delimited(level, head.value, little, head.tag)
            if found is None:
                if level.depth > 1:
                    raise
                self.truncated = True
                found = self._size
            else:
                if before is None:
                    self._lose(level, head, found - 8 - head.value, "SQ")
                return found
            stop = found
        sequence.value = Sequence(items)
        level.ds._dict[BaseTag(head.tag)] = sequence
        delimited = end is None and self._tag(stop - 8, little)[0] == SEQUENCE_END
        self.extents[head.value] = stop - head.value - (8 if delimited and stop - head.value >= 8 else 0)
        return stop

    def _lose(self, level: Level, head: Head, length: int, vr: str | None) -> None:
        """Keeps the place of a value that is not read, or cannot be."""
        lost = RawDataElement(BaseTag(head.tag), vr, length, None, head.value, not head.form.explicit, True)
        level.ds._dict[lost.tag] = lost

    def _items(self, level: Level, head: Head, items: list[Dataset], encoding: Encoding, end: int | None) -> int:
        """Reads items into `items`; where the sequence ends. Raises _Fault."""
        position = head.value
        limit = level.limit if end is None else end
        while end is None or position < end:
            tag, length = self._tag(position, encoding.little)
            if end is not None and tag >> 16 != 0xFFFE and self._overlong(level, head, position, end):
                self.flaws |= _BROKEN
                return position
            if tag == -1 or position + 8 > limit:
                if position + 8 > self._size:
                    self.truncated = True
                else:
                    self.flaws |= _BROKEN
                return limit
            if tag == ITEM:
                position = self._item(level, position + 8, length, items, encoding, limit, head.tag)
            elif tag == SEQUENCE_END:
                if end is None:
                    self.flaws |= STRUCTURE_INVALID if length else SOUND
                    return position + 8
                position += 8
                self.flaws |= STRUCTURE_INVALID if position == end else _BROKEN
                if position != end and self._sound(position, level, head.tag) and not self._sound(end, level, head.tag):
                    return position
            elif tag == ITEM_END:
                self.flaws |= _BROKEN
                position += 8
            elif end is None and items and self._sound(position, level, head.tag):
                self.flaws |= _BROKEN  # its delimiter is missing
                return position
            else:
                raise _Fault
        assert end is not None
        if position != end:
            self.flaws |= _BROKEN
            return position if self._begins(position, level) and not self._begins(end, level) else end
        return end

    def _overlong(self, level: Level, head: Head, position: int, end: int) -> bool:
        """Whether a sequence is over at `position`, though its length leads to `end`."""
        return self._sound(position, level, head.tag) and not self._sound(end, level, head.tag)

    def _item(
        self,
        level: Level,
        position: int,
        length: int,
        items: list[Dataset],
        encoding: Encoding,
        limit: int,
        tag: int,
    ) -> int:
        """Reads the item whose content begins at `position`; where it ends."""
        ends = limit if length == UNDEFINED else position + length
        if ends > limit and limit == self._size:
            self.truncated, ends = True, limit
        elif ends > limit:
            self.flaws |= _BROKEN
            if ends > level.limit or not self._sound(ends, level, tag):
                ends = limit
        written = self._bytes(position + 4, 2)
        if length and encoding.explicit and not written.isalpha():
            encoding = Encoding(False, encoding.little)  # an item may be implicit in explicit VR (PS3.5 6.2.2)
        elif length and not encoding.explicit and level.encoding.explicit and written in EXPLICIT_VRS:
            encoding = Encoding(True, encoding.little)  # and explicit where a sequence is written as UN
        ds = Dataset()
        items.append(ds)
        inner = self._level(ds, ends, length == UNDEFINED, encoding, level.codecs, level.depth + 1)
        stop = self._elements(inner, position)
        if stop != ends and length != UNDEFINED:
            self.flaws |= _BROKEN
        return stop

    def _delimited(self, level: Level, position: int, little: bool, tag: int | None = None) -> int | None:
        """Behind the first delimiter of a sequence, or else of an item, that something sound follows; None for none."""
        for number in (SEQUENCE_END, ITEM_END):
            mark = struct.pack("<HHI" if little else ">HHI", number >> 16, number & 0xFFFF, 0)
            for end in self._ends(mark, position, level.limit):
                following = self._tag(end, little)[0] >> 16
                if number == ITEM_END and following in (-1, 0xFFFE):
                    continue
                if end == self._size or self._sound(end, level, tag):
                    return end
        return None

    def _skip(self, position: int, encoding: Encoding) -> int:
        """End of a sequence without length whose first item stands at `position`; without recursion. Raises _Fault."""
        try:
            end = self._end_of_items(position, encoding)
        except Misplaced:
            raise _Fault from None
        self.truncated |= end is None
        return self._size if end is None else end
