"""Tier 2: pydicom finds the elements of whatever is unusual; their values are decoded by the same rules as ever.

Belongs here: pydicom, held silent (its warnings may quote values) and lenient. Does not belong here: the decision
that an object is unusual (`header`).
"""

from __future__ import annotations

import io
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import orjson
from pydicom import config
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.filereader import read_dataset
from pydicom.hooks import hooks

from dicom_assets.dicom.capped import reference
from dicom_assets.dicom.charset import DEFAULT
from dicom_assets.dicom.columns import fill
from dicom_assets.dicom.errors import Unreadable
from dicom_assets.dicom.flaws import DEPTH_CAPPED, HEADER_CAPPED, SOUND, VALUE_INVALID
from dicom_assets.dicom.memo import MAX_VALUE
from dicom_assets.dicom.parsed import Parsed, exceeds
from dicom_assets.dicom.pixels import PIXELS
from dicom_assets.dicom.source import ByteSource
from dicom_assets.dicom.syntax import Preface
from dicom_assets.dicom.values import BULK, DECODERS, json_element
from dicom_assets.settings import ReadingLimits

PYDICOM_ERRORS = (
    ArithmeticError,
    BytesLengthException,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom raises at bytes that it cannot read; it has no type of its own for that."""

_HEAD = 8
_CUT_HEADS = (0, 8, 9, 10, 11)
"""Bytes left out at the end: pydicom fails at an object that ends inside the head of an element."""

_LUT_DESCRIPTORS = frozenset({0x00281101, 0x00281102, 0x00281103, 0x00283002})


class _Bytes(io.RawIOBase):
    """A ByteSource as a file. Keeps the storage's own error, which pydicom would mistake for a fault of the bytes."""

    def __init__(self, source: ByteSource, size: int) -> None:
        self._source = source
        self._size = size
        self._position = 0
        self.failure: OSError | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            block = self._source.read(self._position, max(0, min(len(buffer), self._size - self._position)))
        except OSError as error:
            self.failure = error
            raise
        buffer[: len(block)] = block
        self._position += len(block)
        return len(block)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position


@contextmanager
def _lenient() -> Iterator[None]:
    """Makes pydicom read without validation, warnings or log records, then as it was."""
    logger = logging.getLogger("pydicom")
    mode, disabled = config.settings.reading_validation_mode, logger.disabled
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config.settings.reading_validation_mode = config.IGNORE
        logger.disabled = True
        try:
            yield
        finally:
            config.settings.reading_validation_mode = mode
            logger.disabled = disabled


def _behind_commands(tag: int, vr: str | None, length: int) -> bool:
    return tag >> 16 != 0


def _before_pixels(tag: int, vr: str | None, length: int) -> bool:
    return tag in PIXELS


def parse(body: ByteSource, start: int, preface: Preface, limits: ReadingLimits) -> Parsed:
    """The data set of `body` from `start` on as pydicom finds it, with a command set in front of it (PS3.7 6.3) if any.

    Raises Unreadable, or the storage's own OSError.
    """
    with _lenient():
        for missing in _CUT_HEADS:
            raw = _Bytes(body, body.size - missing)
            file: BinaryIO = io.BufferedReader(raw, 1 << 16)
            try:
                sets = _read(file, body, start, preface, limits)
                end = file.tell()
                found = _Walk(body, limits).run(sets)
            except struct.error:
                continue
            except PYDICOM_ERRORS as error:
                if raw.failure is not None:
                    raise raw.failure from None
                cut = isinstance(error, EOFError) or (isinstance(error, OSError) and file.tell() >= body.size)
                code = "TRUNCATED_HEADER" if cut else "UNPARSEABLE"
                detail = f"pydicom cannot read the data set ({type(error).__name__})"
                raise Unreadable(code, detail) from None
            found.end = end
            found.truncated |= missing > 0 or 0 < body.size - _last_end(sets[-1]) < _HEAD
            head = body.read(end, 4)
            if len(head) == 4:
                group, number = struct.unpack("<HH" if preface.little else ">HH", head)
                found.at_pixels = group << 16 | number in PIXELS
            return found
    raise Unreadable("UNPARSEABLE", "pydicom cannot read the data set")


def _read(file: BinaryIO, body: ByteSource, start: int, preface: Preface, limits: ReadingLimits) -> list[Dataset]:
    """Command set, if any, and data set."""
    file.seek(start)
    sets = []
    if body.read(start, 2) == b"\0\0":
        sets.append(read_dataset(file, True, True, stop_when=_behind_commands))
    bound = limits.max_value_bytes
    sets.append(read_dataset(file, not preface.explicit, preface.little, stop_when=_before_pixels, defer_size=bound))
    return sets


def _last_end(ds: Dataset) -> int:
    """Where the last element with a length ends; the end of the object where none has one."""
    last = next(iter(list(ds._dict.values())[-1:]), None)
    if not isinstance(last, RawDataElement) or last.length == 0xFFFFFFFF:
        return 1 << 62
    return last.value_tell + last.length


class _Walk:
    """One walk over pydicom's data set; the source gives values that pydicom left behind because they are long."""

    def __init__(self, source: ByteSource, limits: ReadingLimits) -> None:
        self._source = source
        self._limits = limits
        self._truncated = False

    def run(self, sets: list[Dataset]) -> Parsed:
        parsed = Parsed()
        parts: list[bytes] = []
        for ds in sets:
            for tag, raw in list(ds._dict.items()):  # before a look at one element converts another
                element, flaws = self._element(ds, raw, 1)
                parsed.last = max(parsed.last, int(tag))
                if element is not None:
                    flaws |= fill(parsed.columns, int(tag), element, flaws)
                    fragment = orjson.dumps({f"{tag:08X}": element})[1:-1]
                    if len(fragment) > MAX_VALUE and exceeds(parts, fragment, self._limits):
                        flaws |= HEADER_CAPPED
                        fragment = orjson.dumps({f"{tag:08X}": self._reference(raw, element["vr"])})[1:-1]
                    parts.append(fragment)
                parsed.flaws |= flaws
        parsed.json = b",".join(parts)
        parsed.truncated = self._truncated
        return parsed

    def _reference(self, raw: DataElement | RawDataElement, vr: str) -> dict[str, Any]:
        """What stands for a value above the bounds; nothing where pydicom does not say where it ends."""
        if isinstance(raw, RawDataElement) and raw.length != 0xFFFFFFFF:
            return reference(vr, self._source, raw.value_tell, raw.length)
        return {"vr": vr}

    def _items(self, ds: Dataset, depth: int) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        flaws = SOUND
        for tag, raw in list(ds._dict.items()):  # before a look at one element converts another
            element, flaw = self._element(ds, raw, depth)
            flaws |= flaw
            if element is not None:
                found[f"{tag:08X}"] = element
        return found, flaws

    def _element(self, ds: Dataset, raw: DataElement | RawDataElement, depth: int) -> tuple[dict[str, Any] | None, int]:
        """The element as DICOM JSON, None where it is bulk, and flaws."""
        if isinstance(raw, DataElement):  # a sequence without length, or a value that pydicom needed for reading
            if raw.VR == "SQ":
                return self._sequence(raw, depth)
            return (None if raw.VR in BULK else raw.to_json_dict(None, 0)), SOUND
        tag = int(raw.tag)
        vr = self._vr(ds, raw)
        if depth == 1 and raw.length != 0xFFFFFFFF and raw.value_tell + raw.length > self._source.size:
            self._truncated = True
        if vr in BULK:
            return None, SOUND
        value = raw.value
        if value is None and raw.length:
            if vr != "SQ":
                return reference(vr, self._source, raw.value_tell, raw.length), HEADER_CAPPED
            value = self._source.read(raw.value_tell, raw.length)
            raw = raw._replace(value=value)
            ds._dict[raw.tag] = raw
        value = value or b""
        if raw.length != 0xFFFFFFFF and len(value) < raw.length:
            self._truncated = True
        if vr == "SQ":
            try:
                return self._sequence(ds[tag], depth)
            except PYDICOM_ERRORS:  # a fault inside one sequence costs that sequence alone
                return self._reference(raw, vr), VALUE_INVALID
        if vr not in DECODERS:
            return None, VALUE_INVALID
        codecs = ds.original_character_set or DEFAULT
        named = (codecs,) if isinstance(codecs, str) else tuple(codecs)
        element, flaws = json_element(vr, value, raw.is_little_endian, DEFAULT if tag == 0x00080005 else named)
        if tag in _LUT_DESCRIPTORS and raw.VR == "SS" and len(element.get("Value", ())) > 1 and element["Value"][0] < 0:
            element["Value"][0] += 65536  # the number of entries is unsigned whatever the VR (PS3.3 C.7.6.3.1.5)
        return element, flaws

    def _vr(self, ds: Dataset, raw: RawDataElement) -> str:
        """The VR that counts: written, from the dictionaries, or found from the values around it."""
        looked_up: dict[str, Any] = {}
        hooks.raw_element_vr(raw, looked_up, ds=ds)
        vr = str(looked_up["VR"])
        if " or " not in vr:
            return vr
        try:
            return str(ds[raw.tag].VR)
        except PYDICOM_ERRORS:
            return vr

    def _sequence(self, element: DataElement, depth: int) -> tuple[dict[str, Any], int]:
        if depth > self._limits.max_depth:
            return {"vr": "SQ"}, DEPTH_CAPPED
        items: list[dict[str, Any]] = []
        flaws = SOUND
        for item in element.value or ():
            found, flaw = self._items(item, depth + 1)
            items.append(found)
            flaws |= flaw
        return {"vr": "SQ", "Value": items}, flaws
