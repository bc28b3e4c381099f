"""The application: routes, the lake, and the layers that every request goes through, put together for a server of ASGI.

Belongs here: the order of the layers, and what a resource gets its call from. Does not belong here: single answers
(`routes`), the layers themselves, starting a server (`server`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from dicom_assets.serve import permission, routing
from dicom_assets.serve.access import Access
from dicom_assets.serve.answer_headers import AnswerHeaders
from dicom_assets.serve.audit_log import Audit, key_of, patients_of
from dicom_assets.serve.compression import Compression
from dicom_assets.serve.exceptions import Exceptions
from dicom_assets.serve.further import Adding, Basis, first_written
from dicom_assets.serve.gate import Gate
from dicom_assets.serve.limits import Limits
from dicom_assets.serve.line_log import LineLog
from dicom_assets.serve.metrics import Metrics
from dicom_assets.serve.observation import Observation
from dicom_assets.serve.own import own_routes
from dicom_assets.serve.patience import Gone, Patience
from dicom_assets.serve.questions import Stopped
from dicom_assets.serve.resource import Resource
from dicom_assets.serve.routes import ROUTES
from dicom_assets.serve.served import ServedLake
from dicom_assets.serve.streaming import BrokenOff
from dicom_assets.serve.viewing import viewer_pages
from dicom_assets.serve.viewing.ohif_pages import OhifPages
from dicom_assets.serve.viewing.page_files import Files
from dicom_assets.settings import Settings

BASE = "/dicom-web"
"""Where DICOMweb begins."""


def make_app(
    settings: Settings,
    *,
    host: str = "127.0.0.1",
    environment: Mapping[str, str] = os.environ,
    routes: Sequence[Resource] = ROUTES,
    metrics_folder: Path | None = None,
    adding: Sequence[Adding] = (),
) -> ASGIApp:
    """The application over one lake.

    host: the address that will be listened on, which decides whether callers must say who they are. metrics_folder:
    which the processes of one server share. adding: what is answered beside DICOMweb. Raises LakeError when there is no
    lake, SettingsError for tokens, keys, logs and conditions that cannot be used.
    """
    serve = settings.serve
    access = Access(serve, host, environment)
    key = key_of(serve, environment)
    served = ServedLake(settings)
    permission.try_conditions(serve, served)
    audit = Audit(serve, key, patients_of(served))
    metrics = Metrics(metrics_folder)
    basis = Basis(settings, served, access, audit.names_studies)
    further = [add(basis) for add in adding]
    answered: list[BaseRoute] = [
        *own_routes(served, metrics, routes),
        Files().route,
        *OhifPages(served).routes,
        *routing.answered(BASE, routes, served, access, settings, names_studies=audit.names_studies),
        *routing.answered(
            viewer_pages.PLACE, viewer_pages.RESOURCES, served, access, settings, names_studies=audit.names_studies
        ),
        *(route for one in further for route in one.routes),
    ]
    app: ASGIApp = Router(answered, redirect_slashes=False, default=_unknown)
    app = Compression(app)
    open_paths = frozenset(path for one in further for path in one.open_paths)
    app = Gate(app, serve, access, Limits(serve), audit, open_paths)
    app = Patience(app, serve.answer_seconds, serve.stall_seconds)
    app = Exceptions(app, gone=(Gone, Stopped, BrokenOff, ClientDisconnect), writing=first_written(further))
    app = AnswerHeaders(app, serve)
    return Observation(app, LineLog(serve.access_log), audit, metrics)


async def _unknown(scope: Scope, receive: Receive, send: Send) -> None:
    raise HTTPException(404)
