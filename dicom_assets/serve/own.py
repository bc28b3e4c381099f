"""What the server says of itself: whether it is well, its numbers, its description.

Belongs here: /healthz, /metrics, /openapi.json. Does not belong here: what is said of the lake (`routes`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dicom_assets.monitoring.exposition import OPENMETRICS
from dicom_assets.serve.description import openapi
from dicom_assets.serve.exceptions import LAKE_AWAY
from dicom_assets.serve.exchange import exchange_of
from dicom_assets.serve.gate import HEALTH
from dicom_assets.serve.lake_numbers import LakeNumbers
from dicom_assets.serve.metrics import Metrics
from dicom_assets.serve.problems import Refusal
from dicom_assets.serve.resource import Resource
from dicom_assets.serve.served import ServedLake
from dicom_assets.storage.files import LakeError

Answer = Callable[[Request], Awaitable[Response]]


def own_routes(served: ServedLake, metrics: Metrics, resources: Sequence[Resource]) -> list[Route]:
    """The routes beside DICOMweb."""
    description = orjson.dumps(openapi(resources))

    async def health(_: Request) -> Response:
        """Well is a server that can read the newest version of each table; it looks at most once a second."""
        try:
            await served.ask(served.snapshot)
        except (LakeError, OSError):
            raise Refusal(503, LAKE_AWAY, {"Retry-After": "10"}) from None
        return _json(b'{"status":"ok"}')

    lake = LakeNumbers(served)

    async def numbers(request: Request) -> Response:
        caller = exchange_of(request.scope).caller
        further = await served.ask(lambda: list(lake.lines(caller)))
        return Response(metrics.text(further), headers={"Content-Type": OPENMETRICS})

    async def described(_: Request) -> Response:
        return _json(description)

    return [
        Route(path, _named(path, answer), methods=["GET", "HEAD"])
        for path, answer in ((HEALTH, health), ("/metrics", numbers), ("/openapi.json", described))
    ]


def _named(path: str, answer: Answer) -> Answer:
    async def naming(request: Request) -> Response:
        exchange_of(request.scope).route = path
        return await answer(request)

    return naming


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
