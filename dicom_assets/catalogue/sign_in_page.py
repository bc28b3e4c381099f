"""Signing in by a token, and out again.

Belongs here: the pages and the cookie that a browser gets. Does not belong here: what the cookie holds
(`serve.sessions`), who may see what (`serve.access`).
"""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.responses import RedirectResponse, Response
from starlette.types import Scope

from dicom_assets.catalogue.forms import fields_of
from dicom_assets.catalogue.page import Page
from dicom_assets.catalogue.templating import HEADERS, SAME_ORIGIN, Templates
from dicom_assets.catalogue.visit import Visit, server_of
from dicom_assets.serve.exchange import Caller
from dicom_assets.serve.further import Basis
from dicom_assets.serve.sessions import COOKIE

_WRONG = "This is none of the tokens of this server. Copy it whole, without quotation marks."


async def sign_in(visit: Visit) -> Response:
    """The page that takes a token; with a good one, on to where somebody wanted to go."""
    if not visit.basis.access.takes_tokens:
        return RedirectResponse(visit.root + "/", HTTPStatus.SEE_OTHER, HEADERS)
    if visit.request.method != "POST":
        return _page(visit.templates, visit.root, visit.request.query_params.get("next", "/"))
    form = await fields_of(visit)
    onward = local(form.get("next", "/"))
    caller = visit.basis.access.sign_in(form.get("token", ""))
    if caller is None:
        return _page(visit.templates, visit.root, onward, HTTPStatus.UNAUTHORIZED, wrong=_WRONG)
    visit.exchange.caller = caller
    answer = RedirectResponse(visit.root + onward, HTTPStatus.SEE_OTHER, HEADERS)
    sessions = visit.basis.access.sessions
    _set_cookie(visit, answer, sessions.cookie_of(caller.name), sessions.seconds)
    return answer


async def sign_out(visit: Visit) -> Response:
    """Takes the cookie away."""
    if visit.request.method != "POST":
        return visit.page("sign_out.html", headers=SAME_ORIGIN)
    answer = RedirectResponse(visit.root + "/", HTTPStatus.SEE_OTHER, HEADERS)
    _set_cookie(visit, answer, "", 0)
    return answer


def asking(basis: Basis, templates: Templates, scope: Scope, root: str) -> Response | None:
    """What somebody sees who has not said who they are: the page to sign in; None where that is for a proxy to do."""
    if not basis.access.takes_tokens:
        return None
    query = scope["query_string"].decode("latin-1")
    onward = scope["path"] + (f"?{query}" if query else "")
    is_read = scope["method"] in ("GET", "HEAD")
    return _page(templates, root, local(onward) if is_read else "/", HTTPStatus.UNAUTHORIZED)


def local(onward: str) -> str:
    """Where to go on: a path on this server, whatever was asked for."""
    parts = urlsplit(onward)
    is_path = onward.startswith("/") and not onward.startswith("//") and "\\" not in onward and onward.isprintable()
    return onward if is_path and not parts.scheme and not parts.netloc else "/"


def _page(
    templates: Templates, root: str, onward: str, status: int = HTTPStatus.OK, *, wrong: str | None = None
) -> Response:
    headers = {**SAME_ORIGIN, **({"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else {})}
    return templates.page("sign_in.html", root, Caller(), status, headers, onward=local(onward), wrong=wrong)


def _set_cookie(visit: Visit, answer: Response, value: str, seconds: int) -> None:
    reached = server_of(visit.request.scope, visit.basis)
    answer.set_cookie(
        COOKIE,
        value,
        max_age=seconds,
        path=f"{visit.root}/",
        secure=reached.startswith("https:"),
        httponly=True,
        samesite="strict",
    )


PAGES = (
    Page("/sign-in", sign_in, ("GET", "HEAD", "POST"), is_open=True),
    Page("/sign-out", sign_out, ("GET", "HEAD", "POST"), is_open=True),
)
