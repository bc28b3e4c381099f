"""The first page: a search for studies, and what it finds.

Belongs here: the page, and the same as CSV. Does not belong here: how is searched (`study_search`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from dicom_assets.catalogue.choices import Choices, choices
from dicom_assets.catalogue.cohort_pages import MOST_STUDIES
from dicom_assets.catalogue.page import Page
from dicom_assets.catalogue.study_search import PAGE, Search, Studies, find, read
from dicom_assets.catalogue.templating import HEADERS, SAME_ORIGIN
from dicom_assets.catalogue.visit import Visit
from dicom_assets.printing import cell, visible
from dicom_assets.serve.search_query import MOST
from dicom_assets.serve.served import Snapshot

CSV_COLUMNS: Mapping[str, str] = {
    "StudyInstanceUID": "StudyInstanceUID",
    "StudyDate": "StudyDate",
    "StudyTime": "StudyTime",
    "PatientName": "PatientName",
    "PatientID": "PatientID",
    "PatientBirthDate": "PatientBirthDate",
    "PatientSex": "PatientSex",
    "StudyDescription": "StudyDescription",
    "ModalitiesInStudy": "ModalitiesInStudy",
    "AccessionNumber": "AccessionNumber",
    "series": "series_count",
    "instances": "instance_count",
    "bytes": "size",
    "patients": "patient_count",
    "updated_at": "updated_at",
}
"""Columns of the CSV, and of which column of a study they are."""

_HEADINGS = (
    ("patient", "Patient", ""),
    ("date", "Date", ""),
    ("description", "Description", ""),
    ("modality", "Modality", ""),
    ("accession", "Accession", ""),
    ("series", "Series", "count"),
    ("images", "Images", "count"),
    ("size", "Size", "count"),
    ("arrived", "Arrived", ""),
)
"""Of the table: key of its order, words, class."""


async def search(visit: Visit) -> Response:
    """Studies, by what a form asks for."""
    asked = read(visit.request.query_params)

    def ask() -> tuple[Studies, Choices, tuple[str, ...], bool]:
        snapshot = visit.snapshot()
        found = find(snapshot.within(visit.scope_of(asked.source)), asked)
        is_empty = not found.total and not asked.asked
        return found, choices(visit.basis.served, snapshot), snapshot.seen, is_empty and _is_empty(snapshot)

    found, offered, sources, is_empty = await visit.ask(ask)
    visit.show(row["StudyInstanceUID"] for row in found.rows)
    pages = max(-(-found.total // PAGE), 1)
    page = min(asked.page, pages)
    return visit.page(
        "search.html",
        HTTPStatus.BAD_REQUEST if asked.wrong else HTTPStatus.OK,
        search=asked,
        found=found,
        offered=offered,
        sources=sources,
        headings=_HEADINGS,
        page=page,
        pages=pages,
        first=(page - 1) * PAGE + 1,
        most=MOST,
        is_empty=is_empty,
        most_studies=MOST_STUDIES,
        headers=SAME_ORIGIN,
        settings=visit.basis.settings,
    )


def _is_empty(snapshot: Snapshot) -> bool:
    """Whether the lake itself has no study, and not only what somebody may see of it."""
    return not snapshot.extents["study"].rows.sum()


async def as_csv(visit: Visit) -> Response:
    """What is found, as a table for people and spreadsheets: the first MOST studies."""
    asked = read(visit.request.query_params)
    body, found = await visit.ask(lambda: _csv(visit.snapshot().within(visit.scope_of(asked.source)), asked))
    visit.show(row["StudyInstanceUID"] for row in found.rows)
    is_part = found.total > len(found.rows)
    name = f"studies-first-{MOST}.csv" if is_part else "studies.csv"
    headers = {**HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
    if is_part:
        headers["Warning"] = f'299 - "The first {MOST:,} of {found.total:,} studies; narrow the search for the others."'
    return Response(body, 200, headers, "text/csv; charset=utf-8")


def _csv(snapshot: Snapshot, asked: Search) -> tuple[bytes, Studies]:
    """The table, and what stands in it: made in the thread of the question, since ten thousand rows take a while."""
    found = find(snapshot, asked.from_the_first(), MOST)
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\r\n")
    writer.writerow(CSV_COLUMNS)
    writer.writerows([_cell(row[column]) for column in CSV_COLUMNS.values()] for row in found.rows)
    return sink.getvalue().encode(), found


def _cell(value: Any) -> Any:
    """A value for a spreadsheet: no formula, no control characters."""
    if isinstance(value, list):
        value = "\\".join(value)
    elif hasattr(value, "isoformat"):
        return value.isoformat()
    return visible(str(cell(value))) if isinstance(value, str) else value


PAGES = (Page("/", search), Page("/studies.csv", as_csv))
