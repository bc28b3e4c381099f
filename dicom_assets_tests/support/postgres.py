"""A PostgreSQL of its own for a test: made by initdb as somebody who is not root, on a free port of 127.0.0.1.

Belongs here: starting and ending the server, by its process. Does not belong here: what is loaded into it. Skips with
one line where PostgreSQL, or somebody to run it as, is not there.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

STARTS_WITHIN = 30.0
USERS = ("postgres", "nobody")


def _program(name: str) -> str | None:
    """The newest of the installed versions; distributions keep them out of PATH."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(installed[-1]) if installed else shutil.which(name)


def _somebody() -> dict[str, Any]:
    """Arguments for subprocess that make it run as somebody who is not root."""
    if os.geteuid() != 0:
        return {}
    for name in USERS:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    pytest.skip(f"PostgreSQL does not run as root, and there is no user {' or '.join(USERS)}")


@contextmanager
def postgres() -> Iterator[str]:
    """A server; its connection string. Ends with the test."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    initdb, server = _program("initdb"), _program("postgres")
    if initdb is None or server is None:
        pytest.skip("PostgreSQL (initdb, postgres) is not installed")
    somebody = _somebody()
    with tempfile.TemporaryDirectory(prefix="dicom-assets-pg-") as folder:
        if somebody:
            os.chown(folder, somebody["user"], somebody["group"])
        data = f"{folder}/data"
        settings = {"cwd": folder, "stdin": subprocess.DEVNULL, **somebody}
        made = subprocess.run(
            [initdb, "-D", data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"],
            capture_output=True,
            check=False,
            **settings,
        )
        assert made.returncode == 0, made.stderr.decode()[-1_000:]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": folder, "fsync": "off"}
        arguments = [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
        process = subprocess.Popen(
            [server, "-D", data, "-p", str(port), *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **settings,
        )
        try:
            conninfo = f"host=127.0.0.1 port={port} user=tester dbname=postgres"
            _wait(conninfo, process)
            yield conninfo
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(conninfo: str, process: subprocess.Popen[bytes]) -> None:
    import psycopg

    until = time.monotonic() + STARTS_WITHIN
    while True:
        assert process.poll() is None, "PostgreSQL ended while it started"
        try:
            psycopg.connect(conninfo, connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            assert time.monotonic() < until, "PostgreSQL did not start in time"
            time.sleep(0.1)
