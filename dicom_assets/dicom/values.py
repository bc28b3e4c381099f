r"""One raw value to the `Value` of the DICOM JSON Model (PS3.5 6.2, PS3.18 F.2).

Belongs here: how the bytes of each VR become JSON values. Does not belong here: where an element begins and ends
(`elements`), which values are columns (`columns`).

Where pydicom loses what was written, this keeps it as JSON that is still valid:

- DS and IS that are no numbers, or whose number JSON cannot hold: the text as it was written, as a string
  (PS3.18 F.2.3 allows strings for both);
- FL and FD that are not finite: the strings "NaN", "Infinity", "-Infinity";
- binary numbers whose length does not fit their VR: VR UN with InlineBinary;
- a value goes to its first NUL; control characters that no text may have are written as `\xHH`.

All of these carry VALUE_INVALID. Empty values between backslashes are null for numbers and names, "" for text.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable
from typing import Any

import orjson

from dicom_assets.dicom.charset import decode, spelled
from dicom_assets.dicom.flaws import CHARSET_LOST, CHARSET_PARTLY, SOUND, VALUE_INVALID
from dicom_assets.dicom.iso2022 import NAME_RESETS, NO_RESETS

BULK = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
"""VRs of bulk data, which a header refers to (PS3.18 F)."""

Values = list[Any] | None
Decoder = Callable[[bytes, bool, tuple[str, ...]], tuple[Values, int]]

_INT64 = range(-(2**63), 2**63)


def _latin(raw: bytes) -> tuple[str, int]:
    """Text of a VR that is bound to the default repertoire; bytes beyond it are kept as Latin-1."""
    text = raw.decode("latin-1")
    if text.isascii() and (text.isprintable() or spelled(text) == text):
        return text, SOUND
    return text, VALUE_INVALID


def _written(values: list[str], flaw: int) -> list[str]:
    """Parted values without characters that no text may have; there are none where there is no flaw."""
    return list(map(spelled, values)) if flaw else values


def _ended(values: list[str], padding: str) -> tuple[list[str], int]:
    """Values up to their first NUL, which ends a value; what is not padding behind it is a flaw."""
    kept, flaw = [], SOUND
    for value in values:
        head, nul, rest = value.partition("\0")
        if nul:
            flaw |= VALUE_INVALID if rest.strip(padding) else SOUND
            head = head.rstrip(" ")
        kept.append(head)
    return kept, flaw


def _plain(text: str) -> tuple[list[str] | None, int]:
    """Values of AS, CS, DA, TM, DT: padding behind the last one goes."""
    text = text.rstrip(" \x00")
    if not text:
        return None, SOUND
    values = text.split("\\")
    if "\0" not in text:
        return values, SOUND
    return _ended(values, "")[0], VALUE_INVALID  # NUL pads nothing but the end


def _strings(raw: bytes, little: bool, codecs: tuple[str, ...]) -> tuple[Values, int]:
    usual = raw.rstrip(b" \0").decode("latin-1")
    if usual.isascii() and usual.isprintable():  # nearly all are
        return (usual.split("\\") if usual else None), SOUND
    text, flaw = _latin(raw)
    values, ended = _plain(text)
    return values and _written(values, flaw), flaw | ended


def _uids(raw: bytes, little: bool, codecs: tuple[str, ...]) -> tuple[Values, int]:
    usual = raw.rstrip(b" \0").decode("latin-1")
    if usual.isascii() and usual.isprintable():
        return ([v.strip() for v in usual.split("\\")] if usual else None), SOUND
    text, flaw = _latin(raw)
    values, ended = _plain(text)
    return ([v.strip() for v in _written(values, flaw)] if values else None), flaw | ended


def _application_entities(raw: bytes, little: bool, codecs: tuple[str, ...]) -> tuple[Values, int]:
    text, flaw = _latin(raw)
    values = text.split("\\")
    if "\0" in text:
        values, ended = _ended(values, "\0 ")
        flaw |= ended
    values = [v.strip() for v in _written(values, flaw)]
    return (None if values == [""] else values), flaw


def _uri(raw: bytes, little: bool, codecs: tuple[str, ...]) -> tuple[Values, int]:
    text, flaw = _latin(raw)
    if "\0" in text:
        (text,), ended = _ended([text], "\0 ")
        flaw |= ended
    text = spelled(text.rstrip())
    return ([text] if text else None), flaw


def _texts(raw: bytes, little: bool, codecs: tuple[str, ...]) -> tuple[Values, int]:
    text, flaw = decode(raw, codecs)
    values = [part.rstrip("\0 ") for part in text.split("\\")]
    if "\0" in text:
        values, ended = _ended(values, "\0 ")
        flaw |= ended
    if flaw & CHARSET_LOST:
        values = list(map(spelled, values))
    return (None if values == [""] else values), flaw


def _text(raw: bytes, little: bool, codecs: tuple[str, ...]) -> tuple[Values, int]:
    text, flaw = decode(raw, codecs, NO_RESETS)
    text = text.rstrip("\0 ")
    if "\0" in text:
        (text,), ended = _ended([text], "\0 ")
        flaw |= ended
    if flaw & CHARSET_LOST:
        text = spelled(text)
    return ([text] if text else None), flaw


_REPRESENTATIONS = ("Alphabetic", "Ideographic", "Phonetic")


def _names(raw: bytes, little: bool, codecs: tuple[str, ...]) -> tuple[Values, int]:
    """Person names in up to three representations (PS3.5 6.2.1)."""
    text, flaw = decode(raw.rstrip(b"\x00 "), codecs, NAME_RESETS)
    parts = text.split("\\")
    if "\0" in text:
        parts, ended = _ended(parts, "\0 ")
        flaw |= ended
    values: list[Any] = []
    lost = False
    for name in parts:
        groups = name.split("=")
        while groups and not groups[-1]:
            groups.pop()
        if flaw & CHARSET_LOST:
            written = list(map(spelled, groups))
            lost |= written[:1] != groups[:1]
            groups = written
        values.append(dict(zip(_REPRESENTATIONS, groups, strict=False)) if groups else None)
        if len(groups) > 3:
            flaw |= VALUE_INVALID
    if flaw & CHARSET_LOST and not lost:
        flaw ^= CHARSET_LOST | CHARSET_PARTLY
    return (None if values == [None] else values), flaw


MANY_DECIMALS = 256
"""Bytes of decimals, such as the points of a contour, from which it is quicker to have them read as JSON numbers."""


def _json_numbers(raw: bytes) -> list[float] | None:
    """Decimals that are written as JSON writes numbers (RFC 8259, section 6); None for all others.

    A plus sign, a leading zero, an empty value: these are none.
    """
    try:
        numbers: list[float] = orjson.loads(b"[%b]" % raw.replace(b"\\", b","))
    except orjson.JSONDecodeError:
        return None
    return numbers or None


def _numerals(text: str) -> tuple[list[str], int]:
    """The texts of numbers, each up to its first NUL, which pads nothing but the end."""
    parts = text.split("\\")
    return (_ended(parts, "")[0], VALUE_INVALID) if "\0" in text else (parts, SOUND)


def _decimals(raw: bytes, little: bool, codecs: tuple[str, ...]) -> tuple[Values, int]:
    if not raw.translate(None, b"0123456789.-+ \\"):  # no exponent, so every number is finite
        if len(raw) >= MANY_DECIMALS and (numbers := _json_numbers(raw)) is not None:
            return numbers, SOUND
        try:
            return list(map(float, raw.split(b"\\"))), SOUND
        except ValueError:
            pass  # looked at part by part
    text = raw.decode("latin-1").strip().rstrip(" \x00")
    if not text:
        return None, SOUND
    values: list[Any] = []
    parts, flaw = _numerals(text)
    for part in parts:
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
            values.append(spelled(part))
            flaw = VALUE_INVALID
    return values, flaw


def _integers(raw: bytes, little: bool, codecs: tuple[str, ...]) -> tuple[Values, int]:
    if len(raw) <= 18 and not raw.translate(None, b"0123456789-+ "):  # at most 18 digits: fits
        try:
            return [int(raw)], SOUND
        except ValueError:
            pass
    text = raw.decode("latin-1").rstrip(" \x00")
    if not text.strip():
        return None, SOUND
    values: list[Any] = []
    parts, flaw = _numerals(text)
    for part in parts:
        if not part.strip():
            values.append(None)
            continue
        number = _integer(part)
        if number is None:
            values.append(spelled(part))
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
