"""The server: its socket, its processes, its end.

Belongs here: from an application to something that listens. Does not belong here: what is answered (`app`), options
(`cli.serve`).

Several processes share one socket, which the first one opens; each has a lake, connections and limits of its own.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.supervisors import Multiprocess

from dicom_assets import faults
from dicom_assets.sections import SettingsError
from dicom_assets.serve.app import BASE, make_app
from dicom_assets.serve.further import Adding
from dicom_assets.serve.heap import keep_for_next_answers
from dicom_assets.serve.patience import ABORT
from dicom_assets.serve.turns import CONNECTION, Client
from dicom_assets.settings import Settings

_BACKLOG = 1_024

_STARTING_SECONDS = 60
"""Until a process answers that it is there, which it does not while it imports what it needs."""


@dataclass(frozen=True)
class Application:
    """Makes the application in whichever process it is called."""

    settings: Settings
    host: str
    metrics_folder: Path | None = None
    adding: Sequence[Adding] = ()

    def __call__(self) -> ASGIApp:
        """The application. Raises UserError."""
        os.umask(self.settings.storage.umask)
        faults.hush()
        _quieten()
        _end_with_parent()
        keep_for_next_answers()
        app = make_app(self.settings, host=self.host, metrics_folder=self.metrics_folder, adding=self.adding)
        gc.freeze()  # what is there now stays: looking through it again and again costs answers 50 ms now and then
        return app


def listen(host: str, port: int) -> socket.socket:
    """A socket that clients can connect to from now on. port: 0 takes a free one. Raises SettingsError."""
    bare = host.strip("[]")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind, protocol)
    except OSError:
        raise SettingsError(f"There is no address of the name {host} to listen on.") from None
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(_BACKLOG)
    except OSError as error:
        opened.close()
        raise SettingsError(f"{host}, port {port}: {_why(error)}") from None
    opened.set_inheritable(True)
    return opened


def _why(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "not for this user. Take a port above 1023."
    if error.errno in (98, 48, 10048):
        return "in use by another program. Give another --port; 0 takes a free one."
    return f"cannot be listened on: {error.strerror}."


def address_of(host: str, opened: socket.socket) -> str:
    """Where DICOMweb begins, for people."""
    name = f"[{host.strip('[]')}]" if ":" in host else host
    return f"http://{name}:{opened.getsockname()[1]}{BASE}"


def serve(
    settings: Settings,
    host: str,
    opened: socket.socket,
    workers: int,
    ready: Callable[[], None],
    adding: Sequence[Adding] = (),
) -> None:
    """Answers until the process is told to end (SIGTERM, SIGINT).

    ready: called when everything has been tried. adding: what is answered beside DICOMweb.

    Raises UserError when it cannot begin.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    if workers == 1:
        app = Application(settings, host, adding=adding)()
        ready()
        uvicorn.Server(_Config(settings, app)).run(sockets=[opened])
        return
    with tempfile.TemporaryDirectory(prefix="dicom-assets-serve-") as folder:
        application = Application(settings, host, Path(folder), adding)
        application()  # what cannot be used is said here, once
        config = _Config(settings, application, factory=True, workers=workers)
        ready()
        Multiprocess(config, sockets=[opened]).run()


class _Config(uvicorn.Config):
    """What the server is to do; it goes to each process."""

    def __init__(self, settings: Settings, app: Any, **more: Any) -> None:
        serve = settings.serve
        super().__init__(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # which would let anybody on this machine say where they come from
            server_header=False,
            limit_concurrency=serve.connections,
            timeout_graceful_shutdown=serve.closing_seconds,
            timeout_worker_healthcheck=_STARTING_SECONDS,
            **more,
        )
        self.head_bytes, self.head_seconds = serve.head_bytes, serve.head_seconds


def _end_with_parent() -> None:
    """Lets a process that another one has started end when that one is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def wait() -> None:
            multiprocessing.connection.wait([parent.sentinel])
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=wait, daemon=True).start()


def _leave(*_: object) -> None:
    """After an orderly end; without this the process would end by the signal."""
    raise SystemExit(0)


class Connection(HttpToolsProtocol):
    """A connection whose requests must have a head within a time and within a size, and that can be cut.

    The server reads a head of any length and waits for it for ever: each client that sends a little now and then would
    hold a connection.
    """

    config: _Config
    _taken = 0
    _is_in_head = True
    _has_answered = False
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait for a head."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(self.config.head_seconds, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Waits no more."""
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Counts what arrives of a head, and refuses one that is too long."""
        if self._is_in_head:
            self._taken += len(data)
            if self._timer is None:
                self._timer = self.loop.call_later(self.config.head_seconds, self.transport.abort)
        super().data_received(data)
        if self._is_in_head and self._taken > self.config.head_bytes and not self.transport.is_closing():
            self.transport.write(_TOO_LONG)
            self.transport.close()

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        client = Client(f"connection {id(self)}", is_connection=True) if self._has_answered else None
        self.scope["extensions"] = {ABORT: self.transport.abort, CONNECTION: client}  # type: ignore[dict-item]

    def on_headers_complete(self) -> None:
        """A head is there."""
        self._is_in_head, self._taken = False, 0
        self._wait_no_more()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The next head may begin; while none has, the connection waits as long as it is kept alive."""
        self._is_in_head = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The client has taken an answer."""
        self._has_answered = True
        super().on_response_complete()

    def _wait_no_more(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


_TOO_LONG = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n"
    b"x-content-type-options: nosniff\r\n\r\n"
)


class _Sentences(logging.Handler):
    """What the server itself has to say, on stderr, without the text of exceptions."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            text = record.getMessage()
        elif isinstance(error, asyncio.CancelledError):
            return
        else:
            faults.show(error)
            text = faults.sentence(error)
        print(f"dicom-assets: {text.strip()}", file=sys.stderr, flush=True)


_EXPECTED = ("ASGI callable returned without", "Invalid HTTP request", "Cancel ", "Exceeded concurrency", "Unsupported")
"""What the server says when a client goes, talks nonsense, or is still there at the end."""


def _quieten() -> None:
    """Lets through what nobody expects of uvicorn and asyncio, and nothing else."""
    for name in ("uvicorn", "uvicorn.error", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers = [_Sentences()]
        logger.propagate = False
        logger.setLevel(logging.WARNING)
        logger.addFilter(lambda record: not str(record.msg).startswith(_EXPECTED))
    logging.getLogger("uvicorn.error").handlers = []
    logging.getLogger("uvicorn.error").propagate = True
