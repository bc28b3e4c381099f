"""Tables of a lake on an object store as DuckDB reads them: their Parquet files through a file system of our own.

Belongs here: the file system that DuckDB is given in place of its `azure` extension, which it would have to download.
Does not belong here: which files a table has (`query`). It is read-only and serves nothing but Parquet files of
tables, so a connection that may use it can do no harm. Files never change once written, so small ones are kept.
"""

from __future__ import annotations

import io
import re
import threading
from collections import OrderedDict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import obstore
from fsspec import AbstractFileSystem  # type: ignore[import-untyped]
from obstore.exceptions import BaseError

from dicom_assets.schema.registry import TABLES
from dicom_assets.storage.byte_file import ByteFile
from dicom_assets.storage.files import PROTOCOL

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SMALL = 4 * 2**20
"""Bytes of a file that is fetched whole when it is opened: one request instead of several."""
KEPT = 256 * 2**20
"""Bytes of small files that are kept."""
WINDOW = 2**20

_PARQUET = re.compile(rf"(?:{'|'.join(TABLES)})/[^/]+\.parquet").fullmatch
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


class TableFiles(AbstractFileSystem):  # type: ignore[misc]
    """The Parquet files of a lake's tables, for `DuckDBPyConnection.register_filesystem`."""

    protocol = PROTOCOL
    cachable = False

    def __init__(self, store: ObjectStore) -> None:
        """store: rooted at the lake."""
        super().__init__()
        self._store = store
        self._sizes: dict[str, int] = {}
        self._small: OrderedDict[str, bytes] = OrderedDict()
        self._kept = 0
        self._lock = threading.Lock()

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Name, size and type of a file. Raises FileNotFoundError."""
        name = _name(path)
        if name not in self._sizes:
            self._begin(name)
        return {"name": path, "size": self._sizes[name], "type": "file"}

    def open(self, path: str, mode: str = "rb", **_: Any) -> io.BytesIO | ByteFile:
        """A file for reading. Raises FileNotFoundError, PermissionError."""
        if mode != "rb":
            raise PermissionError("the lake is read-only here")
        name = _name(path)
        data = self._remembered(name)
        if data is None and self._sizes.get(name, 0) <= SMALL:
            data = self._begin(name)
        if data is not None:
            return io.BytesIO(data)
        return ByteFile(_StoredFile(self._store, name, self._sizes[name]), block=WINDOW)

    def glob(self, path: str, **_: Any) -> list[str]:
        """The path itself: tables name their files one by one."""
        return [path]

    def exists(self, path: str, **_: Any) -> bool:
        """Whether a file is there."""
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def modified(self, path: str) -> datetime:
        """Always the same: a file never changes."""
        return _LONG_AGO

    def _remembered(self, name: str) -> bytes | None:
        with self._lock:
            if name in self._small:
                self._small.move_to_end(name)
            return self._small.get(name)

    def _begin(self, name: str) -> bytes | None:
        """Learns a file's size; its bytes, when they are few."""
        try:
            answer = obstore.get(self._store, name)
            size = answer.meta["size"]
            data = bytes(answer.bytes()) if size <= SMALL else None
        except FileNotFoundError:
            raise FileNotFoundError("a file of a table is not there any more") from None
        except BaseError as error:
            raise OSError(f"a file of a table cannot be read: {type(error).__name__}") from None
        with self._lock:
            self._sizes[name] = size
            if data is not None and name not in self._small:
                self._small[name] = data
                self._kept += size
                while self._kept > KEPT:
                    _, dropped = self._small.popitem(last=False)
                    self._kept -= len(dropped)
        return data


class _StoredFile:
    """A large file, read by ranges."""

    def __init__(self, store: ObjectStore, name: str, size: int) -> None:
        self._store, self._name, self.size = store, name, size

    def read(self, offset: int, length: int) -> bytes:
        try:
            end = min(offset + length, self.size)
            return bytes(obstore.get_range(self._store, self._name, start=offset, end=end))
        except (BaseError, FileNotFoundError) as error:
            raise OSError(f"a file of a table cannot be read: {type(error).__name__}") from None


def _name(path: str) -> str:
    name = path.removeprefix(f"{PROTOCOL}://").lstrip("/")
    if not _PARQUET(name):
        raise FileNotFoundError("not a file of a table")
    return name
