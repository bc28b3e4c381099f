"""Elements behind pixel data, each by its place: trailing padding, signatures, what vendors put there.

Belongs here: where they begin and end. Their values are not read: they are rare, and may be longer than the pixels. So
their VR is UN, unless it is one of those that are only bytes.
Does not belong here: pixel data themselves (`pixels`).
"""

from __future__ import annotations

from pydicom.datadict import dictionary_VR

from dicom_assets.dicom.heads import UNDEFINED, UNKNOWN, Encoding, Head, Heads, Misplaced
from dicom_assets.dicom.items import prefix_of
from dicom_assets.dicom.pixels import PIXELS, pixel_vr
from dicom_assets.dicom.references import placed
from dicom_assets.dicom.values import BULK
from dicom_assets.storage.byte_ranges import ByteSource

_MOST = 20_000  # heads that are looked at before the rest is no elements


def elements_behind(source: ByteSource, end: int, last: int, encoding: Encoding) -> tuple[list[bytes], bool]:
    """JSON members of the elements behind `end`, where an element `last` ends; and whether other bytes are left.

    Elements are in ascending order, and the last one ends with the object. Raises what the source raises.
    """
    walk = _Walk(source)
    return walk.elements(end, last, encoding)


class _Walk(Heads):
    """One walk over heads, a bounded number of them."""

    def __init__(self, source: ByteSource) -> None:
        super().__init__(source)
        self._left = _MOST

    def elements(self, position: int, last: int, encoding: Encoding) -> tuple[list[bytes], bool]:
        found: list[bytes] = []
        while position < self._size:
            if not self._may_look() or self._size - position < 8:
                return found, True
            head = self._head(position, encoding)
            end: int | None = head.value + head.length
            if head.length == UNDEFINED:
                end = self._behind_sequence(head.value, UNKNOWN if head.vr == "UN" else encoding)
            if head.tag <= last or end is None or end > self._size:
                return found, True
            length = head.length if head.length != UNDEFINED else end - 8 - head.value
            encapsulated = head.length == UNDEFINED and head.tag in PIXELS
            vr = pixel_vr(head.tag, head.vr, encapsulated=encapsulated) if head.tag in PIXELS else _vr(head)
            prefix = prefix_of(head.tag, vr)
            found.append(placed(prefix, head.value, length, encapsulated=encapsulated))
            last, position = head.tag, end
        return found, False

    def _may_look(self) -> bool:
        self._left -= 1
        return self._left >= 0

    def _behind_sequence(self, position: int, encoding: Encoding) -> int | None:
        """Behind the delimiter of items or fragments that begin at `position`; None where that cannot be told."""
        try:
            return self._end_of_items(position, encoding)
        except Misplaced:
            return None


def _vr(head: Head) -> str:
    """The VR, where it is written or told by PS3.6 and stands for bytes; else UN."""
    try:
        vr = head.vr or dictionary_VR(head.tag)
    except KeyError:
        return "UN"
    return vr if vr in BULK else "UN"
