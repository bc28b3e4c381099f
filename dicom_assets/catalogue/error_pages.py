"""The pages of errors: by reason code, and what has one code; each as CSV too.

Belongs here: from a request to a page. Does not belong here: asking the books (`error_list`).

Where objects lie is shown, since whoever sees a page may see its source; it stands in no title and no address.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import RedirectResponse, Response

from dicom_assets.catalogue.book_words import age, breakable, csv_answer, spoken
from dicom_assets.catalogue.error_list import (
    PER_PAGE,
    SEVERITIES,
    STATES,
    ErrorPage,
    Narrowing,
    Reasons,
    error_page,
    instance_of,
    reasons,
)
from dicom_assets.catalogue.page import Page
from dicom_assets.catalogue.parameters import Parameters
from dicom_assets.catalogue.seen_books import seen_by
from dicom_assets.catalogue.visit import Visit
from dicom_assets.schema.codes import CODES
from dicom_assets.serve.addresses import address
from dicom_assets.serve.problems import not_found

MOST_ROWS = 100_000
"""Rows of a CSV file; who wants more asks with SQL."""

_REASONS = ("severity", "code", "objects", "rows", "open", "first_at", "last_at", "meaning", "remedy")
_ROWS = ("occurred_at", "severity", "source", "batch_id", "object_id", "stage", "record", "detail", "uri", "member",
         "rules", "resolution", "resolved_at", "resolved_by")  # fmt: skip


def _narrowing(asked: Parameters) -> Narrowing:
    return Narrowing(
        source=asked.text("source"),
        severity=asked.one_of("severity", SEVERITIES),
        state=asked.one_of("state", STATES),
        batch=asked.text("batch"),
        since=asked.day("since"),
        until=asked.day("until"),
    )


async def _reasons(visit: Visit, narrowing: Narrowing) -> Reasons:
    return await visit.ask(lambda: reasons(seen_by(visit.basis.served, visit.caller.scope), narrowing))


async def _list(visit: Visit) -> Response:
    asked = Parameters(visit.request)
    narrowing = _narrowing(asked)
    found = await _reasons(visit, narrowing)
    return visit.page("errors.html", found=found, **_shared(narrowing, asked))


async def _list_as_csv(visit: Visit) -> Response:
    found = await _reasons(visit, _narrowing(Parameters(visit.request)))
    return csv_answer("errors", _REASONS, _picked(_REASONS, found.reasons))


def _rows(visit: Visit, narrowing: Narrowing, number: int, per_page: int) -> ErrorPage:
    books = seen_by(visit.basis.served, visit.caller.scope)
    return error_page(books, _code(visit), narrowing, number, per_page)


async def _one(visit: Visit) -> Response:
    asked = Parameters(visit.request)
    narrowing, number = _narrowing(asked), asked.page()
    found = await visit.ask(lambda: _rows(visit, narrowing, number, PER_PAGE))
    return visit.page(
        "error_code.html",
        code=CODES[_code(visit)],
        found=found,
        most=MOST_ROWS,
        paging=asked.paging(number, found.total, PER_PAGE),
        **_shared(narrowing, asked),
    )


async def _one_as_csv(visit: Visit) -> Response:
    narrowing = _narrowing(Parameters(visit.request))
    found = await visit.ask(lambda: _rows(visit, narrowing, 1, MOST_ROWS))
    return csv_answer(_code(visit), _ROWS, _picked(_ROWS, found.rows))


def _code(visit: Visit) -> str:
    """The reason code of the path. Raises Refusal (404)."""
    code = str(visit.request.path_params["code"])
    if code not in CODES:
        raise not_found("reason code")
    return code


def _picked(names: Sequence[str], found: Sequence[Any]) -> list[list[Any]]:
    return [[getattr(one, name) for name in names] for one in found]


def _shared(narrowing: Narrowing, asked: Parameters) -> Mapping[str, Any]:
    return {
        "narrowing": narrowing,
        "asked": asked,
        "severities": SEVERITIES,
        "states": STATES,
        "age": age,
        "spoken": spoken,
        "breakable": breakable,
    }


async def _object(visit: Visit) -> Response:
    """Leads on to the page of an instance: to find it for every row of a list would take a look through the lake."""
    batch, one = visit.request.path_params["batch"], visit.request.path_params["object"]
    study, series, instance = await visit.ask(lambda: instance_of(visit.snapshot(), batch, one))
    visit.show([study])
    return RedirectResponse(address(visit.root, (study, series, instance)), 303)


PAGES = (
    Page("/errors", _list),
    Page("/errors.csv", _list_as_csv),
    Page("/errors/{code}.csv", _one_as_csv),
    Page("/errors/{code}", _one),
    Page("/batches/{batch}/objects/{object}", _object),
)
