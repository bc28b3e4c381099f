"""What a person sees instead of a page: a refusal in words, and where to go on.

Belongs here: which requests get a page, and what it says. Does not belong here: the sentences (`serve.problems`).

An error page repeats nothing of the request and nothing of the lake.
"""

from __future__ import annotations

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

from dicom_assets.catalogue import sign_in_page
from dicom_assets.catalogue.templating import Templates
from dicom_assets.catalogue.visit import root_of
from dicom_assets.serve.app import BASE
from dicom_assets.serve.exceptions import NO_RESOURCE
from dicom_assets.serve.exchange import exchange_of
from dicom_assets.serve.further import Basis, Writing
from dicom_assets.serve.problems import Refusal

_NO_PAGE = "There is no such page here, or it is not for you to see."


def writing(basis: Basis, templates: Templates) -> Writing:
    """How refusals look to people: a page, where a browser asks for one."""

    def write(scope: Scope, refusal: Refusal) -> Response | None:
        if not _is_for_a_page(scope):
            return None
        exchange, root = exchange_of(scope), root_of(scope, basis)
        if refusal.status == HTTPStatus.UNAUTHORIZED:
            return sign_in_page.asking(basis, templates, scope, root)
        sentence = _NO_PAGE if refusal.sentence == NO_RESOURCE else refusal.sentence
        return templates.page(
            "error.html",
            root,
            exchange.caller,
            refusal.status,
            refusal.headers,
            error=refusal.status,
            sentence=sentence,
            request_id=exchange.request_id,
        )

    return write


def _is_for_a_page(scope: Scope) -> bool:
    """Whether a browser asks for a page, and not a program for an answer."""
    if scope["path"] == BASE or scope["path"].startswith(BASE + "/"):
        return False
    return "text/html" in Headers(scope=scope).get("accept", "")
