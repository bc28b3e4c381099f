"""What may be done in a folder of this machine, or mounted on it.

Belongs here: listing, reading and writing there once. Does not belong here: which of it a place needs (`rights`).
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dicom_assets.batch.reach.trial import Refused, Trial, system_errors
from dicom_assets.landing.deposits import HIDDEN
from dicom_assets.landing.file_uris import path_of
from dicom_assets.landing.links import LINK
from dicom_assets.landing.local import LISTING_ROWS, LocalFolder
from dicom_assets.landing.store import ObjectError, ObjectRef, PassedOver
from dicom_assets.storage import file_locks

FIRST_BYTES = 132
_LET = "Let the user who runs this {} there."


class FolderTrial:
    """The steps of one folder that is a source. Each raises Refused or SourceUnavailable."""

    def __init__(self, store: LocalFolder) -> None:
        """Touches nothing."""
        self._store = store
        self._found: ObjectRef | None = None

    def reach(self) -> str:
        """Whether the folder is there."""
        self._store.device()
        if not self._store.root.is_dir():
            raise Refused("it is no folder")
        return "the folder is there"

    def list(self) -> str:
        """A listing as far as its first rows."""
        passed: list[PassedOver] = []
        rows = next(self._store.list(passed_over=passed.append), None)
        listed = [] if rows is None else rows.to_pylist()
        for row in listed:
            if row["size"] and not row["etag"].startswith(LINK):
                self._found = ObjectRef(row["uri"], row["etag"], row["size"])
                break
        if passed:
            raise Refused(
                f"{len(passed)} folders below it cannot be listed ({passed[0].detail}), beside {len(listed)} objects "
                f"that are. {_LET.format('read and enter folders')}"
            )
        if not listed:
            return "nothing lies there"
        return f"objects listed: {len(listed)}" + (" and more" if len(listed) >= LISTING_ROWS else "")

    def read(self) -> str:
        """The first bytes of one file."""
        if self._found is None:
            return "there is nothing to read"
        try:
            opened = self._store.open_for_ranges(self._found)
            try:
                return f"{len(opened.read(0, FIRST_BYTES))} bytes by range"
            finally:
                opened.close()
        except ObjectError as error:
            raise Refused(f"{error.code}: {error.detail}. {_LET.format('read files')}") from None

    def store(self) -> str:
        """A file that no listing sees, put as DICOMweb clients' objects are, and taken away."""
        root = self._store.root
        _writable(root)
        with _temporary(root / HIDDEN):
            depot = self._store.depot(synced=False)
            spool = depot.spool()
            name = f"{HIDDEN}/probe-{secrets.token_hex(8)}"
            try:
                spool.write(b"dicom-assets source test")
                depot.put(spool, name)
            finally:
                spool.close()
                with system_errors("the probe cannot be deleted", _LET.format("delete")):
                    (root / name).unlink(missing_ok=True)
        return "a probe was written and deleted"

    def move(self) -> str:
        """Whether the folder of the file that was read lets files be moved away."""
        if self._found is None:
            return "there is nothing to move"
        _writable(Path(path_of(self._found.uri)).parent)
        return "what lies there may be moved"


def _writable(folder: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise Refused(f"it may not be written to. {_LET.format('write')}")


@contextmanager
def _temporary(folder: Path) -> Iterator[None]:
    """A folder that goes again if it was not there."""
    was_there = folder.exists()
    try:
        yield
    finally:
        if not was_there:
            with suppress(OSError):  # somebody else uses it by now
                folder.rmdir()


def nearest(folder: Path) -> Path:
    """The folder itself, or the one above it that exists."""
    return next(one for one in (folder, *folder.parents) if one.exists())


def try_writing(trial: Trial, folder: Path, *, locks: bool = False) -> None:
    """Steps of a folder that files are written to, and that the first of them makes."""

    def reach() -> str:
        with system_errors("it cannot be reached", _LET.format("enter")):
            there = nearest(folder)
            if not there.is_dir():
                raise Refused("what stands at its place is no folder")
            free = shutil.disk_usage(there).free / 1e9
        missing = "" if there == folder else "it is made when it is written to; "
        return f"{missing}{free:,.1f} GB free"

    def write() -> str:
        there = nearest(folder)
        _writable(there)
        if there != folder:
            return "may be made"
        probe = folder / f".probe-{secrets.token_hex(8)}"
        with system_errors("it cannot be written to", _LET.format("write")):
            try:
                probe.write_bytes(b"dicom-assets source test")
                probe.read_bytes()
            finally:
                probe.unlink(missing_ok=True)
        return "a probe was written, read and deleted"

    def lock() -> str:
        if not folder.is_dir():
            return "nothing is locked yet"
        probe = folder / f".probe-{secrets.token_hex(8)}"
        with system_errors("files cannot be locked", "Mount it with locks."):
            try:
                with probe.open("wb") as file:
                    file_locks.lock(file.fileno())
            finally:
                probe.unlink(missing_ok=True)
        return "a lock was taken and given back"

    reached = trial.step("reach", reach)
    wrote = trial.step("write", write, after=reached)
    if locks:
        trial.step("lock", lock, after=wrote)
