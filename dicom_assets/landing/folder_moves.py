"""Moving files within a folder in mode `organize`. What each operation promises stands in `moves.Mover`."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from dicom_assets.landing.file_uris import etag_of, path_of, uri_of
from dicom_assets.landing.moves import PIECE, Location
from dicom_assets.landing.store import ObjectError, ObjectRef, SourceUnavailable

_OF_ONE_OBJECT = frozenset((errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.ELOOP, errno.EISDIR, errno.ENOTDIR))
"""Errors that say something about one name, and nothing about the storage."""


class FolderMover:
    """Moves within a folder: a second name for the same file, then the first one away."""

    at_once = 1

    def __init__(self, source: str, root: Path) -> None:
        """source: its name, for messages; root: its folder."""
        self._source, self._root = source, root

    def copy(self, claimed: ObjectRef, path: str) -> Location | None:
        """See Mover. A hard link where the file system has them, so nothing is read and its time stays."""
        try:
            old, new = path_of(claimed.uri), self._path(path)
            if os.path.islink(old) or not _is(old, claimed):  # noqa: PTH114 - names need not be valid text
                return self._there(new, claimed)
            self._make_folder(new)
            try:
                os.link(old, new)
            except FileExistsError:
                if not _is(new, claimed):
                    raise
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EACCES):
                    raise
                self._copy_bytes(old, new)
            if not _is(new, claimed):  # replaced after the look at it: what is linked now is not ours to move
                os.unlink(new)  # noqa: PTH108
                return None
            return self._there(new, claimed)
        except OSError as error:
            raise self._failed(error) from None

    def write(self, path: str, pieces: Iterable[bytes]) -> Location:
        """See Mover."""
        new = self._path(path)
        try:
            self._make_folder(new)
            self._replace(new, pieces)
            status = Path(new).stat()
        except OSError as error:
            if hasattr(error, "code"):
                raise  # the object that is read fails, not the folder that is written
            raise self._failed(error) from None
        return Location(uri_of(new), etag_of(status), status.st_size)

    def remove(self, claimed: ObjectRef) -> None:
        """See Mover."""
        old = path_of(claimed.uri)
        try:
            if _is(old, claimed):
                os.unlink(old)  # noqa: PTH108
        except OSError as error:
            raise self._failed(error) from None

    def discard(self, path: str) -> None:
        """See Mover."""
        new = Path(self._path(path))
        try:
            for one in (new, _part(new)):
                one.unlink(missing_ok=True)
        except OSError as error:
            raise self._failed(error) from None

    def _path(self, path: str) -> str:
        return str(self._root / path)

    def _make_folder(self, path: str) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)

    def _there(self, path: str, claimed: ObjectRef) -> Location | None:
        return Location(uri_of(path), claimed.etag, claimed.size) if _is(path, claimed) else None

    def _copy_bytes(self, old: str, new: str) -> None:
        status = Path(old).stat()
        with Path(old).open("rb") as source:
            self._replace(new, iter(lambda: source.read(PIECE), b""), (status.st_atime_ns, status.st_mtime_ns))

    def _replace(self, new: str, pieces: Iterable[bytes], times: tuple[int, int] | None = None) -> None:
        """Writes a file beside its place and then puts it there. What a kill leaves is hidden and has a known name."""
        part = _part(Path(new))
        with part.open("wb") as sink:
            for piece in pieces:
                sink.write(piece)
            sink.flush()
            os.fsync(sink.fileno())
        if times is not None:
            os.utime(part, ns=times)
        part.replace(new)

    def _failed(self, error: OSError) -> SourceUnavailable | ObjectError:
        why = os.strerror(error.errno) if error.errno else "unknown error"
        if error.errno in _OF_ONE_OBJECT:
            return ObjectError("NOT_MOVED", why)
        return SourceUnavailable(
            f"Source '{self._source}' cannot be organized ({why}). Let the user who runs this write there."
        )


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _is(path: str, claimed: ObjectRef) -> bool:
    """Whether the file at a path is the one that was claimed."""
    try:
        return etag_of(os.stat(path)) == claimed.etag  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return False
