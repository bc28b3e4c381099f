"""What becomes of exceptions: the one place where they end, so that no text of theirs gets anywhere.

Belongs here: from an exception to an answer and to a line on stderr. Does not belong here: sentences of single answers
(`problems`).
"""

from __future__ import annotations

import sys
from http import HTTPStatus

import duckdb
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dicom_assets import faults
from dicom_assets.serve.exchange import exchange_of
from dicom_assets.serve.further import Writing
from dicom_assets.serve.problems import Refusal
from dicom_assets.storage.files import LakeError

LAKE_AWAY = "The lake cannot be read at the moment."

NO_RESOURCE = "There is no such resource here. /openapi.json says which there are."

_OF_STARLETTE = {
    HTTPStatus.NOT_FOUND: NO_RESOURCE,
    HTTPStatus.METHOD_NOT_ALLOWED: "This resource does not know that method.",
}


def say(text: str) -> None:
    """A line on stderr."""
    print(text, file=sys.stderr, flush=True)


class Exceptions:
    """Ends every exception of an application.

    gone: kinds of exceptions that say that nobody waits any more. writing: how a refusal looks, where not as text.
    """

    def __init__(self, app: ASGIApp, gone: tuple[type[Exception], ...], writing: Writing) -> None:
        """Around an application."""
        self._app, self._gone, self._writing = app, gone, writing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request. An answer that has begun is left as it is: the connection ends before its end."""
        has_begun = False

        async def noting(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        exchange = exchange_of(scope)
        try:
            await self._app(scope, receive, noting)
        except self._gone:
            exchange.is_broken = True
        except Exception as error:  # noqa: BLE001 - the way out: what it says may hold patient data
            refusal = self._refusal(error, exchange.request_id)
            exchange.is_broken = has_begun
            if not has_begun:
                answer = self._writing(scope, refusal) or written(refusal)
                await answer(scope, receive, send)

    def _refusal(self, error: Exception, request_id: str) -> Refusal:
        if isinstance(error, Refusal):
            return error
        if isinstance(error, HTTPException):
            sentence = _OF_STARLETTE.get(HTTPStatus(error.status_code), HTTPStatus(error.status_code).phrase + ".")
            return Refusal(error.status_code, sentence, error.headers)
        if isinstance(error, LakeError | duckdb.IOException):
            say(f"dicom-assets: request {request_id}: {faults.describe(error)}: {LAKE_AWAY}")
            return Refusal(503, LAKE_AWAY, {"Retry-After": "10"})
        faults.show(error)
        sentence = faults.sentence(error)
        say(f"dicom-assets: request {request_id}: {sentence}")
        return Refusal(500, f"{sentence} Its request is {request_id}.")


def written(refusal: Refusal) -> Response:
    """A refusal as an answer: its sentence as text."""
    return PlainTextResponse(refusal.sentence + "\n", refusal.status, headers=refusal.headers)
