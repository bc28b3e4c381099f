"""image_occurrence of the OHDSI imaging extension: one row for each series, with how it was made beside it.

Belongs here: the rows, and the mapping behind `docs/omop.md`. Does not belong here: the giving out of ids
(`identifiers`), concepts (`concepts`), the commit.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pyarrow as pa

from dicom_assets.omop.concepts import LATERALITY_CONCEPTS, MAPPING_VERSION, UNMAPPED, Concepts
from dicom_assets.omop.integers import Domain, Wanted, order_key, person_key, series_key
from dicom_assets.omop.maps import IdMaps
from dicom_assets.schema.registry import IMAGE_OCCURRENCE, IMAGE_OCCURRENCE_ORIGIN

Row = Mapping[str, Any]

NO_DATE = date(1970, 1, 1)
"""Stands for no date at all; the column is NOT NULL. date_from is then `unknown`."""

DATES = ("SeriesDate", "StudyDate", "PerformedProcedureStepStartDate", "AcquisitionDate", "ContentDate")
"""Attributes that may give the date, best first; the last two are the earliest that an instance gives."""

KEY_COLUMNS = (
    "source",
    "study_key",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "PatientID",
    "IssuerOfPatientID",
    "AccessionNumber",
)
"""Columns of `series` that ids are made from."""

SUBJECT = ("PatientID", "IssuerOfPatientID")
"""Those of KEY_COLUMNS that are the subject of the study, see `lake.subjects`."""

SERIES_COLUMNS = (
    *KEY_COLUMNS,
    "Modality",
    "BodyPartExamined",
    "Laterality",
    "anatomic_region_code",
    "anatomic_region_scheme",
    "SeriesDate",
    "StudyDate",
    "PerformedProcedureStepStartDate",
)
"""Columns of `series` that rows are made from."""

MAPPING: Sequence[tuple[str, str, str]] = (
    ("image_occurrence_id", "", "the next free integer, given out once for each series"),
    (
        "person_id",
        "PatientID, IssuerOfPatientID",
        "`omop.person_map`; otherwise a surrogate, negative: one for each identifier with its issuer, or for each "
        "study without PatientID or with several patients",
    ),
    (
        "procedure_occurrence_id",
        "AccessionNumber",
        "`omop.procedure_map`; otherwise a surrogate, negative: one for each accession number of a person, or study",
    ),
    ("visit_occurrence_id", "AccessionNumber", "`omop.visit_map`; otherwise a surrogate in the same way"),
    (
        "anatomic_site_concept_id",
        "AnatomicRegionSequence, otherwise BodyPartExamined; Laterality",
        "`concepts/anatomic_site.csv`: the sided concept where there is one, otherwise the plain one; 0 when unmapped",
    ),
    (
        "wadors_uri",
        "StudyInstanceUID, SeriesInstanceUID",
        "`{omop.wadors_base}/studies/{}/series/{}`; NULL without base",
    ),
    ("local_path", "", "the folder that holds all objects of the series, when they are local files; otherwise NULL"),
    (
        "image_occurrence_date",
        ", ".join(DATES),
        "the first of these; 1970-01-01 when there is none, counted in `mapping_coverage`",
    ),
    ("image_study_UID", "StudyInstanceUID", "as it is"),
    ("image_series_UID", "SeriesInstanceUID", "as it is"),
    ("modality_concept_id", "Modality", "`concepts/modality.csv`; 0 when unmapped"),
)
"""Column, attributes, rule: what `docs/omop.md` prints."""


@dataclass(frozen=True, slots=True)
class Context:
    """What the rows need besides series. wadors_base: without a slash at its end, or None."""

    concepts: Concepts
    maps: IdMaps
    wadors_base: str | None = None


@dataclass(frozen=True, slots=True)
class Keys:
    """The natural keys behind the ids of one series."""

    image: str
    person: str
    order: str


def keys_of(series: Row) -> Keys:
    """Natural keys of a row of KEY_COLUMNS with subject_state of its study."""
    person = person_key(
        series["source"],
        series["PatientID"],
        series["IssuerOfPatientID"],
        series["study_key"],
        _has_conflict(series),
    )
    return Keys(
        series_key(series["source"], series["StudyInstanceUID"], series["SeriesInstanceUID"]),
        person,
        order_key(person, series["AccessionNumber"], series["study_key"]),
    )


def _has_conflict(series: Row) -> bool:
    return bool(series["subject_state"] == "conflict")


def _mapped(series: Row, maps: IdMaps) -> dict[Domain, int | None]:
    """What the user's mappings say; nothing for a study whose patient is not clear."""
    if _has_conflict(series):
        return dict.fromkeys((Domain.PERSON, Domain.VISIT, Domain.PROCEDURE))
    return {
        Domain.PERSON: maps.persons.get(series),
        Domain.VISIT: maps.visits.get(series),
        Domain.PROCEDURE: maps.procedures.get(series),
    }


def wanted(series: Iterable[Row], maps: IdMaps) -> list[Wanted]:
    """The ids that these series need: one for each image, and a surrogate for whatever is not mapped."""
    needed: list[Wanted] = []
    for row in series:
        keys, mapped = keys_of(row), _mapped(row, maps)
        needed.append((Domain.IMAGE, keys.image))
        needed += [(domain, key) for domain, key in surrogates(keys).items() if mapped[domain] is None]
    return needed


def surrogates(keys: Keys) -> dict[Domain, str]:
    """The natural key of each id for which a surrogate may stand."""
    return {Domain.PERSON: keys.person, Domain.VISIT: keys.order, Domain.PROCEDURE: keys.order}


def person_state(series: Row) -> str:
    """What the surrogate of a series' person is: surrogate, missing (no PatientID) or conflict (several patients)."""
    if _has_conflict(series):
        return "conflict"
    return "surrogate" if (series["PatientID"] or "").strip() else "missing"


def rows(series: Sequence[Row], ids: Mapping[Wanted, int], context: Context) -> tuple[pa.Table, pa.Table]:
    """Rows of `image_occurrence` and of `image_occurrence_origin`, one each for every series, in its order.

    series: SERIES_COLUMNS with subject_state of their study, `uris` of their instances, AcquisitionDate and
    ContentDate (the earliest). ids: everything that `wanted` asked for.
    """
    occurrences, origins = [], []
    for row in series:
        occurrence, origin = _rows(row, ids, context)
        occurrences.append(occurrence)
        origins.append(origin)
    return (
        pa.Table.from_pylist(occurrences, schema=IMAGE_OCCURRENCE.schema),
        pa.Table.from_pylist(origins, schema=IMAGE_OCCURRENCE_ORIGIN.schema),
    )


def _rows(series: Row, ids: Mapping[Wanted, int], context: Context) -> tuple[dict[str, Any], dict[str, Any]]:
    keys, mapped = keys_of(series), _mapped(series, context.maps)
    named = surrogates(keys)

    def number(domain: Domain) -> int:
        known = mapped[domain]
        return ids[domain, named[domain]] if known is None else known

    def came_from(domain: Domain) -> str:
        return "surrogate" if mapped[domain] is None else "mapping"

    image = ids[Domain.IMAGE, keys.image]
    day, date_from = _date(series)
    side = (series["Laterality"] or "").strip().upper()
    site = context.concepts.site(
        series["anatomic_region_code"], series["anatomic_region_scheme"], series["BodyPartExamined"], side
    )
    occurrence = {
        "image_occurrence_id": image,
        "person_id": number(Domain.PERSON),
        "procedure_occurrence_id": number(Domain.PROCEDURE),
        "visit_occurrence_id": number(Domain.VISIT),
        "anatomic_site_concept_id": site.concept_id if site else UNMAPPED,
        "wadors_uri": _wadors_uri(series, context.wadors_base),
        "local_path": local_path(series["uris"] or ()),
        "image_occurrence_date": day,
        "image_study_UID": series["StudyInstanceUID"],
        "image_series_UID": series["SeriesInstanceUID"],
        "modality_concept_id": context.concepts.modality(series["Modality"]),
    }
    person_from = person_state(series) if mapped[Domain.PERSON] is None else "mapping"
    origin = {
        "image_occurrence_id": image,
        "source": series["source"],
        "study_key": series["study_key"],
        "StudyInstanceUID": series["StudyInstanceUID"],
        "SeriesInstanceUID": series["SeriesInstanceUID"],
        "person_from": person_from,
        "visit_from": came_from(Domain.VISIT),
        "procedure_from": came_from(Domain.PROCEDURE),
        "date_from": date_from,
        "modality": series["Modality"],
        "modality_mapped": occurrence["modality_concept_id"] != UNMAPPED,
        "anatomic_site": series["anatomic_region_code"] or series["BodyPartExamined"],
        "anatomic_site_mapped": occurrence["anatomic_site_concept_id"] != UNMAPPED,
        "laterality": series["Laterality"],
        "laterality_concept_id": LATERALITY_CONCEPTS.get(side, UNMAPPED),
        "mapping_version": MAPPING_VERSION,
    }
    return occurrence, origin


def _date(series: Row) -> tuple[date, str]:
    for attribute in DATES:
        day = series.get(attribute)
        if day is not None:
            return day, attribute
    return NO_DATE, "unknown"


def _wadors_uri(series: Row, base: str | None) -> str | None:
    if not base:
        return None
    study, own = quote(series["StudyInstanceUID"], safe=""), quote(series["SeriesInstanceUID"], safe="")
    return f"{base.rstrip('/')}/studies/{study}/series/{own}"


def local_path(uris: Sequence[str]) -> str | None:
    """The folder that holds all these files; None when one of them is not a local file, or there is no common one."""
    paths = [_path(uri) for uri in uris]
    if not paths or any(path is None for path in paths):
        return None
    folders = {posixpath.dirname(path) for path in paths if path}
    folder = posixpath.commonpath(list(folders))
    return folder if folder not in ("", "/") else None


def _path(uri: str) -> str | None:
    if uri.startswith("/"):
        return uri
    parts = urlsplit(uri)
    return unquote(parts.path) if parts.scheme == "file" else None


def table() -> str:
    """The mapping as a Markdown table, for `docs/omop.md`."""
    lines = ["| column | DICOM | rule |", "|---|---|---|"]
    lines += [f"| `{column}` | {attributes or '—'} | {rule} |" for column, attributes, rule in MAPPING]
    return "\n".join(lines) + "\n"
