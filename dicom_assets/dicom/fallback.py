"""Tier 2: whatever is unusual; its values are decoded by the same rules as ever.

Belongs here: from the elements that were found (`structure`) to JSON, with pydicom's look-up of VRs, held silent (its
warnings may quote values). Does not belong here: the decision that an object is unusual (`header`).
"""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Any

import orjson
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from dicom_assets.dicom.charset import DEFAULT
from dicom_assets.dicom.columns import fill
from dicom_assets.dicom.flaws import DEPTH_CAPPED, HEADER_CAPPED, HEADER_INCOMPLETE, SOUND, VALUE_INVALID
from dicom_assets.dicom.heads import Encoding
from dicom_assets.dicom.known_vr import PYDICOM_ERRORS, known_vr
from dicom_assets.dicom.lenient import lenient
from dicom_assets.dicom.memo import MAX_VALUE
from dicom_assets.dicom.parsed import Parsed, exceeds
from dicom_assets.dicom.pixels import OFFSET_TABLES, PIXELS, pixel_vr
from dicom_assets.dicom.references import digested, element_inline, element_placed, is_inline
from dicom_assets.dicom.rejections import Unreadable
from dicom_assets.dicom.structure import Structure
from dicom_assets.dicom.syntax import Preface
from dicom_assets.dicom.values import BULK, DECODERS, json_element
from dicom_assets.settings import ReadingLimits
from dicom_assets.storage.byte_ranges import ByteSource

_LUT_DESCRIPTORS = frozenset({0x00281101, 0x00281102, 0x00281103, 0x00283002})


def parse(body: ByteSource, start: int, preface: Preface, limits: ReadingLimits) -> Parsed:
    """The data set of `body` from `start` on, with a command set in front of it (PS3.7 6.3) if any.

    Raises Unreadable, or the storage's own OSError.
    """
    structure = Structure(body, limits)
    try:
        with lenient():
            sets = []
            if body.read(start, 2) == b"\0\0" and any(body.read(start, 8)):
                sets.append(structure.command_set(start))
                start = structure.end
            sets.append(structure.data_set(start, Encoding(preface.explicit, preface.little)))
            found = _Walk(body, limits, structure).run(sets)
    except (struct.error, RecursionError) as error:
        detail = f"the data set cannot be read ({type(error).__name__})"
        raise Unreadable("UNPARSEABLE", detail, structure.end) from None
    found.flaws |= structure.flaws
    found.end = structure.end
    found.encoding = structure.encoding
    found.truncated |= structure.truncated
    left = body.size - found.end
    if left >= 8:
        group, number = struct.unpack("<HH" if structure.encoding.little else ">HH", body.read(found.end, 4))
        found.at_pixels = group << 16 | number in PIXELS
        found.flaws |= SOUND if found.at_pixels else HEADER_INCOMPLETE
    found.trailing = 0 < left < 8 and not found.truncated
    return found


class _Walk:
    """One walk over pydicom's data set; the source gives values that pydicom left behind because they are long."""

    def __init__(self, source: ByteSource, limits: ReadingLimits, structure: Structure) -> None:
        self._source = source
        self._limits = limits
        self._structure = structure
        self._truncated = False
        self._tables: dict[int, tuple[int, int]] = {}

    def run(self, sets: list[Dataset]) -> Parsed:
        parsed = Parsed()
        parts: list[bytes] = []
        for ds in sets:
            for tag, raw in list(ds._dict.items()):  # before a look at one element converts another
                element, flaws = self._element(ds, raw, 1)
                parsed.last = max(parsed.last, int(tag))
                if element["vr"] not in BULK:
                    flaws |= fill(parsed.columns, int(tag), element, flaws)
                fragment = orjson.dumps({f"{tag:08X}": element})[1:-1]
                if len(fragment) > MAX_VALUE and exceeds(parts, fragment, self._limits):
                    flaws |= HEADER_CAPPED
                    fragment = orjson.dumps({f"{tag:08X}": self._digested(raw, element["vr"])})[1:-1]
                parts.append(fragment)
                parsed.flaws |= flaws
        parsed.parts = parts
        parsed.truncated = self._truncated
        parsed.tables = self._tables
        return parsed

    def _digested(self, raw: DataElement | RawDataElement, vr: str) -> dict[str, Any]:
        """What stands for a value above the bounds."""
        return digested(vr, self._source, *self._extent(raw))

    def _extent(self, raw: DataElement | RawDataElement) -> tuple[int, int]:
        """Offset and length of a value, as far as it is there."""
        if isinstance(raw, RawDataElement):
            offset, length = raw.value_tell, raw.length
        else:
            offset = int(raw.file_tell or 0)
            length = self._structure.extents[offset] if raw.VR == "SQ" else len(raw.value or b"")
        return offset, max(min(length, self._source.size - offset), 0)

    def _bulk(self, raw: DataElement | RawDataElement, vr: str, depth: int) -> dict[str, Any]:
        """A bulk value: inline where it is short, else its place."""
        tag = int(raw.tag)
        offset, length = self._extent(raw)
        encapsulated = self._structure.unread.get(offset)
        if tag in PIXELS:
            vr = pixel_vr(tag, raw.VR if isinstance(raw, RawDataElement) else None, encapsulated=bool(encapsulated))
        if depth == 1 and tag in OFFSET_TABLES:
            self._tables[tag] = (offset, length)
        little = self._structure.encoding.little
        if encapsulated is None and is_inline(tag, vr, length, little):
            return element_inline(vr, self._source.read(offset, length))
        return element_placed(vr, offset, length, encapsulated=bool(encapsulated))

    def _items(self, ds: Dataset, depth: int) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        flaws = SOUND
        for tag, raw in list(ds._dict.items()):  # before a look at one element converts another
            element, flaw = self._element(ds, raw, depth)
            flaws |= flaw
            found[f"{tag:08X}"] = element
        return found, flaws

    def _element(self, ds: Dataset, raw: DataElement | RawDataElement, depth: int) -> tuple[dict[str, Any], int]:
        """The element as DICOM JSON, and flaws."""
        if isinstance(raw, DataElement):  # a sequence, or a value that pydicom needed to find a VR
            if raw.VR == "SQ":
                if not raw.is_undefined_length:
                    with suppress(*PYDICOM_ERRORS):  # one that is no number tells nothing
                        ds._set_pixel_representation(raw)
                return self._sequence(raw, depth)
            return (self._bulk(raw, raw.VR, depth) if raw.VR in BULK else raw.to_json_dict(None, 0)), SOUND
        tag = int(raw.tag)
        vr, doubt = self._vr(ds, raw)
        if depth == 1 and raw.length != 0xFFFFFFFF and raw.value_tell + raw.length > self._source.size:
            self._truncated = True
        if vr in BULK or tag in PIXELS:
            return self._bulk(raw, vr, depth), doubt
        if raw.value_tell in self._structure.unread or (vr not in DECODERS and vr != "SQ"):
            return self._bulk(raw, "UN", depth), VALUE_INVALID
        if vr == "SQ":  # a fault inside one sequence costs that sequence alone
            return self._digested(raw, vr), VALUE_INVALID
        value = raw.value
        if value is None and raw.length:
            return self._digested(raw, vr), HEADER_CAPPED
        value = value or b""
        codecs = ds.original_character_set or DEFAULT
        named = (codecs,) if isinstance(codecs, str) else tuple(codecs)
        element, flaws = json_element(vr, value, raw.is_little_endian, DEFAULT if tag == 0x00080005 else named)
        if tag in _LUT_DESCRIPTORS and raw.VR == "SS" and len(element.get("Value", ())) > 1 and element["Value"][0] < 0:
            element["Value"][0] += 65536  # the number of entries is unsigned whatever the VR (PS3.3 C.7.6.3.1.5)
        return element, flaws | doubt

    def _vr(self, ds: Dataset, raw: RawDataElement) -> tuple[str, int]:
        """The VR that counts: written, from the dictionaries, or found from the values around it; and a flaw.

        Of several that it may be, where nothing tells which, one is taken: OW, else the first.
        """
        vr = known_vr(raw._replace(value=None), ds)  # UN counts as known at any length (CP-1066)
        if " or " not in vr:
            return vr, SOUND
        try:
            found = str(ds[raw.tag].VR)
        except PYDICOM_ERRORS:
            found = vr
        if " or " not in found:
            return found, SOUND
        return "OW" if "OW" in found else found[:2], VALUE_INVALID

    def _sequence(self, element: DataElement, depth: int) -> tuple[dict[str, Any], int]:
        if depth > self._limits.max_depth:
            return element_placed("SQ", *self._extent(element)), DEPTH_CAPPED
        items: list[dict[str, Any]] = []
        flaws = SOUND
        for item in element.value or ():
            found, flaw = self._items(item, depth + 1)
            items.append(found)
            flaws |= flaw
        return {"vr": "SQ", "Value": items}, flaws
