"""What stands beside the images of a study: clinical records of its patient, reports, its ids in FHIR and OMOP.

Belongs here: their rows. Does not belong here: which records are of the same patient (`lake.subjects`), which report is
of which study (`fhir.diagnostic_report`): the tables and the view say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from dicom_assets.catalogue.row_reading import Row, rows
from dicom_assets.lake.query import SHOWN
from dicom_assets.lake.quoting import one_of
from dicom_assets.lake.subjects import STUDY_CLINICAL, clean
from dicom_assets.serve.served import Scope, Snapshot

MOST_RECORDS = 200
"""Clinical records of a page."""

MOST_VALUES = 60
"""Values of a record that are shown."""

_GIST = 150
"""Characters by which a record is told from others that has no code."""

_OF_STUDY = (
    *("source", "study_key", "StudyInstanceUID", "PatientID", "IssuerOfPatientID", "StudyDate", "StudyDescription"),
    *("ModalitiesInStudy", "series_count", "instance_count", "patient_count"),
)
"""Columns of `study` that the view needs."""

_BETWEEN = "\x1f"


@dataclass(frozen=True)
class Records:
    """The newest clinical records of a patient. total: how many there are."""

    total: int
    rows: Sequence[Row]


def clinical_of(snapshot: Snapshot, study: Row) -> Records:
    """The clinical records of a study's patient that the caller may see, the newest first. Blocks.

    study: its row. Whose a record is, is decided over the whole lake, by the view study_clinical, which is given the
    rows that this patient's identifiers stand in; a caller then sees those of the sources that they may see.
    """
    patient = (study["PatientID"] or "").strip()
    if not {"clinical", "patient_link"} <= snapshot.extents.keys() or not patient:
        return Records(0, ())
    whole = snapshot.within(Scope())
    with snapshot.cursor() as connection:
        links = whole.scan("patient_link")
        linked = connection.execute(
            f"SELECT DISTINCT PatientID FROM {links} WHERE surviving_patient_id = ?", [patient]
        ).fetchall()
        ids = [patient, *(one for (one,) in linked)]
        mine = f"{clean('PatientID')} IN ({one_of(ids)})"
        if not connection.execute(f"SELECT 1 FROM {snapshot.scan('clinical')} WHERE {mine} LIMIT 1").fetchall():
            return Records(0, ())
        found = rows(
            connection,
            f"""
            -- one row per clinical record of the patient
            WITH study AS MATERIALIZED (SELECT * FROM {whole.scan("study", columns=_OF_STUDY)} WHERE {mine}),
            told AS MATERIALIZED (SELECT * FROM {whole.scan("clinical")} WHERE {SHOWN["clinical"]} AND {mine}),
            clinical AS (
                SELECT * REPLACE (source || chr({ord(_BETWEEN)}) || record_key AS record_key) FROM told
            ),
            patient_link AS (SELECT * FROM {links}),
            seen AS (SELECT source, record_key FROM {snapshot.scan("clinical")}),
            joined AS ({STUDY_CLINICAL})
            SELECT told.*, count(*) OVER () AS total FROM told
            SEMI JOIN seen USING (source, record_key)
            WHERE source || chr({ord(_BETWEEN)}) || record_key
                IN (SELECT record_key FROM joined WHERE study_key = ?)
            ORDER BY coalesce(effective_at, last_updated) DESC NULLS LAST, record_type, record LIMIT {MOST_RECORDS}
            """,
            [study["study_key"]],
        )
    for one in found:
        one["told"] = [*_values(one["record_values"])][:MOST_VALUES]
        one["gist"] = " · ".join(value for _, value in one["told"] if value not in ids)[:_GIST]
    return Records(found[0]["total"] if found else 0, found)


def _values(text: str | None) -> Iterator[tuple[str, str]]:
    """What a record says, as pairs; of a resource each value with the way to it."""
    yield from _pairs("", orjson.loads(text) if text else {})


def _pairs(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _pairs(f"{name}.{key}" if name else key, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _pairs(name, inner)
    elif value not in (None, ""):
        yield name, value if isinstance(value, str) else orjson.dumps(value).decode()


def reports_of(snapshot: Snapshot, study_keys: Sequence[str]) -> list[Row]:
    """The reports that are linked to a study, the newest first. study_keys: those that the caller may see. Blocks."""
    if "diagnostic_report" not in snapshot.extents:
        return []
    with snapshot.cursor() as connection:
        return rows(
            connection,
            f"""
            -- one row per report
            SELECT record_key, id, status, code, code_system, code_display, effective, effective_at, issued_at,
                conclusion, presented_form_type, presented_form_size, link_state, linked_by, PatientID
            FROM {snapshot.scan("diagnostic_report")}
            WHERE list_has_any(study_keys, ?)
            ORDER BY effective_at DESC NULLS LAST, record_key LIMIT {MOST_RECORDS}
            """,
            [[*study_keys]],
        )


def imaging_studies_of(snapshot: Snapshot, study_keys: Sequence[str]) -> list[Row]:
    """The FHIR resources of a study, one for each source that holds it. Blocks."""
    if "imaging_study" not in snapshot.extents:
        return []
    source = snapshot.scan("imaging_study", {"study_key": study_keys})
    with snapshot.cursor() as connection:
        return rows(connection, f"SELECT id, source, status, subject_state FROM {source} ORDER BY source")


def occurrences_of(snapshot: Snapshot, study: str, study_keys: Sequence[str]) -> dict[str, Row]:
    """The rows of OMOP's image_occurrence of a study, by SeriesInstanceUID. Blocks."""
    if not {"image_occurrence", "image_occurrence_origin"} <= snapshot.extents.keys():
        return {}
    origins = snapshot.scan("image_occurrence_origin", {"study_key": study_keys})
    occurrences = snapshot.within(Scope()).scan("image_occurrence", {"image_study_UID": [study]})
    with snapshot.cursor() as connection:
        found = rows(
            connection,
            f"""
            -- one row per series
            SELECT SeriesInstanceUID, image_occurrence_id, person_id, visit_occurrence_id, procedure_occurrence_id,
                modality_concept_id, anatomic_site_concept_id, person_from
            FROM {origins} JOIN {occurrences} USING (image_occurrence_id)
            """,
        )
    return {one["SeriesInstanceUID"]: one for one in found}
