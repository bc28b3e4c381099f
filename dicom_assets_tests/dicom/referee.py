"""pydicom as the referee: what a header must say, and the two tiers and memories side by side."""

import io
import json
import math
import warnings

import pydicom
from pydicom import config

from dicom_assets.dicom import elements
from dicom_assets.dicom.header import Memo, NotDicom, Unreadable, read_header
from dicom_assets.dicom.items import Unusual
from dicom_assets.dicom.source import BytesSource
from dicom_assets.dicom.values import BULK
from dicom_assets.settings import ReadingLimits

LIMITS = ReadingLimits()
DIFFERS = {"VALUE_INVALID", "CHARSET_UNDECODABLE", "DEPTH_CAPPED", "HEADER_CAPPED"}
"""Issues under which a header may say more than pydicom does."""


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


def by_pydicom_tier(data, monkeypatch, limits=LIMITS):
    """The same as `outcome` with tier 1 out of the way."""

    def unusual(*_):
        raise Unusual("test")

    with monkeypatch.context() as patch:
        patch.setattr(elements, "parse", unusual)
        return outcome(data, None, limits)


def pydicom_says(data):
    """pydicom's DICOM JSON of these bytes without bulk data, or None where pydicom has none."""
    mode = config.settings.reading_validation_mode
    config.settings.reading_validation_mode = config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, force=True)
            found = ds.to_json_dict(bulk_data_threshold=1 << 30, bulk_data_element_handler=lambda e: "")
            return without_bulk(json.loads(json.dumps(found)))
    except Exception:  # noqa: BLE001 - pydicom raises anything, and then it is no referee
        return None
    finally:
        config.settings.reading_validation_mode = mode


def without_bulk(found):
    """A header without File Meta Information and bulk VRs, at every depth."""
    kept = {}
    for tag, element in found.items():
        if element["vr"] in BULK or tag.startswith("0002"):
            continue
        if element["vr"] == "SQ":
            element = {"vr": "SQ", "Value": [without_bulk(item) for item in element.get("Value", [])]}
        kept[tag] = element
    return kept


def same(ours, theirs):
    """Equality of two JSON values; floats as floats are."""
    if isinstance(ours, float) or isinstance(theirs, float):
        return isinstance(ours, (int, float)) and isinstance(theirs, (int, float)) and math.isclose(ours, theirs)
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(same(ours[k], theirs[k]) for k in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours == theirs


def differences(data, header):
    """Tags on which pydicom and the header disagree; none where pydicom has nothing to say."""
    theirs = pydicom_says(data)
    if theirs is None:
        return []
    ours = without_bulk(json.loads(header.json))
    return [tag for tag in sorted(ours.keys() | theirs.keys()) if not same(ours.get(tag), theirs.get(tag))]


__all__ = ["Memo", "by_pydicom_tier", "differences", "outcome", "pydicom_says", "read"]
