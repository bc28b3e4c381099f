"""Moving objects within a source in mode `organize`: the few operations that write there, and where things go.

Belongs here: what a source can be asked to do, for folders and containers, and the tree that objects are moved to. Does
not belong here: what is moved and when (`batch.organize`). On Azure the role Storage Blob Data Contributor is needed.

Every operation may be repeated: one that was broken off, or that has been done already, ends in the same state. None
replaces or removes an object that is not what was claimed.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from dicom_assets.landing.azure import AzureContainer
from dicom_assets.landing.local import LocalFolder, etag_of, path_of, uri_of
from dicom_assets.landing.store import LandingStore, ObjectError, ObjectRef, SourceUnavailable
from dicom_assets.storage.azure import credential, failures, parse, reason, status_of
from dicom_assets.storage.byte_ranges import ByteSource

PIECE = 4 * 2**20
CONTRIBUTOR = "Storage Blob Data Contributor"
_COPY_SECONDS = 3_600.0
_NAME_MOST = 120
_NAME_BYTES = 200
"""Of the 255 bytes that a file's name may have: a stamp, `.zip`, and what a file is called while it is written come in
addition. Characters of three bytes are usual."""
_OF_ONE_OBJECT = frozenset((errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.ELOOP, errno.EISDIR, errno.ENOTDIR))
"""Errors that say something about one name, and nothing about the storage."""
_UNFIT = re.compile(r"[^\w.()+=@ -]")


@dataclass(frozen=True, slots=True)
class Placed:
    """Where an object has come to, and its version there."""

    uri: str
    etag: str
    size: int


class Mover(Protocol):
    """What an organized source can do besides being read. Paths are below its root, `/` between parts.

    Raises SourceUnavailable when the source cannot be written, ObjectError when one object cannot be.
    """

    @property
    def at_once(self) -> int:
        """Operations that are worth doing side by side."""
        ...

    def copy(self, claimed: ObjectRef, path: str) -> Placed | None:
        """Puts an object at `path` as well; None when it is not there any more, or not what was claimed."""
        ...

    def write(self, path: str, pieces: Iterable[bytes]) -> Placed:
        """Writes an object, whole or not at all."""
        ...

    def remove(self, claimed: ObjectRef) -> None:
        """Deletes an object if it is still what was claimed."""
        ...

    def discard(self, path: str) -> None:
        """Deletes what `write` may have written at a path."""
        ...


def mover(store: LandingStore) -> Mover:
    """The operations of a source."""
    if isinstance(store, AzureContainer):
        return ContainerMover(store)
    if isinstance(store, LocalFolder):
        return FolderMover(store)
    raise AssertionError("a source is a folder or a container")


def target(outcome: str, kind: str, source: str, stamp: int, name: str) -> str:
    """Path of an organized object: `Process/Imaging/DICOM/{source}/yyyy/mm/dd/{stamp}_{name}`.

    stamp: Unix time in milliseconds, different for each object, since several archives name their objects alike. What
    was quarantined stands below `Failed`, what is neither DICOM nor clinical below `Process/Other`.
    """
    day = datetime.fromtimestamp(stamp / 1000, UTC)
    first = "Failed" if outcome == "quarantined" else "Process"
    what = "Clinical" if kind == "clinical" else "Imaging/DICOM"
    if outcome == "ignored":
        what = "Other"
    return f"{first}/{what}/{source}/{day:%Y/%m/%d}/{stamp}_{fit_name(name)}"


def fit_name(path: str) -> str:
    """The last part of a path or a member's name, fit for any storage."""
    last = re.split(r"[/\\!]", path.rstrip("/"))[-1].encode("utf-8", "replace").decode()
    fit = _UNFIT.sub("_", last)[-_NAME_MOST:]
    return fit.encode()[-_NAME_BYTES:].decode(errors="ignore").strip() or "object"


def pieces(source: ByteSource) -> Iterator[bytes]:
    """The bytes of an object from beginning to end."""
    for offset in range(0, source.size, PIECE):
        yield source.read(offset, min(PIECE, source.size - offset))


class FolderMover:
    """Moves within a folder: a second name for the same file, then the first one away."""

    at_once = 1

    def __init__(self, store: LocalFolder) -> None:
        """store: the source."""
        self._store = store

    def copy(self, claimed: ObjectRef, path: str) -> Placed | None:
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

    def write(self, path: str, pieces: Iterable[bytes]) -> Placed:
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
        return Placed(uri_of(new), etag_of(status), status.st_size)

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
        return str(self._store.root / path)

    def _make_folder(self, path: str) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)

    def _there(self, path: str, claimed: ObjectRef) -> Placed | None:
        return Placed(uri_of(path), claimed.etag, claimed.size) if _is(path, claimed) else None

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
            f"Source '{self._store.name}' cannot be organized ({why}). Let the user who runs this write there."
        )


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _is(path: str, claimed: ObjectRef) -> bool:
    """Whether the file at a path is the one that was claimed."""
    try:
        return etag_of(os.stat(path)) == claimed.etag  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return False


class ContainerMover:
    """Moves within a container: copied by the storage itself, then the old blob away."""

    at_once = 16

    def __init__(self, store: AzureContainer) -> None:
        """store: the source."""
        self._store = store
        self._client = store.client

    def copy(self, claimed: ObjectRef, path: str) -> Placed | None:
        """See Mover."""
        from azure.core import MatchConditions  # here and below alone: a folder does without

        place = self._store.place.below(path)
        new = self._client.get_blob_client(place.path)
        old = self._client.get_blob_client(parse(claimed.uri).path)
        found = credential(place.account)
        try:
            try:
                new.start_copy_from_url(
                    f"{old.url}?{found.secret}" if found.kind == "sas" else old.url,
                    source_etag=f'"{claimed.etag}"',
                    source_match_condition=MatchConditions.IfNotModified,
                    match_condition=MatchConditions.IfMissing,
                )
            except failures() as error:
                if status_of(error) not in (404, 409, 412):
                    raise
            return self._there(path)
        except failures() as error:
            raise self._failed(error) from None

    def _there(self, path: str) -> Placed | None:
        """The blob at a path when it is whole; waits for a copy that is under way."""
        place = self._store.place.below(path)
        blob = self._client.get_blob_client(place.path)
        until = time.monotonic() + _COPY_SECONDS
        pause = 0.1
        while True:
            try:
                properties = blob.get_blob_properties()
            except failures() as error:
                if status_of(error) == 404:
                    return None
                raise
            status = properties.copy.status
            if status in (None, "success"):
                return Placed(place.url, str(properties.etag).strip('"'), int(properties.size))
            if status != "pending" or time.monotonic() > until:
                blob.delete_blob()
                raise SourceUnavailable(f"Source '{self._store.name}': the storage broke off a copy. Try again.")
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    def write(self, path: str, pieces: Iterable[bytes]) -> Placed:
        """See Mover."""
        place = self._store.place.below(path)
        blob = self._client.get_blob_client(place.path)
        # Read into a file first: an object that breaks off must not be told from a storage that does.
        with tempfile.TemporaryFile() as spool:
            for piece in pieces:
                spool.write(piece)
            size = spool.tell()
            spool.seek(0)
            try:
                answer = blob.upload_blob(spool, length=size, overwrite=True)
            except failures() as error:
                raise self._failed(error) from None
        return Placed(place.url, str(answer["etag"]).strip('"'), size)

    def remove(self, claimed: ObjectRef) -> None:
        """See Mover."""
        from azure.core import MatchConditions

        blob = self._client.get_blob_client(parse(claimed.uri).path)
        try:
            blob.delete_blob(etag=f'"{claimed.etag}"', match_condition=MatchConditions.IfNotModified)
        except failures() as error:
            if status_of(error) not in (404, 412):
                raise self._failed(error) from None

    def discard(self, path: str) -> None:
        """See Mover."""
        try:
            self._client.get_blob_client(self._store.place.below(path).path).delete_blob()
        except failures() as error:
            if status_of(error) != 404:
                raise self._failed(error) from None

    def _failed(self, error: BaseException) -> SourceUnavailable:
        return SourceUnavailable(f"Source '{self._store.name}' cannot be organized ({reason(error, CONTRIBUTOR)}).")
