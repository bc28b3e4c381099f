"""The heads of elements, items and delimiters, and whether what stands at some byte is one (PS3.5 7.1, 7.5).

Belongs here: windows over the object and single heads. Does not belong here: what becomes of what was found, and what a
reader does behind a fault (`structure`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pydicom.datadict import dictionary_has_tag, dictionary_VR, masks
from pydicom.dataset import Dataset

from dicom_assets.dicom.pixels import PIXELS
from dicom_assets.dicom.signature import EXPLICIT_VRS, LONG_VRS
from dicom_assets.storage.byte_ranges import ByteSource
from dicom_assets.storage.window import Window

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True)
class Encoding:
    """How elements are written."""

    explicit: bool
    little: bool


UNKNOWN = Encoding(explicit=False, little=True)
"""How the value of an element is written whose VR is UN (PS3.5 6.2.2)."""


@dataclass(slots=True)
class Head:
    """The head of one element.

    vr: as written, None in implicit VR. value: where its value begins. form: how the element is written.
    """

    tag: int
    vr: str | None
    length: int
    value: int
    form: Encoding


@dataclass(slots=True)
class Level:
    """A data set or an item while it is read.

    limit: where it ends, or must have ended. open: its length is not written. last: highest tag so far.
    """

    ds: Dataset
    limit: int
    open: bool
    encoding: Encoding
    codecs: tuple[str, ...]
    depth: int
    last: int = -1


_REPEATING: dict[int, set[int]] = {}
"""Elements of repeating groups (60xx and the like), by the bits that count."""
for _tag, _mask in masks.values():
    _REPEATING.setdefault(_mask, set()).add(_tag & _mask)


class Misplaced(Exception):
    """Something else than an item stands where one must."""


class Heads:
    """Reads heads of one object through a window."""

    def __init__(self, source: ByteSource) -> None:
        """Nothing read yet."""
        self.source = source
        self._size = source.size
        self._bytes = Window(source, _BLOCK).read

    def _head(self, position: int, encoding: Encoding) -> Head:
        """The head at `position`, of which eight bytes are there."""
        order = "<" if encoding.little else ">"
        raw = self._bytes(position, 12)
        group, number = struct.unpack_from(order + "HH", raw)
        tag, written = group << 16 | number, raw[4:6]
        if encoding.explicit and group != 0xFFFE and b"AA" <= written <= b"ZZ" and 0x41 <= written[1] <= 0x5A:
            vr = written.decode("ascii")
            if written in LONG_VRS:
                if len(raw) < 12:
                    return Head(tag, vr, UNDEFINED - 1, position + 12, encoding)
                return Head(tag, vr, struct.unpack_from(order + "I", raw, 8)[0], position + 12, encoding)
            return Head(tag, vr, struct.unpack_from(order + "H", raw, 6)[0], position + 8, encoding)
        return Head(tag, None, struct.unpack_from(order + "I", raw, 4)[0], position + 8, encoding)

    def _tag(self, position: int, little: bool) -> tuple[int, int]:
        """Tag and length of an item or a delimiter at `position`; (-1, 0) where the object ends."""
        raw = self._bytes(position, 8)
        if len(raw) < 8:
            return -1, 0
        group, number, length = struct.unpack("<HHI" if little else ">HHI", raw)
        return group << 16 | number, length

    def _may_look(self) -> bool:
        """Whether one more head may be looked at; a walk that is bounded counts here."""
        return True

    def _end_of_items(self, position: int, encoding: Encoding) -> int | None:
        """Behind the delimiter of items or fragments that begin at `position`, without recursion.

        None where the object ends before it, or no more may be looked at. Raises Misplaced for what is no item.
        """
        inside = [SEQUENCE_END]
        while inside:
            if not self._may_look() or self._size - position < 8:
                return None
            if inside[-1] == SEQUENCE_END:
                tag, length = self._tag(position, encoding.little)
                position += 8
                if tag == SEQUENCE_END:
                    inside.pop()
                elif tag != ITEM:
                    raise Misplaced
                elif length == UNDEFINED:
                    inside.append(ITEM_END)
                else:
                    position += length
                continue
            head = self._head(position, encoding)
            position = head.value
            if head.tag == ITEM_END:
                inside.pop()
            elif head.length == UNDEFINED:
                inside.append(SEQUENCE_END)
            else:
                position += head.length
        return position

    def _sound(self, position: int, level: Level, last: int | None = None) -> bool:
        """Whether what stands at `position` can follow an element `last` of this level, or ends it."""
        if position == level.limit and not level.open:
            return True
        if level.limit - position < 8:
            return False
        head = self._head(position, level.encoding)
        if head.tag >> 16 == 0xFFFE:
            return level.depth > 1 and head.tag in (ITEM, ITEM_END, SEQUENCE_END)
        if head.tag <= (level.last if last is None else last):
            return False
        if level.encoding.explicit and (head.vr is None or head.vr.encode() not in EXPLICIT_VRS):
            return False
        if (
            not level.encoding.explicit
            and head.tag >> 16 & 1 == 0
            and head.tag & 0xFFFF
            and not in_dictionary(head.tag)
        ):
            return False
        return head.length == UNDEFINED or head.value + head.length <= level.limit or head.tag in PIXELS

    def _row(self, position: int, level: Level) -> bool:
        """Whether elements of PS3.6 stand at `position` one behind the other: two where VRs are written, else three."""
        last = level.last
        for _ in range(2 if level.encoding.explicit else 3):
            if position == self._size and last != level.last:
                return True
            if not self._sound(position, level, last):
                return False
            head = self._head(position, level.encoding)
            if not in_dictionary(head.tag) or (head.vr is not None and head.vr not in dictionary_VR(head.tag)):
                return False
            if head.tag in PIXELS or head.length == UNDEFINED:
                return True
            last, position = head.tag, head.value + head.length
        return True

    def _begins(self, position: int, level: Level) -> bool:
        """Whether some element, item or delimiter begins at `position`, or the object ends there."""
        outside = Level(level.ds, self._size, False, level.encoding, level.codecs, 2)
        return self._sound(position, outside)

    def _ends(self, mark: bytes, position: int, limit: int) -> Iterator[int]:
        """Where each occurrence of `mark` between `position` and `limit` ends."""
        while position < limit:
            block = self.source.read(position, min(_BLOCK, limit - position))
            at = block.find(mark)
            while at >= 0:
                yield position + at + len(mark)
                at = block.find(mark, at + 1)
            if len(block) < _BLOCK:
                return
            position += len(block) - len(mark) + 1


def in_dictionary(tag: int) -> bool:
    """Whether PS3.6 has this element; asked at each place where an object that is broken may go on."""
    if dictionary_has_tag(tag):
        return True
    return not tag >> 16 & 1 and any(tag & mask in groups for mask, groups in _REPEATING.items())
