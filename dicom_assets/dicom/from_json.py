"""A header that arrives as DICOM JSON: metadata of a change feed or of WADO-RS, to the same Header as a file's.

Belongs here: bringing what servers write into the form that the file reader gives (numbers as numbers, padding gone,
references marked as theirs, bounds kept). Does not belong here: what becomes a column (`columns`), the entry around it
(`landing`).

Servers differ where PS3.18 F leaves them free: DS and IS as numbers or as text, names as objects or as text, keys in
either case. Values that do not fit their VR are kept as they came and carry VALUE_INVALID, as in a file.
"""

from __future__ import annotations

import hashlib
import math
import sys
from binascii import a2b_base64
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from pydicom.datadict import dictionary_VR

from dicom_assets.dicom import flaws
from dicom_assets.dicom.charset import spelled
from dicom_assets.dicom.columns import CODED, CONVERTERS, fill
from dicom_assets.dicom.flaws import DEPTH_CAPPED, HEADER_CAPPED, SOUND, VALUE_INVALID
from dicom_assets.dicom.header import IDENTITY, RECEIVED, Header
from dicom_assets.dicom.references import as_received
from dicom_assets.dicom.rejections import Unreadable
from dicom_assets.dicom.values import BULK
from dicom_assets.schema.codes import CODES
from dicom_assets.settings import ReadingLimits

_ORDER = {code: place for place, code in enumerate(CODES)}
_IDENTITY_TAGS = ("0020000D", "0020000E", "00080018")
_TRANSFER_SYNTAXES = ("00020010", "00083002")
"""Transfer Syntax UID of File Meta Information; Available Transfer Syntax UID, which services give instead."""
_COLUMN_TAGS = {f"{tag:08X}": tag for tag in (*CONVERTERS, *CODED) if tag >= 0x00080000}
_MEDIA_STORAGE_UID = "00020003"
_PADDED_ONCE = frozenset({"AS", "CS", "DA", "DT", "TM"})
"""VRs of which only the last value loses its padding; the others keep what was written between backslashes."""
_CODED_TEXT = frozenset({"AE", "AS", "AT", "CS", "DA", "DT", "TM", "UI", "UR"})
_FREE_TEXT = frozenset({"LO", "LT", "SH", "ST", "UC", "UT"})
_WHOLE = frozenset({"IS", "SL", "SS", "SV", "UL", "US", "UV"})
_REAL = frozenset({"DS", "FD", "FL"})
_INT64 = range(-(2**63), 2**63)
_HEX = frozenset("0123456789ABCDEF")

Value = Callable[[Any], tuple[Any, int]]


def header_from_json(
    metadata: Mapping[str, Any], limits: ReadingLimits, identity: tuple[str, str, str] | None = None
) -> Header:
    """One instance's header from its DICOM JSON.

    identity: Study, Series and SOP Instance UID as whoever sent the metadata knows the instance; they count, and a
    different SOP Instance UID inside is SOP_INSTANCE_UID_MISMATCH. Raises Unreadable (MISSING_IDENTITY, UNPARSEABLE).
    """
    walk = _Walk(limits)
    elements: dict[str, Any] = {}
    columns: dict[str, Any] = {}
    found = walk.run(metadata, 1, elements, columns)
    issues = set(flaws.codes(found))
    _place(elements, columns, identity, issues)
    for key in _TRANSFER_SYNTAXES:
        values = elements.get(key, {}).get("Value")
        if values and isinstance(values[0], str):
            columns["TransferSyntaxUID"] = values[0]
            break
    if not columns.get("PatientID"):
        issues.add("PATIENT_ID_MISSING")
    json = _bounded(elements, limits.max_header_bytes, issues)
    return Header(json, columns, tuple(sorted(issues, key=_ORDER.__getitem__)), form=RECEIVED)


def _place(
    elements: dict[str, Any], columns: dict[str, Any], identity: tuple[str, str, str] | None, issues: set[str]
) -> None:
    """The identity of the instance into its columns, from outside where it is given."""
    if identity is not None:
        if columns.get("SOPInstanceUID", identity[2]) != identity[2]:
            issues.add("SOP_INSTANCE_UID_MISMATCH")
        for name, key, uid in zip(IDENTITY, _IDENTITY_TAGS, identity, strict=True):
            columns[name] = uid
            elements.setdefault(key, {"vr": "UI", "Value": [uid]})
    if any(not columns.get(name) for name in IDENTITY):
        raise Unreadable("MISSING_IDENTITY", "Study, Series or SOP Instance UID is missing")
    stored = elements.get(_MEDIA_STORAGE_UID, {}).get("Value") or [columns["SOPInstanceUID"]]
    if stored[0] != columns["SOPInstanceUID"]:
        issues.add("SOP_INSTANCE_UID_MISMATCH")


def _bounded(elements: dict[str, Any], most: int, issues: set[str]) -> bytes:
    """The header as bytes; while it is longer than the bound, its longest element is replaced by its digest."""
    ordered = dict(sorted(elements.items()))
    json = orjson.dumps(ordered)
    while len(json) > most:
        sizes = {key: len(orjson.dumps(element)) for key, element in ordered.items()}
        longest = max(sizes, key=sizes.__getitem__)
        if sizes[longest] <= 256:
            raise Unreadable("UNPARSEABLE", "the metadata has more elements than the bound on a header allows")
        vr, *said = ordered[longest].values()
        ordered[longest] = _digest(vr, said[0] if said and isinstance(said[0], list) else said)
        issues.add("HEADER_CAPPED")
        json = orjson.dumps(ordered)
    return json


def _digest(vr: str, values: list[Any]) -> dict[str, Any]:
    """What stands for a value that is too long: count and digest of its JSON."""
    text = orjson.dumps(values)
    digest = hashlib.blake2b(text, digest_size=16).hexdigest()
    return {"vr": vr, "BulkDataURI": f"?length={len(text)}&count={len(values)}&digest={digest}"}


class _Walk:
    """One walk over metadata, within bounds."""

    def __init__(self, limits: ReadingLimits) -> None:
        self._depth = limits.max_depth
        self._bytes = limits.max_value_bytes

    def run(
        self, items: Mapping[str, Any], depth: int, kept: dict[str, Any], columns: dict[str, Any] | None = None
    ) -> int:
        """Puts each element into `kept`, and what columns take of it into `columns`; returns the flaws."""
        flaws = SOUND
        for written, element in items.items():
            key = _KEYS.get(written) or _key(written)
            if key is None or type(element) is not dict:
                flaws |= VALUE_INVALID
                continue
            vr, values = element.get("vr"), element.get("Value")
            if type(values) is list and len(values) == 1 and type(vr) is str and _PLAIN[type(values[0])](vr, values[0]):
                found: dict[str, Any] | None = {"vr": vr, "Value": values}
                flaw = SOUND
            else:
                found, flaw = self._element(key, element, depth)
            flaws |= flaw
            if found is not None:
                kept[key] = found
                if columns is not None and (tag := _COLUMN_TAGS.get(key)) is not None:
                    flaws |= fill(columns, tag, found, flaw)
        return flaws

    def _element(self, key: str, element: dict[str, Any], depth: int) -> tuple[dict[str, Any] | None, int]:
        vr = element.get("vr")
        if not isinstance(vr, str):
            vr = _vr_of(key)
        if vr in BULK:
            return self._bulk(vr, element)
        if vr == "SQ":
            return self._sequence(element.get("Value"), depth)
        convert = _CONVERT.get(vr)
        if convert is None:
            return None, VALUE_INVALID
        values = element.get("Value")
        if values is None:
            return self._reference(vr, element.get("BulkDataURI"))
        if not isinstance(values, list):
            values = [values]
        kept, flaw = [], SOUND
        for value in values:
            good, wrong = convert(value)
            if isinstance(good, str) and not good.isprintable():
                good, unwritable = _writable(good)
                wrong |= unwritable
            kept.append(good)
            flaw |= wrong
        if vr in _PADDED_ONCE and kept:
            kept[-1] = kept[-1].rstrip(" \0")
        if not kept or (len(kept) == 1 and kept[0] in (None, "")):
            return {"vr": vr}, flaw
        if _length(kept) > self._bytes:
            return _digest(vr, kept), flaw | HEADER_CAPPED
        return {"vr": vr, "Value": kept}, flaw

    def _bulk(self, vr: str, element: dict[str, Any]) -> tuple[dict[str, Any], int]:
        """A bulk value as it was sent: inline, within bounds, or as the reference to it (PS3.18 F.2.2, F.2.7)."""
        inline = element.get("InlineBinary")
        if inline is None:
            found, flaw = self._reference(vr, element.get("BulkDataURI"))
            return found, flaw | (VALUE_INVALID if element.get("Value") else SOUND)
        if not isinstance(inline, str) or not _is_base64(inline):
            return {"vr": vr}, VALUE_INVALID
        if len(inline) > self._bytes:
            return _digest(vr, [inline]), HEADER_CAPPED
        return ({"vr": vr, "InlineBinary": inline} if inline else {"vr": vr}), SOUND

    def _reference(self, vr: str, uri: Any) -> tuple[dict[str, Any], int]:
        """What stands for a value that was not sent: the sender's reference, as it was said."""
        if uri is None or uri == "":
            return {"vr": vr}, SOUND
        if not isinstance(uri, str):
            return {"vr": vr}, VALUE_INVALID
        if len(uri) > self._bytes:
            return _digest(vr, [uri]), HEADER_CAPPED
        written, flaw = _writable(uri)
        return {"vr": vr, "BulkDataURI": as_received(written)}, flaw

    def _sequence(self, items: Any, depth: int) -> tuple[dict[str, Any], int]:
        if depth > self._depth:
            return {"vr": "SQ"}, DEPTH_CAPPED
        if items is None:
            return {"vr": "SQ", "Value": []}, SOUND
        if not isinstance(items, list):
            return {"vr": "SQ", "Value": []}, VALUE_INVALID
        kept: list[dict[str, Any]] = []
        flaw = SOUND
        for item in items:
            inner: dict[str, Any] = {}
            if isinstance(item, dict):
                flaw |= self.run(item, depth + 1, inner)
            elif item is not None:
                flaw |= VALUE_INVALID
            kept.append(inner)
        return {"vr": "SQ", "Value": kept}, flaw


_KEYS: dict[str, str] = {}
"""Keys that were met, as they are written in a header; bounded by the tags there are in what services send."""
_MOST_KEYS = 50_000


def _key(written: str) -> str | None:
    """A key in upper case; None where it is no tag."""
    key = written.upper()
    if len(key) != 8 or not _HEX.issuperset(key):
        return None
    if len(_KEYS) < _MOST_KEYS:
        _KEYS[written] = key
    return key


def _plain_text(vr: str, value: str) -> bool:
    sound = vr in _FREE_TEXT or (vr in _CODED_TEXT and value.isascii())
    return sound and 0 < len(value) < 1_024 and value[-1] != " " and value[0] != " " and value.isprintable()


_LARGEST = sys.float_info.max
"""A whole number beyond it is no float; a text of more is infinite."""


class _Plain(dict[type, Callable[[str, Any], bool]]):
    """By type of an only value: whether it is as it is kept already. Most are, and need no further look."""

    def __missing__(self, kind: type) -> Callable[[str, Any], bool]:
        return lambda vr, value: False


_PLAIN = _Plain(
    {
        str: _plain_text,
        int: lambda vr, value: vr in _WHOLE,
        float: lambda vr, value: vr in _REAL and abs(value) <= _LARGEST,
    }
)


def _vr_of(key: str) -> str:
    """VR of an element that comes without one, from PS3.6; UN where it is not there."""
    try:
        return dictionary_VR(int(key, 16)).partition(" ")[0]
    except KeyError:
        return "UN"


def _is_base64(text: str) -> bool:
    try:
        a2b_base64(text, strict_mode=True)
    except ValueError:
        return False
    return True


def _length(values: list[Any]) -> int:
    """About how many bytes values have."""
    total = 8 * len(values)
    for value in values:
        if isinstance(value, str):
            total += len(value)
        elif isinstance(value, dict):
            total += sum(len(str(part)) for part in value.values())
    return total


def _writable(text: str) -> tuple[str, int]:
    """A text up to its first NUL, without control characters that no text may have (PS3.5 6.1.3)."""
    head, _, rest = text.partition("\0")
    written = spelled(head)
    return written, SOUND if written == head and not rest.strip("\0 ") else VALUE_INVALID


def _string(value: Any) -> tuple[Any, int]:
    """Text: padding behind it goes; what is no text is kept as text."""
    if isinstance(value, str):
        return value.rstrip(" \0"), SOUND
    if value is None:
        return "", SOUND
    return str(value), VALUE_INVALID


def _coded(value: Any) -> tuple[Any, int]:
    """Text of a VR that is bound to the default repertoire; its padding is the walk's matter."""
    text = value if isinstance(value, str) else "" if value is None else str(value)
    sound = text.isascii() and (value is None or isinstance(value, str))
    return text, SOUND if sound else VALUE_INVALID


def _trimmed(value: Any) -> tuple[Any, int]:
    """Text whose leading spaces do not count either: AE, UI, UR."""
    text, flaw = _coded(value)
    return text.strip(" \0"), flaw


def _name(value: Any) -> tuple[Any, int]:
    """A person name as an object of its representations; one that comes as text is taken apart (PS3.5 6.2.1)."""
    if isinstance(value, dict):
        written = {
            part: _writable(text.rstrip(" \0"))
            for part in ("Alphabetic", "Ideographic", "Phonetic")
            if isinstance(text := value.get(part), str)
        }
        flaw = SOUND if all(value[part] is None or isinstance(value[part], str) for part in value) else VALUE_INVALID
        for _, wrong in written.values():
            flaw |= wrong
        return {part: text for part, (text, _) in written.items() if text.strip(" ")} or None, flaw
    if isinstance(value, str):
        text, flaw = _writable(value.rstrip(" \0"))
        named = dict(zip(("Alphabetic", "Ideographic", "Phonetic"), text.split("="), strict=False))
        return {part: text for part, text in named.items() if text} or None, flaw
    return None, SOUND if value is None else VALUE_INVALID


def _decimal(value: Any) -> tuple[Any, int]:
    """DS as a number; text that is none stays as it was written."""
    if isinstance(value, bool):
        return str(value), VALUE_INVALID
    if isinstance(value, (int, float)):
        return (float(value), SOUND) if abs(value) <= _LARGEST else (str(value), VALUE_INVALID)
    if isinstance(value, str):
        if not value.strip(" \0"):
            return None, SOUND
        try:
            number = float(value.strip(" \0"))
        except ValueError:
            return value, VALUE_INVALID
        if math.isfinite(number) and "_" not in value and value.isascii():
            return number, SOUND
        return value, VALUE_INVALID
    return None, SOUND if value is None else VALUE_INVALID


def _integer(value: Any) -> tuple[Any, int]:
    """IS as a number; text that is none stays as it was written."""
    if isinstance(value, str):
        text = value.strip(" \0")
        if not text:
            return None, SOUND
        decimal, flaw = _decimal(text)
        if flaw or decimal != int(decimal) or len(text) > 64:
            return value, VALUE_INVALID
        try:
            number = int(text)
        except ValueError:
            number = int(decimal)
        return (number, SOUND) if number in _INT64 else (value, VALUE_INVALID)
    return _whole(value)


def _whole(value: Any) -> tuple[Any, int]:
    """A binary integer; services may write the 64-bit ones as text (PS3.18 F.2.3)."""
    if value is None:
        return None, SOUND
    if isinstance(value, int) and not isinstance(value, bool):
        return value, SOUND
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value), SOUND
    if isinstance(value, str) and value.removeprefix("-").isdigit() and value.isascii() and len(value) <= 20:
        number = int(value)
        return (number, SOUND) if -(2**63) <= number < 2**64 else (value, VALUE_INVALID)
    return value if isinstance(value, (str, float)) else str(value), VALUE_INVALID


def _real(value: Any) -> tuple[Any, int]:
    """A binary number; those that JSON cannot hold come as text and stay text."""
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return (None if value is None else float(value)), SOUND
    if isinstance(value, str):
        number, flaw = _decimal(value)
        return (value if flaw else number), flaw
    return str(value), VALUE_INVALID


_CONVERT: dict[str, Value] = {
    **dict.fromkeys(("AS", "CS", "DA", "DT", "TM"), _coded),
    **dict.fromkeys(("AE", "UI", "UR"), _trimmed),
    **dict.fromkeys(("LO", "LT", "SH", "ST", "UC", "UT"), _string),
    **dict.fromkeys(("SL", "SS", "SV", "UL", "US", "UV"), _whole),
    **dict.fromkeys(("FD", "FL"), _real),
    "AT": _coded,
    "DS": _decimal,
    "IS": _integer,
    "PN": _name,
}
"""By VR: one value as it came to the value as it is kept, and its flaws."""
