"""What an answer is made from: the request, the lake as this caller may see it, and who asks.

Belongs here: the one argument of every endpoint. Does not belong here: finding out who asks (`access`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.requests import Request

from dicom_assets.serve.served import Scope, ServedLake, Snapshot

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """One request.

    base: the address that references in answers begin with, `http://host:port/dicom-web` or with the source behind it,
    as the client reached it. source: of the path `/dicom-web/{source}`, None for all of them. scope: what the caller
    may see, `source` counted in. may_store: whether the caller may put objects there.
    """

    request: Request
    served: ServedLake
    base: str
    source: str | None = None
    scope: Scope = field(default_factory=Scope)
    may_store: bool = False

    @property
    def uids(self) -> dict[str, str]:
        """The UIDs in the path: study, series, instance, as far as it has them."""
        return {k: v for k, v in self.request.path_params.items() if k in ("study", "series", "instance")}

    def snapshot(self) -> Snapshot:
        """The tables as this caller may see them; one for the whole of the request. Raises Refusal."""
        return self.served.snapshot().within(self.scope)

    async def ask(self, question: Callable[[], T]) -> T:
        """The answer to a question that blocks, such as one that reads rows. Raises Refusal.

        It is given up when the client breaks off: every answer is cancelled then (`patience`).
        """
        return await self.served.ask(question)

    async def ask_for_body(self, question: Callable[[], T]) -> T:
        """As `ask`, for what a large answer is made from. Raises Refusal."""
        return await self.served.ask_for_body(question)
