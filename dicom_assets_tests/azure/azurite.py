"""Azurite, Microsoft's emulator of Blob and Queue storage, started for the tests; and a proxy that makes it fail.

Belongs here: finding, starting and ending the emulator, containers and queues of a test. The emulator is an npm
package: `make node` installs it into node_modules of the repository.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from azure.storage.blob import ContainerClient
from azure.storage.queue import QueueClient

from dicom_assets.storage.azure import EMULATOR, Place, container_client, queue_client

REPOSITORY = Path(__file__).parents[2]
HOW = "Azurite is not installed: run `make node` (needs npm), or name its executable in DICOM_ASSETS_AZURITE"


def executable() -> str | None:
    """The emulator's executable: DICOM_ASSETS_AZURITE, else on PATH, else in node_modules of the repository."""
    named = os.environ.get("DICOM_ASSETS_AZURITE")
    if named:
        return named
    local = REPOSITORY / "node_modules" / ".bin" / "azurite"
    return shutil.which("azurite") or (str(local) if local.exists() else None)


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def azurite(folder: Path) -> Iterator[dict[str, str]]:
    """A running emulator; the environment that points to it."""
    found = executable()
    assert found is not None
    blob, queue, table = free_ports(3)
    hosts = [part for name in ("blob", "queue", "table") for part in (f"--{name}Host", "127.0.0.1")]
    ports = ["--blobPort", str(blob), "--queuePort", str(queue), "--tablePort", str(table)]
    # Without skipApiVersionCheck it refuses every call of a current SDK.
    options = ["--silent", "--disableTelemetry", "--skipApiVersionCheck", "--inMemoryPersistence"]
    process = subprocess.Popen(
        [found, *options, *hosts, *ports], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for port in (blob, queue):
            _wait_for(port, process)
        yield {
            "AZURITE_BLOB_STORAGE_URL": f"http://127.0.0.1:{blob}",
            "AZURITE_QUEUE_STORAGE_URL": f"http://127.0.0.1:{queue}",
        }
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        if process.poll() is not None:
            raise RuntimeError(f"Azurite ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("Azurite does not answer")


@dataclass(frozen=True)
class Container:
    """A container of its own for one test."""

    client: ContainerClient

    @property
    def url(self) -> str:
        """Its address."""
        return f"az://{EMULATOR}/{self.client.container_name}"

    def put(self, name: str, data: bytes) -> str:
        """Writes a blob; its etag without quotes."""
        return str(self.client.upload_blob(name, data, overwrite=True).get_blob_properties().etag).strip('"')

    def upload(self, folder: Path) -> None:
        """Writes every file of a folder under its path."""
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            self.put(path.relative_to(folder).as_posix(), path.read_bytes())

    def names(self) -> list[str]:
        """Names of the blobs that are there."""
        return sorted(blob.name for blob in self.client.list_blobs())


def new_container() -> Container:
    """An empty container."""
    client = container_client(Place(EMULATOR, f"test-{uuid.uuid4().hex[:12]}"))
    client.create_container()
    return Container(client)


def new_queue() -> QueueClient:
    """An empty queue."""
    client = queue_client(EMULATOR, f"queue-{uuid.uuid4().hex[:12]}")
    client.create_queue()
    return client


def event(container: Container, name: str, etag: str, size: int, sequence: int, **changes: Any) -> dict[str, Any]:
    """What Event Grid says of a blob that was written. changes: of its data."""
    data = {"api": "PutBlob", "eTag": etag, "contentLength": size, "blobType": "BlockBlob",
            "url": f"https://{EMULATOR}.blob.core.windows.net/{container.client.container_name}/{name}",
            "sequencer": f"{sequence:032x}"}  # fmt: skip
    return {"topic": "t", "subject": "s", "eventType": "Microsoft.Storage.BlobCreated", "id": str(sequence),
            "eventTime": f"2026-11-20T08:00:00.{sequence:06}Z", "data": data | changes}  # fmt: skip


def announce(queue: QueueClient, told: dict[str, Any]) -> None:
    """Puts an event on a queue, as Event Grid does."""
    queue.send_message(base64.b64encode(json.dumps(told).encode()).decode())


Answer = Callable[[str, str], int | None]
"""From method and path of a request to the status it is refused with; None lets it through."""


@dataclass
class Proxy:
    """Stands between the tests and the emulator.

    refuse: decides about each request; seen: what came, in order; answered: is told method, path, and how many bytes of
    body came and went.
    """

    target: str
    refuse: Answer = lambda method, path: None
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    url: str = ""
    answered: Callable[[str, str, int, int], None] = lambda method, path, came, went: None


@contextmanager
def proxy(target: str) -> Iterator[Proxy]:
    """A proxy in front of `target` (http://host:port)."""
    state = Proxy(target)
    host = target.removeprefix("http://")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or each answer waits 40 ms for an acknowledgement

        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.seen.append((self.command, self.path, dict(self.headers)))
            status = state.refuse(self.command, self.path)
            if status is not None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            upstream = http.client.HTTPConnection(host, timeout=30)
            # The host is part of nothing that is signed; the path is, and stays as it is.
            upstream.request(self.command, self.path, body, {**dict(self.headers), "Connection": "close"})
            answer = upstream.getresponse()
            data = answer.read()
            state.answered(self.command, self.path, len(body), len(data))
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length", "keep-alive"):
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            upstream.close()

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _forward

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
