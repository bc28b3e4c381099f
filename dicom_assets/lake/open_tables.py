"""The tables of one lake as their logs have them: each opened once for all threads, and read on from there.

Belongs here: what a table is now, or was, which files it has, and looking at a log no more often than it takes. Does
not belong here: making tables and committing to them (`tables`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from dicom_assets.lake import torn
from dicom_assets.lake.extents import Extents, extents
from dicom_assets.storage.azure import delta_location, delta_options, reason
from dicom_assets.storage.files import CONTRIBUTOR, MAY_NOT_READ, LakeError, LakeFiles

OPEN_SECONDS = 300.0
"""How long a table on an object store stays open, whose token ages; elsewhere, until its log is listed again."""
AT_ONCE = 8
"""Tables that are looked at, opened or made side by side: each waits for the storage several times."""


NOT_COMPARED = (-1, "", False)
"""What is known of the columns of a table's files before anybody has asked: version, columns, whether they differ."""


class NoSuchVersion(LakeError):
    """The lake does not have a table, or not in this version."""


class _Open:
    """A table that is open, for all threads: each open table has read its log once, which takes many requests.

    All but `lock` is for whoever holds that. since: when it was opened, in a folder when its log was last listed.
    is_behind: this process has committed what `table` does not know. mixed: version, columns as the
    log has them, and whether files may have others. kept_up: the columns with which the list of promoted ones was last
    compared.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.table: DeltaTable | None = None
        self.extents: Extents | None = None
        self.mixed = NOT_COMPARED
        self.kept_up = ""
        self.since = 0.0
        self.is_behind = False

    def enter(self, table: DeltaTable) -> None:
        self.table, self.since, self.is_behind = table, time.monotonic(), False

    @property
    def is_old(self) -> bool:
        return time.monotonic() - self.since >= OPEN_SECONDS


class _Looked(threading.local):
    """The tables whose log a thread has looked at within `Tables.look_once`, with their version; None outside of it."""

    names: dict[str, int] | None = None


class OpenTables:
    """The tables of one lake that are open. names: of all of them."""

    def __init__(self, files: LakeFiles, names: Iterable[str]) -> None:
        """Opens none yet."""
        self.files = files
        self.uri = files.uri
        self._open = {name: _Open() for name in names}
        self._looked = _Looked()

    @property
    def storage_options(self) -> dict[str, str] | None:
        """What delta-rs is told about the storage; asked for each time, since tokens age."""
        return delta_options(self.files.place) if self.files.place else None

    def location(self, name: str) -> str:
        """Where a table lies, as delta-rs wants it."""
        return delta_location(self.files.place.below(name)) if self.files.place else f"{self.uri}/{name}"

    def table(self, name: str, at: int | datetime | None = None) -> DeltaTable:
        """A table, opened for the caller alone, as it is now or at a version or time.

        Raises LakeError; NoSuchVersion when the lake has none of these.
        """
        with self._explain(name):
            table = self._load(name)
            if isinstance(at, int) and at > table.version():
                raise NoSuchVersion(f"Table {name} has no version {at}; the newest is {table.version()}.")
            if at is not None:
                table.load_as_version(at)
            return table

    def extents(self, name: str) -> Extents:
        """The files of a table as it is now, or was when `look_once` looked first. Raises LakeError, NoSuchVersion."""
        with self._explain(name), self._open[name].lock:
            table = self._current(name)
            known = self._open[name].extents
            if known is None or known.version != table.version():
                known = self._open[name].extents = extents(table)
            return known

    def schema(self, name: str) -> pa.Schema:
        """The columns of a table, as its log has them. Raises LakeError, NoSuchVersion."""
        with self._explain(name), self._open[name].lock:
            return pa.schema(self._current(name).schema().to_arrow())

    @contextmanager
    def look_once(self, names: Iterable[str] = ()) -> Iterator[None]:
        """Within it this thread looks at each table once, and sees what others commit later only behind `committing`.

        For a step of a batch, which reads the same tables again and again: a look is a request on an object store. What
        this thread commits itself it sees at once. names: looked at to begin with, side by side; what is wrong with one
        of these is told when it is asked for.
        """
        before, self._looked.names = self._looked.names, dict(self._look_at(names))
        try:
            yield
        finally:
            self._looked.names = before

    def looked_at(self) -> dict[str, int]:
        """Within `look_once`: the tables that this thread has looked at, in their order, and in which version first."""
        return dict(self._looked.names or {})

    def _look_at(self, names: Iterable[str]) -> Iterator[tuple[str, int]]:
        """Looks at tables side by side; at which it could, and their versions."""

        def look(name: str) -> tuple[str, int] | None:
            try:
                return name, self.extents(name).version
            except LakeError:
                return None

        with ThreadPoolExecutor(AT_ONCE) as pool:
            yield from filter(None, pool.map(look, names))

    def _look_again(self, *names: str) -> None:
        """Lets this thread look at some tables again, at all without names."""
        if self._looked.names is not None:
            for name in names or tuple(self._looked.names):
                self._looked.names.pop(name, None)

    @contextmanager
    def _explain(self, name: str) -> Iterator[None]:
        try:
            yield
        except TableNotFoundError:
            raise NoSuchVersion(f"There is no table {name} in this lake. Run `dicom-assets ingest` first.") from None
        except (DeltaError, OSError) as error:
            raise LakeError(self._why(name, error, "opened")) from None

    def _load(self, name: str) -> DeltaTable:
        torn.require_whole(self.files, name)
        return DeltaTable(self.location(name), storage_options=self.storage_options)

    def _current(self, name: str) -> DeltaTable:
        """The open table of all threads, for whoever holds its lock: read on from where its log was left."""
        shared, looked = self._open[name], self._looked.names
        if self.files.place is not None and shared.is_old:
            shared.table = None
        if shared.table is None or looked is None or name not in looked:
            self._read_on(name, shared)
        assert shared.table is not None
        if looked is not None:
            looked.setdefault(name, shared.table.version())
        return shared.table

    def _read_on(self, name: str, shared: _Open) -> None:
        if shared.table is not None:
            try:
                if shared.is_behind or shared.is_old or self._has_more(name, shared.table.version()):
                    shared.table.update_incremental()
                    shared.is_behind = False
                    if self.files.place is None:
                        shared.since = time.monotonic()
                elif self.files.place is None and self._is_forgotten(name, shared.table.version()):
                    shared.enter(self._load(name))
                return
            except (DeltaError, OSError):
                shared.table = None  # its log was written anew, or its token has expired
        shared.enter(self._load(name))

    def _has_more(self, name: str, version: int) -> bool:
        """Whether the log of a table goes on behind a version: versions have no gaps (Delta protocol, log entries).

        Not for what was read long ago: log entries that are older than the retention are deleted.
        """
        return self.files.exists(f"{name}/_delta_log/{version + 1:020d}.json")

    def open_anew(self, name: str) -> None:
        """Lets a table be opened anew when it is asked for next, since its log begins anew."""
        shared = self._open[name]
        with shared.lock:
            shared.table = shared.extents = None
        self._look_again(name)

    def _is_forgotten(self, name: str, version: int) -> bool:
        """Whether the log does not know a version any more, since it begins behind it (`history.forget`)."""
        log = f"{name}/_delta_log/{version:020d}"
        return not self.files.exists(f"{log}.json") and not self.files.exists(f"{log}.checkpoint.parquet")

    def row_count(self, name: str) -> int:
        """Rows of a table, from the statistics in its log."""
        return int(self.extents(name).rows.sum())

    def _why(self, name: str, error: BaseException, action: str = "written") -> str:
        text = str(error).lower()
        place = self.files.place
        if place is not None and "containernotfound" in text:
            return f"Table {name}: container {place.container} of account {place.account} is not there."
        if place is not None and isinstance(error, OSError):
            return f"Table {name} cannot be {action}: {reason(error, CONTRIBUTOR)}."
        if "no space" in text or "os error 28" in text:
            return "The disk that holds the lake is full. Free some space, then run the batch again; nothing is lost."
        if "permission denied" in text and action == "opened":
            return f"Table {name}: {MAY_NOT_READ}"
        if "permission denied" in text or "read-only" in text:
            return "The lake folder is not writable. Give this user write access, or give another folder."
        return f"Table {name} cannot be {action}: {type(error).__name__}. Run `dicom-assets verify`."
