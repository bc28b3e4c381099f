"""Which OMOP concept a DICOM code means: tables in the package, extended by the user's own.

Belongs here: the reading of the mapping tables and the look-ups. Does not belong here: the rows that use them.

Sources of `concepts/*.csv` (version MAPPING_VERSION):
- Modality: DICOM vocabulary of the OHDSI Imaging working group as published in paulnagy/DICOM2OMOP (Apache-2.0),
  `files/OMOP CDM Staging/omop_table_staging_v5.csv` at commit 1ef3354; defined terms of PS3.3 C.7.3.1.1.1. A term that
  the vocabulary does not hold has no row.
- Anatomic site: values of Body Part Examined as in PS3.16 Annex L; OMOP standard concept by
  `files/OMOP CDM Staging/cs_values_maps_to.csv` at the same commit (concept 0 where that file has none). SNOMED CT
  code: the concept of the same meaning in PS3.16 as pydicom carries it; its SNOMED RT form from the same source.
- Rows with a side: the concept of the sided value in the same tables (LFEMORALA, LHEPATICV ...); for lung, upper and
  lower limb the SNOMED CT concepts 44029006, 3341006, 362728000, 362729008, 362784000 and 362785004 with their ids.
- Laterality: OMOP concepts of SNOMED CT 7771000 (Left) and 24028007 (Right).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

MAPPING_VERSION = "2026.11"
"""Version of the mapping tables; raised whenever a row of them changes."""

UNMAPPED = 0
"""OMOP's concept for "no matching concept". Counted in `mapping_coverage`, never silent."""

LATERALITY_CONCEPTS = {"L": 4300877, "R": 4080761}
"""OMOP standard concepts of Laterality (0020,0060)."""


class MappingError(ValueError):
    """A mapping table cannot be used; the message says which column or row number, never a value."""


@dataclass(frozen=True, slots=True)
class Site:
    """One anatomic site. snomed: SNOMED CT code or None; concept_id: OMOP standard concept, 0 when there is none."""

    meaning: str
    snomed: str | None
    concept_id: int


@dataclass(frozen=True, slots=True)
class Concepts:
    """The mapping tables in force: modality -> concept, (site code, side) -> site."""

    modalities: dict[str, int]
    parts: dict[tuple[str, str], Site]
    codes: dict[tuple[str, str], Site]

    def modality(self, code: str | None) -> int:
        """Concept of a Modality (0008,0060); 0 where unmapped."""
        return self.modalities.get(_key(code), UNMAPPED)

    def site(self, code: str | None, scheme: str | None, part: str | None, side: str | None) -> Site | None:
        """Anatomic site of a series, None when neither its code nor its body part is known.

        code, scheme: first item of AnatomicRegionSequence; it is the more exact one and goes first. part: Body Part
        Examined (0018,0015). side: Laterality; a sided concept is taken where there is one, otherwise the plain one.
        """
        tables: list[tuple[dict[tuple[str, str], Site], str]] = []
        if code and (scheme or "").upper() in _SNOMED_SCHEMES:
            tables.append((self.codes, code.strip().upper()))
        if part:
            tables.append((self.parts, _key(part)))
        wanted = (side or "").strip().upper()
        for table, key in tables:
            found = table.get((key, wanted)) or table.get((key, ""))
            if found is not None:
                return found
        return None


_SNOMED_SCHEMES = {"SCT", "SRT", "SNM3", "99SDM"}


def _key(value: str | None) -> str:
    """Code strings are compared without regard to case and punctuation: senders write `CHEST`, `Chest`, `C-SPINE`."""
    return "".join(c for c in (value or "").upper() if c.isalnum())


def _packaged_rows(name: str) -> list[dict[str, str]]:
    text = resources.files("dicom_assets.omop").joinpath("concepts", name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _own(path: str, required: set[str]) -> list[dict[str, str]]:
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = required - set(reader.fieldnames or ())
            if missing:
                raise MappingError(f"Mapping table lacks the column {', '.join(sorted(missing))}")
            return list(reader)
    except (OSError, UnicodeDecodeError, csv.Error):
        raise MappingError("Mapping table cannot be read as CSV in UTF-8") from None


def _concept(row: dict[str, str], number: int) -> int:
    try:
        concept = int(row["concept_id"] or "0")
    except ValueError:
        concept = -1
    if not 0 <= concept < 2**31:
        raise MappingError(f"concept_id of row {number} is not a concept id")
    return concept


def load(modality_table: str | None = None, site_table: str | None = None) -> Concepts:
    """The packaged tables; rows of the user's own (CSV with the same columns) come before them.

    Raises MappingError.
    """
    tables = _packaged()
    if modality_table is None and site_table is None:
        return tables
    return _extend(
        tables,
        _own(modality_table, {"modality", "concept_id"}) if modality_table else [],
        _own(site_table, {"body_part_examined", "concept_id"}) if site_table else [],
    )


@cache
def _packaged() -> Concepts:
    nothing = Concepts({}, {}, {})
    return _extend(nothing, _packaged_rows("modality.csv"), _packaged_rows("anatomic_site.csv"))


def _extend(tables: Concepts, modality_rows: list[dict[str, str]], site_rows: list[dict[str, str]]) -> Concepts:
    """Tables with further rows, which come before those that are there. Raises MappingError."""
    modalities, parts, codes = {**tables.modalities}, {**tables.parts}, {**tables.codes}
    for number, row in enumerate(modality_rows, start=2):
        modalities[_key(row["modality"])] = _concept(row, number)
    for number, row in enumerate(site_rows, start=2):
        side = (row.get("laterality") or "").strip().upper()
        snomed = (row.get("snomed_code") or "").strip() or None
        part = _key(row["body_part_examined"])
        site = Site(row.get("meaning") or row["body_part_examined"], snomed, _concept(row, number))
        if part:
            parts[(part, side)] = site
        for code in (snomed, (row.get("snomed_rt") or "").strip()):
            if code:
                codes[(code.upper(), side)] = site
                # A code that names a side by itself holds whatever Laterality says.
                if side:
                    codes.setdefault((code.upper(), ""), site)
    return Concepts(modalities, parts, codes)
