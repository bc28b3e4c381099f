"""The page that shows what a lake holds and how it has grown.

Belongs here: from a request to a page. Does not belong here: counting (`growth`), drawing (`plots`).
"""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup
from starlette.responses import Response

from dicom_assets.catalogue.book_words import age
from dicom_assets.catalogue.growth import (
    Course,
    Standing,
    errors_by_severity,
    objects_by_outcome,
    standing,
    studies_by_modality,
)
from dicom_assets.catalogue.matters import matters
from dicom_assets.catalogue.page import Page
from dicom_assets.catalogue.plots import described, kind_class, stacked
from dicom_assets.catalogue.seen_books import seen_by
from dicom_assets.catalogue.visit import Visit
from dicom_assets.serve.problems import Refusal


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot on a page. name: an identifier. note: what it leaves out, in a sentence."""

    name: str
    title: str
    course: Course
    drawing: Markup
    words: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Overview:
    """What the page shows. refusal: why nothing of the books is there; "" where it is. waiting: how much waits."""

    standing: Standing
    plots: list[Plot]
    refusal: str = ""
    waiting: int = 0


def overview(visit: Visit) -> Overview:
    """Everything on the page. Raises Refusal, LakeError. Blocks."""
    snapshot = visit.snapshot()
    held = standing(snapshot)
    studies = studies_by_modality(snapshot)
    undated = f"Not drawn, for want of a date: {studies.left_out:,}." if studies.left_out else ""
    plots = [_plot("studies", "Studies by their date and modality", studies, "studies", undated)]
    try:
        books = seen_by(visit.basis.served, visit.caller.scope)
    except Refusal as refusal:
        return Overview(held, plots, refusal.sentence)
    plots.append(_plot("objects", "Objects by when their books closed", objects_by_outcome(books), "objects"))
    plots.append(
        _plot("errors", "Errors, warnings and remarks by when they were found", errors_by_severity(books), "rows")
    )
    return Overview(held, plots, waiting=len(matters(books)))


def _plot(name: str, title: str, course: Course, what: str, note: str = "") -> Plot:
    return Plot(name, title, course, stacked(course, name, title, what), described(course, what), note)


async def _page(visit: Visit) -> Response:
    return visit.page(
        "overview.html", overview=await visit.ask(lambda: overview(visit)), age=age, kind_class=kind_class
    )


PAGES = (Page("/overview", _page),)
