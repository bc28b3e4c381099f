"""The page of a study: its series, what is wrong or contradicts itself, and what stands beside the images.

Belongs here: gathering, and the page. Does not belong here: single kinds of rows (`study_records`, `study_panels`,
`disagreements`, `object_errors`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.responses import Response

from dicom_assets.catalogue.disagreements import OF_A_STUDY, Disagreement, disagreements
from dicom_assets.catalogue.object_errors import Finding, findings
from dicom_assets.catalogue.page import Page
from dicom_assets.catalogue.row_reading import Row, rows
from dicom_assets.catalogue.study_panels import TABLES, Panels, panels
from dicom_assets.catalogue.study_records import (
    Records,
    clinical_of,
    imaging_studies_of,
    occurrences_of,
    reports_of,
)
from dicom_assets.catalogue.viewer_links import viewers
from dicom_assets.catalogue.visit import Visit
from dicom_assets.schema.attributes import Level
from dicom_assets.serve.newest import keys_of, newest
from dicom_assets.serve.problems import not_found
from dicom_assets.serve.served import Snapshot

BESIDE = (
    *("ingestion_errors", "conflict", "clinical", "patient_link", "diagnostic_report", "imaging_study"),
    *("image_occurrence", "image_occurrence_origin", *TABLES),
)
"""Tables that the page asks beside those of DICOMweb."""

MOST_SERIES = 500
"""Series of a page."""

_SERIES = (
    *("SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality", "BodyPartExamined", "Laterality"),
    *("ProtocolName", "SeriesDate", "SeriesTime", "Manufacturer", "ManufacturerModelName", "StationName"),
    *("InstitutionName", "instance_count", "size"),
)
_INSTANCE = ("batch_id", "object_id", "issues", "Rows", "NumberOfFrames", *OF_A_STUDY)


@dataclass(frozen=True)
class Study:
    """What a page of a study shows. series_total: how many there are. sources: rows of `study`, one for each source."""

    row: Row
    sources: Sequence[Row]
    series: Sequence[Row]
    findings: Sequence[Finding]
    disagreements: Sequence[Disagreement]
    panels: Panels
    clinical: Records
    reports: Sequence[Row]
    imaging_studies: Sequence[Row]
    occurrences: dict[str, Row]


async def show(visit: Visit) -> Response:
    """One study."""
    study = await visit.ask(lambda: gather(visit.snapshot(BESIDE), visit.uids["study"]))
    with_pictures = [one for one in study.series if one["has_pictures"]] or study.series
    uid = study.row["StudyInstanceUID"]
    return visit.page(
        "study.html",
        study=study,
        row=study.row,
        uid=uid,
        most_series=MOST_SERIES,
        viewers=viewers(visit, uid, with_pictures[0]["SeriesInstanceUID"]) if with_pictures else [],
        viewers_of={one["SeriesInstanceUID"]: viewers(visit, uid, one["SeriesInstanceUID"]) for one in study.series},
        limit=visit.basis.settings.curation.export_risk_limit,
        hides_records=visit.scope.condition is not None,
    )


def gather(snapshot: Snapshot, uid: str) -> Study:
    """Everything of a study. Raises Refusal (404). Blocks."""
    row = study_row(snapshot, uid)
    keys = keys_of(snapshot, [uid])
    instances = newest(snapshot, Level.INSTANCE, {"study": uid}, columns=_INSTANCE)
    with snapshot.cursor() as connection:
        sources = rows(
            connection,
            "SELECT source, instance_count, updated_at, patient_count, corrections "
            f"FROM {snapshot.scan('study', {'study_key': keys})} WHERE StudyInstanceUID = ? ORDER BY source",
            [uid],
        )
        told = rows(
            connection,
            f"""
            -- one row per series: whether it has pictures, frames, batches and codes of its instances
            SELECT SeriesInstanceUID, bool_or(Rows IS NOT NULL) AS has_pictures,
                sum(coalesce(NumberOfFrames, 1))::BIGINT AS frames, list(DISTINCT batch_id) AS batches,
                list_sort(list_distinct(flatten(list(issues)))) AS issues
            FROM {instances.sql} GROUP BY SeriesInstanceUID
            """,
            instances.parameters,
        )
    by_series = {one["SeriesInstanceUID"]: one for one in told}
    batches = sorted({batch for one in told for batch in one["batches"]})
    return Study(
        row,
        sources,
        [{**one, **by_series.get(one["SeriesInstanceUID"], _NOTHING)} for one in series_rows(snapshot, uid)],
        findings(snapshot, instances, batches),
        disagreements(snapshot, instances, keys),
        panels(snapshot, instances, keys),
        clinical_of(snapshot, row),
        reports_of(snapshot, keys),
        imaging_studies_of(snapshot, keys),
        occurrences_of(snapshot, uid, keys),
    )


_NOTHING: Row = {"has_pictures": False, "frames": 0, "batches": [], "issues": []}


def study_row(snapshot: Snapshot, uid: str) -> Row:
    """The row of a study. Raises Refusal (404). Blocks."""
    own = newest(snapshot, Level.STUDY, {"study": uid})
    with snapshot.cursor() as connection:
        found = rows(connection, f"SELECT * FROM {own.sql}", own.parameters)
    if not found:
        raise not_found("study")
    return found[0]


def series_rows(snapshot: Snapshot, study: str, series: str | None = None) -> list[Row]:
    """The rows of the series of a study, by number, or of one of them. Blocks."""
    uids = {"study": study} if series is None else {"study": study, "series": series}
    own = newest(snapshot, Level.SERIES, uids, columns=_SERIES)
    columns = ", ".join(f'"{one}"' for one in _SERIES)
    with snapshot.cursor() as connection:
        return rows(
            connection,
            f"SELECT {columns} FROM {own.sql} ORDER BY SeriesNumber NULLS LAST, SeriesInstanceUID LIMIT {MOST_SERIES}",
            own.parameters,
        )


def series_row(snapshot: Snapshot, study: str, series: str) -> Row:
    """The row of one series. Raises Refusal (404). Blocks."""
    found = series_rows(snapshot, study, series)
    if not found:
        raise not_found("series")
    return found[0]


PAGES = (Page("/studies/{study}", show),)
