"""The process that reading processes are forked from: it imports what they need, once for all of them.

Belongs here: both sides of it. Does not belong here: what a reading process does (`worker`), when one is started or
ended (`engine`).

It is started fresh (fork and exec) and has a single thread, so what it forks is sound: libraries with threads do not
survive a fork, and the process that runs batches has dozens. A reading process that replaces a lost one is there in
6 ms instead of 0.3 s. Linux alone: elsewhere system libraries forbid a fork without exec.

Messages are JSON objects, one a packet: `{"module", "memory"}` with the descriptors of `worker.main` asks for a
process, `{"ended"}` says that a process was killed, whose id may be used again from then on; it is answered by
`{"ended", "status"}`, which tells how the process ended.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from dicom_assets import startup
from dicom_assets.reading import worker

IS_POSSIBLE = sys.platform == "linux"

_END_SECONDS = 5.0
_ANSWER_SECONDS = 5.0
_MESSAGE_BYTES = 4096
_DESCRIPTORS = 4


def child_command(call: str) -> list[str]:
    """What starts Python for a call of a function of `dicom_assets.reading`, that finds the modules of this process."""
    code = f"import sys, json; sys.path[:] = json.loads(sys.argv[1]); from dicom_assets.reading import {call}"
    return [sys.executable, "-c", code, json.dumps([path or str(Path.cwd()) for path in sys.path])]


def child_environment() -> dict[str, str]:
    """The environment of processes that read: numpy's library for matrices would start threads of its own."""
    return {**os.environ, **startup.ONE_THREAD_FOR_MATRICES}


class Nursery:
    """The parent's side: a process that forks reading processes when it is told to."""

    def __init__(self) -> None:
        """Starts it, without waiting."""
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._popen = subprocess.Popen(
                child_command(f"nursery; nursery.serve({theirs.fileno()}, {os.getpid()})"),
                pass_fds=[theirs.fileno()],
                env=child_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

    @property
    def is_alive(self) -> bool:
        """Whether it can fork; with it end all processes that it has forked."""
        return self._popen.poll() is None

    def start(self, module: str, descriptors: Sequence[int], memory: int) -> None:
        """Asks for a reading process, which tells its id by itself. module: what it is going to need.

        Nothing happens when the nursery has ended.
        """
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            message = json.dumps({"module": module, "memory": memory}).encode()
            socket.send_fds(self._control, [message], list(descriptors))

    def ended(self, pid: int) -> int | None:
        """Says that a process was killed, and need not be kept in mind any more.

        Returns how it ended, which may have been before: its exit status, or the negative number of a signal. None when
        the nursery does not tell.
        """
        with contextlib.suppress(OSError):
            self._control.settimeout(_ANSWER_SECONDS)
            self._control.send(json.dumps({"ended": pid}).encode())
            while answer := self._control.recv(_MESSAGE_BYTES):
                told = json.loads(answer)
                if told["ended"] == pid:  # an answer that came too late is passed over
                    status: int = told["status"]
                    return status
        return None

    def close(self, *, at_once: bool) -> None:
        """Ends it. at_once: even in the middle of something, and what it has forked with it."""
        self._control.close()
        if at_once:
            self._popen.kill()
        try:
            self._popen.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


def serve(control: int, parent: int) -> None:
    """The nursery itself, until the parent closes its side or ends. control: an inherited socket."""
    worker.end_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    gc.disable()  # what is imported stays, and what stays untouched is shared with all that is forked
    with socket.socket(fileno=control) as told, contextlib.ExitStack() as lean:
        lean.enter_context(startup.without(*startup.PIXELS_AND_DOWNLOADS))
        while True:
            message, descriptors, _, _ = socket.recv_fds(told, _MESSAGE_BYTES, _DESCRIPTORS)
            if not message:
                break
            asked = json.loads(message)
            if "ended" in asked:
                _, status = os.waitpid(asked["ended"], 0)
                told_end = {"ended": asked["ended"], "status": os.waitstatus_to_exitcode(status)}
                with contextlib.suppress(OSError):  # whoever asked has gone
                    told.send(json.dumps(told_end).encode())
                continue
            # Whoever is forked imports it as well, and says what is wrong with it.
            with contextlib.suppress(Exception):
                importlib.import_module(asked["module"])
                if "pyarrow" in sys.modules:
                    startup.arrow_without_pandas()
            here = os.getpid()
            if os.fork() == 0:
                told.close()
                lean.close()
                _read(descriptors, here, asked["memory"])
            for descriptor in descriptors:
                os.close(descriptor)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    startup.leave(0)


def _read(descriptors: Sequence[int], parent: int, memory: int) -> None:
    """What a forked process does; it never comes back."""
    status = worker.CRASH_STATUS
    try:
        requests, results, progress, lifeline = descriptors
        worker.main(requests, results, progress, lifeline, parent, memory)
        status = 0
    finally:
        os._exit(status)
