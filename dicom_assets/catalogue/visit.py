"""What a page is made from: the request, the lake as this caller may see it, and the templates.

Belongs here: the one argument of every page. Does not belong here: single pages, finding out who asks (`serve.access`).

Rows come from DuckDB over the tables, in a thread: `rows = await visit.ask(lambda: _rows(visit.snapshot()))`. A
snapshot is narrowed to what the caller may see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from dicom_assets.catalogue.templating import Templates
from dicom_assets.serve.exchange import Caller, Exchange
from dicom_assets.serve.further import Basis
from dicom_assets.serve.permission import narrowed
from dicom_assets.serve.served import Scope, Snapshot

T = TypeVar("T")


@dataclass(frozen=True)
class Visit:
    """One request of a page.

    scope: what the caller may see. root: what every address on this server begins with, empty but behind a proxy that
    has put it below a prefix: `{root}/batches`.
    """

    request: Request
    basis: Basis
    templates: Templates
    scope: Scope
    exchange: Exchange
    root: str = ""

    @property
    def caller(self) -> Caller:
        """Who asks."""
        return self.exchange.caller

    @property
    def uids(self) -> dict[str, str]:
        """The UIDs in the path: study, series, instance, as far as it has them."""
        return {k: v for k, v in self.request.path_params.items() if k in ("study", "series", "instance")}

    def snapshot(self, tables: Iterable[str] = ()) -> Snapshot:
        """The tables as this caller may see them; one for the whole of a page. Raises Refusal. Blocks.

        tables: to be looked at beside those of DICOMweb; one that the lake does not have is left out of `extents`. Of a
        table without the column `source` or `study_key` somebody who may not see everything sees nothing; whoever has
        made sure whose rows are taken asks `snapshot.within(Scope())`.
        """
        return self.basis.served.snapshot().beside(tables).within(self.scope)

    def scope_of(self, source: str) -> Scope:
        """What the caller may see of one source; of all of them without a name. Raises Refusal (404). Blocks."""
        return narrowed(self.scope, source or None, self.basis.served)

    async def ask(self, question: Callable[[], T]) -> T:
        """The answer to a question that blocks, such as one that reads rows. Raises Refusal."""
        return await self.basis.served.ask(question)

    def show(self, studies: Iterable[str]) -> None:
        """Tells the audit log whose data a page shows, where it wants to know. studies: their UIDs."""
        if self.basis.names_studies:
            self.exchange.studies.update(studies)

    def page(
        self, template: str, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any
    ) -> Response:
        """A page. values: of the template, beside those that every template has."""
        return self.templates.page(template, self.root, self.caller, status, headers, **values)


def server_of(scope: Any, basis: Basis) -> str:
    """The address of this server, as the client reached it. scope: of ASGI."""
    address = scope["client"][0] if scope.get("client") else None
    return basis.access.reached_at(address, scope["scheme"], Headers(scope=scope))


def root_of(scope: Any, basis: Basis) -> str:
    """What the paths of addresses on this server begin with. scope: of ASGI."""
    return urlsplit(server_of(scope, basis)).path
