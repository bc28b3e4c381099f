"""From the list of resources to routes: which endpoint answers, and the call that it answers from.

Belongs here: paths, methods, scopes and sources. Does not belong here: the list (`routes`), the answers, who asks
(`access`).

Each resource is there for all sources and for each one: `/dicom-web/…`, `/dicom-web/{source}/…`, and
`/dicom-web/{source}/{partition}/…` for a data partition of a DICOM service. Paths for all sources come first, so that
`/studies/{study}` is never taken for a source of that name.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from urllib.parse import quote

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dicom_assets.serve.access import Access
from dicom_assets.serve.call import Call
from dicom_assets.serve.exchange import exchange_of
from dicom_assets.serve.permission import narrowed
from dicom_assets.serve.problems import Refusal
from dicom_assets.serve.resource import Resource
from dicom_assets.serve.served import ServedLake
from dicom_assets.settings import Settings

SOURCES = ("", "/{source}", "/{source}/{partition}")
READING = ("GET", "HEAD", "OPTIONS")
_EVERY = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")


def answered(
    base: str,
    resources: Sequence[Resource],
    served: ServedLake,
    access: Access,
    settings: Settings,
    *,
    names_studies: bool,
) -> Iterator[Route]:
    """A route for each path. names_studies: whether the studies that an answer shows are to be told."""
    methods: dict[str, dict[str, Resource]] = {}
    for one in resources:
        methods.setdefault(one.path, {})[one.method] = one
    for prefix in SOURCES:
        for path, mine in methods.items():
            answering = _Answering(base, base + prefix + path, mine, served, access, names_studies)
            yield Route(base + prefix + path, answering.answer, methods=_EVERY)


class _Answering:
    """Answers the requests of one path."""

    def __init__(
        self,
        base: str,
        route: str,
        methods: dict[str, Resource],
        served: ServedLake,
        access: Access,
        names_studies: bool,
    ) -> None:
        self._base, self._route, self._methods = base, route, methods
        self._served, self._access, self._names_studies = served, access, names_studies

    @property
    def _allow(self) -> dict[str, str]:
        reading = READING if "GET" in self._methods else ("OPTIONS",)
        return {"Allow": ", ".join([*reading, *(one for one in self._methods if one not in READING)])}

    async def answer(self, request: Request) -> Response:
        exchange = exchange_of(request.scope)
        exchange.route = self._route
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=self._allow)
        resource = self._methods.get("GET" if request.method == "HEAD" else request.method)
        if resource is None:
            raise Refusal(405, "This resource does not know that method.", self._allow)
        caller = exchange.caller
        if request.method not in READING and not caller.may_store:
            raise Refusal(403, "You may not store here.")
        source = _source(request)
        exchange.source = source
        exchange.studies.update(_named(request))
        scope = caller.scope
        if source is not None or scope.sources is not None:
            asked = scope
            scope = await self._served.ask(lambda: narrowed(asked, source, self._served))
        call = Call(request, self._served, self._base_uri(request, source), source, scope, caller.may_store)
        answer = await resource.endpoint(call)
        if self._names_studies:
            exchange.studies.update(shown(answer))
        return answer

    def _base_uri(self, request: Request, source: str | None) -> str:
        address = request.client.host if request.client else None
        reached = self._access.reached_at(address, request.url.scheme, request.headers, _port(request))
        return f"{reached}{self._base}" + (f"/{source}" if source else "")


def _port(request: Request) -> int | None:
    server = request.scope.get("server")
    return server[1] if server else None


def _source(request: Request) -> str | None:
    """The source in the path, by the name that rows have: a partition's name is percent-encoded there, too."""
    name, partition = (request.path_params.get(one) for one in ("source", "partition"))
    return name if partition is None else f"{name}/{quote(partition, safe='')}"


def _named(request: Request) -> set[str]:
    """The study that a request names, in its path or as WADO-URI does."""
    found = {request.path_params.get("study"), request.query_params.get("studyUID")}
    return {one for one in found if one}


def shown(answer: Response) -> set[str]:
    """The studies that an answer of a search shows, for the digests of the audit log."""
    kind, body = answer.headers.get("content-type", "").split(";")[0], getattr(answer, "body", b"")
    if not body or kind not in ("application/dicom+json", "application/json", "text/csv"):
        return set()
    if kind == "text/csv":
        table = csv.DictReader(io.StringIO(bytes(body).decode()))
        return {row["StudyInstanceUID"] for row in table if row.get("StudyInstanceUID")}
    rows = orjson.loads(body)
    if not isinstance(rows, list):
        return set()
    return {uid for row in rows if isinstance(row, dict) for uid in row.get("0020000D", {}).get("Value", ())}
