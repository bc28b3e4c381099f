"""A landing source that is a folder, read in place; what writes or moves there stands beside (`depot`, `mover`).

Belongs here: listing, opening and reading files of one folder tree. Does not belong here: what is new (claims), what
a file is (sniff), what is in it (archives).

Which links are followed stands in `links`; the root itself may be one. Anything else that is no regular file (pipes,
sockets, devices) is left out. A folder below the root that cannot be listed is passed over, and told; one that vanishes
meanwhile is not there.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from urllib.parse import quote_from_bytes

import pyarrow as pa

from dicom_assets.landing.deposits import HIDDEN
from dicom_assets.landing.file_uris import SCHEME, etag_of, path_of, uri_of
from dicom_assets.landing.folder_deposits import FolderDepot
from dicom_assets.landing.folder_moves import FolderMover
from dicom_assets.landing.globs import matcher, pruner
from dicom_assets.landing.links import LINK, is_made_up, is_within, lies_within, link_etag, target_of
from dicom_assets.landing.sniff import is_system_file
from dicom_assets.landing.store import (
    LISTING,
    ObjectError,
    ObjectRef,
    OpenObject,
    PassedOver,
    SourceUnavailable,
    pass_over,
)
from dicom_assets.settings import SourceSettings

LISTING_ROWS = 10_000
"""Least rows of a record batch of a listing, at most twice as many; the last one may be shorter."""

_HIDDEN = os.fsencode(HIDDEN)
_PLAIN_NAMES = re.compile(rb"[A-Za-z0-9._~/-]*").fullmatch
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
_by_name = attrgetter("name")

Entries = list[os.DirEntry[bytes]]
Names = list[bytes]
Failures = list[OSError]
Folders = list[tuple[bytes, bytes]]


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
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class LocalFolder:
    """A folder of this machine, or mounted on it, as landing store."""

    def __init__(self, settings: SourceSettings) -> None:
        """Root is an absolute path or a file:// URI. Nothing is touched until `list` or `open_all`."""
        self._name = settings.name
        self._root = os.fsencode(path_of(settings.root) if settings.root.startswith(SCHEME) else settings.root)
        self._wanted = matcher(settings.include, settings.exclude)
        self._pruned = pruner(settings.exclude)
        self._follow = settings.follow_links

    @cached_property
    def _real_root(self) -> bytes:
        """The root without links on the way to it."""
        return os.path.realpath(self._root)

    @cached_property
    def _root_prefix(self) -> str:
        return os.fsdecode(self._root).rstrip("/") + "/"

    def device(self) -> int | None:
        """Number of the file system that the root lies on. Raises SourceUnavailable."""
        try:
            return os.stat(self._root).st_dev  # noqa: PTH116 - names need not be valid text
        except OSError as error:
            raise self._unavailable(error) from None

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
        return path_of(uri).removeprefix(self._root_prefix)

    def mover(self) -> FolderMover:
        """What moves objects within the folder."""
        return FolderMover(self._name, self.root)

    def size_of(self, uri: str) -> int:
        """Length in bytes of a file. Raises ObjectError."""
        try:
            return os.stat(path_of(uri)).st_size  # noqa: PTH116 - names need not be valid text
        except OSError as error:
            raise (self._gone() if error.errno in _GONE else _read_failed(error)) from None

    def depot(self, *, synced: bool) -> FolderDepot:
        """What puts objects into the folder."""
        return FolderDepot(self._name, self.root, synced=synced)

    def list(self, *, passed_over: Callable[[PassedOver], None] = pass_over) -> Iterator[pa.RecordBatch]:
        """Everything that is there now: a folder's files by name, then its folders by name (schema LISTING).

        Names are ordered by their bytes. A file that vanishes between listing and stat, or a folder that vanishes, is
        not there. passed_over: called for each folder that cannot be listed. Raises SourceUnavailable when the root
        cannot be. Folders that an exclude pattern ending in `/**` matches are not entered.
        """
        rows = _Rows()
        pending: Folders = [(self._root, b"")]
        entered: set[bytes] = set()
        while pending:
            folder, below = pending.pop()
            failures: Failures = []
            try:
                files, folders = self._scan(folder)
            except OSError as error:
                if folder == self._root:
                    raise self._unavailable(error) from None
                files, folders, failures = [], [], [error]
            prefix = uri_of(folder).rstrip("/") + "/"
            for start in range(0, len(files), LISTING_ROWS):
                folders += self._add(files[start : start + LISTING_ROWS], prefix, below, rows, entered, failures)
                if len(rows) >= LISTING_ROWS:
                    yield rows.take()
            failures = [error for error in failures if error.errno not in _GONE]
            if failures and not self._is_systems(below):
                passed_over(PassedOver(prefix, _why(failures[0])))
            deeper: Folders = [
                (folder.rstrip(b"/") + b"/" + name, below + name + b"/") for name in sorted(set(folders))
            ]
            if self._pruned is not None:
                deeper = [(path, key) for path, key in deeper if not self._pruned(os.fsdecode(key[:-1]))]
            pending.extend(reversed(deeper))
        if len(rows):
            yield rows.take()

    def _is_systems(self, below: bytes) -> bool:
        """Whether all that lies in a folder would be ignored as a system's, so that nothing is missed."""
        path = os.fsdecode(below.rstrip(b"/"))
        return path == "lost+found" or is_system_file(path)

    def open_all(self, objects: Sequence[ObjectRef], first_bytes: int) -> Iterator[OpenObject | ObjectError]:
        """Opens objects in this order, one result each; `first_bytes` needs no care here, the page cache has it."""
        for claimed in objects:
            try:
                yield self._open(claimed)
            except ObjectError as error:
                yield error

    def open_for_ranges(self, claimed: ObjectRef) -> LocalObject:
        """As `open_all`, for one. Raises ObjectError."""
        return self._open(claimed)

    def _open(self, claimed: ObjectRef) -> LocalObject:
        """The open file, its size and time compared with the claim; ObjectError."""
        if claimed.etag.startswith(LINK):
            raise _not_followed()
        path = path_of(claimed.uri)
        try:
            # O_NONBLOCK: a pipe that has taken the file's place must not hang the reader.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in _GONE:
                raise self._gone() from None
            raise _read_failed(error) from None
        try:
            status = os.fstat(fd)
            strayed = not self._follow and not lies_within(fd, path, self._real_root)
        except OSError as error:
            os.close(fd)
            raise _read_failed(error) from None
        if strayed:  # a link has taken the place of the file, or of a folder on the way to it
            os.close(fd)
            raise _not_followed()
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
        if is_made_up(os.stat(folder).st_dev):  # noqa: PTH116
            raise OSError(errno.ENOTSUP, "its files are made up by the system as they are read")
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name != _HIDDEN:
                        folders.append(entry.name)
                else:
                    files.append(entry)
        files.sort(key=_by_name)
        folders.sort()
        return files, folders

    def _add(
        self, entries: Entries, prefix: str, below: bytes, rows: _Rows, entered: set[bytes], failures: Failures
    ) -> Names:
        """Adds the wanted regular files among entries of one folder; names of links that are followed into folders.

        entered: real paths of the folders that links have led to. failures: gets those of entries.
        """
        wanted = self._wanted
        names: Names = []
        folders: Names = []
        for entry in entries:
            is_wanted = wanted is None or wanted(os.fsdecode(below + entry.name))
            if not is_wanted and not (self._follow and entry.is_symlink()):
                continue
            try:
                status, etag = entry.stat(follow_symlinks=False), None
                if stat.S_ISLNK(status.st_mode):
                    target = target_of(entry.path, self._real_root, follow=self._follow)
                    if target.is_folder and self._enters(entry.path, entered):
                        folders.append(entry.name)
                        continue
                    if target.status is None or target.is_folder:
                        etag = link_etag(status)
                    else:
                        status = target.status
            except OSError as error:
                failures.append(error)
                continue
            if is_wanted and (etag is not None or stat.S_ISREG(status.st_mode)):
                names.append(entry.name)
                rows.times.append(status.st_mtime_ns)
                rows.sizes.append(status.st_size)
                rows.etags.append(etag or etag_of(status))
        rows.uris += [prefix + name for name in _encoded(names)]
        return folders

    def _enters(self, link: bytes, entered: set[bytes]) -> bool:
        """Whether no other link has led into what this one leads to, or around it."""
        path = os.path.realpath(link)
        if any(is_within(path, one) or is_within(one, path) for one in entered):
            return False
        entered.add(path)
        return True

    def _unavailable(self, error: OSError) -> SourceUnavailable:
        """What happened to the root, and what to do."""
        root = os.fsdecode(self._root).encode("utf-8", "replace").decode()
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            what = f"{root} is not a folder that exists. Create or mount it, or correct the source's root."
        else:
            what = f"{root} cannot be listed ({_why(error)}). Let the user who runs this read and enter it."
        return SourceUnavailable(f"Source '{self._name}': {what}")


class _Rows:
    """Rows of a listing on their way into a record batch. times: modification, in ns."""

    __slots__ = ("etags", "sizes", "times", "uris")

    def __init__(self) -> None:
        self.uris: list[str] = []
        self.etags: list[str] = []
        self.sizes: list[int] = []
        self.times: list[int] = []

    def __len__(self) -> int:
        return len(self.uris)

    def take(self) -> pa.RecordBatch:
        """The rows so far as one record batch; begins anew."""
        micros = [time // 1000 for time in self.times]
        columns = (self.uris, self.etags, self.sizes, micros)
        arrays = [pa.array(values, field.type) for values, field in zip(columns, LISTING, strict=True)]
        self.uris, self.etags, self.sizes, self.times = [], [], [], []
        return pa.RecordBatch.from_arrays(arrays, schema=LISTING)


def _encoded(names: Names) -> list[str]:
    """Each name percent-encoded; all at once where none needs it, which is nearly always."""
    joined = b"/".join(names)
    if _PLAIN_NAMES(joined):
        return joined.decode("ascii").split("/") if names else []
    return [quote_from_bytes(name) for name in names]


def _why(error: OSError) -> str:
    """The system's word for an error, which holds no path."""
    if error.errno == errno.ENOTSUP:
        return "its files are made up by the system as they are read"
    return os.strerror(error.errno) if error.errno else "unknown error"


def _not_followed() -> ObjectError:
    return ObjectError("LINK_NOT_FOLLOWED", "A link that is not followed.")


def _changed() -> ObjectError:
    return ObjectError("CHANGED_DURING_READ", "Size or modification time is not what was claimed.")


def _read_failed(error: OSError) -> ObjectError:
    return ObjectError("READ_FAILED", os.strerror(error.errno) if error.errno else "The storage failed.")
