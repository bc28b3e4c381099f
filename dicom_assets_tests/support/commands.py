"""Commands run for real, as a user's shell runs them: in processes of their own, from any folder, ended by their id.

Belongs here: starting, ending and what was printed. Does not belong here: what is asserted about it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

BIN = Path(sys.executable).parent
SECONDS = 240.0
"""Bound on one command; a slow machine with other work on it needs most of it."""


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without anything that would lead a command to another state than the test's.

    more: PWD, as a shell sets it, belongs to it: `.env` makes DAGSTER_HOME of it.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER_", "DICOM_ASSETS_"))}
    return {**kept, "PATH": f"{BIN}{os.pathsep}{kept.get('PATH', '')}", **more}


def command(
    *arguments: str | Path, cwd: Path, environment: Mapping[str, str] | None = None, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a program of this environment to its end."""
    program, *rest = map(str, arguments)
    return subprocess.run(
        [str(BIN / program), *rest],
        cwd=cwd,
        env=clean_environment(PWD=str(cwd), **(environment or {})),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@contextmanager
def running(
    *arguments: str | Path, cwd: Path, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs until the end of the block; its whole process group is ended then, by its id."""
    program, *rest = map(str, arguments)
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [str(BIN / program), *rest],
            cwd=cwd,
            env=clean_environment(PWD=str(cwd), **(environment or {})),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process group: politely, then for good."""
    for sign, seconds in ((signal.SIGINT, 20.0), (signal.SIGKILL, 10.0)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def wait_for(
    what: str,
    condition: Callable[[], bool],
    seconds: float = SECONDS,
    log: Path | None = None,
    pause: float = 0.1,
) -> None:
    """Waits until a condition holds; fails with what was waited for and the end of a log. pause: seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-3_000:] if log else ""
            raise AssertionError(f"waited {seconds:.0f} s in vain for {what}\n{tail}")
        time.sleep(pause)


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
