"""The header of one object: bytes in; DICOM JSON, typed columns and issue codes out.

Belongs here: the contract of reading, which tier reads an object, and the judgements on the whole object (identity,
File Meta Information, ends). Does not belong here: elements, values, columns, which have their modules.

The tiers: 1 is our own one-pass reader; 2 is pydicom, for whatever is unusual; 3 is an outcome with a reason code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from dicom_assets.dicom import elements, fallback, flaws
from dicom_assets.dicom.charset import DEFAULT
from dicom_assets.dicom.errors import NotDicom, Unreadable
from dicom_assets.dicom.memo import Memo
from dicom_assets.dicom.parsed import Parsed
from dicom_assets.dicom.pixels import pixel_issues
from dicom_assets.dicom.source import ByteSource
from dicom_assets.dicom.syntax import MEDIA_DIRECTORY, Preface, data_set, read_preface
from dicom_assets.dicom.values import BULK, json_element
from dicom_assets.lake.codes import CODES
from dicom_assets.settings import ReadingLimits

__all__ = ["Header", "Memo", "NotDicom", "Unreadable", "read_header"]

IDENTITY = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_LAST_IDENTITY = 0x0020000E
_ORDER = {code: place for place, code in enumerate(CODES)}


@dataclass(slots=True)
class Header:
    """What one object says.

    json: DICOM JSON Model (PS3.18 F) of File Meta Information and data set up to, without, pixel data; elements of VR
    OB, OD, OF, OL, OV, OW, UN are left out at every depth. columns: value by column of `flat_metadata`, ready for the
    column's Arrow type; a column that is not there is NULL. issues: warning codes in the registry's order.
    media_directory: a DICOMDIR; nothing else of it is read. tier: 1 or 2. fallback: why tier 1 left it, if it did.
    """

    json: bytes
    columns: dict[str, Any]
    issues: tuple[str, ...]
    media_directory: bool = False
    tier: int = 2
    fallback: str | None = None


def read_header(source: ByteSource, limits: ReadingLimits, memo: Memo | None = None) -> Header:
    """Reads one object's header.

    Raises NotDicom, Unreadable (EMPTY_FILE, TOO_LARGE, TRUNCATED_HEADER, UNPARSEABLE, MISSING_IDENTITY), or what the
    source raises when its storage fails.
    """
    size = source.size
    if size == 0:
        raise Unreadable("EMPTY_FILE", "no bytes")
    head = source.read(0, limits.first_read_bytes)
    preface = _preface(source, head)
    if size > limits.max_object_bytes:
        raise Unreadable("TOO_LARGE", "the object is larger than the bound")
    if preface.media_directory:
        return Header(b"{}", {}, (), media_directory=True, tier=1)
    body, start = data_set(source, preface, limits.max_inflated_bytes)
    reason: str | None = None
    try:
        window, base = (body.read(0, limits.first_read_bytes), 0) if preface.deflated else (head, 0)
        found = elements.parse(body, start, window, base, preface, limits, memo or Memo())
    except elements.Unusual as unusual:
        reason = unusual.reason
        found = fallback.parse(source, body, preface, limits)
    return _finish(body, preface, found, reason)


def _preface(source: ByteSource, head: bytes) -> Preface:
    while True:
        try:
            return read_preface(head, source.size)
        except IndexError:
            head = source.read(0, 4 * max(len(head), 4096))


def _finish(body: ByteSource, preface: Preface, found: Parsed, reason: str | None) -> Header:
    columns = found.columns
    if columns.get("SOPClassUID") == MEDIA_DIRECTORY:
        return Header(b"{}", {}, (), media_directory=True, tier=1)
    if any(not columns.get(name) for name in IDENTITY):
        if found.truncated or (not found.at_pixels and found.last < _LAST_IDENTITY):
            raise Unreadable("TRUNCATED_HEADER", "the object ends before its identity", found.end)
        raise Unreadable("MISSING_IDENTITY", "Study, Series or SOP Instance UID is missing")
    issues = set(flaws.codes(found.flaws))
    if not preface.complete:
        issues.add("META_MISSING")
    if (named := preface.text(0x00020003)) and named != columns["SOPInstanceUID"]:
        issues.add("SOP_INSTANCE_UID_MISMATCH")
    if not columns.get("PatientID"):
        issues.add("PATIENT_ID_MISSING")
    if found.truncated:
        issues.add("TRUNCATED_DATA_SET")
    elif found.at_pixels:
        issues |= pixel_issues(body, found.end, preface, columns)
    elif found.trailing:
        issues.add("TRAILING_BYTES")
    columns["TransferSyntaxUID"] = preface.transfer_syntax
    json = b"{%b}" % b",".join(part for part in (_meta_json(preface), found.json) if part)
    return Header(
        json, columns, tuple(sorted(issues, key=_ORDER.__getitem__)), tier=2 if reason else 1, fallback=reason
    )


def _meta_json(preface: Preface) -> bytes:
    """File Meta Information as members of a DICOM JSON object."""
    found = {
        f"{tag:08X}": json_element(vr, raw, True, DEFAULT)[0]
        for tag, vr, raw in preface.meta
        if vr not in BULK and vr != "SQ"
    }
    return orjson.dumps(found)[1:-1]
