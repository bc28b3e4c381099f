"""One page of the catalogue: what the list of pages is made of.

Belongs here: the row of that list. Does not belong here: the list (`pages`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.responses import Response

from dicom_assets.catalogue.visit import Visit


@dataclass(frozen=True, slots=True)
class Page:
    """One page.

    path: with `{study}`, `{series}`, `{instance}` and the like. is_open: whether it is there for whoever has not signed
    in.
    """

    path: str
    endpoint: Callable[[Visit], Awaitable[Response]]
    methods: tuple[str, ...] = ("GET", "HEAD")
    is_open: bool = False
