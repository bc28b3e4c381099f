"""Identifiers, references and codings: what names a patient, a study, an order, a concept across FHIR and DICOM.

Belongs here: the systems, and the rules that pick one identifier out of several. Does not belong here: resources.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

DICOM_UID = "urn:dicom:uid"
URI = "urn:ietf:rfc:3986"
DCM = "http://dicom.nema.org/resources/ontology/DCM"
SNOMED = "http://snomed.info/sct"
IDENTIFIER_TYPE = "http://terminology.hl7.org/CodeSystem/v2-0203"
PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
DATA_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"

CODING_SYSTEMS = {
    "DCM": DCM,
    "SCT": SNOMED,
    "LN": "http://loinc.org",
    "UCUM": "http://unitsofmeasure.org",
    "I10": "http://hl7.org/fhir/sid/icd-10",
    "I9C": "http://hl7.org/fhir/sid/icd-9-cm",
    "C4": "http://www.ama-assn.org/go/cpt",
    "CPT4": "http://www.ama-assn.org/go/cpt",
    "RXNORM": "http://www.nlm.nih.gov/research/umls/rxnorm",
}
"""FHIR's name of a coding scheme by its designator (PS3.16 8, Table 8-1). A scheme that is not here has no system."""

Json = Mapping[str, Any]

_UID = re.compile(r"^[0-9.]{1,64}$")
_IS_URI = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:\S+$")
_REFERENCE = re.compile(r"(?:^|/)([A-Z][A-Za-z]+)/([A-Za-z0-9.\-]{1,64})(?:/_history/[^/?#]+)?$")
_CONDITIONAL = re.compile(r"^([A-Z][A-Za-z]+)\?(?:.*&)?identifier=([^&]+)")


@dataclass(frozen=True, slots=True)
class Identified:
    """An identifier: its value as text, and its system or None."""

    value: str
    system: str | None


def objects(value: Any) -> list[Json]:
    """The JSON objects of an element that is a list, one object, or absent."""
    found = value if isinstance(value, list) else [value]
    return [item for item in found if isinstance(item, dict)]


def text_of(value: Any) -> str | None:
    """A string without surrounding space, None when it is empty or no string."""
    return (value.strip() or None) if isinstance(value, str) else None


def identified(identifier: Json) -> Identified | None:
    """Value and system of an Identifier; None without a value."""
    value = text_of(identifier.get("value"))
    return Identified(value, text_of(identifier.get("system"))) if value else None


def has_type(identifier: Json, code: str) -> bool:
    """Whether the type of an Identifier is this code of HL7 table 0203."""
    kind = identifier.get("type")
    codings = objects(kind.get("coding")) if isinstance(kind, dict) else []
    return any(c.get("code") == code and c.get("system") in (IDENTIFIER_TYPE, None) for c in codings)


def patient_identifier(identifiers: Sequence[Json], systems: Sequence[str] = ()) -> Identified | None:
    """The identifier by which a Patient is known to imaging, or None.

    In this order: the first of the configured `systems`; type MR (medical record number); use usual or official; the
    first one. Identifiers that are no longer in use (use `old`) and those without a value are left out.
    """
    usable = [(i, found) for i in identifiers if i.get("use") != "old" and (found := identified(i))]
    for system in systems:
        for _, found in usable:
            if found.system == system:
                return found
    records = [found for identifier, found in usable if has_type(identifier, "MR")]
    official = [found for identifier, found in usable if identifier.get("use") in ("usual", "official")]
    return next(iter([*records, *official, *(found for _, found in usable)]), None)


def relative_reference(reference: str | None) -> tuple[str, str] | None:
    """Type and id of a literal reference, relative or absolute, with or without version; None for any other."""
    match = _REFERENCE.search(reference or "")
    return (match[1], match[2]) if match else None


def conditional_identifier(reference: str | None) -> tuple[str, Identified] | None:
    """Type and identifier of a conditional reference such as `Patient?identifier=system|value`."""
    match = _CONDITIONAL.match(reference or "")
    if not match:
        return None
    system, bar, value = unquote(match[2]).rpartition("|")
    value = value.strip()
    return (match[1], Identified(value, (system.strip() or None) if bar else None)) if value else None


def study_uid(identifier: Json) -> str | None:
    """The StudyInstanceUID that an Identifier names: of system urn:dicom:uid, or an OID written as URN there."""
    found = identified(identifier)
    if found is None or found.system != DICOM_UID:
        return None
    uid = found.value.removeprefix("urn:oid:").strip()
    return uid if _UID.match(uid) else None


def accession_number(identifier: Json) -> str | None:
    """The accession number of an Identifier of type ACSN."""
    found = identified(identifier)
    return found.value if found and has_type(identifier, "ACSN") else None


def system_of(issuer: str | None, issuer_systems: Mapping[str, str]) -> str | None:
    """FHIR system for an IssuerOfPatientID: as configured, itself when it is a URI, urn:oid when it is an OID."""
    issuer = text_of(issuer)
    if issuer is None:
        return None
    known = issuer_systems.get(issuer)
    if known:
        return known
    if _IS_URI.match(issuer):
        return issuer
    return f"urn:oid:{issuer}" if re.match(r"^[0-2](\.(0|[1-9][0-9]*)){2,}$", issuer) else None


def issuer_of(system: str | None, issuer_systems: Mapping[str, str]) -> str | None:
    """IssuerOfPatientID for a FHIR system: as configured, the OID of a urn:oid, otherwise the system itself."""
    for issuer, known in issuer_systems.items():
        if known == system:
            return issuer
    return system.removeprefix("urn:oid:") if system else None


def coding(code: str | None, scheme: str | None, meaning: str | None) -> dict[str, str] | None:
    """A Coding from an item of a code sequence (PS3.3 8.8); None when it holds neither code nor meaning."""
    made: dict[str, str] = {}
    system = CODING_SYSTEMS.get((scheme or "").upper())
    if system:
        made["system"] = system
    if code:
        made["code"] = code
    if meaning:
        made["display"] = meaning
    return made if code or meaning else None


def absent(reason: str) -> dict[str, Any]:
    """An element without a value that says why (extension data-absent-reason)."""
    return {"extension": [{"url": DATA_ABSENT, "valueCode": reason}]}
