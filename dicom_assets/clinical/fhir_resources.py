"""FHIR that arrives: one row of `clinical` for each resource of a file, one error for each that is not valid.

Belongs here: reading a file of resources, and the typed columns that people filter by. Does not belong here: taking
the file apart (`framing`), what is valid (`dicom_assets.fhir.validation`), whose patient a reference means
(`patients`), tables of CSV and Parquet (`tabular`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pyarrow as pa

from dicom_assets.clinical.chunks import UNREADABLE, ClinicalChunk, ClinicalUnreadable, RecordError
from dicom_assets.clinical.framing import Frame, NotFhir, frames
from dicom_assets.fhir import conversions as values
from dicom_assets.fhir.identifiers import (
    Identified,
    Json,
    conditional_identifier,
    identified,
    issuer_of,
    objects,
    patient_identifier,
    relative_reference,
    text_of,
)
from dicom_assets.fhir.validation import Fault, fault_of
from dicom_assets.schema.registry import CLINICAL
from dicom_assets.settings import FhirSettings
from dicom_assets.storage.byte_ranges import ByteSource

PART_ROWS = 2_000
"""Rows of one part: some megabytes."""

_MADE_HERE = (
    "record_type",
    "record",
    "PatientID",
    "IssuerOfPatientID",
    "record_values",
    "resource_id",
    "resource_version",
    "last_updated",
    "patient_reference",
    "patient_system",
    "patient_identifiers",
    "server",
    "status",
    "category",
    "code_system",
    "code",
    "code_display",
    "effective_at",
    "effective_end",
    "effective_text",
    "effective_end_text",
)
RESOURCE_ROWS = pa.schema(
    [CLINICAL.schema.field(name) for name in _MADE_HERE] + [pa.field("natural_key", pa.string(), nullable=False)]
)
"""What a file of resources gives to `clinical`. natural_key: type and id, which name a resource within its server."""


def read_resources(source: ByteSource, settings: FhirSettings) -> Iterator[ClinicalChunk]:
    """Reads a file of FHIR resources as a stream, PART_ROWS records (schema RESOURCE_ROWS) at a time.

    NDJSON, arrays, single resources and Bundles are told apart by content. Raises ClinicalUnreadable when the file is
    no JSON, and whatever `source` raises.
    """
    rows: list[dict[str, Any]] = []
    errors: list[RecordError] = []
    try:
        for number, frame in enumerate(frames(source), start=1):
            row = _row(frame, number, settings)
            if isinstance(row, RecordError):
                errors.append(row)
            else:
                rows.append(row)
            if len(rows) + len(errors) >= PART_ROWS:
                yield _part(rows, errors)
                rows, errors = [], []
    except NotFhir as error:
        raise ClinicalUnreadable(UNREADABLE, str(error)) from None
    if rows or errors:
        yield _part(rows, errors)


def _part(rows: list[dict[str, Any]], errors: list[RecordError]) -> ClinicalChunk:
    return ClinicalChunk(pa.Table.from_pylist(rows, schema=RESOURCE_ROWS), tuple(errors))


def _row(frame: Frame, number: int, settings: FhirSettings) -> dict[str, Any] | RecordError:
    if frame.fault:
        return RecordError(number, frame.fault)
    resource = orjson.loads(frame.data)
    fault = fault_of(resource)
    if fault is None and not (text_of(resource.get("id")) or frame.full_url):
        fault = Fault(f"{resource['resourceType']}.id", "missing, and the entry has no fullUrl either")
    if fault is not None:
        return RecordError(number, str(fault))
    patient = patient_of(resource, frame.full_url, settings)
    written = {"record": number, "record_values": frame.data.decode("utf-8")}
    return {**written, **patient, **columns_of(resource, frame.full_url)}


def patient_of(resource: Json, full_url: str | None, settings: FhirSettings) -> dict[str, Any]:
    """Whose record it is: the reference, and the identifier with its system where the resource itself tells it.

    A reference to a Patient that lies elsewhere leaves the identifier NULL; `patients` resolves it later. Of a Patient
    all identifiers, those that are no longer in use as well: by these two versions of it are told to be one person.
    """
    reference, found, every = None, None, None
    if resource["resourceType"] == "Patient":
        name = text_of(resource.get("id"))
        is_alias = (full_url or "").startswith("urn:") and not (name and (full_url or "").endswith(f":{name}"))
        reference = f"Patient/{name}" if name and not is_alias else full_url
        identifiers = objects(resource.get("identifier"))
        found = patient_identifier(identifiers, settings.patient_identifier_systems)
        every = sorted({f"{one.system or ''}|{one.value}" for one in map(identified, identifiers) if one})
    else:
        for element in ("subject", "patient", "beneficiary", "individual", "for"):
            target = resource.get(element)
            if isinstance(target, dict):
                reference, found = _referred(target, resource, settings)
                if reference or found:
                    break
    return {
        "patient_reference": reference,
        "PatientID": found.value if found else None,
        "IssuerOfPatientID": issuer_of(found.system, settings.issuer_systems) if found else None,
        "patient_system": found.system if found else None,
        "patient_identifiers": every,
    }


def _referred(target: Json, resource: Json, settings: FhirSettings) -> tuple[str | None, Identified | None]:
    """Reference and identifier of a subject, when it is a patient."""
    written = text_of(target.get("reference"))
    conditional = conditional_identifier(written)
    if conditional is not None:
        return (written, conditional[1]) if conditional[0] == "Patient" else (None, None)
    if written and written.startswith("#"):
        contained = [c for c in objects(resource.get("contained")) if f"#{c.get('id')}" == written]
        if not contained or contained[0].get("resourceType") != "Patient":
            return None, None
        return None, patient_identifier(objects(contained[0].get("identifier")), settings.patient_identifier_systems)
    literal = relative_reference(written)
    if (literal and literal[0] != "Patient") or target.get("type") not in (None, "Patient"):
        return None, None
    inline = target.get("identifier")
    found = identified(inline) if isinstance(inline, dict) else None
    return (f"Patient/{literal[1]}" if literal else written), found


_CODES = ("code", "type", "vaccineCode", "medicationCodeableConcept", "class", "serviceType", "substance", "name")
_TIMES = (
    "effectiveDateTime",
    "effectiveInstant",
    "effectivePeriod",
    "performedDateTime",
    "performedPeriod",
    "occurrenceDateTime",
    "occurrencePeriod",
    "onsetDateTime",
    "onsetPeriod",
    "period",
    "started",
    "date",
    "authoredOn",
    "recordedDate",
    "issued",
)


def columns_of(resource: Json, full_url: str | None) -> dict[str, Any]:
    """The typed columns of a valid resource, and the key that names it within its server."""
    meta = resource.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    name = text_of(resource.get("id"))
    kind = resource["resourceType"]
    system, code, display = _coding(resource)
    start, end = _times(resource)
    return {
        "server": (text_of(meta.get("source")) or "").partition("#")[0],
        "record_type": kind,
        "natural_key": f"{kind}/{name}" if name else str(full_url),
        "resource_id": name,
        "resource_version": text_of(meta.get("versionId")),
        "last_updated": values.moment(meta.get("lastUpdated")),
        "status": text_of(resource.get("status")) or _first_code(resource.get("clinicalStatus"))[1],
        "category": _first_code(resource.get("category"))[1] or _first_code(resource.get("class"))[1],
        "code_system": system,
        "code": code,
        "code_display": display,
        "effective_at": values.beginning(start),
        "effective_end": values.beginning(end),
        "effective_text": start,
        "effective_end_text": end,
    }


Coded = tuple[str | None, str | None, str | None]


def _coding(resource: Json) -> Coded:
    for element in _CODES:
        value = resource.get(element)
        found = _first_code(value) if isinstance(value, dict | list) else (None, None, None)
        if any(found):
            return found
    return None, None, None


def _first_code(value: Any) -> Coded:
    """System, code and display of a CodeableConcept, a Coding or a list of either; a plain string is a code."""
    if isinstance(value, str):
        return None, value, None
    for item in objects(value):
        codings = objects(item.get("coding")) if "coding" in item else [item] if "code" in item else []
        for one in codings:
            if text_of(one.get("code")):
                display = text_of(one.get("display")) or text_of(item.get("text"))
                return text_of(one.get("system")), text_of(one.get("code")), display
        if text_of(item.get("text")):
            return None, None, text_of(item.get("text"))
    return None, None, None


def _times(resource: Json) -> tuple[str | None, str | None]:
    for element in _TIMES:
        value: Any = resource.get(element)
        if isinstance(value, str):
            return text_of(value), None
        if isinstance(value, dict) and (value.get("start") or value.get("end")):
            return text_of(value.get("start")), text_of(value.get("end"))
    return None, None
