"""One resource of the service and what can be done with it: what the list of routes is made of.

Belongs here: the row of that list. Does not belong here: the list (`routes`), the answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.responses import Response

from dicom_assets.serve.call import Call

Endpoint = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a query. kind: a type of JSON Schema. name: as it is written, `{attribute}` for any attribute."""

    name: str
    meaning: str
    kind: str = "string"


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource and what can be done with it.

    path: below the base, with `{study}`, `{series}`, `{instance}`, `{frames}`. transaction: as PS3.18 calls it.
    section: of PS3.18. gives, takes: media types of answers and of bodies, the default first. statuses: which an answer
    may have, beside those of every resource (400, 401, 406, 429, 503).
    """

    method: str
    path: str
    transaction: str
    section: str
    gives: tuple[str, ...]
    endpoint: Endpoint
    parameters: tuple[Parameter, ...] = ()
    takes: tuple[str, ...] = ()
    statuses: tuple[int, ...] = (200,)
