"""pydicom as the referee: what a header must say, and the two tiers and memories side by side."""

import base64
import hashlib
import io
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pydicom
from pydicom import config
from pydicom.dataelem import RawDataElement

from dicom_assets.dicom import elements
from dicom_assets.dicom.header import Memo, NotDicom, Unreadable, read_header
from dicom_assets.dicom.items import Unusual
from dicom_assets.dicom.references import retrieve
from dicom_assets.dicom.syntax import data_set, read_preface
from dicom_assets.dicom.values import BULK
from dicom_assets.settings import ReadingLimits
from dicom_assets.storage.byte_ranges import BytesSource

LIMITS = ReadingLimits()
DIFFERS = {
    *("VALUE_INVALID", "CHARSET_UNDECODABLE", "DEPTH_CAPPED", "HEADER_CAPPED"),
    *("STRUCTURE_INVALID", "HEADER_INCOMPLETE"),
}
"""Issues under which a header may say more than pydicom does."""


@dataclass(frozen=True)
class Difference:
    """One kind of element of which the header says something else than pydicom on purpose, without any flaw.

    section: of the standard, by which the header is right. applies: whether an element is of this kind, by itself as
    pydicom found it, not yet decoded, and by the character set that is declared for it.
    """

    name: str
    section: str
    applies: Callable[[RawDataElement, str], bool]


_TEXTS = {"SH", "LO", "ST", "LT", "UC", "UT", "PN", "UN", None}
_ON_PURPOSE = [
    (
        "Escape sequences leave no byte in a text",
        "PS3.5 6.1.2.5, K.2",
        lambda raw, charset: raw.VR in _TEXTS and b"\x1b$)A" in raw.value,
    ),
    (
        "The first character set counts again behind a control character, a backslash between values, and ^ and = in "
        "a person name",
        "PS3.5 6.1.2.5.3",
        lambda raw, charset: raw.VR in _TEXTS and b"\x1b" in raw.value,
    ),
    (
        "ISO_IR 203 and ISO 2022 IR 203 are Latin alphabet No. 9",
        "PS3.3 C.12.1.1.2",
        lambda raw, charset: raw.VR in _TEXTS and " 203" in charset,
    ),
    (
        "A value written as UN is implicit and little endian in every transfer syntax",
        "PS3.5 6.2.2",
        lambda raw, charset: raw.VR == "UN" and len(raw.value) < 0xFFFF,
    ),
    (
        "A value written as UN has the VR of the dictionary at any length",
        "PS3.5 6.2.2 (CP-1066)",
        lambda raw, charset: raw.VR == "UN" and len(raw.value) >= 0xFFFF,
    ),
]
ON_PURPOSE = [Difference(*entry) for entry in _ON_PURPOSE]
"""All of them; docs/reader.md has the same list."""


def read(data, memo=None, limits=LIMITS):
    """The header of these bytes."""
    return read_header(BytesSource(data), limits, memo)


def outcome(data, memo=None, limits=LIMITS):
    """The header, or the reason code; nothing else may come of any bytes."""
    try:
        return read(data, memo, limits)
    except NotDicom:
        return "NOT_DICOM"
    except Unreadable as error:
        return error.code


def by_second_tier(data, monkeypatch, limits=LIMITS):
    """The same as `outcome` with tier 1 out of the way."""

    def unusual(*_):
        raise Unusual("test")

    with monkeypatch.context() as patch:
        patch.setattr(elements, "parse", unusual)
        return outcome(data, None, limits)


def pydicom_says(data, in_front=False):
    """pydicom's DICOM JSON of these bytes with bulk values as digests, or None where pydicom has none.

    in_front: only what stands in front of pixel data.
    """
    mode = config.settings.reading_validation_mode
    config.settings.reading_validation_mode = config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=in_front, force=True)
            found = ds.to_json_dict(bulk_data_threshold=0, bulk_data_element_handler=lambda e: _digest(e.value))
            return without_meta(json.loads(json.dumps(found)))
    except Exception:  # noqa: BLE001 - pydicom raises anything, and then it is no referee
        return None
    finally:
        config.settings.reading_validation_mode = mode


def _digest(value):
    return hashlib.md5(value).hexdigest()


def without_meta(found):
    """A header without File Meta Information."""
    return {tag: element for tag, element in found.items() if not tag.startswith("0002")}


def body_of(data, limits=LIMITS):
    """What references of a header count in: the object, or its data set as it is inflated."""
    source = BytesSource(data)
    return data_set(source, read_preface(data, len(data)), limits.max_inflated_bytes)[0]


def row_of(header):
    """What a row of flat_metadata says of a header's pixels."""
    pixels = header.pixels
    return {
        **header.columns,
        "header_form": header.form,
        "pixel_offset": pixels and pixels.offset,
        "pixel_length": pixels and pixels.length,
        "frame_offsets": pixels and pixels.frame_offsets,
        "frame_lengths": pixels and pixels.frame_lengths,
    }


def references(found):
    """Every reference in a header, at each depth."""
    for element in found.values():
        if "BulkDataURI" in element:
            yield element["BulkDataURI"]
        for item in element.get("Value", ()) if element["vr"] == "SQ" else ():
            yield from references(item)


def spelled_out(header, data):
    """A header without File Meta Information whose bulk values are digests, inline ones and those that are referred to.

    Of elements behind pixel data, all of which are referred to, only bulk ones are.
    """
    return _spelled_out(without_meta(json.loads(header.json)), body_of(data))


def _spelled_out(found, body):
    kept = {}
    for tag, element in found.items():
        if element["vr"] == "SQ" and "Value" in element:
            element = {"vr": "SQ", "Value": [_spelled_out(item, body) for item in element["Value"]]}
        elif element["vr"] in BULK and "BulkDataURI" in element:
            element = {"vr": element["vr"], "BulkDataURI": _digest(retrieve(body, element["BulkDataURI"]))}
        elif element["vr"] in BULK and "InlineBinary" in element:
            assert len(element["InlineBinary"]) <= 88 or "Value" not in element
            raw = base64.b64decode(element["InlineBinary"], validate=True)
            element = {"vr": element["vr"], "BulkDataURI": _digest(raw)}
        kept[tag] = element
    return kept


CUT = {"TRUNCATED_PIXEL_DATA", "TRAILING_BYTES"}
"""Issues with which pydicom sees no pixel data, or elements behind them that are none: it is asked for the rest."""


def _in_front(found):
    """A header up to pixel data."""
    return {tag: element for tag, element in found.items() if tag < "7FE00008"}


def _compared(theirs, ours):
    """Both without elements behind pixel data that are no bulk: ours only refers to them."""
    referred = {tag for tag, one in ours.items() if tag > "7FE00010" and one["vr"] not in BULK}
    return ({tag: one for tag, one in which.items() if tag not in referred} for which in (theirs, ours))


def same(ours, theirs):
    """Equality of two JSON values; floats as floats are."""
    if isinstance(ours, float) or isinstance(theirs, float):
        return isinstance(ours, (int, float)) and isinstance(theirs, (int, float)) and math.isclose(ours, theirs)
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(same(ours[k], theirs[k]) for k in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours == theirs


def differences(data, header, in_front=False):
    """Tags on which pydicom and the header disagree, and not on purpose; none where pydicom has nothing to say.

    in_front: only up to pixel data: of broken ones, pydicom takes what looks like a delimiter for their end.
    """
    cut = in_front or bool(CUT & set(header.issues))
    theirs = pydicom_says(data, cut) if data[128:132] == b"DICM" or b"DICM" not in data[:4096] else None
    if theirs is None:
        return []
    theirs, ours = _compared(theirs, spelled_out(header, data))
    if cut:  # without pixel data, pydicom goes on to elements that would stand behind them
        theirs, ours = _in_front(theirs), _in_front(ours)
    if same(ours, theirs):
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=cut, force=True)
        return _unexplained(ours, theirs, ds, "")


def _unexplained(ours, theirs, ds, charset):
    """Tags of this level on which the two disagree for no documented reason."""
    if (declared := ds.get_item(0x00080005)) is not None:
        charset = str(declared.value)
    found = []
    for tag in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(tag), theirs.get(tag)
        if same(mine, other):
            continue
        raw = ds.get_item(int(tag, 16))
        if _nested(mine) and _nested(other) and len(mine["Value"]) == len(other["Value"]):
            items = ds[int(tag, 16)].value
            pairs = zip(mine["Value"], other["Value"], items, strict=True)
            if not any(_unexplained(m, o, item, charset) for m, o, item in pairs):
                continue
        if isinstance(raw, RawDataElement) and any(kind.applies(raw, charset) for kind in ON_PURPOSE):
            continue
        if _is_behind_pixels(tag, mine) and (
            not isinstance(raw, RawDataElement) or mine["BulkDataURI"] == _digest(raw.value or b"")
        ):
            continue
        found.append(tag)
    return found


def _is_behind_pixels(tag, element):
    """Whether the element is bytes alone, since it stands behind pixel data."""
    return element is not None and element["vr"] == "UN" and int(tag, 16) > 0x7FE00010


def _nested(element):
    return element is not None and element["vr"] == "SQ" and "Value" in element


__all__ = ["Memo", "by_second_tier", "differences", "outcome", "pydicom_says", "read"]
