"""Every code and system that an ImagingStudy may hold: the rules that no validator checks.

Belongs here: one function that lists what is wrong with a resource's terminology. Does not belong here: structure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydicom.sr._concepts_dict import concepts as dicom_concepts

DCM = "http://dicom.nema.org/resources/ontology/DCM"
SCT = "http://snomed.info/sct"
MODALITY = re.compile(r"^[A-Z0-9_ ]{1,16}$")
SNOMED_CODE = re.compile(r"^[1-9][0-9]{5,17}$")
OID_URN = re.compile(r"^urn:oid:[0-9]+(\.[0-9]+)*$")
KNOWN_SNOMED = {code for codes in dicom_concepts["SCT"].values() for code in codes}
SIDES = {"24028007", "7771000", "51440002"}
ABSENT = {"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason"}


def _is_absent(element: dict[str, Any]) -> bool:
    extensions = element.get("extension", [])
    return len(extensions) == 1 and extensions[0]["url"] == ABSENT["url"] and len(element) == 1


def terminology_faults(study: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the codes and systems of one ImagingStudy."""
    if study["status"] not in ("available", "entered-in-error"):
        yield "status"
    for identifier in study["identifier"]:
        if identifier.get("system") == "urn:dicom:uid":
            if not identifier["value"].startswith("urn:oid:"):
                yield "identifier: a study UID that is no URN"
        elif [c["code"] for c in identifier["type"]["coding"]] != ["ACSN"]:
            yield "identifier: neither a study UID nor an accession number"
    for number, coding in enumerate(study.get("modality", [])):
        if coding["system"] != DCM or not MODALITY.match(coding["code"]):
            yield f"modality[{number}]"
    for number, series in enumerate(study.get("series", [])):
        for fault in _series(series):
            yield f"series[{number}].{fault}"


def _series(series: dict[str, Any]) -> Iterator[str]:
    if not _is_absent(series["modality"]) and series["modality"]["system"] != DCM:
        yield "modality: system"
    site = series.get("bodySite")
    if site and site.get("system") == SCT and not (SNOMED_CODE.match(site["code"]) and site["display"]):
        yield "bodySite: no SNOMED CT code"
    if site and site.get("system") == SCT and site["code"] not in KNOWN_SNOMED:
        yield "bodySite: a code that PS3.16 does not know"
    side = series.get("laterality")
    if side and (side["system"] != SCT or side["code"] not in SIDES):
        yield "laterality"
    for performer in series.get("performer", []):
        for coding in performer.get("function", {}).get("coding", []):
            if not coding["system"].endswith("/v3-ParticipationType") or coding["code"] not in ("PRF", "SPRF"):
                yield "performer.function"
    for number, instance in enumerate(series["instance"]):
        sop_class = instance["sopClass"]
        if _is_absent(sop_class):
            continue
        if sop_class["system"] != "urn:ietf:rfc:3986" or not OID_URN.match(sop_class["code"]):
            yield f"instance[{number}].sopClass"
        if instance.get("uid", "").startswith("urn:"):
            yield f"instance[{number}].uid: not bare"
