"""A server that can be stored to, over a lake and a landing zone of a test's own; and what is stored there.

Belongs here: starting and ending it in this process, requests, ingesting what was stored. Does not belong here: what is
expected of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import uvicorn

from dicom_assets.batch.books import Books
from dicom_assets.batch.context import RunContext
from dicom_assets.serve.app import make_app
from dicom_assets.settings import Settings
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import Graph
from dicom_assets_tests.support.steps import Stepped, steps

BOUNDARY = "between"
RELATED = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


@contextmanager
def running(app: Any) -> Iterator[str]:
    """The address of a server of this process that answers by an application, until the block ends."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)


def body(*objects: bytes, kind: str = "application/dicom") -> bytes:
    """A multipart body."""
    parts = [f"--{BOUNDARY}\r\nContent-Type: {kind}\r\n\r\n".encode() + one + b"\r\n" for one in objects]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


@dataclass
class Place:
    """A lake, its landing folder, and the server over both."""

    settings: Settings
    instance: dg.DagsterInstance
    url: str = ""
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=60))

    @property
    def root(self) -> Path:
        return Path(self.settings.sources[0].root)

    def post(self, content: Any, path: str = "/studies", kind: str = RELATED, **headers: str) -> httpx.Response:
        found = {"Content-Type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return self.http.post(f"{self.url}/dicom-web{path}", content=content, headers=found)

    def store(self, *objects: bytes, path: str = "/studies") -> httpx.Response:
        return self.post(body(*objects), path)

    def files(self) -> list[Path]:
        """What a listing of the folder would find, and what it would not."""
        return sorted(path for path in self.root.rglob("*") if path.is_file())

    def ingest(self) -> Books:
        """Claims everything that is there and runs it; the books of the one batch."""
        graph = Stepped(self.settings, self.instance, judges=False)
        (name,) = graph.claim()
        assert graph.run(name).success
        return graph.books(name)

    def publish(self) -> None:
        """Takes everything that is there into the tables that a server looks at, without the rest of a run."""
        publish(self.settings, self.instance)


def publish(settings: Settings, instance: dg.DagsterInstance) -> None:
    """Claims what is there and makes the tables up to `study`."""
    for name in Graph(settings, instance).claim():
        with RunContext(settings, shared_engine=InlineEngine()) as work:
            for tables, make in steps(work.batch(name)):
                make()
                if "study" in tables:
                    break


def pixels(study: int, size: int) -> bytes:
    """An object of so many bytes of pixels."""
    return dicom(study, PixelData=bytes(size), Rows=size // 10_000, Columns=10_000, BitsAllocated=8, SamplesPerPixel=1)


@contextmanager
def place(root: Path, *, filled: bool = True, part_bytes: int = 2**30, **source: Any) -> Iterator[Place]:
    """A lake that has one object of study 1, and a server over it. source: settings of the one source."""
    landing = root / "landing"
    landing.mkdir(parents=True)
    settings = Settings.model_validate(
        {
            "lake": str(root / "lake"),
            "sources": [{"name": "landing", "root": str(landing), "store": "by_date", **source}],
            "reading": {"workers": 1},
            "claiming": {"quiet_seconds": 0},
            "storage": {"survive_power_cuts": False},
            "serve": {"object_bytes": part_bytes, "access_log": ""},
        }
    )
    with dg.DagsterInstance.ephemeral() as instance:
        one = Place(settings, instance)
        if filled:
            (landing / "first.dcm").write_bytes(dicom(1))
        publish(settings, instance)
        with running(make_app(settings)) as one.url:
            yield one
        one.http.close()
