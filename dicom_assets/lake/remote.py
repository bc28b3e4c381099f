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

    def open(self, path: str, mode: str = "rb", **_: Any) -> io.BytesIO | _Ranges:
        """A file for reading. Raises FileNotFoundError, PermissionError."""
        if mode != "rb":
            raise PermissionError("the lake is read-only here")
        name = _name(path)
        data = self._remembered(name)
        if data is None and self._sizes.get(name, 0) <= SMALL:
            data = self._begin(name)
        return io.BytesIO(data) if data is not None else _Ranges(self._store, name, self._sizes[name])

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


class _Ranges(io.RawIOBase):
    """A large file, read by ranges through a window."""

    def __init__(self, store: ObjectStore, name: str, size: int) -> None:
        super().__init__()
        self._store, self._name, self._size = store, name, size
        self._at = 0
        self._window, self._window_at = b"", 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, length: int | None = -1) -> bytes:
        end = self._size if length is None or length < 0 else min(self._at + length, self._size)
        if end <= self._at:
            return b""
        begin = self._at - self._window_at
        if begin < 0 or end > self._window_at + len(self._window):
            try:
                until = min(max(end, self._at + WINDOW), self._size)
                self._window = bytes(obstore.get_range(self._store, self._name, start=self._at, end=until))
            except (BaseError, FileNotFoundError) as error:
                raise OSError(f"a file of a table cannot be read: {type(error).__name__}") from None
            self._window_at, begin = self._at, 0
        data = self._window[begin : begin + end - self._at]
        self._at = end
        return data


def _name(path: str) -> str:
    name = path.removeprefix(f"{PROTOCOL}://").lstrip("/")
    if not _PARQUET(name):
        raise FileNotFoundError("not a file of a table")
    return name
