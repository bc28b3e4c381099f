"""The service model over real HTTP, on loopback, with faults on demand.

v1 and v2 of the change feed, QIDO, WADO metadata, STOW and DELETE as the contract has them; 429, 503, broken
connections, redirects and tokens that expire whenever a test wants them.
"""

from __future__ import annotations

import io
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import orjson
import pydicom
import uvicorn
from fastapi import FastAPI, Request, Response

from dicom_assets.settings import ServiceSettings
from dicom_assets_tests.service.service_model import (
    DEFAULT,
    AlreadyExists,
    BadRequest,
    NotFound,
    ServiceModel,
)

JSON = "application/json"
DICOM_JSON = "application/dicom+json"


@dataclass
class Fault:
    """What the next request gets instead of its answer."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class FeedServer:
    """A running server. Tests set its attributes while it runs.

    casing: "camel" as the serializer writes, "documented" as the public pages show. faults: used up one a request.
    tokens: token to the moment it ends; None for an anonymous server. before: called before each request.
    partitions: data partitions; None where the feature is off.
    """

    model: ServiceModel
    url: str = ""
    casing: str = "camel"
    faults: list[Fault] = field(default_factory=list)
    tokens: dict[str, float] | None = None
    before: Callable[[str], None] = lambda path: None
    has_v2: bool = True
    ignores_offset: bool = False
    partitions: list[str] | None = None
    requests: Counter = field(default_factory=Counter)
    asked: list[str] = field(default_factory=list)

    def settings(self, **values: object) -> ServiceSettings:
        """Settings of a service that is this server."""
        return ServiceSettings.model_validate({"name": "pacs", "url": self.url, "connect_seconds": 5, **values})


def build(server: FeedServer) -> FastAPI:
    """The application."""
    app = FastAPI()
    model = server.model

    @app.middleware("http")
    async def faults(request: Request, call_next):
        server.requests[request.url.path] += 1
        server.asked.append(f"{request.method} {request.url.path}?{request.url.query}")
        server.before(request.url.path)
        if server.faults:
            fault = server.faults.pop(0)
            return Response(fault.body, fault.status, headers=fault.headers)
        if server.tokens is not None:
            token = request.headers.get("authorization", "").removeprefix("Bearer ")
            if server.tokens.get(token, 0.0) <= time.time():
                return Response(status_code=401)
        return await call_next(request)

    def feed(answer: Callable[[], bytes]) -> Response:
        try:
            return Response(answer(), media_type=JSON)
        except BadRequest:
            return Response(b'"The request is not valid."', 400, media_type=JSON)

    def flag(request: Request) -> bool:
        return request.query_params.get("includeMetadata", "true").lower() != "false"

    def number(request: Request, name: str, default: int) -> int:
        try:
            return int(request.query_params.get(name, default))
        except ValueError:
            raise BadRequest from None

    @app.get("/v1/changefeed")
    def v1(request: Request):
        return feed(
            lambda: model.feed_v1(
                number(request, "offset", 0), number(request, "limit", 10), flag(request), server.casing
            )
        )

    @app.get("/v2/changefeed")
    def v2(request: Request):
        if not server.has_v2:
            return Response(status_code=404)
        query = request.query_params
        return feed(
            lambda: model.feed_v2(
                0 if server.ignores_offset else number(request, "offset", 0),
                number(request, "limit", 100),
                query.get("startTime"),
                query.get("endTime"),
                flag(request),
                server.casing,
            )
        )

    @app.get("/{version}/changefeed/latest")
    def latest(version: str, request: Request):
        if version == "v2" and not server.has_v2:
            return Response(status_code=404)
        found = model.latest(flag(request), server.casing)
        return Response(found or b"", 200 if found else 204, media_type=JSON)

    @app.get("/{version}/partitions")
    def partitions(version: str):
        if server.partitions is None:
            return Response(status_code=400)
        return Response(orjson.dumps([{"partitionName": name} for name in server.partitions]), media_type=JSON)

    def qido(found: list[dict], request: Request) -> Response:
        try:
            limit = number(request, "limit", 100)
            offset = 0 if server.ignores_offset else number(request, "offset", 0)
        except BadRequest:
            return Response(status_code=400)
        if not 1 <= limit <= 200 or offset < 0:
            return Response(status_code=400)
        page = found[offset : offset + limit]
        return Response(orjson.dumps(page), 200, media_type=DICOM_JSON) if page else Response(status_code=204)

    def element(key, tag: str) -> dict:
        return orjson.loads(model.current[key].metadata).get(tag, {})

    def studies_of(partition: str, request: Request) -> Response:
        found = []
        span = request.query_params.get("StudyDate", "-")
        first, _, last = span.partition("-") if "-" in span else (span, "-", span)
        with model.lock:
            for study, keys in sorted(model.studies(partition).items()):
                date = (element(keys[0], "00080020").get("Value") or [""])[0]
                if (first or last) and not (first or "0") <= date <= (last or "9"):
                    continue
                found.append(
                    {
                        "0020000D": {"vr": "UI", "Value": [study]},
                        "00080020": {"vr": "DA", "Value": [date]},
                        "00201208": {"vr": "IS", "Value": [len(keys)]},
                    }
                )
        return qido(found, request)

    def instances_of(partition: str, study: str, request: Request) -> Response:
        with model.lock:
            keys = sorted(model.studies(partition).get(study, []))
        return qido(
            [
                {
                    "0020000D": {"vr": "UI", "Value": [study]},
                    "0020000E": {"vr": "UI", "Value": [series]},
                    "00080018": {"vr": "UI", "Value": [instance]},
                }
                for _, _, series, instance in keys
            ],
            request,
        )

    def metadata_of(partition: str, study: str, series: str | None, instance: str | None) -> Response:
        with model.lock:
            found = [
                model.current[key].metadata
                for key in sorted(model.studies(partition).get(study, []))
                if series in (None, key[2]) and instance in (None, key[3])
            ]
        return Response(b"[" + b",".join(found) + b"]", media_type=DICOM_JSON) if found else Response(status_code=404)

    @app.get("/v2/studies")
    def search(request: Request):
        return studies_of(DEFAULT, request)

    @app.get("/v2/partitions/{partition}/studies")
    def search_partition(partition: str, request: Request):
        return studies_of(partition, request)

    @app.get("/v2/studies/{study}/instances")
    def instances(study: str, request: Request):
        return instances_of(DEFAULT, study, request)

    @app.get("/v2/partitions/{partition}/studies/{study}/instances")
    def instances_partition(partition: str, study: str, request: Request):
        return instances_of(partition, study, request)

    @app.get("/v2/studies/{study}/metadata")
    def study_metadata(study: str):
        return metadata_of(DEFAULT, study, None, None)

    @app.get("/v2/studies/{study}/series/{series}/instances/{instance}/metadata")
    def instance_metadata(study: str, series: str, instance: str):
        return metadata_of(DEFAULT, study, series, instance)

    @app.get("/v2/partitions/{partition}/studies/{study}/series/{series}/instances/{instance}/metadata")
    def instance_metadata_partition(partition: str, study: str, series: str, instance: str):
        return metadata_of(partition, study, series, instance)

    @app.delete("/v2/studies/{study}/series/{series}/instances/{instance}")
    def delete(study: str, series: str, instance: str):
        try:
            model.delete((DEFAULT, study, series, instance))
        except NotFound:
            return Response(status_code=404)
        return Response(status_code=204)

    @app.post("/v2/studies")
    async def stow(request: Request):
        boundary = request.headers["content-type"].split("boundary=")[1].strip('"').split(";")[0]
        return _stow(model, (await request.body()).split(b"--" + boundary.encode())[1:-1])

    return app


def _stow(model: ServiceModel, parts: list[bytes]) -> Response:
    """Stores each part; reasons as the contract lists them."""
    good, bad = [], []
    for part in parts:
        content = part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")
        reference = {}
        try:
            dataset = pydicom.dcmread(io.BytesIO(content))
            reference = {
                "00081150": {"vr": "UI", "Value": [str(dataset.SOPClassUID)]},
                "00081155": {"vr": "UI", "Value": [str(dataset.SOPInstanceUID)]},
            }
            kept = dataset.to_json_dict(bulk_data_threshold=1, bulk_data_element_handler=lambda _: "")
            model.store(orjson.loads(orjson.dumps(kept)))
            good.append(reference)
        except AlreadyExists:
            bad.append({**reference, "00081197": {"vr": "US", "Value": [45070]}})
        except Exception:  # noqa: BLE001 - whatever cannot be read fails validation
            bad.append({**reference, "00081197": {"vr": "US", "Value": [43264]}})
    answer: dict[str, object] = {}
    if good:
        answer["00081199"] = {"vr": "SQ", "Value": good}
    if bad:
        answer["00081198"] = {"vr": "SQ", "Value": bad}
    status = 200 if not bad else (202 if good else 409)
    return Response(orjson.dumps(answer), status, media_type=DICOM_JSON)


@contextmanager
def running(model: ServiceModel | None = None, **values: object) -> Iterator[FeedServer]:
    """A server on a free port of 127.0.0.1, in a thread of this process, until the block ends."""
    server = FeedServer(model or ServiceModel.at(datetime(2026, 3, 1, 8, 0, tzinfo=UTC)), **values)
    config = uvicorn.Config(build(server), host="127.0.0.1", port=0, log_level="error", lifespan="off")
    uv = uvicorn.Server(config)
    thread = threading.Thread(target=uv.run, daemon=True)
    thread.start()
    while not uv.started:
        if not thread.is_alive():
            raise RuntimeError("the test server did not start")
        time.sleep(0.01)
    port = uv.servers[0].sockets[0].getsockname()[1]
    server.url = f"http://127.0.0.1:{port}"

    def stop() -> None:
        uv.should_exit = True
        thread.join(10)

    server.stop = stop
    try:
        yield server
    finally:
        stop()
