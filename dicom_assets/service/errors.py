"""What can go wrong between us and a service. Messages name the service, the window and the status, never a patient.

Belongs here: the errors alone. Does not belong here: which of them is worth another try (`client`).
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus

from dicom_assets.settings import UserError

_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'|\([^)]*\)")
_PLAIN_WORD = re.compile(r"[(\[]?(?:[a-z]+(?:[-'/][a-z]+)*|[A-Z]|\d{1,4})[)\].,:;!?]*")
_FIRST_WORD = re.compile(r"[A-Z][a-z]*")
_REASON_LENGTH = 160


class ServiceError(UserError):
    """A request to a service failed.

    what: the request in words, with its window. status: the HTTP status, None when there was no answer.
    """

    def __init__(self, service: str, what: str, reason: str, status: int | None = None) -> None:
        """Takes words without patient data."""
        self.service, self.what, self.reason, self.status = service, what, reason, status
        said = f"the server answered {status}{phrase(status)}" if status is not None else "no answer"
        super().__init__(f"{service}: {what}: {said}{'. ' + reason if reason else ''}")


class ServiceUnavailable(ServiceError):
    """The service did not answer, or asked to wait, for longer than the settings allow."""


class ServiceUnreachable(ServiceUnavailable):
    """Nobody took the connection: refused, no such name, no way there."""


class ServiceRefused(ServiceError):
    """The service does not accept our credentials, or they may not read this (401, 403)."""


class RedirectRefused(ServiceError):
    """The service sent us to another host; credentials and patient data do not follow."""


class AnswerTooLarge(ServiceError):
    """An answer exceeded its bound and was broken off."""


class AnswerInvalid(ServiceError):
    """An answer is not what the protocol says."""


class CredentialsMissing(ServiceError):
    """An environment variable that the settings name is not set, or no token can be had."""


class WindowOpen(ServiceError):
    """The window has not closed, or closed too recently, to be read whole."""


def phrase(status: int) -> str:
    """The standard name of a status, with a space before it; empty for one that has none."""
    try:
        return " " + HTTPStatus(status).phrase
    except ValueError:
        return ""


def clean_reason(body: bytes, content_type: str) -> str:
    """What a server said in an error's body, without anything that might be a value.

    Words of small letters and short numbers stay, and the first word; whatever else there is (quoted and bracketed
    text, names, UIDs, ids, dates) is replaced by an ellipsis. Markup is left out altogether.
    """
    if "html" in content_type or "xml" in content_type:
        return ""
    text = body[:4_096].decode("utf-8", "replace")
    try:
        text = _message(json.loads(text)) or ""
    except ValueError:
        if "json" in content_type:
            return ""
    words = _QUOTED.sub(" … ", "".join(c if c.isprintable() else " " for c in text)).split()
    kept: list[str] = []
    for place, word in enumerate(words):
        plain = _PLAIN_WORD.fullmatch(word) or (place == 0 and _FIRST_WORD.fullmatch(word))
        if plain:
            kept.append(word)
        elif kept[-1:] != ["…"]:
            kept.append("…")
    text = " ".join(kept)
    return text if len(text) <= _REASON_LENGTH else text[:_REASON_LENGTH] + "…"


def _message(value: object) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        named = {str(name).lower(): found for name, found in value.items()}
        for name in ("error", "message", "detail", "title", "reason"):
            found = _message(named.get(name))
            if found:
                return found
    return None
