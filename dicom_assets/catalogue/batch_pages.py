"""The pages of batches: what waits for a person, the list of all, and one of them.

Belongs here: from a request to a page. Does not belong here: asking the books (`matters`, `batch_list`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from dicom_assets.catalogue.batch_list import NAMES, PER_PAGE, STATUSES, BatchPage, as_row, batches, whole_batch
from dicom_assets.catalogue.book_words import age, breakable, csv_answer, duration, spoken
from dicom_assets.catalogue.matters import Matter, complete, matters
from dicom_assets.catalogue.page import Page
from dicom_assets.catalogue.parameters import Parameters
from dicom_assets.catalogue.seen_books import seen_by
from dicom_assets.catalogue.visit import Visit
from dicom_assets.monitoring.messages import run_page
from dicom_assets.schema.codes import CODES

MOST_ROWS = 100_000
"""Rows of a CSV file."""
MOST_MATTERS = 50
"""Of what waits, as many as a page shows; the list below them has all batches."""


async def _list(visit: Visit) -> Response:
    asked = Parameters(visit.request)
    status, source, number = asked.one_of("status", STATUSES), asked.text("source"), asked.page()

    def ask() -> tuple[BatchPage, list[Matter]]:
        books = seen_by(visit.basis.served, visit.caller.scope)
        return batches(books, status=status, source=source, page=number), matters(books)

    found, waiting = await visit.ask(ask)
    return visit.page(
        "batches.html",
        found=found,
        waiting=waiting[:MOST_MATTERS],
        more=max(len(waiting) - MOST_MATTERS, 0),
        is_whole=visit.caller.scope.sources is None,
        chosen={"status": status, "source": source},
        asked=asked,
        paging=asked.paging(number, found.total, PER_PAGE),
        **_shared(visit),
    )


async def _list_as_csv(visit: Visit) -> Response:
    asked = Parameters(visit.request)
    status, source = asked.one_of("status", STATUSES), asked.text("source")

    def ask() -> BatchPage:
        books = seen_by(visit.basis.served, visit.caller.scope)
        return batches(books, status=status, source=source, per_page=MOST_ROWS)

    found = await visit.ask(ask)
    return csv_answer("batches", NAMES, [as_row(one) for one in found.batches])


async def _one(visit: Visit) -> Response:
    batch_id = visit.request.path_params["batch"]
    whole = await visit.ask(lambda: whole_batch(seen_by(visit.basis.served, visit.caller.scope), batch_id))
    return visit.page("batch.html", whole=whole, batch=whole.batch, codes=CODES, **_shared(visit))


def _shared(visit: Visit) -> Mapping[str, Any]:
    """What the templates of this room's books call."""
    settings = visit.basis.settings
    url = settings.serve.dagster_url
    return {
        "age": age,
        "spoken": spoken,
        "breakable": breakable,
        "duration": duration,
        "complete": lambda text: complete(text, settings.given),
        "run_page": (lambda run_id=None: run_page(url, run_id)) if url else None,
    }


PAGES = (
    Page("/batches", _list),
    Page("/batches.csv", _list_as_csv),
    Page("/batches/{batch}", _one),
)
