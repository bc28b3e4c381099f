"""The report of a source: what is wrong with it, on one page that can be printed and sent; and the lists behind it.

Belongs here: from a request to a page. Does not belong here: counting (`source_report`).

The report itself names no patient, no object and no place; the lists lead to these. Whoever sees sources sees theirs;
for whoever is bounded by a condition there is none, as there are no books.
"""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.responses import Response

from dicom_assets.catalogue.book_words import age, breakable, spoken
from dicom_assets.catalogue.kinds_of_findings import KINDS
from dicom_assets.catalogue.page import Page
from dicom_assets.catalogue.parameters import Parameters
from dicom_assets.catalogue.row_reading import Row
from dicom_assets.catalogue.seen_books import seen_by
from dicom_assets.catalogue.source_report import BESIDE, PER_PAGE, Listed, Report, listed, report, sources
from dicom_assets.catalogue.visit import Visit
from dicom_assets.serve.problems import bad_parameter


async def _sources(visit: Visit) -> Response:
    def ask() -> list[Row]:
        return sources(seen_by(visit.basis.served, visit.caller.scope), visit.snapshot())

    return visit.page("report_sources.html", sources=await visit.ask(ask), age=age)


async def _one(visit: Visit) -> Response:
    source = visit.request.path_params["source"]

    def ask() -> Report:
        return report(seen_by(visit.basis.served, visit.caller.scope), visit.snapshot(BESIDE), source)

    return visit.page(
        "report.html",
        report=await visit.ask(ask),
        limit=visit.basis.settings.curation.export_risk_limit,
        now=datetime.now(UTC),
        age=age,
        breakable=breakable,
        spoken=spoken,
    )


async def _lines(visit: Visit) -> Response:
    asked = Parameters(visit.request)
    source, value, number = asked.text("source"), asked.text("value"), asked.page()
    kind = KINDS.get(asked.one_of("kind", KINDS))
    if kind is None:
        raise bad_parameter("kind", f"one of {', '.join(KINDS)}.")

    def ask() -> Listed:
        books = seen_by(visit.basis.served, visit.caller.scope)
        return listed(books, visit.snapshot(BESIDE), source, kind, value, number)

    found = await visit.ask(ask)
    visit.show({row["StudyInstanceUID"] for row in found.rows if row["StudyInstanceUID"]})
    return visit.page(
        "report_lines.html",
        found=found,
        source=source,
        value=value,
        asked=asked,
        paging=asked.paging(number, found.total, PER_PAGE),
        breakable=breakable,
    )


PAGES = (
    Page("/report", _sources),
    Page("/findings", _lines),
    Page("/report/{source:path}", _one),
)
