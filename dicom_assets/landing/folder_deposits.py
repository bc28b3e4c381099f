"""Putting objects into a folder. What each operation promises stands in `deposits.Depot`.

Bytes come into a file without a name, which a kill leaves nothing of, and which gets its name when it is whole. Where
the file system has no such files (NFS, for one), they come into one below HIDDEN, locked by whoever writes it: what is
there and not locked was left by a process that was killed, and goes with the next one.
"""

from __future__ import annotations

import errno
import math
import os
import secrets
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dicom_assets.landing.deposits import HIDDEN, Deposit, Spool, unavailable
from dicom_assets.landing.store import SourceUnavailable
from dicom_assets.storage import file_locks
from dicom_assets.storage.durable import sync

_UNNAMED = getattr(os, "O_TMPFILE", None)
"""Linux has files without a name."""
_NO_UNNAMED = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT}
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV, errno.EACCES}


_LOOK_SECONDS = 1.0
"""How old a listing may be by which it is told what others have put."""


class FolderDepot:
    """Puts objects into the folder of a source."""

    tick_seconds = 0.02

    def __init__(self, source: str, root: Path, *, synced: bool) -> None:
        """source: its name, for messages; root: its folder, which must be there when something is put."""
        self._source, self._root, self._synced = source, root, synced
        self._swept = False
        self._looked: tuple[str, float, frozenset[str]] = ("", -math.inf, frozenset())

    def spool(self) -> Spool:
        """See Depot."""
        try:
            self._require_root()
            return self._unnamed() or self._named()
        except OSError as error:
            raise self._failed(error) from None

    def _unnamed(self) -> Spool | None:
        """None where there are no files without a name."""
        if _UNNAMED is None:
            return None
        try:
            return Spool(os.open(self._root, _UNNAMED | os.O_RDWR | os.O_CLOEXEC, 0o666))
        except OSError as error:
            if error.errno in _NO_UNNAMED:
                return None
            raise

    def _named(self) -> Spool:
        folder = self._root / HIDDEN
        folder.mkdir(exist_ok=True)
        if not self._swept:
            self._swept = True
            _sweep(folder)
        path = str(folder / secrets.token_hex(12))
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        file_locks.lock(fd, wait=True)
        return Spool(fd, path)

    def put(self, spool: Spool, path: str) -> Deposit | None:
        """See Depot."""
        target = self._root / path
        try:
            self._require_root()
            if self._synced:
                os.fsync(spool.fd)
            made = [folder for folder in target.parents if not folder.exists()]
            target.parent.mkdir(parents=True, exist_ok=True)
            if not _name(spool, target):
                return None
            if self._synced:
                sync([target, *made])
            return _deposit(path, target)
        except OSError as error:
            raise self._failed(error) from None

    def find(self, path: str) -> Deposit | None:
        """See Depot."""
        try:
            self._require_root()
            return _deposit(path, self._root / path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._failed(error) from None

    def holds(self, folder: str) -> bool:
        """See Depot."""
        try:
            with os.scandir(self._root / folder) as entries:
                return next(entries, None) is not None
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise self._failed(error) from None

    def begins(self, path: str) -> bool:
        """See Depot. A day's folder may have a hundred thousand files, so it is not listed for each object."""
        folder, _, begin = path.rpartition("/")
        looked_in, looked_at, names = self._looked
        if looked_in != folder or time.monotonic() - looked_at > _LOOK_SECONDS:
            try:
                with os.scandir(self._root / folder) as entries:
                    names = frozenset(one.name.partition("-")[0] for one in entries)
            except (FileNotFoundError, NotADirectoryError):
                names = frozenset()
            except OSError as error:
                raise self._failed(error) from None
            self._looked = folder, time.monotonic(), names
        return begin.partition("-")[0] in names

    def _require_root(self) -> None:
        """A root that is not mounted must not be made anew below its mount point."""
        if not self._root.is_dir():
            raise unavailable(self._source, "its folder is not there; is it mounted?")

    def _failed(self, error: OSError) -> SourceUnavailable:
        return unavailable(self._source, os.strerror(error.errno) if error.errno else "unknown error")


def _name(spool: Spool, target: Path) -> bool:
    """Gives a spool its name; False when something has it."""
    try:
        if spool.hidden is None:
            _link_unnamed(spool.fd, target)
        else:
            os.link(spool.hidden, target)
        return True
    except FileExistsError:
        return False
    except OSError as error:
        if spool.hidden is None or error.errno not in _NO_LINKS:
            raise
    # A file system without hard links. Two who put the same bytes at once both succeed, to the same end.
    if target.exists():
        return False
    os.replace(spool.hidden, target)  # noqa: PTH105
    return True


def _link_unnamed(fd: int, target: Path) -> None:
    """open(2), O_TMPFILE. Only with a folder to start from does Python call linkat, which follows the link in /proc."""
    folder = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.link(str(fd), target, src_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def _deposit(path: str, target: Path) -> Deposit:
    micros = target.stat().st_mtime_ns // 1000  # as a listing has it
    return Deposit(path, datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros))


def _sweep(folder: Path) -> None:
    """Deletes what was left by processes that were killed."""
    for path in folder.iterdir():
        with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
            file_locks.lock(file.fileno())
            path.unlink()
