"""Asking the application in this process, with resources of the test's own or with all that there are.

Belongs here: clients, settings, small resources. Does not belong here: what is asserted, servers that are processes
(`serving`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.testclient import TestClient

from dicom_assets.serve.app import make_app
from dicom_assets.serve.call import Call
from dicom_assets.serve.resource import Endpoint, Resource
from dicom_assets.settings import ServeSettings, Settings

TOKEN = "a-token-that-nobody-guesses"
ENVIRONMENT = {"ALL": TOKEN, "FIRST": TOKEN + "-1", "SOME": TOKEN + "-2", "NONE": TOKEN + "-3", "KEY": "k" * 32}
"""Environment variables of tests."""


def resource(path: str, endpoint: Endpoint, method: str = "GET") -> Resource:
    """A resource of a test."""
    return Resource(method, path, "Test", "10", ("application/json",), endpoint)


async def studies(call: Call) -> Response:
    """The studies that may be seen, as pairs of UID and source."""

    def ask() -> list[tuple[str, str]]:
        snapshot = call.snapshot()
        with snapshot.cursor() as connection:
            sql = f"SELECT StudyInstanceUID, source FROM {snapshot.scan('study')} ORDER BY ALL"
            return connection.execute(sql).fetchall()

    return JSONResponse(await call.served.ask(ask))


async def about(call: Call) -> Response:
    """What the endpoint was called with."""
    return JSONResponse({"base": call.base, "source": call.source, "may_store": call.may_store, "uids": call.uids})


def saying(answer: Response) -> Endpoint:
    """An endpoint that always answers the same."""

    async def say(_: Call) -> Response:
        return answer

    return say


OWN = (resource("/studies", studies), resource("/about", about), resource("/studies/{study}/about", about))


def with_serve(settings: Settings, **serve: Any) -> Settings:
    """Settings with a section [serve]."""
    values = {"access_log": "", **serve}
    return settings.model_copy(update={"serve": ServeSettings.model_validate(values)})


def client(
    settings: Settings,
    routes: Sequence[Resource] = OWN,
    *,
    host: str = "127.0.0.1",
    address: str = "127.0.0.1",
    base: str = "http://127.0.0.1:8050",
    environment: Mapping[str, str] = ENVIRONMENT,
    **serve: Any,
) -> TestClient:
    """A client. host: that the server listens on. address: where the client is. base: as it names the server."""
    app = make_app(with_serve(settings, **serve), host=host, environment=environment, routes=routes)
    return TestClient(app, base_url=base, client=(address, 50_000), raise_server_exceptions=True)


def bearer(variable: str) -> dict[str, str]:
    """The header with the token of an environment variable."""
    return {"Authorization": f"Bearer {ENVIRONMENT[variable]}"}
