"""What is answered beside DICOMweb by a room above this one, such as pages for people.

Belongs here: what such a room gets, and what it gives. Does not belong here: what it answers; nothing of this room
imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Scope

from dicom_assets.serve.access import Access
from dicom_assets.serve.problems import Refusal
from dicom_assets.serve.served import ServedLake
from dicom_assets.settings import Settings


@dataclass(frozen=True)
class Basis:
    """What further routes answer from: the same lake, and the same access, as DICOMweb.

    names_studies: whether the audit log tells whose data were shown, so that routes are to put the UIDs of the studies
    that they show into `Exchange.studies`.
    """

    settings: Settings
    served: ServedLake
    access: Access
    names_studies: bool


Writing = Callable[[Scope, Refusal], Response | None]
"""A refusal as an answer, in the form that suits the request; None: not mine."""


def _as_text(_: Scope, __: Refusal) -> None:
    return None


@dataclass(frozen=True)
class Further:
    """What a room adds. Its routes come after those of DICOMweb, and go through the same layers.

    open_paths: for which nobody has to say who they are, such as that of the page where they do. written: how a refusal
    looks, whoever refuses it.
    """

    routes: Sequence[BaseRoute] = ()
    open_paths: frozenset[str] = field(default_factory=frozenset)
    written: Writing = _as_text


Adding = Callable[[Basis], Further]
"""What a room hands to `make_app`. A function of a module: it goes to each process of the server."""


def first_written(further: Iterable[Further]) -> Writing:
    """The form of a refusal by the first of several that has one."""
    ways = [one.written for one in further]

    def write(scope: Scope, refusal: Refusal) -> Response | None:
        return next((answer for way in ways if (answer := way(scope, refusal)) is not None), None)

    return write
