"""Plain files of a lake: claims, staging, and where tables lie, on a local disk or an object store alike.

Belongs here: put, get, list, delete below the lake's root, with errors a user understands. Does not belong here: what
the files mean.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError

from dicom_assets.settings import UserError
from dicom_assets.storage.azure import (
    SCHEMES,
    AddressError,
    Place,
    container_client,
    object_store,
    parse_folder,
    reason,
    status_of,
)
from dicom_assets.storage.durable import sync, write_whole

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient
    from obstore.store import ObjectStore

ROW_GROUP = 20_000
ARROW_ROWS = 2_000
ARROW_BYTES = 4 << 20
"""Rows of a transient file that are unpacked together: so many, and so many bytes of them on the average."""
PROTOCOL = "lake"
"""How DuckDB is told of files on an object store: `lake://{table}/{file}.parquet`, below the lake's root."""
CONTRIBUTOR = "Storage Blob Data Contributor"
"""The role that whoever writes the lake needs on its container."""


class LakeError(UserError):
    """The lake cannot be read or written. The message says what to do and holds no row's values."""


MAY_NOT_READ = "this user may not read its files. Let it read the folder of the lake and all that is in it."
"""What is said of a table in such a folder: its files are there, and nobody has to make them again."""


class TornFile(LakeError):
    """A file of the lake is empty or cut, as a power cut leaves it."""

    def __init__(self, path: str) -> None:
        """path: below the lake's root; of our own making, without patient data."""
        super().__init__(
            f"The file {path} of the lake is torn, as by a power cut. Run `dicom-assets verify`, which says what it "
            "held, and `dicom-assets verify --fix`, which makes it again."
        )
        self.path = path


class LakeFiles:
    """Files below the root of one lake."""

    def __init__(self, uri: str, *, synced: bool = True) -> None:
        """Opens the root, making a local folder when it is missing.

        uri: an absolute path, or a URL that an object store answers to. synced: in a folder, whether what is to outlive
        a power cut is on the disk before its writing counts as done. Raises LakeError.
        """
        self.place = _place(uri)
        self.uri = self.place.url if self.place else uri.rstrip("/")
        self.store = object_store(self.place) if self.place else _local_store(self.uri)
        self.synced = synced and self.place is None

    @cached_property
    def local_root(self) -> Path | None:
        """The folder, when the lake is one on this machine."""
        return None if "://" in self.uri else Path(self.uri)

    @cached_property
    def container(self) -> ContainerClient:
        """The Azure SDK's client of the container that the lake lies in, which keeps its connections."""
        if self.place is None:
            raise AssertionError("a lake in a folder has no container")
        return container_client(self.place)

    def put(self, path: str, data: bytes, *, create: bool = False, durable: bool = True) -> bool:
        """Writes a file whole or not at all. With create, False when it exists already. Raises LakeError.

        durable: False for what can be made again when a power cut takes it.
        """
        root = self.local_root
        try:
            if root is not None:
                return write_whole(root / path, data, create=create, synced=durable and self.synced)
            obstore.put(self.store, path, data, mode="create" if create else "overwrite")
        except AlreadyExistsError:
            return False
        except (BaseError, OSError) as error:
            raise LakeError(_sentence("write to", error, self.place)) from None
        return True

    def sync(self, paths: Iterable[str]) -> None:
        """Returns when files are on the disk, and the folders that name them. Raises LakeError."""
        root = self.local_root
        if root is None or not self.synced:
            return
        try:
            sync([root / path for path in paths])
        except OSError as error:
            raise LakeError(_sentence("write to", error, self.place)) from None

    @contextmanager
    def writing(self, path: str) -> Iterator[BinaryIO]:
        """A file to write to that nobody reads before it is whole, since its name is told only then. Raises LakeError.

        In a folder what is written goes to the disk as it comes; an object store gets it at the end.
        """
        root = self.local_root
        if root is None:
            held = io.BytesIO()
            yield held
            self.put(path, held.getvalue())
            return
        target, whole = root / path, False
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                yield file
            whole = True
        except OSError as error:
            raise LakeError(_sentence("write to", error, self.place)) from None
        finally:
            if not whole:
                target.unlink(missing_ok=True)

    def get(self, path: str) -> bytes:
        """A file's bytes. Raises FileNotFoundError, LakeError."""
        try:
            return bytes(obstore.get(self.store, path).bytes())
        except (NotFoundError, FileNotFoundError):
            raise FileNotFoundError(path) from None
        except (BaseError, OSError) as error:
            raise LakeError(_sentence("read from", error, self.place)) from None

    def exists(self, path: str) -> bool:
        """Whether a file is there. Raises LakeError."""
        if self.local_root is not None:
            return os.path.exists(f"{self.uri}/{path}")  # noqa: PTH110 - asked hundreds of times for each batch
        try:
            obstore.head(self.store, path)
        except (NotFoundError, FileNotFoundError):
            return False
        except (BaseError, OSError) as error:
            raise LakeError(_sentence("read from", error, self.place)) from None
        return True

    def names(self, prefix: str, after: str = "") -> list[str]:
        """Paths of the files below a folder, sorted; only those that come after one, if it is given."""
        try:
            pages = obstore.list(self.store, prefix=prefix, offset=after or None)
            # The emulator of Azure ignores where a listing is to start.
            return sorted(meta["path"] for page in pages for meta in page if meta["path"] > after)
        except (NotFoundError, FileNotFoundError):
            return []
        except (BaseError, OSError) as error:
            raise LakeError(_sentence("list", error, self.place)) from None

    def listed(self, prefix: str) -> list[tuple[str, int, str]]:
        """The files below a folder, sorted: path, size, and a mark that changes whenever the bytes may have changed."""
        try:
            pages = obstore.list(self.store, prefix=prefix or None)
            return sorted((meta["path"], meta["size"], str(meta["e_tag"] or "")) for page in pages for meta in page)
        except (NotFoundError, FileNotFoundError):
            return []
        except (BaseError, OSError) as error:
            raise LakeError(_sentence("list", error, self.place)) from None

    def folders(self, prefix: str) -> list[str]:
        """Paths of the folders in a folder, sorted. Raises LakeError."""
        try:
            return sorted(obstore.list_with_delimiter(self.store, prefix=prefix)["common_prefixes"])
        except (NotFoundError, FileNotFoundError):
            return []
        except (BaseError, OSError) as error:
            raise LakeError(_sentence("list", error, self.place)) from None

    def every_name(self, prefix: str) -> list[str]:
        """Paths of all files below a folder, sorted; in a folder also those that writers which were killed left."""
        root = self.local_root
        if root is None:
            return self.names(prefix)
        try:
            below = (root / prefix).rglob("*") if prefix else root.rglob("*")
            return sorted(path.relative_to(root).as_posix() for path in below if not path.is_dir())
        except OSError as error:
            raise LakeError(_sentence("list", error, self.place)) from None

    def remove_whole(self, path: str) -> None:
        """Deletes one file whatever its name; gone is what was asked for. Raises LakeError.

        The storage library takes `#1` at the end of a name for its own.
        """
        root = self.local_root
        if root is None:
            self.remove(path)
            return
        try:
            (root / path).unlink(missing_ok=True)
        except OSError as error:
            raise LakeError(_sentence("delete from", error, self.place)) from None

    def delete(self, prefix: str) -> int:
        """Deletes everything below a folder of the lake; how many files there were."""
        if not prefix.strip("/"):
            raise ValueError("the lake's root is not to be deleted")
        names = self.names(prefix)
        try:
            if names:
                obstore.delete(self.store, names)
        except (NotFoundError, FileNotFoundError):
            pass  # somebody else deleted the same files; gone is what was asked for
        except (BaseError, OSError) as error:
            raise LakeError(_sentence("delete from", error, self.place)) from None
        root = self.local_root
        if root is not None:
            _remove_torn(root / prefix)
            _remove_empty(root / prefix)
        return len(names)

    def remove(self, path: str) -> None:
        """Deletes one file; gone is what was asked for. Raises LakeError."""
        try:
            obstore.delete(self.store, path)
        except (NotFoundError, FileNotFoundError):
            pass
        except (BaseError, OSError) as error:
            raise LakeError(_sentence("delete from", error, self.place)) from None

    def put_parquet(self, path: str, table: pa.Table, *, create: bool = False) -> bool:
        """Writes a table as Parquet; see `put`."""
        return self.put(path, parquet_bytes(table), create=create)

    def get_parquet(self, path: str, columns: list[str] | None = None) -> pa.Table:
        """Reads a Parquet file, or only some of its columns, in this order.

        Raises FileNotFoundError, TornFile, LakeError.
        """
        try:
            found = self._parquet(path).read(columns=columns)
            return found if columns is None else found.select(columns)
        except (pa.ArrowException, KeyError):
            raise TornFile(path) from None

    def open_parquet(self, path: str) -> pq.ParquetFile:
        """A Parquet file to be read in parts; one on an object store is fetched whole.

        Raises FileNotFoundError, TornFile, LakeError.
        """
        root = self.local_root
        try:
            return self._parquet(path) if root is None else pq.ParquetFile(root / path)
        except pa.ArrowException:
            raise TornFile(path) from None

    def _parquet(self, path: str) -> pq.ParquetFile:
        # Not `pq.read_table`: it imports Arrow's data sets, 60 MB of memory that nothing else needs.
        return pq.ParquetFile(io.BytesIO(self.get(path)))

    def arrow_batches(
        self, path: str, columns: Sequence[str] | None = None, data: bytes | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The rows of an Arrow file, ARROW_ROWS at a time, or only some of their columns, in this order.

        Columns that the file does not have are left out. data: the file, where it is at hand. Raises FileNotFoundError,
        TornFile, LakeError.
        """
        root = self.local_root
        try:
            if data is None and root is not None:
                source = pa.memory_map(str(root / path))
            else:
                source = pa.BufferReader(self.get(path) if data is None else data)
        except FileNotFoundError:
            raise
        except pa.ArrowException:  # there is nothing in it
            raise TornFile(path) from None
        except OSError as error:
            raise LakeError(_sentence("read from", error, self.place)) from None
        with source:
            for batch in _batches(source, columns, path):
                yield batch if columns is None else batch.select([one for one in columns if one in batch.schema.names])


def _batches(source: pa.NativeFile, columns: Sequence[str] | None, path: str) -> Iterator[pa.RecordBatch]:
    """The batches of an Arrow file. Raises TornFile."""
    fields = None
    try:
        if columns is not None:
            schema = pa.ipc.open_file(source).schema
            fields = [at for column in columns if (at := schema.get_field_index(column)) >= 0]
        file = pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=fields))
        for number in range(file.num_record_batches):
            batch = file.get_batch(number)
            yield batch
    except (pa.ArrowException, OSError):
        raise TornFile(path) from None


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as Parquet, for small files: quick to write, small enough."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", compression_level=1, row_group_size=ROW_GROUP)
    return sink.getvalue()


class ArrowSink:
    """Rows written as an Arrow file in memory, for transient files of many columns; compressed as they come.

    Parquet takes 20 ms to write and read some hundred rows of 150 columns; this takes a third of that.
    """

    def __init__(self, schema: pa.Schema) -> None:
        """An empty file."""
        self.rows = 0
        self._sink = pa.BufferOutputStream()
        self._writer = pa.ipc.new_file(self._sink, schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))

    def write(self, rows: pa.Table) -> None:
        """Adds rows, which are read again ARROW_ROWS or about ARROW_BYTES at a time at most."""
        self.rows += len(rows)
        fitting = max(1, ARROW_BYTES * len(rows) // max(1, rows.nbytes))
        self._writer.write_table(rows, max_chunksize=min(ARROW_ROWS, fitting))

    def close(self) -> bytes:
        """The whole file."""
        self._writer.close()
        file, self._sink = self._sink.getvalue(), None
        return bytes(file)


def arrow_rows(data: bytes) -> int:
    """How many rows an Arrow file has; of its columns only the first is unpacked for it."""
    file = pa.ipc.open_file(pa.BufferReader(data), options=pa.ipc.IpcReadOptions(included_fields=[0]))
    return sum(file.get_batch(number).num_rows for number in range(file.num_record_batches))


def arrow_bytes(table: pa.Table) -> bytes:
    """A table as an Arrow file; see ArrowSink."""
    sink = ArrowSink(table.schema)
    sink.write(table)
    return sink.close()


def _place(uri: str) -> Place | None:
    """Where a lake on Azure lies; None for a folder. Raises LakeError."""
    if "://" not in uri:
        return None
    scheme = urlsplit(uri).scheme
    if scheme not in SCHEMES:
        raise LakeError(f"Lakes on {scheme}:// are not supported. Give a folder, or az://account/container/path.")
    try:
        return parse_folder(uri)
    except AddressError as error:
        raise LakeError(f"The lake's address is wrong: {error}.") from None


def _local_store(uri: str) -> ObjectStore:
    root = Path(uri)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LakeError(f"The lake folder cannot be made: {error.strerror}. Give another folder.") from None
    return obstore.store.LocalStore(str(root))


def _sentence(action: str, error: BaseException, place: Place | None) -> str:
    text = str(error).lower()
    if place is not None:
        if status_of(error) == 404:
            return f"Cannot {action} the lake: container {place.container} of account {place.account} is not there."
        return f"Cannot {action} the lake: {reason(error, CONTRIBUTOR)}."
    if "no space" in text or "os error 28" in text:
        return "The disk that holds the lake is full. Free some space, then run the batch again; nothing is lost."
    if "permission" in text or "read-only" in text:
        return f"Cannot {action} the lake: permission denied. Give this user write access to the lake folder."
    return f"Cannot {action} the lake: {type(error).__name__}. See that its storage is there and can be reached."


def _remove_torn(folder: Path) -> None:
    """Removes what writers that were killed left: the storage writes `name#1` first, and never lists it."""
    for path in folder.rglob("*#*"):
        if path.name.rpartition("#")[2].isdigit():
            path.unlink(missing_ok=True)


def _remove_empty(folder: Path) -> None:
    """Removes the folders that a deletion left empty; a folder that is in use again stays."""
    if not folder.is_dir():
        return
    for child in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
        _rmdir(child)
    _rmdir(folder)


def _rmdir(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return  # not empty: it is not ours to remove
