"""Who may write: locks that the death of their holder releases.

Belongs here: one lock at a time by name, on one machine through the operating system. Does not belong here: what is
locked, and why.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FOLDER = "_locks"
_POLL_SECONDS = 0.05


class LockBusy(Exception):
    """Somebody else holds the lock and did not let go in time."""


@contextmanager
def hold(root: Path, name: str, wait_seconds: float) -> Iterator[None]:
    """Holds the lock `name` below the folder `root`.

    The operating system lets go when the process ends, however it ends. Raises LockBusy after wait_seconds.
    """
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise LockBusy(name) from None
                time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)
