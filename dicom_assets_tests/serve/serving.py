"""The server as a process of its own, over a small lake.

Belongs here: starting and ending it, connections that are opened by hand. Does not belong here: what is asserted.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from dicom_assets.settings import Settings
from dicom_assets_tests.support.commands import clean_environment, wait_for

START_SECONDS = 90.0


@dataclass
class Server:
    """A running server. url: without a path."""

    process: subprocess.Popen[bytes]
    log: Path
    url: str = ""
    port: int = 0
    sockets: list[socket.socket] = field(default_factory=list)

    @property
    def said(self) -> str:
        """What it has written to stderr."""
        return self.log.read_text(errors="replace")

    def get(self, path: str, **more: object) -> httpx.Response:
        """Asks it once."""
        return httpx.get(self.url + path, timeout=60, **more)  # type: ignore[arg-type]

    def connect(self, sent: bytes = b"") -> socket.socket:
        """A connection over which some bytes have been sent; closed with the server."""
        opened = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        self.sockets.append(opened)
        opened.sendall(sent)
        return opened

    def end(self, number: int = signal.SIGTERM, seconds: float = 60) -> int:
        """Tells it to end; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)

    @property
    def all(self) -> list[psutil.Process]:
        """It and the processes that it has started."""
        mine = psutil.Process(self.process.pid)
        return [mine, *mine.children(recursive=True)]

    def held(self) -> int:
        """Connections and open files of all its processes, but for the socket it listens on and its log."""
        connections = [one for each in self.all for one in each.net_connections() if one.status != psutil.CONN_LISTEN]
        files = [one for each in self.all for one in each.open_files() if one.path != str(self.log)]
        return len(connections) + len(files)

    def threads(self) -> int:
        """Threads of the server's own process."""
        return psutil.Process(self.process.pid).num_threads()


START = [sys.executable, "-c", "import sys; from dicom_assets.cli.main import main; sys.exit(main())"]
"""The command, with the code of the tests."""


def arguments(settings: Settings, *more: str) -> list[str]:
    """The command line over a lake."""
    return [*START, "serve", "--lake", settings.lake, *more]


@contextmanager
def serving(
    settings: Settings,
    folder: Path,
    *more: str,
    toml: str = "",
    environment: Mapping[str, str] | None = None,
    by_file: bool = False,
) -> Iterator[Server]:
    """A server that listens on a free port until the end of the block.

    toml: further settings. by_file: it is told the lake by the settings file, and not by an option.
    """
    folder.mkdir(exist_ok=True)
    sources = "".join(f'[[sources]]\nname = "{one.name}"\nroot = "{one.root}"\n' for one in settings.sources)
    lake = f'lake = "{settings.lake}"\n' if by_file else ""
    (folder / "dicom-assets.toml").write_text(lake + sources + toml)
    log = folder / "stderr"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [*([*START, "serve"] if by_file else arguments(settings)), "--port", "0", *more],
            cwd=folder,
            env=clean_environment(**{"DICOM_ASSETS_CONFIG": str(folder / "dicom-assets.toml"), **(environment or {})}),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
        server = Server(process, log)
        try:
            wait_for(
                "the server", lambda: "answers at" in server.said or process.poll() is not None, START_SECONDS, log
            )
            found = re.search(r"answers at http://[^:/]+:(\d+)/dicom-web", server.said)
            assert found is not None, server.said
            server.port = int(found[1])
            server.url = f"http://127.0.0.1:{server.port}"
            yield server
        finally:
            for one in server.sockets:
                one.close()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def settles(condition: object, seconds: float) -> float:
    """Waits until a condition holds; after how many seconds it did."""
    began = time.monotonic()
    wait_for("what must hold", condition, seconds)  # type: ignore[arg-type]
    return time.monotonic() - began
