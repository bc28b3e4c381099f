"""Where a cohort is exported to: a folder or a container, written file by file, each whole or not at all.

Belongs here: putting and looking. Does not belong here: what is put, and what is there already (`journal`).

In a folder a file is written beside its place first, under the same name with `.part` behind it, which the next try
writes over. A container shows a blob when all of it has come.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

import obstore
from obstore.exceptions import BaseError, NotFoundError

from dicom_assets.settings import UserError
from dicom_assets.storage.azure import SCHEMES, AddressError, Place, object_store, parse_folder, reason, status_of

PART = ".part"
_CHUNK = 8 << 20
"""Bytes of a blob that go in one request; a smaller one is one request."""
_CONTRIBUTOR = "Storage Blob Data Contributor"


class DestinationError(UserError):
    """Nothing can be written there; the message says why, and names no object."""


@runtime_checkable
class Destination(Protocol):
    """A place that objects are exported to. uri: how it is called."""

    uri: str

    def put(self, path: str, blocks: Iterator[bytes], size: int | None = None) -> str:
        """Writes a file whole or not at all; the mark by which it is known again. size: bytes, where that is known.

        What `blocks` raises passes, and nothing is written then. Raises DestinationError.
        """
        ...

    def mark(self, path: str) -> str | None:
        """The mark of a file, which changes when it is written again; None where there is none."""
        ...

    def is_empty(self) -> bool:
        """Whether nothing lies there. Raises DestinationError."""
        ...


def open_destination(address: str, *, synced: bool = True) -> Destination:
    """The place of an address: a folder, made with its first file, or `az://account/container/path`.

    synced: whether a file of a folder outlives a power cut once it counts as written. Raises DestinationError.
    """
    if "://" not in address:
        return Folder(Path(os.path.realpath(Path(address).expanduser())), synced)
    if address.partition("://")[0] not in SCHEMES:
        raise DestinationError("Give a folder, or az://account/container/path, to export to.")
    try:
        return Container(parse_folder(address))
    except AddressError as error:
        raise DestinationError(f"The address to export to is wrong: {error}.") from None


class Folder:
    """A folder of this machine."""

    def __init__(self, root: Path, synced: bool) -> None:
        """Makes nothing yet."""
        self._root, self._synced = root, synced
        self.uri = str(root)

    def put(self, path: str, blocks: Iterator[bytes], size: int | None = None) -> str:
        """As of a Destination."""
        target = self._root / path
        part = target.with_name(target.name + PART)
        with _explained():
            target.parent.mkdir(parents=True, exist_ok=True)
            file = part.open("wb")
        try:
            with file:
                for block in blocks:
                    with _explained():
                        file.write(block)
                with _explained():
                    file.flush()
                    if self._synced:
                        os.fsync(file.fileno())
            with _explained():
                part.replace(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return _mark(target.stat())

    def mark(self, path: str) -> str | None:
        """As of a Destination."""
        with _explained("read from"):
            try:
                return _mark((self._root / path).stat())
            except (FileNotFoundError, NotADirectoryError):
                return None

    def is_empty(self) -> bool:
        """As of a Destination."""
        with _explained("read from"):
            try:
                return next(self._root.iterdir(), None) is None
            except FileNotFoundError:
                return True


@contextmanager
def _explained(action: str = "write to") -> Iterator[None]:
    """Turns what the disk says into a sentence."""
    try:
        yield
    except OSError as error:
        raise DestinationError(
            f"Cannot {action} the folder to export to: {error.strerror or type(error).__name__}."
        ) from None


def _mark(found: os.stat_result) -> str:
    return f"{found.st_mtime_ns:x}-{found.st_size}"


class Container:
    """A container of Azure Storage, or a path in one."""

    def __init__(self, place: Place) -> None:
        """Reaches nothing yet."""
        self.uri = place.url
        self._container = place.container
        self._store = object_store(place)

    def put(self, path: str, blocks: Iterator[bytes], size: int | None = None) -> str:
        """As of a Destination."""
        if size is not None and size <= _CHUNK:
            data = b"".join(blocks)
            with self._explained():
                return str(obstore.put(self._store, path, data)["e_tag"])
        # Not `put` with an iterator: blocks that come from a container themselves cannot be fetched within it.
        with self._explained():
            writer = obstore.open_writer(self._store, path, buffer_size=_CHUNK, max_concurrency=2)
        for block in blocks:  # a writer that is never closed shows no blob
            with self._explained():
                writer.write(block)
        with self._explained():
            writer.close()
            return str(obstore.head(self._store, path)["e_tag"])

    def mark(self, path: str) -> str | None:
        """As of a Destination."""
        with self._explained("read from"):
            try:
                return str(obstore.head(self._store, path)["e_tag"])
            except (NotFoundError, FileNotFoundError):
                return None

    def is_empty(self) -> bool:
        """As of a Destination."""
        with self._explained("list"):
            return not any(len(page) for page in obstore.list(self._store, chunk_size=1))

    @contextmanager
    def _explained(self, action: str = "write to") -> Iterator[None]:
        """Turns what the storage says into a sentence."""
        try:
            yield
        except (BaseError, OSError) as error:
            why = reason(error, _CONTRIBUTOR)
            if status_of(error) == 404:
                why = f"container {self._container} is not there"
            raise DestinationError(f"Cannot {action} what is exported to: {why}.") from None
