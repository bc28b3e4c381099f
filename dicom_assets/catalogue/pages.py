"""Every page of the catalogue, put together as routes of the server.

Belongs here: the list, and from a request to what its page is made from. Does not belong here: a single page, who asks
(`serve.access`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dicom_assets.catalogue import (
    batch_pages,
    cohort_pages,
    error_page,
    error_pages,
    instance_page,
    overview_page,
    report_pages,
    search_page,
    series_page,
    sign_in_page,
    study_page,
)
from dicom_assets.catalogue.page import Page
from dicom_assets.catalogue.static_files import StaticFiles
from dicom_assets.catalogue.templating import Templates
from dicom_assets.catalogue.visit import Visit, root_of
from dicom_assets.serve.exchange import exchange_of
from dicom_assets.serve.further import Basis, Further
from dicom_assets.serve.permission import narrowed

_MODULES = (
    *(search_page, study_page, series_page, instance_page, sign_in_page),
    *(batch_pages, error_pages, overview_page, report_pages, cohort_pages),
)

PAGES: tuple[Page, ...] = tuple(page for module in _MODULES for page in module.PAGES)
"""Every page."""


def add_catalogue(basis: Basis) -> Further:
    """The pages over one lake, for `serve.app.make_app`."""
    files = StaticFiles()
    templates = Templates(files)
    pages = [Route(page.path, _answering(page, basis, templates), methods=[*page.methods]) for page in PAGES]
    open_paths = frozenset(page.path for page in PAGES if page.is_open) | files.paths
    return Further((*pages, *files.routes()), open_paths, error_page.writing(basis, templates))


def _answering(page: Page, basis: Basis, templates: Templates) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        exchange = exchange_of(request.scope)
        exchange.route = page.path
        exchange.studies.update(_named(request))
        scope = exchange.caller.scope
        if scope.sources is not None:
            asked = scope
            scope = await basis.served.ask(lambda: narrowed(asked, None, basis.served))
        return await page.endpoint(Visit(request, basis, templates, scope, exchange, root_of(request.scope, basis)))

    return answer


def _named(request: Request) -> Iterator[str]:
    """The study in the path, for the audit log."""
    if "study" in request.path_params:
        yield request.path_params["study"]
