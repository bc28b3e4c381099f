"""Rules that read objects of a batch again from their source with pydicom, and one that holds columns against headers.

Belongs here: which objects are taken and what of them is compared. Does not belong here: `dicom_assets.dicom`, which is
judged here. An object that is gone or changed since, or that pydicom cannot read, is passed over for another one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import zip_longest
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.batch.checks.contract import SHOWN, CheckContext, CheckResult, NamedRule
from dicom_assets.batch.checks.reopening import (
    Row,
    bounded_file,
    chosen,
    reopened,
    rows_of,
    source_of_batch,
    verified,
)
from dicom_assets.dicom.lenient import lenient
from dicom_assets.lake.query import arrow, connect, quoted
from dicom_assets.lake.staging import Part
from dicom_assets.landing.store import ObjectError
from dicom_assets.schema.codes import Kind
from dicom_assets.storage.byte_ranges import ByteSource

IDENTITY = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_TEXTS = (
    *IDENTITY,
    "SOPClassUID",
    "PatientID",
    "IssuerOfPatientID",
    "AccessionNumber",
    "PatientName",
    "PatientSex",
    "Modality",
    "StudyDescription",
    "SeriesDescription",
)
_NUMBERS = ("SeriesNumber", "InstanceNumber", "Rows", "Columns")
_DATES = ("StudyDate", "SeriesDate")
COMPARED = (*_TEXTS, *_NUMBERS, *_DATES)
"""The columns that are compared with the object."""

_OWN = ("object_id", "operation", "sequence", "issues", "content_digest", "header", "header_form")
_READ_BYTES = 32 << 20
_DEFLATED = b"1.2.840.10008.1.2.1.99"
"""Inflated whole by pydicom, whatever comes of it; such an object is not read in this process."""
_META_BYTES = 4_096
"""Where the File Meta Information, which names the transfer syntax, stands."""
_BULK = {"OB", "OD", "OF", "OL", "OV", "OW", "UN"}
_DOUBTS = {"VALUE_INVALID", "CHARSET_UNDECODABLE", "HEADER_CAPPED", "TRUNCATED_DATA_SET", "UID_INVALID",
           "STRUCTURE_INVALID", "HEADER_INCOMPLETE"}  # fmt: skip
"""Issues with which a value may be missing from its column, or look different there."""
_ROUNDS = 4


class Unread(Exception):
    """pydicom cannot read the object, or not within bounds."""


@dataclass(slots=True)
class Sample:
    """What came of the sample; lists of object_ids."""

    compared: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)


def sample(context: CheckContext) -> Sample:
    """Reads a sample of the batch again and compares it with the published rows."""
    result = Sample()
    most = context.settings.checks.sample_objects
    accepted = _accepted(context)
    if not most or not accepted:
        return result
    waiting = iter(_spread(context.staging.batch_id, accepted, _ROUNDS * most))
    store = source_of_batch(context)
    for _ in range(_ROUNDS):
        taken = [name for name, _ in zip(waiting, range(most - len(result.compared)), strict=False)]
        if not taken:
            break
        published = _published(context, taken)
        for row, source in reopened(store, rows_of(context, taken), context.settings.archives):
            try:
                is_same = _is_same(published.get(row["object_id"]), row, source)
            except Unread:
                continue
            result.compared.append(row["object_id"])
            if not is_same:
                result.differing.append(row["object_id"])
    return result


def _accepted(context: CheckContext) -> dict[tuple[str, bool], list[str]]:
    """object_ids of accepted DICOM objects by kind, and by whether they lie in a container."""
    rows = context.staging.read(Part.RAW, ["object_id", "kind", "container_id"])
    rows = rows.filter(pc.is_in(rows["object_id"], context.staged(Part.FLAT)["object_id"].combine_chunks()))
    inside = pc.is_valid(rows["container_id"])
    found = {}
    for kind in rows["kind"].unique().to_pylist():
        for is_inside in (False, True):
            ids = rows.filter(pc.and_(pc.equal(rows["kind"], kind), pc.equal(inside, is_inside)))["object_id"]
            if len(ids):
                found[kind, is_inside] = ids.to_pylist()
    return found


def _spread(batch_id: str, groups: Mapping[tuple[str, bool], Sequence[str]], most: int) -> Iterator[str]:
    """At most so many objects of each group, one of each after the other, in each group by `rank`."""
    ordered = [chosen(batch_id, groups[key], most) for key in sorted(groups)]
    for turn in zip_longest(*ordered):
        yield from (one for one in turn if one is not None)


def _published(context: CheckContext, ids: Sequence[str]) -> dict[str, Row]:
    columns = ", ".join(f'"{name}"' for name in (*_OWN, *COMPARED))
    listed = ", ".join(map(quoted, ids))
    with connect(context.lake, ["flat_metadata"], within=context.staging.scope("flat_metadata")) as connection:
        rows = arrow(connection, f"SELECT {columns} FROM flat_metadata WHERE object_id IN ({listed})")
    return {row["object_id"]: row for row in rows.to_pylist()}


def _is_same(row: Row | None, place: Row, source: ByteSource | ObjectError) -> bool:
    """Whether the published row says what the object says. Raises Unread."""
    if isinstance(source, ObjectError):
        raise Unread
    if place["kind"] == Kind.CHANGE:
        said = _entry(source)
        is_same = row is not None and _equals_entry(row, said)
    else:
        with lenient():
            data = _data_set(source, force="META_MISSING" in (row or {"issues": ()})["issues"])
            is_same = row is not None and _equals_object(row, data)
    if not verified(source):
        raise Unread
    return is_same


def _data_set(source: ByteSource, *, force: bool = False, tags: Sequence[str] | None = None) -> Any:
    """The object's data set without pixels, as pydicom reads it. Raises Unread."""
    from pydicom.filereader import dcmread

    try:
        file = bounded_file(source, _READ_BYTES)
        if not force and _DEFLATED in source.read(0, _META_BYTES):
            raise Unread
        return dcmread(file, stop_before_pixels=True, force=force, specific_tags=list(tags) if tags else None)
    except Unread:
        raise
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - whatever a broken object makes another parser do, it is no verdict on the row
        raise Unread from None


def _equals_object(row: Row, data: Any) -> bool:
    doubtful = bool(_DOUBTS & set(row["issues"]))
    header = json.loads(row["header"])
    is_whole = row["header_form"] == "whole"  # a paused batch may have been read by an earlier release
    values = row["header"]
    if is_whole:
        values = re.sub(r'("BulkDataURI":"\?)offset=\d+', r"\1offset=", values)  # what it says, wherever it lies
    digest = hashlib.blake2b(values.encode(), digest_size=16).hexdigest()
    if row["content_digest"] != digest:
        return False
    if any(not _agrees(row[name], said, doubtful) for name in COMPARED for said in _said(data, name)):
        return False
    tags = data.keys()  # to iterate over the data set itself converts its values
    return doubtful or all(f"{int(tag):08X}" in header for tag in tags if _is_kept(data, tag, is_whole))


def _said(data: Any, keyword: str) -> Iterator[Any]:
    """What pydicom says of an attribute, nothing where it is not sure."""
    try:
        if keyword in data and data.get_item(keyword).VR == "UN":
            return  # pydicom reads it in the byte order of the transfer syntax, PS3.5 6.2.2 always as little endian
        value = data[keyword].value if keyword in data else None
        if value is not None and not isinstance(value, str | bytes) and hasattr(value, "__getitem__"):
            if len(value) > 1 and keyword in (*_NUMBERS, *_DATES):
                return
            if len(value) > 1:  # several where there is one: never the first alone
                parts = [part.alphabetic if keyword == "PatientName" else str(part) for part in value]
                value = "\\".join(map(_ended, parts))
            else:
                value = value[0] if len(value) else None
        if keyword == "PatientName" and value is not None and not isinstance(value, str):
            value = value.alphabetic
        if value is None or value == "":
            yield None
        elif keyword in _NUMBERS:
            yield int(value)
        elif keyword in _DATES:
            text = str(value)
            if len(text) == 8 and text.isdigit():
                yield date(int(text[:4]), int(text[4:6]), int(text[6:]))
        elif str(value).isascii() and "\x1b" not in str(value):
            yield _ended(str(value)) or None
    except (ValueError, TypeError, OverflowError, AttributeError, LookupError):
        return  # a value that pydicom cannot make sense of


def _ended(text: str) -> str:
    """A text up to its first NUL, which ends it, without padding."""
    return text.partition("\0")[0].strip(" \t\r\n")


def _agrees(published: Any, said: Any, doubtful: bool) -> bool:
    return bool(published == said or (doubtful and published is None))


def _is_kept(data: Any, tag: Any, is_whole: bool) -> bool:
    """Whether a header has this attribute of an object: no group length, and in one that is not whole no bulk data.

    Of a whole one nothing is asked but the tag: to convert every value costs most of what a sample costs.
    """
    return tag.element != 0 and tag.group != 0x0002 and (is_whole or data[tag].VR not in _BULK)


def _entry(source: ByteSource) -> Mapping[str, Any]:
    try:
        value = json.loads(source.read(0, min(source.size, _READ_BYTES)))
    except (ValueError, OSError):
        raise Unread from None
    if not isinstance(value, dict):
        raise Unread
    return {name.lower(): found for name, found in value.items()}


def _equals_entry(row: Row, said: Mapping[str, Any]) -> bool:
    """An entry of a change feed: its identity, sequence and operation, and the patient in its metadata."""
    is_delete = str(said.get("action", "")).lower() == "delete"
    identity = [str(said.get(name.lower(), "")).strip() for name in IDENTITY]
    if identity != [row[name] for name in IDENTITY] or (row["operation"] == "delete") != is_delete:
        return False
    if str(said.get("sequence")) != str(row["sequence"]):
        return False
    values = ((said.get("metadata") or {}).get("00100020") or {}).get("Value") or [None]
    patient = values[0].strip() or None if isinstance(values[0], str) else None
    return is_delete or bool(row["PatientID"] == patient)


def sample_equals_source(context: CheckContext) -> CheckResult:
    """Objects read again from the source by pydicom = their rows in flat_metadata."""
    found = context.once("sample", sample)
    right = len(found.compared) - len(found.differing)
    return CheckResult(not found.differing, len(found.compared), right, sorted(found.differing)[:SHOWN])


REFUSED = ("NOT_DICOM", "UNPARSEABLE", "MISSING_IDENTITY", "TRUNCATED_HEADER")
"""Codes that say that there is no DICOM object with an identity."""


def refused_are_no_dicom(context: CheckContext) -> CheckResult:
    """No object that is called something else, or broken, reads as DICOM with all three UIDs."""
    ledger = context.staged(Part.LEDGER)
    refused = ledger.filter(pc.fill_null(pc.is_in(ledger["code"], pa.array(REFUSED)), False))["object_id"].to_pylist()
    ids = chosen(context.staging.batch_id, refused, context.settings.checks.refused_objects)
    if not ids:
        return CheckResult(True, 0, 0)
    limits, differing = context.settings.archives, []
    for row, source in reopened(source_of_batch(context), rows_of(context, ids), limits, 4_096):
        if not isinstance(source, ObjectError) and _reads_as_dicom(source):
            differing.append(row["object_id"])
    return CheckResult(not differing, 0, len(differing), sorted(differing)[:SHOWN])


def _reads_as_dicom(source: ByteSource) -> bool:
    try:
        if source.read(128, 4) != b"DICM":
            return False
        with lenient():
            data = _data_set(source, tags=IDENTITY)
            is_identified = all(any(said) for said in ([*_said(data, name)] for name in IDENTITY))
    except (Unread, OSError):
        return False
    return is_identified and verified(source)


_IN_HEADER = {
    "StudyInstanceUID": ("0020000D", "UI"),
    "SeriesInstanceUID": ("0020000E", "UI"),
    "SOPInstanceUID": ("00080018", "UI"),
    "SOPClassUID": ("00080016", "UI"),
    "PatientID": ("00100020", "LO"),
    "IssuerOfPatientID": ("00100021", "LO"),
    "AccessionNumber": ("00080050", "SH"),
}
"""The columns that say what an object is and whose, with their tags and value representations (PS3.6)."""


def _stands_in_header(name: str) -> str:
    """SQL: whether a column's value stands in the header as it is usually written, or no value of its tag."""
    tag, vr = _IN_HEADER[name]
    before = f"""'"{tag}":{{"vr":"{vr}","Value":["'"""
    found = f"""contains(header, {before} || "{name}" || '"]')"""
    return f"""(CASE WHEN "{name}" IS NULL THEN NOT contains(header, {before}) ELSE {found} END)"""


def columns_equal_headers(context: CheckContext) -> CheckResult:
    """Identity and patient in the columns = those in the header, and one study_key is one study: all rows.

    A text that could not be decoded is in no column. Headers are most of what a batch weighs, and it takes less to look
    for what should stand there than to parse them; those in which it is not found as it is usually written are parsed.
    """
    paths = ", ".join(f"'/{tag}/Value'" for tag, _ in _IN_HEADER.values())
    blank = "' ' || chr(9) || chr(10) || chr(13) || chr(0)"
    names = list(_IN_HEADER)
    as_usual = " AND ".join(map(_stands_in_header, names))
    said = ", ".join(
        f"CASE WHEN NOT (is_lost AND \"{name}\" IS NULL) AND list_bool_or([one <> '' FOR one IN written[{place}]]) "
        f"THEN array_to_string(written[{place}], '\\') END"
        for place, name in enumerate(names, start=1)
    )
    shown = ", ".join(f'"{name}"' for name in names)
    with connect(context.lake, ["flat_metadata"], within=context.staging.scope("flat_metadata")) as connection:
        there = f"FROM flat_metadata WHERE batch_id = {context.batch} AND content_digest IS NOT NULL"
        (total,) = connection.execute(f"SELECT count(*) {there}").fetchall()[0]
        wrong, differing = connection.execute(
            f"""
            SELECT count(*) FILTER (differs), min(object_id, {SHOWN}) FILTER (differs) FROM (
                SELECT object_id, [{said}] IS DISTINCT FROM [{shown}] AS differs FROM (
                    SELECT
                        object_id, {shown}, list_contains(issues, 'CHARSET_UNDECODABLE') AS is_lost,
                        [
                            [trim(coalesce(one ->> '$', ''), {blank}) FOR one IN from_json(said, '["json"]')]
                            FOR said IN json_extract(header, [{paths}])
                        ] AS written
                    {there} AND NOT ({as_usual})
                )
            )
            """
        ).fetchall()[0]
        if wrong:
            return CheckResult(False, total, total - wrong, differing)
        mixed = connection.execute(
            f"""
            SELECT min(object_id) FROM flat_metadata WHERE batch_id = {context.batch}
            GROUP BY study_key HAVING count(DISTINCT (source, StudyInstanceUID)) > 1
            UNION ALL
            SELECT min(object_id) FROM flat_metadata WHERE batch_id = {context.batch}
            GROUP BY source, StudyInstanceUID HAVING count(DISTINCT study_key) > 1
            ORDER BY 1 LIMIT {SHOWN}
            """
        ).fetchall()
    return CheckResult(not mixed, total, total - len(mixed), [str(one) for (one,) in mixed])


SAMPLE_RULES: tuple[NamedRule, ...] = (
    NamedRule("validated_batch", "refused_are_no_dicom", "What is refused does not read as DICOM",
              refused_are_no_dicom),
    NamedRule("flat_metadata", "columns_equal_headers", "Identity and patient = what the header says",
              columns_equal_headers),
    NamedRule("flat_metadata", "sample_equals_source", "A sample read again by pydicom = its rows",
              sample_equals_source),
)  # fmt: skip
"""Every rule of this module."""
