"""The first page: a search for studies, and what it finds.

Belongs here: the page, and the same as CSV. Does not belong here: how is searched (`study_search`).
"""

from __future__ import annotations

from starlette.responses import Response

from dicom_assets.catalogue.page import Page
from dicom_assets.catalogue.study_search import PAGE, Search, Studies, find, read
from dicom_assets.catalogue.visit import Visit


async def search(visit: Visit) -> Response:
    """Studies, by what a form asks for."""
    asked = read(visit.request.query_params)
    found = await visit.ask(lambda: _found(visit, asked))
    visit.show(row["StudyInstanceUID"] for row in found.rows)
    pages = max(-(-found.total // PAGE), 1)
    return visit.page("search.html", search=asked, found=found, page=min(asked.page, pages), pages=pages)


def _found(visit: Visit, asked: Search) -> Studies:
    return find(visit.snapshot(), asked)


PAGES = (Page("/", search),)
