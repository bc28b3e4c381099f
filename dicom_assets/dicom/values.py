"""One raw value to the `Value` of the DICOM JSON Model (PS3.5 6.2, PS3.18 F.2).

Belongs here: how the bytes of each VR become JSON values. Does not belong here: where an element begins and ends
(`elements`), which values are columns (`columns`).

Where pydicom loses what was written, this keeps it as JSON that is still valid:

- DS and IS that are no numbers, or whose number JSON cannot hold: the text as it was written, as a string
  (PS3.18 F.2.3 allows strings for both);
- FL and FD that are not finite: the strings "NaN", "Infinity", "-Infinity";
- binary numbers whose length does not fit their VR: VR UN with InlineBinary.

All of these carry VALUE_INVALID. Empty values between backslashes are null for numbers and names, "" for text.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import orjson

from dicom_assets.dicom.charset import decode
from dicom_assets.dicom.flaws import CHARSET_LOST, SOUND, VALUE_INVALID

BULK = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
"""VRs that a header leaves out (PS3.18 F: bulk data)."""

Values = list[Any] | None
Decoder = Callable[[bytes, bool, tuple[str, ...]], tuple[Values, int]]

_INT64 = range(-(2**63), 2**63)


def _latin(raw: bytes) -> tuple[str, int]:
    """Text of a VR that is bound to the default repertoire; bytes beyond it are kept as Latin-1."""
    return raw.decode("latin-1"), SOUND if raw.isascii() else VALUE_INVALID


def _plain(text: str) -> Values:
    """Values of AS, CS, DA, TM, DT: padding behind the last one goes."""
    text = text.rstrip(" \x00")
    return text.split("\\") if text else None


def _strings(raw: bytes, little: bool, codecs: tuple[str, ...]) -> tuple[Values, int]:
    text, flaw = _latin(raw)
    return _plain(text), flaw


def _uids(raw: bytes, little: bool, codecs: tuple[str, ...]) -> tuple[Values, int]:
    text, flaw = _latin(raw)
    values = _plain(text)
    return ([v.strip() for v in values] if values else None), flaw


def _application_entities(raw: bytes, little: bool, codecs: tuple[str, ...]) -> tuple[Values, int]:
    text, flaw = _latin(raw)
    values = [v.strip() for v in text.split("\\")]
    return (None if values == [""] else values), flaw


def _uri(raw: bytes, little: bool, codecs: tuple[str, ...]) -> tuple[Values, int]:
    text, flaw = _latin(raw)
    text = text.rstrip()
    return ([text] if text else None), flaw


def _texts(raw: bytes, little: bool, codecs: tuple[str, ...]) -> tuple[Values, int]:
    text, flaw = decode(raw, codecs)
    # Refused bytes are written as \xHH: their backslash separates nothing.
    parts = [decode(p, codecs)[0] for p in raw.split(b"\\")] if flaw == CHARSET_LOST else text.split("\\")
    values = [part.rstrip("\0 ") for part in parts]
    return (None if values == [""] else values), flaw


def _text(raw: bytes, little: bool, codecs: tuple[str, ...]) -> tuple[Values, int]:
    text, flaw = decode(raw, codecs)
    text = text.rstrip("\0 ")
    return ([text] if text else None), flaw


_REPRESENTATIONS = ("Alphabetic", "Ideographic", "Phonetic")


def _names(raw: bytes, little: bool, codecs: tuple[str, ...]) -> tuple[Values, int]:
    """Person names in up to three representations (PS3.5 6.2.1)."""
    raw = raw.rstrip(b"\x00 ")
    text, flaw = decode(raw, codecs)
    parts = [decode(p, codecs)[0] for p in raw.split(b"\\")] if flaw == CHARSET_LOST else text.split("\\")
    values: list[Any] = []
    for name in parts:
        groups = name.split("=")
        while groups and not groups[-1]:
            groups.pop()
        values.append(dict(zip(_REPRESENTATIONS, groups, strict=False)) if groups else None)
        if len(groups) > 3:
            flaw |= VALUE_INVALID
    return (None if values == [None] else values), flaw


MANY_DECIMALS = 256
"""Bytes of decimals, such as the points of a contour, from which it is quicker to have them read as JSON numbers."""


def _json_numbers(raw: bytes) -> list[float] | None:
    """Decimals that are written as JSON writes numbers (RFC 8259, section 6); None for all others.

    A plus sign, a leading zero, an empty value: these are none.
    """
    with suppress(orjson.JSONDecodeError):
        numbers: list[float] = orjson.loads(b"[%b]" % raw.replace(b"\\", b","))
        return numbers or None
    return None


def _decimals(raw: bytes, little: bool, codecs: tuple[str, ...]) -> tuple[Values, int]:
    if not raw.translate(None, b"0123456789.-+ \\"):  # no exponent, so every number is finite
        if len(raw) >= MANY_DECIMALS and (numbers := _json_numbers(raw)) is not None:
            return numbers, SOUND
        with suppress(ValueError):
            return list(map(float, raw.split(b"\\"))), SOUND
    text = raw.decode("latin-1").strip().rstrip(" \x00")
    if not text:
        return None, SOUND
    values: list[Any] = []
    flaw = SOUND
    for part in text.split("\\"):
        if not part.strip():
            values.append(None)
            continue
        try:
            number = float(part)
            sound = math.isfinite(number) and "_" not in part and part.isascii()
        except ValueError:
            sound = False
        if sound:
            values.append(number)
        else:
            values.append(part)
            flaw = VALUE_INVALID
    return values, flaw


def _integers(raw: bytes, little: bool, codecs: tuple[str, ...]) -> tuple[Values, int]:
    if len(raw) <= 18 and not raw.translate(None, b"0123456789-+ "):  # at most 18 digits: fits
        with suppress(ValueError):
            return [int(raw)], SOUND
    text = raw.decode("latin-1").rstrip(" \x00")
    if not text.strip():
        return None, SOUND
    values: list[Any] = []
    flaw = SOUND
    for part in text.split("\\"):
        if not part.strip():
            values.append(None)
            continue
        number = _integer(part)
        if number is None:
            values.append(part)
            flaw = VALUE_INVALID
        else:
            values.append(number)
    return values, flaw


def _integer(text: str) -> int | None:
    """The integer that a text stands for, "1.0" included, or None where JSON or a column would not hold it."""
    if "_" in text or not text.isascii() or len(text) > 64:
        return None
    try:
        number = int(text)
    except ValueError:
        try:
            decimal = float(text)
        except ValueError:
            return None
        if not math.isfinite(decimal) or decimal != int(decimal):
            return None
        number = int(decimal)
    return number if number in _INT64 else None


def _tags(raw: bytes, little: bool, codecs: tuple[str, ...]) -> tuple[Values, int]:
    if not raw:
        return None, SOUND
    if len(raw) < 4:
        raise struct.error("an attribute tag has four bytes")
    count = len(raw) // 4
    words = struct.unpack_from(("<" if little else ">") + f"{count * 2}H", raw)
    values = [f"{words[i]:04X}{words[i + 1]:04X}" for i in range(0, 2 * count, 2)]
    return values, SOUND if len(raw) % 4 == 0 else VALUE_INVALID


def _numbers(code: str) -> Decoder:
    size = struct.calcsize("=" + code)

    def decoder(raw: bytes, little: bool, codecs: tuple[str, ...]) -> tuple[Values, int]:
        if not raw:
            return None, SOUND
        if len(raw) % size:
            raise struct.error("the length is no multiple of a number's")
        values = list(struct.unpack(("<" if little else ">") + f"{len(raw) // size}{code}", raw))
        if code in "fd" and not all(map(math.isfinite, values)):
            return [v if math.isfinite(v) else _NOT_FINITE[str(v)] for v in values], VALUE_INVALID
        return values, SOUND

    return decoder


_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}

DECODERS: dict[str, Decoder] = {
    "AE": _application_entities,
    "AS": _strings,
    "AT": _tags,
    "CS": _strings,
    "DA": _strings,
    "DS": _decimals,
    "DT": _strings,
    "FD": _numbers("d"),
    "FL": _numbers("f"),
    "IS": _integers,
    "LO": _texts,
    "LT": _text,
    "PN": _names,
    "SH": _texts,
    "SL": _numbers("i"),
    "SS": _numbers("h"),
    "ST": _text,
    "SV": _numbers("q"),
    "TM": _strings,
    "UC": _texts,
    "UI": _uids,
    "UL": _numbers("I"),
    "UR": _uri,
    "US": _numbers("H"),
    "UT": _text,
    "UV": _numbers("Q"),
}
"""Decoder by VR: (raw value, little endian, codecs) to (JSON values or None where empty, flaws)."""


def json_element(vr: str, raw: bytes, little: bool, codecs: tuple[str, ...]) -> tuple[dict[str, Any], int]:
    """The element as DICOM JSON and its flaws. `vr` is neither SQ nor bulk."""
    try:
        values, flaw = DECODERS[vr](raw, little, codecs)
    except struct.error:
        return {"vr": "UN", "InlineBinary": base64.b64encode(raw).decode("ascii")}, VALUE_INVALID
    return ({"vr": vr} if values is None else {"vr": vr, "Value": values}), flaw
