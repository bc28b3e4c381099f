"""The application: routes, refusals and the lake, put together for a server of ASGI.

Belongs here: what every request goes through. Does not belong here: single answers (`routes`), starting a server
(`cli.serve`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from dicom_assets.serve.call import Call
from dicom_assets.serve.problems import Refusal
from dicom_assets.serve.resource import Endpoint
from dicom_assets.serve.routes import ROUTES
from dicom_assets.serve.served import Scope, ServedLake
from dicom_assets.settings import Settings

BASE = "/dicom-web"
"""Where DICOMweb begins."""


def make_app(settings: Settings) -> Starlette:
    """The application over one lake. Raises LakeError when there is none."""
    served = ServedLake(settings)
    resources = []
    for one in ROUTES:
        for base in (BASE, f"{BASE}/{{source}}"):
            methods = [one.method, "HEAD"] if one.method == "GET" else [one.method]
            resources.append(Route(base + one.path, _answering(served, one.endpoint), methods=methods))
    return Starlette(routes=resources, exception_handlers={Refusal: _refuse})


def _answering(served: ServedLake, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        source = request.path_params.get("source")
        base = f"{request.url.scheme}://{request.url.netloc}{BASE}" + (f"/{source}" if source else "")
        scope = Scope((source,)) if source else Scope()
        return await endpoint(Call(request, served, base, source, scope))

    return answer


async def _refuse(_: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)
    return PlainTextResponse(refusal.sentence + "\n", refusal.status, headers=refusal.headers)
