"""A request that is not answered as it was meant: a status, a sentence, perhaps headers.

Belongs here: the one exception that answers raise, and the sentences that several of them share. Does not belong here:
how it is written to the client (`app`).

A sentence says which parameter or resource and what to do. It never repeats a value, which may be a patient's.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus


class Refusal(Exception):
    """What a client gets instead of an answer.

    status: of HTTP. sentence: the body, as text. headers: added to it, such as Retry-After.
    """

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        """The sentence quotes nothing that the client sent and nothing that the lake holds."""
        super().__init__(sentence)
        self.status = HTTPStatus(status)
        self.sentence = sentence
        self.headers = dict(headers or {})


def bad_parameter(name: str, why: str) -> Refusal:
    """400: a parameter of a query. name: as the standard or our documentation calls it, never what was sent."""
    return Refusal(HTTPStatus.BAD_REQUEST, f"{name}: {why}")


def not_found(what: str) -> Refusal:
    """404: what: the kind of thing, such as `study`."""
    return Refusal(HTTPStatus.NOT_FOUND, f"There is no such {what} here.")


def not_acceptable(offered: str) -> Refusal:
    """406: offered: the media types that could be asked for."""
    return Refusal(HTTPStatus.NOT_ACCEPTABLE, f"None of the media types asked for can be given. Ask for {offered}.")
