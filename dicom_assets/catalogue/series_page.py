"""The page of a series: what it is, and its instances, page by page.

Belongs here: the page. Does not belong here: the row of a series (`study_page`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.responses import Response

from dicom_assets.catalogue.header_elements import uid_name
from dicom_assets.catalogue.object_errors import Finding, findings
from dicom_assets.catalogue.page import Page
from dicom_assets.catalogue.row_reading import Row, rows
from dicom_assets.catalogue.study_page import series_row
from dicom_assets.catalogue.study_panels import PARTS, TABLES, Panels, meaning, panels
from dicom_assets.catalogue.viewer_links import viewers
from dicom_assets.catalogue.visit import Visit
from dicom_assets.lake.quoting import named
from dicom_assets.schema.attributes import Level
from dicom_assets.serve.newest import keys_of, newest
from dicom_assets.serve.served import Snapshot

PAGE = 100
"""Instances of a page."""

_COLUMNS = (
    *("SOPInstanceUID", "InstanceNumber", "SOPClassUID", "TransferSyntaxUID", "Rows", "Columns", "NumberOfFrames"),
    *("ImageType", "ContentDescription", "DocumentTitle", "issues", "size", "updated_at", "batch_id", "object_id"),
)
ORDER = '"InstanceNumber" NULLS LAST, "SOPInstanceUID"'
"""In which instances of a series come, as in DICOMweb."""


@dataclass(frozen=True)
class Series:
    """What a page of a series shows."""

    row: Row
    has_pictures: bool
    page: int
    pages: int
    instances: Sequence[Row]
    findings: Sequence[Finding]
    panels: Panels


async def show(visit: Visit) -> Response:
    """One series."""
    text = visit.request.query_params.get("page", "1")
    page = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 1
    uids = visit.uids
    found = await visit.ask(lambda: gather(visit.snapshot(["ingestion_errors", *TABLES]), uids, page))
    return visit.page(
        "series.html",
        uids=uids,
        series=found,
        row=found.row,
        viewers=viewers(visit, uids["study"], uids["series"]),
        uid_name=uid_name,
        limit=visit.basis.settings.curation.export_risk_limit,
        parts=PARTS,
        meaning=meaning,
    )


def gather(snapshot: Snapshot, uids: dict[str, str], page: int) -> Series:
    """Everything of a page of a series. page: from 1. Raises Refusal (404). Blocks."""
    row = series_row(snapshot, uids["study"], uids["series"])
    own = newest(snapshot, Level.INSTANCE, uids, columns=_COLUMNS)
    with snapshot.cursor() as connection:
        told = rows(
            connection,
            "SELECT count(*) AS total, bool_or(Rows IS NOT NULL) AS has_pictures, list(DISTINCT batch_id) AS batches "
            f"FROM {own.sql}",
            own.parameters,
        )[0]
        pages = max(-(-told["total"] // PAGE), 1)
        page = min(max(page, 1), pages)
        instances = rows(
            connection,
            f"SELECT {', '.join(map(named, _COLUMNS))} FROM {own.sql} ORDER BY {ORDER} "
            f"LIMIT {PAGE} OFFSET {(page - 1) * PAGE}",
            own.parameters,
        )
    found = findings(snapshot, own, told["batches"] or [])
    beside = panels(snapshot, own, keys_of(snapshot, [uids["study"]]))
    return Series(row, bool(told["has_pictures"]), page, pages, instances, found, beside)


PAGES = (Page("/studies/{study}/series/{series}", show),)
