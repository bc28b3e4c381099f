"""Who may write: locks that the death of their holder releases.

Belongs here: one lock at a time by name: of a lake in a folder through the operating system, which lets go when the
process ends; of a lake on Azure through a lease, which ends a minute after its holder. Does not belong here: what is
locked, and why.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dicom_assets.storage import file_locks
from dicom_assets.storage.files import LakeError, LakeFiles

FOLDER = "_locks"
_POLL_SECONDS = 0.05


class LockBusy(Exception):
    """Somebody else holds the lock and did not let go in time."""


@contextmanager
def hold(root: Path, name: str, wait_seconds: float, *, once: bool = False) -> Iterator[None]:
    """Holds the lock `name` below the folder `root`.

    The operating system lets go when the process ends, however it ends. once: its file is deleted afterwards. Raises
    LockBusy after wait_seconds, and LakeError when the folder cannot be written.
    """
    path = root / FOLDER / f"{name}.lock"
    deadline = time.monotonic() + wait_seconds
    descriptor = _open(path)
    try:
        while not _taken(descriptor, path):
            if not _is_still(descriptor, path):
                os.close(descriptor)
                descriptor = _open(path)
                continue
            if time.monotonic() >= deadline:
                raise LockBusy(name)
            time.sleep(_POLL_SECONDS)
        try:
            yield
        finally:
            if once:
                path.unlink(missing_ok=True)  # while it is held: whoever waits for this file finds that it is gone
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    """The lock's file, made when it is missing. Raises LakeError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)  # less what the process's umask takes
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise LakeError(
                "The disk that holds the lake is full. Free some space, then run the batch again; nothing is lost."
            ) from None
        raise LakeError(
            f"The lake folder is not writable ({error.strerror}). Give this user write access, or give another folder."
        ) from None


def _taken(descriptor: int, path: Path) -> bool:
    """Whether the lock could be taken, and is one of the file that others will find."""
    try:
        file_locks.lock(descriptor)
    except BlockingIOError:
        return False
    return _is_still(descriptor, path)


def _is_still(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _nothing() -> None:
    """The check of a lock that cannot be lost."""


@contextmanager
def held(files: LakeFiles, name: str, wait_seconds: float, *, once: bool = False) -> Iterator[Callable[[], None]]:
    """Holds the lock `name` of a lake; yields a check that raises LakeError when it was lost meanwhile.

    once: nobody takes a lock of this name again after a while, so nothing of it is to stay behind. Raises LockBusy
    after wait_seconds, and LakeError when the storage refuses.
    """
    if files.local_root is not None:
        with hold(files.local_root, name, wait_seconds, once=once):
            yield _nothing
        return
    # Imported here: a lake in a folder does not need the Azure SDK.
    from dicom_assets.storage import leases

    if files.place is None:
        raise AssertionError("a lake is a folder or lies on Azure")
    path = files.place.below(f"{FOLDER}/{name}.lock").path
    try:
        with leases.hold(files.container, path, wait_seconds, remove=once) as lease:
            yield lease.check
    except leases.LeaseBusy:
        raise LockBusy(name) from None
