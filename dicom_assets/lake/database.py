"""DuckDB in memory for the queries of one lake, and where it puts what does not fit there.

Belongs here: opening a database, with what every query of the project sets. Does not belong here: what is asked
(`query`), how much memory DuckDB takes.

What does not fit into memory is patient data in clear, so it never goes into whatever folder is current: each database
has a private folder of its own, `{lake}/_tmp/{host}-{process}-{number}`, which DuckDB removes when it is closed, or,
when its process was killed, the next one that opens the lake. Where a lake lies on an object store, or is not to be
written by who reads it, it is a private one among the system's temporary files.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import uuid
import weakref
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from dicom_assets.lake.quoting import quoted
from dicom_assets.schema.registry import TABLES
from dicom_assets.storage.files import PROTOCOL, LakeFiles

if TYPE_CHECKING:
    from dicom_assets.lake.remote import TableFiles

FOLDER = "_tmp"
_PRIVATE = 0o700


class Database:
    """The database of one lake: opened when it is first asked, gone with its lake and the last cursor.

    A cursor on it costs far less than a database of its own. What is made by a cursor must be TEMP, so that no other
    one sees it. It is never closed by itself, which would close its cursors.
    """

    def __init__(self, files: LakeFiles) -> None:
        """files: those that `scan` may name."""
        self._files = files
        self._keeps_footers = False

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        connection = open_alone(self._files, self._remote)
        if self._keeps_footers:
            connection.execute("SET GLOBAL parquet_metadata_cache = true")
        return connection

    @cached_property
    def _remote(self) -> TableFiles | None:
        return None if self._files.place is None else _table_files(self._files)

    def keep_footers(self) -> None:
        """Begins anew with a database that reads the footer of each file once, for questions to the same few files.

        A footer is most of what such a question costs. One of 25 row groups takes 4 MB in memory, which goes with
        the database alone; cursors that are open go on with the one that they have.
        """
        self._keeps_footers = True
        self.__dict__.pop("_connection", None)

    def give_back(self) -> None:
        """Gives the system back what queries have freed, which DuckDB's allocator keeps for a second or longer.

        DuckDB does so whenever its bound on memory is set. That is left as it is: nothing else sets it.
        """
        if "_connection" in self.__dict__:
            with self.cursor() as connection:
                connection.execute("RESET GLOBAL memory_limit")

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection without tables, as every query of the project starts."""
        return self._connection.cursor()

    def scan(self, name: str, paths: Sequence[str], options: str = "") -> str:
        """SQL that stands for some files of a table, at least one, as the log names them; for a FROM clause.

        options: further ones of DuckDB's `read_parquet`.
        """
        if self._files.place is None:
            files = [f"{self._files.uri}/{name}/{path}" for path in paths]
        else:
            files = [f"{PROTOCOL}://{name}/{path.rsplit('/', 1)[-1]}" for path in paths]
        return f"read_parquet([{', '.join(map(quoted, files))}]{options})"

    def read_keys(self, name: str, paths: Sequence[str]) -> pa.Table:
        """The different keys (`replaced_by`) in each of some files: the file (its name alone) and the key, in order."""
        source, column = self.scan(name, paths, ", filename=true"), TABLES[name].replaced_by
        with self.cursor() as connection:
            return connection.sql(
                f"SELECT parse_filename(filename) AS file, {column} AS key FROM {source} GROUP BY ALL ORDER BY ALL"
            ).to_arrow_table()


def close_off(connection: duckdb.DuckDBPyConnection) -> None:
    """Lets a connection read nothing but what it has, or was allowed before, load nothing, and change none of that."""
    for statement in (
        "SET autoinstall_known_extensions = false",
        "SET autoload_known_extensions = false",
        "SET allow_community_extensions = false",
        "SET enable_external_access = false",
        "SET lock_configuration = true",
    ):
        connection.execute(statement)


def _table_files(files: LakeFiles) -> TableFiles:
    from dicom_assets.lake.remote import TableFiles  # a lake in a folder does without fsspec

    return TableFiles(files.store)


def open_alone(files: LakeFiles, remote: TableFiles | None = None) -> duckdb.DuckDBPyConnection:
    """A connection to a database of its own, for a user to set and lock down. files: those that it may read.

    remote: the file system by which it reads them, where they lie on an object store; by default one of its own.
    """
    connection = duckdb.connect()
    folder = spill_folder(files)
    connection.execute(f"SET temp_directory = {quoted(str(folder))}")
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET allocator_background_threads = true")  # they give back what a query has freed
    if files.place is not None:
        connection.register_filesystem(remote or _table_files(files))
    if folder.parent.name != FOLDER:
        weakref.finalize(connection, shutil.rmtree, folder.parent, ignore_errors=True)
    return connection


def spill_folder(files: LakeFiles) -> Path:
    """A folder for one database, in one that nobody else may read. DuckDB makes it when it needs it."""
    root = files.local_root
    if root is not None:
        parent = root / FOLDER
        try:
            parent.mkdir(mode=_PRIVATE, exist_ok=True)
            parent.chmod(_PRIVATE)
        except OSError:
            pass  # who only reads a lake may not write there
        else:
            return parent / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    return Path(tempfile.mkdtemp(prefix="dicom-assets-")) / "spill"


def clear_left_over(files: LakeFiles) -> None:
    """Removes what processes of this host that have ended left behind in a lake's folder."""
    root = files.local_root
    if root is None or not (root / FOLDER).is_dir():
        return
    for folder in (root / FOLDER).iterdir():
        host, process, _ = ("", *folder.name.rsplit("-", 2))[-3:]
        if host == socket.gethostname() and process.isdigit() and not _runs(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
