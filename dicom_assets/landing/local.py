"""A landing source that is a folder, read in place; nothing is ever written or moved there.

Belongs here: listing, opening and reading files of one folder tree. Does not belong here: what is new (claims), what
a file is (sniff), what is in it (archives).

Links: a link to a file is followed and counts under its own path. A link to a folder is not followed, so that no loop
and no file under two names can arise; its target can be configured as a source of its own. The root itself may be a
link. Anything else that is no regular file (pipes, sockets, devices) is passed over.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

import pyarrow as pa

from dicom_assets.landing.globs import matcher, pruner
from dicom_assets.landing.store import LISTING, ObjectError, ObjectRef, OpenObject, SourceUnavailable
from dicom_assets.settings import SourceSettings

LISTING_ROWS = 10_000
"""Least rows of a record batch of a listing, at most twice as many; the last one may be shorter."""

_SCHEME = "file://"
_PLAIN_NAMES = re.compile(rb"[A-Za-z0-9._~/-]*").fullmatch
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
_by_name = attrgetter("name")

Entries = list[os.DirEntry[bytes]]
Names = list[bytes]
Folders = list[tuple[bytes, bytes]]


def uri_of(path: str | bytes) -> str:
    """File URI (RFC 8089) of an absolute path, percent-encoded byte by byte, so that any name survives."""
    return _SCHEME + quote_from_bytes(os.fsencode(path))


def path_of(uri: str) -> str:
    """The path that `uri_of` encoded; bytes that are not UTF-8 come back as surrogates, as `os` functions take them.

    ValueError when it is not the URI of a local file.
    """
    if not uri.startswith("file:///"):
        raise ValueError("not the URI of a local file")
    return os.fsdecode(unquote_to_bytes(uri[len(_SCHEME) :]))


def etag_of(status: os.stat_result) -> str:
    """Version of a file's bytes: modification time in ns and size, both hexadecimal."""
    return _etag(status.st_mtime_ns, status.st_size)


def _etag(time: int, size: int) -> str:
    return f"{time:x}-{size:x}"


class LocalObject:
    """One open file. Reads never go beyond the size that was claimed, so a file that grows is not read half new."""

    __slots__ = ("_etag", "_fd", "_size")

    def __init__(self, fd: int, claimed: ObjectRef) -> None:
        """Takes over the file descriptor; the caller has compared it with the claim."""
        self._fd = fd
        self._size = claimed.size
        self._etag = claimed.etag

    @property
    def size(self) -> int:
        """Length in bytes as claimed."""
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on, fewer only at the end.

        ObjectError: CHANGED_DURING_READ when the file has become shorter, READ_FAILED when the storage fails.
        """
        length = min(length, self._size - offset)
        if length <= 0:
            return b""
        try:
            data = os.pread(self._fd, length, offset)
            while len(data) < length:
                more = os.pread(self._fd, length - len(data), offset + len(data))
                if not more:
                    raise ObjectError("CHANGED_DURING_READ", "The file became shorter while it was read.")
                data += more
        except ObjectError:
            raise
        except OSError as error:
            raise _read_failed(error) from None
        return data

    def verify(self) -> None:
        """ObjectError(CHANGED_DURING_READ) when size or modification time is not what was claimed any more."""
        try:
            status = os.fstat(self._fd)
        except OSError as error:
            raise _read_failed(error) from None
        if etag_of(status) != self._etag:
            raise _changed()

    def close(self) -> None:
        """Closes the file; again is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class LocalFolder:
    """A folder of this machine, or mounted on it, as landing store."""

    def __init__(self, settings: SourceSettings) -> None:
        """Root is an absolute path or a file:// URI. Nothing is touched until `list` or `open_all`."""
        self._name = settings.name
        self._root = os.fsencode(path_of(settings.root) if settings.root.startswith(_SCHEME) else settings.root)
        self._wanted = matcher(settings.include, settings.exclude)
        self._pruned = pruner(settings.exclude)

    @property
    def name(self) -> str:
        """The source's name."""
        return self._name

    @property
    def root(self) -> Path:
        """The folder."""
        return Path(os.fsdecode(self._root))

    def below_root(self, uri: str) -> str:
        """The path of an object below the source's root."""
        return path_of(uri).removeprefix(os.fsdecode(self._root).rstrip("/") + "/")

    def list(self) -> Iterator[pa.RecordBatch]:
        """Everything that is there now: a folder's files by name, then its folders by name (schema LISTING).

        Names are ordered by their bytes. A file that vanishes between listing and stat is not there. Raises
        SourceUnavailable when the root or a folder below it cannot be listed, also when a folder vanishes meanwhile;
        folders that an exclude pattern ending in `/**` matches are not entered.
        """
        rows = _Rows()
        pending: Folders = [(self._root, b"")]
        while pending:
            folder, below = pending.pop()
            files, folders = self._scan(folder)
            prefix = uri_of(folder).rstrip("/") + "/"
            for start in range(0, len(files), LISTING_ROWS):
                self._add(files[start : start + LISTING_ROWS], prefix, below, rows)
                if len(rows) >= LISTING_ROWS:
                    yield rows.take()
            deeper: Folders = [(folder.rstrip(b"/") + b"/" + name, below + name + b"/") for name in folders]
            if self._pruned is not None:
                deeper = [(path, key) for path, key in deeper if not self._pruned(os.fsdecode(key[:-1]))]
            pending.extend(reversed(deeper))
        if len(rows):
            yield rows.take()

    def open_all(self, objects: Sequence[ObjectRef], first_bytes: int) -> Iterator[OpenObject | ObjectError]:
        """Opens objects in this order, one result each; `first_bytes` needs no care here, the page cache has it."""
        for claimed in objects:
            try:
                yield self._open(claimed)
            except ObjectError as error:
                yield error

    def _open(self, claimed: ObjectRef) -> LocalObject:
        """The open file, its size and time compared with the claim; ObjectError."""
        try:
            # O_NONBLOCK: a pipe that has taken the file's place must not hang the reader.
            fd = os.open(path_of(claimed.uri), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in _GONE:
                raise self._gone() from None
            raise _read_failed(error) from None
        try:
            status = os.fstat(fd)
        except OSError as error:
            os.close(fd)
            raise _read_failed(error) from None
        if not stat.S_ISREG(status.st_mode) or etag_of(status) != claimed.etag or status.st_size != claimed.size:
            os.close(fd)
            raise _changed()
        return LocalObject(fd, claimed)

    def _gone(self) -> ObjectError:
        """OBJECT_GONE, unless the whole root is missing: then the object may well exist, and the batch must pause."""
        if Path(os.fsdecode(self._root)).is_dir():
            return ObjectError("OBJECT_GONE", "The file is not there any more.")
        return ObjectError("SOURCE_UNAVAILABLE", f"The folder of source '{self._name}' is not there; is it mounted?")

    def _scan(self, folder: bytes) -> tuple[Entries, Names]:
        """Entries that are no folders, and names of folders, each sorted by bytes."""
        files: Entries = []
        folders: Names = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.name)
                    else:
                        files.append(entry)
        except OSError as error:
            raise self._unavailable(error, is_root=folder == self._root) from None
        files.sort(key=_by_name)
        folders.sort()
        return files, folders

    def _add(self, entries: Entries, prefix: str, below: bytes, rows: _Rows) -> None:
        """Adds the wanted regular files among entries of one folder."""
        wanted = self._wanted
        if wanted is not None:
            entries = [entry for entry in entries if wanted(os.fsdecode(below + entry.name))]
        names: Names = []
        for entry in entries:
            try:
                status = entry.stat()
            except OSError as error:
                if error.errno in _GONE:
                    continue
                raise self._unavailable(error, is_root=False) from None
            if stat.S_ISREG(status.st_mode):
                names.append(entry.name)
                rows.times.append(status.st_mtime_ns)
                rows.sizes.append(status.st_size)
        rows.uris += [prefix + name for name in _encoded(names)]

    def _unavailable(self, error: OSError, *, is_root: bool) -> SourceUnavailable:
        """What happened and what to do, without a path below the root."""
        root = os.fsdecode(self._root).encode("utf-8", "replace").decode()
        reason = os.strerror(error.errno) if error.errno else "unknown error"
        if is_root and error.errno in (errno.ENOENT, errno.ENOTDIR):
            what = f"{root} is not a folder that exists. Create or mount it, or correct the source's root."
        elif is_root:
            what = f"{root} cannot be listed ({reason}). Let the user who runs this read and enter it."
        elif error.errno in _GONE:
            what = f"a folder below {root} vanished while it was listed. It is listed again next time."
        else:
            what = (
                f"a folder or file below {root} cannot be listed ({reason}). Let the user who runs this read and enter "
                "every folder, or exclude it with a pattern that ends in /**."
            )
        return SourceUnavailable(f"Source '{self._name}': {what}")


class _Rows:
    """Rows of a listing on their way into a record batch. times: modification, in ns."""

    __slots__ = ("sizes", "times", "uris")

    def __init__(self) -> None:
        self.uris: list[str] = []
        self.sizes: list[int] = []
        self.times: list[int] = []

    def __len__(self) -> int:
        return len(self.uris)

    def take(self) -> pa.RecordBatch:
        """The rows so far as one record batch; begins anew."""
        etags = [_etag(time, size) for time, size in zip(self.times, self.sizes, strict=True)]
        micros = [time // 1000 for time in self.times]
        columns = (self.uris, etags, self.sizes, micros)
        arrays = [pa.array(values, field.type) for values, field in zip(columns, LISTING, strict=True)]
        self.uris, self.sizes, self.times = [], [], []
        return pa.RecordBatch.from_arrays(arrays, schema=LISTING)


def _encoded(names: Names) -> list[str]:
    """Each name percent-encoded; all at once where none needs it, which is nearly always."""
    joined = b"/".join(names)
    if _PLAIN_NAMES(joined):
        return joined.decode("ascii").split("/") if names else []
    return [quote_from_bytes(name) for name in names]


def _changed() -> ObjectError:
    return ObjectError("CHANGED_DURING_READ", "Size or modification time is not what was claimed.")


def _read_failed(error: OSError) -> ObjectError:
    return ObjectError("READ_FAILED", os.strerror(error.errno) if error.errno else "The storage failed.")
