"""Locks of files by the operating system, which lets go when their holder ends.

Belongs here: taking one, and saying where there are none. Does not belong here: what is locked (`locks`).
"""

from __future__ import annotations

from dicom_assets.settings import UserError

try:
    import fcntl
except ModuleNotFoundError:  # not Unix
    fcntl = None  # type: ignore[assignment]


class NoLocks(UserError):
    """The system has no locks that end with their holder, on which everything that writes relies."""


def lock(descriptor: int, *, wait: bool = False) -> None:
    """Locks an open file for this process alone. wait: until it is free. Raises BlockingIOError, NoLocks, OSError."""
    if fcntl is None:
        raise NoLocks(
            "Lakes in folders are written on Linux and macOS alone: this system has no locks that end with the process "
            "that holds them. Use WSL 2 or a container (docs/deployment.md). Lakes can be read here."
        )
    fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
