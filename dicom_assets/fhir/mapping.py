"""How each element of ImagingStudy is made: the mapping from DICOM to FHIR R4B, as data.

Belongs here: one entry for each element with the attributes it comes from, its rule in words, and the function that
makes it. The builder runs over these lists and `docs/fhir.md` prints them, so neither can say what the other does not.
Does not belong here: reading rows, files, tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dicom_assets.fhir import conversions as values
from dicom_assets.fhir.identifiers import (
    DCM,
    DICOM_UID,
    IDENTIFIER_TYPE,
    PARTICIPATION,
    SNOMED,
    URI,
    absent,
    coding,
    system_of,
)
from dicom_assets.omop.concepts import Concepts

Row = Mapping[str, Any]

LATERALITY = {"R": ("24028007", "Right"), "L": ("7771000", "Left"), "B": ("51440002", "Bilateral")}
"""SNOMED CT codes of Laterality (PS3.16 CID 244)."""


@dataclass(frozen=True, slots=True)
class Context:
    """What the mapping needs besides rows. issuer_systems: FHIR system for each IssuerOfPatientID."""

    concepts: Concepts
    issuer_systems: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its name, the DICOM attributes it comes from, the rule in words, and the rule itself.

    make: value of the element from a row, None when the element is left out.
    """

    name: str
    attributes: str
    rule: str
    make: Callable[[Row, Context], Any]


def _identifiers(study: Row, context: Context) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = [{"system": DICOM_UID, "value": f"urn:oid:{study['StudyInstanceUID']}"}]
    accession = values.text(study.get("AccessionNumber"))
    if accession:
        made.append({"type": {"coding": [{"system": IDENTIFIER_TYPE, "code": "ACSN"}]}, "value": accession})
    return made


def _status(study: Row, context: Context) -> str:
    return "available" if study["series"] else "entered-in-error"


def _modality(code: str | None) -> dict[str, Any]:
    known = values.code(code)
    return {"system": DCM, "code": known} if known else absent("unknown")


def _modalities(study: Row, context: Context) -> list[dict[str, Any]] | None:
    codes = sorted({known for one in study.get("ModalitiesInStudy") or () if (known := values.code(one))})
    return [_modality(code) for code in codes] or None


def _subject(study: Row, context: Context) -> dict[str, Any]:
    state = study["subject_state"]
    if state != "identified":
        return absent("error" if state == "conflict" else "unknown")
    identifier: dict[str, Any] = {"value": study["PatientID"]}
    issuer = study.get("IssuerOfPatientID")
    system = system_of(issuer, context.issuer_systems)
    if system:
        identifier = {"system": system, **identifier}
    elif issuer:
        identifier["assigner"] = {"display": issuer}
    return {"type": "Patient", "identifier": identifier}


def _started(study: Row, context: Context) -> str | None:
    return values.date_time(study.get("StudyDate"), study.get("StudyTime"), study.get("TimezoneOffsetFromUTC"))


def _referrer(study: Row, context: Context) -> dict[str, str] | None:
    name = values.person_name(study.get("ReferringPhysicianName"))
    return {"type": "Practitioner", "display": name} if name else None


def _concept(row: Row, stem: str) -> list[dict[str, Any]] | None:
    code, scheme, meaning = (values.text(row.get(f"{stem}_{part}")) for part in ("code", "scheme", "meaning"))
    made = coding(values.code(code), scheme, meaning)
    if made is None:
        return None
    concept: dict[str, Any] = {"coding": [made]}
    if meaning:
        concept["text"] = meaning
    return [concept]


def _site(series: Row, context: Context) -> dict[str, Any] | None:
    code, scheme = values.code(series.get("anatomic_region_code")), values.text(series.get("anatomic_region_scheme"))
    part = values.text(series.get("BodyPartExamined"))
    found = context.concepts.site(code, scheme, part, None)
    if found is not None and found.snomed:
        return {"system": SNOMED, "code": found.snomed, "display": found.meaning}
    if code or series.get("anatomic_region_meaning"):
        return coding(code, scheme, values.text(series.get("anatomic_region_meaning")))
    return {"display": part} if part else None


def _side(series: Row, context: Context) -> dict[str, str] | None:
    known = LATERALITY.get((values.code(series.get("Laterality")) or "").upper())
    return {"system": SNOMED, "code": known[0], "display": known[1]} if known else None


def _performers(series: Row, context: Context) -> list[dict[str, Any]] | None:
    made = []
    for attribute, function in (("PerformingPhysicianName", "PRF"), ("OperatorsName", "SPRF")):
        for written in series.get(attribute) or ():
            name = values.person_name(written)
            if name:
                made.append(_performer(function, {"type": "Practitioner", "display": name}))
    parts = (values.text(series.get("Manufacturer")), values.text(series.get("ManufacturerModelName")))
    device = " ".join(part for part in parts if part)
    if device:
        made.append({"actor": {"type": "Device", "display": device}})
    return made or None


def _performer(function: str, actor: dict[str, str]) -> dict[str, Any]:
    return {"function": {"coding": [{"system": PARTICIPATION, "code": function}]}, "actor": actor}


def _uid(name: str) -> Callable[[Row, Context], str | None]:
    def make(row: Row, context: Context) -> str | None:
        uid = row[name]
        return uid if values.is_id(uid) else None

    return make


def _uid_missing(name: str) -> Callable[[Row, Context], dict[str, Any] | None]:
    def make(row: Row, context: Context) -> dict[str, Any] | None:
        return None if values.is_id(row[name]) else absent("error")

    return make


def _sop_class(instance: Row, context: Context) -> dict[str, Any]:
    uid = values.code(instance.get("SOPClassUID"))
    return {"system": URI, "code": f"urn:oid:{uid}"} if uid else absent("unknown")


def _number(name: str) -> Callable[[Row, Context], int | None]:
    def make(row: Row, context: Context) -> int | None:
        value = row.get(name)
        # unsignedInt of FHIR R4B ends at 2147483647; DICOM's IS may be negative.
        return value if isinstance(value, int) and 0 <= value < 2**31 else None

    return make


def _text(name: str) -> Callable[[Row, Context], str | None]:
    def make(row: Row, context: Context) -> str | None:
        return values.text(row.get(name))

    return make


STUDY: Sequence[Element] = (
    Element(
        "identifier",
        "StudyInstanceUID; AccessionNumber",
        "system `urn:dicom:uid`, value `urn:oid:{uid}`; type ACSN of `http://terminology.hl7.org/CodeSystem/v2-0203`",
        _identifiers,
    ),
    Element("status", "", "`available`; `entered-in-error` for a study without instances", _status),
    Element("modality", "Modality of its instances", "each once, sorted; system DCM", _modalities),
    Element(
        "subject",
        "PatientID, IssuerOfPatientID",
        "logical reference by identifier; system as configured for the issuer, or the issuer itself when it is a URI "
        "or an OID, otherwise the issuer as assigner. Without PatientID data-absent-reason `unknown`, with several "
        "patients in the study `error`",
        _subject,
    ),
    Element(
        "started",
        "StudyDate, StudyTime, TimezoneOffsetFromUTC",
        "with time only where an offset is known, otherwise the date",
        _started,
    ),
    Element("referrer", "ReferringPhysicianName", "display: prefix, given, middle, family name, suffix", _referrer),
    Element("numberOfSeries", "", "series, counted", lambda study, _: len(study["series"])),
    Element(
        "numberOfInstances",
        "",
        "instances, counted",
        lambda study, _: sum(len(series["instances"]) for series in study["series"]),
    ),
    Element(
        "procedureCode",
        "ProcedureCodeSequence",
        "first item; system by its scheme",
        lambda s, _: _concept(s, "procedure"),
    ),
    Element(
        "reasonCode",
        "ReasonForRequestedProcedureCodeSequence",
        "first item; system by its scheme",
        lambda s, _: _concept(s, "reason"),
    ),
    Element("description", "StudyDescription", "control characters left out", _text("StudyDescription")),
)
"""Elements of ImagingStudy in the order in which FHIR lists them."""

_NO_ID = "data-absent-reason `error` when FHIR's `id` cannot hold it"

SERIES: Sequence[Element] = (
    Element("uid", "SeriesInstanceUID", "as it is", _uid("SeriesInstanceUID")),
    Element(
        "_uid",
        "SeriesInstanceUID",
        "data-absent-reason `error` when FHIR's `id` cannot hold it",
        _uid_missing("SeriesInstanceUID"),
    ),
    Element("number", "SeriesNumber", "left out when negative", _number("SeriesNumber")),
    Element(
        "modality",
        "Modality",
        "system DCM; data-absent-reason `unknown` when missing",
        lambda series, _: _modality(series.get("Modality")),
    ),
    Element("description", "SeriesDescription", "control characters left out", _text("SeriesDescription")),
    Element("numberOfInstances", "", "instances, counted", lambda series, _: len(series["instances"])),
    Element(
        "bodySite",
        "AnatomicRegionSequence, otherwise BodyPartExamined",
        "SNOMED CT by the table of anatomic sites; the text alone where it has no code",
        _site,
    ),
    Element("laterality", "Laterality", "SNOMED CT of CID 244", _side),
    Element(
        "started",
        "SeriesDate, SeriesTime, TimezoneOffsetFromUTC",
        "as for the study",
        lambda s, _: values.date_time(s.get("SeriesDate"), s.get("SeriesTime"), s.get("TimezoneOffsetFromUTC")),
    ),
    Element(
        "performer",
        "PerformingPhysicianName; OperatorsName; Manufacturer, ManufacturerModelName",
        "function PRF; SPRF of v3-ParticipationType; none for the device; names as display",
        _performers,
    ),
)
"""Elements of ImagingStudy.series."""

INSTANCE: Sequence[Element] = (
    Element("uid", "SOPInstanceUID", "as it is", _uid("SOPInstanceUID")),
    Element(
        "_uid",
        "SOPInstanceUID",
        "data-absent-reason `error` when FHIR's `id` cannot hold it",
        _uid_missing("SOPInstanceUID"),
    ),
    Element(
        "sopClass",
        "SOPClassUID",
        "system `urn:ietf:rfc:3986`, code `urn:oid:{uid}`; data-absent-reason `unknown` when missing",
        _sop_class,
    ),
    Element("number", "InstanceNumber", "left out when negative", _number("InstanceNumber")),
    Element("title", "DocumentTitle", "control characters left out", _text("DocumentTitle")),
)
"""Elements of ImagingStudy.series.instance."""


def made(elements: Sequence[Element], row: Row, context: Context) -> dict[str, Any]:
    """The elements that a row gives, in their order."""
    result = {}
    for element in elements:
        value = element.make(row, context)
        if value is not None:
            result[element.name] = value
    return result


def attributes_of(elements: Sequence[Element]) -> set[str]:
    """Keywords that the elements name."""
    words = " ".join(element.attributes for element in elements).replace(",", " ").replace(";", " ").split()
    return {word for word in words if word[:1].isupper()}


def table() -> str:
    """The mapping as a Markdown table, for `docs/fhir.md`."""
    lines = ["| element | DICOM | rule |", "|---|---|---|"]
    for path, elements in (("", STUDY), ("series.", SERIES), ("series.instance.", INSTANCE)):
        for element in elements:
            lines.append(f"| `{path}{element.name}` | {element.attributes or '—'} | {element.rule} |")
    return "\n".join(lines) + "\n"
