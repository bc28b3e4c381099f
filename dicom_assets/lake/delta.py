"""The Delta tables of one lake: made, checked, replaced in part, read.

Belongs here: everything that speaks to delta-rs. One rule of writing serves every table: a publication replaces the
rows whose `replaced_by` column has one of some values, in one commit. Does not belong here: which rows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from deltalake import (
    DeltaTable,
)
from deltalake.exceptions import DeltaError, TableNotFoundError

from dicom_assets.lake import locks
from dicom_assets.lake.azure import delta_location, delta_options, reason
from dicom_assets.lake.extents import Extents, extents
from dicom_assets.lake.files import CONTRIBUTOR, LakeError, LakeFiles
from dicom_assets.lake.registry import TABLES, Table

if TYPE_CHECKING:
    from dicom_assets.lake.remote import TableFiles
    from dicom_assets.lake.rewrite import Written

COMMIT_TRIES = 8
LOCK_SECONDS = 600.0
KEPT_SECONDS = 300.0
"""How long a table on an object store stays open: the token that it was opened with ages."""
_AT_ONCE = 8
"""Tables that are made or opened side by side: each waits for the storage several times."""
_BLOOM = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")


class ForeignTable(LakeError):
    """A Delta table at the place of one of ours has another schema."""


class NoSuchVersion(LakeError):
    """The lake does not have a table, or not in this version."""


class _Opened(threading.local):
    """Tables that a thread has open: one that is read on is not to change under another thread that reads it."""

    def __init__(self) -> None:
        self.tables: dict[str, tuple[DeltaTable, float]] = {}
        self.extents: dict[str, tuple[int, Extents]] = {}


class Lake:
    """One lake: its tables and its files.

    uri: absolute folder or URL. Opening it makes the missing tables and refuses foreign ones.
    """

    def __init__(self, uri: str, *, make: bool = True) -> None:
        """Opens the lake. Raises LakeError when it cannot be used, ForeignTable when it is not one of ours."""
        self.files = LakeFiles(uri)
        self.uri = self.files.uri
        self._checks: dict[str, Callable[[], None]] = {}
        self._here = _Opened()
        if make:
            self._make_tables()

    @property
    def storage_options(self) -> dict[str, str] | None:
        """What delta-rs is told about the storage; asked for each time, since tokens age."""
        return delta_options(self.files.place) if self.files.place else None

    def location(self, name: str) -> str:
        """Where a table lies, as delta-rs wants it."""
        return delta_location(self.files.place.below(name)) if self.files.place else f"{self.uri}/{name}"

    @cached_property
    def table_files(self) -> TableFiles | None:
        """The file system by which DuckDB reads the tables; None where it reads them itself."""
        if self.files.place is None:
            return None
        from dicom_assets.lake.remote import TableFiles  # a lake in a folder does without fsspec

        return TableFiles(self.files.store)

    def table(self, name: str, at: int | datetime | None = None) -> DeltaTable:
        """A table as it is now, or at a version or time. Raises LakeError; NoSuchVersion when it has none of these.

        As it is now, it is opened once and then read on from where its log was left; so the next call brings the table
        that this one has returned up to date as well.
        """
        try:
            if at is None:
                return self._current(name)
            table = self._opened(name)
            if isinstance(at, int) and at > table.version():
                raise NoSuchVersion(f"Table {name} has no version {at}; the newest is {table.version()}.")
            table.load_as_version(at)
            return table
        except TableNotFoundError:
            raise NoSuchVersion(f"There is no table {name} in this lake. Run `dicom-assets ingest` first.") from None
        except (DeltaError, OSError) as error:
            raise LakeError(self._why(name, error, "opened")) from None

    def _opened(self, name: str) -> DeltaTable:
        return DeltaTable(self.location(name), storage_options=self.storage_options)

    def _current(self, name: str) -> DeltaTable:
        known, since = self._here.tables.pop(name, (None, 0.0))
        if known is not None and (self.files.place is None or time.monotonic() - since < KEPT_SECONDS):
            try:
                known.update_incremental()
            except (DeltaError, OSError):
                known = None  # its log was written anew, or its token has expired
        else:
            known = None
        if known is None:
            known, since = self._opened(name), time.monotonic()
        self._here.tables[name] = known, since
        return known

    def extents(self, name: str, table: DeltaTable | None = None) -> Extents:
        """The extents of a table's files, as they are now or as `table` has them already. Raises LakeError."""
        table = table or self.table(name)
        version, known = self._here.extents.get(name, (-1, None))
        if known is None or version != table.version():
            known = extents(table)
            self._here.extents[name] = table.version(), known
        return known

    def row_count(self, name: str) -> int:
        """Rows of a table, from the statistics in its log."""
        return int(self.extents(name).rows.sum())

    @contextmanager
    def committing(self, name: str) -> Iterator[None]:
        """Holds the right to commit to a table: what is read inside cannot be outdated by another publisher."""
        try:
            with locks.held(self.files, name, LOCK_SECONDS) as check:
                self._checks[name] = check
                try:
                    yield
                finally:
                    del self._checks[name]
        except locks.LockBusy:
            raise LakeError(
                f"Another process has been writing to table {name} for {LOCK_SECONDS:.0f} s. "
                "Wait for it, or end it, then run the batch again."
            ) from None

    def check_right(self, name: str) -> None:
        """Raises LakeError when the right to commit to a table was taken by `committing` and is lost by now."""
        check = self._checks.get(name)
        if check is not None:
            check()

    def replace(
        self,
        name: str,
        values: Sequence[str],
        rows: pa.Table | Callable[[], Iterable[pa.RecordBatch]] | Written,
    ) -> None:
        """Replaces, in one commit, the rows whose `replaced_by` column has one of `values` by `rows`.

        rows: a table; or, for tables that are replaced by batch, a function that begins a stream of batches anew for
        each try, or files that are written already. Only files that hold such rows are rewritten, see `rewrite`.
        Conflicting commits are worked out anew after growing, jittered pauses. Raises LakeError; the message holds no
        value.
        """
        from dicom_assets.lake import rewrite  # it builds on this module

        if not isinstance(rows, pa.Table):
            rewrite.replace_batches(self, name, values, rows)
        elif TABLES[name].replaced_by == "batch_id":
            rewrite.replace_batches(self, name, values, rows.to_batches)
        else:
            rewrite.replace_keys(self, name, values, rows)

    def _make_tables(self) -> None:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = list(pool.map(self._made, TABLES.values()))
        self._here.tables.update({name: (table, time.monotonic()) for name, table in found if table is not None})

    def _made(self, table: Table) -> tuple[str, DeltaTable | None]:
        """A table that is there and as registered; None for one that had to be made and is not open yet."""
        try:
            found = self._opened(table.name)
        except TableNotFoundError:
            self._make(table)
            return table.name, None
        except (DeltaError, OSError) as error:
            raise LakeError(self._why(table.name, error)) from None
        self._compare(table, found)
        return table.name, found

    def _make(self, table: Table) -> None:
        try:
            DeltaTable.create(
                self.location(table.name),
                schema=table.schema,
                mode="ignore",
                name=table.name,
                description=table.description,
                configuration={"delta.dataSkippingStatsColumns": ",".join(statistics_columns(table))},
                storage_options=self.storage_options,
            )
        except (DeltaError, OSError) as error:
            raise LakeError(self._why(table.name, error)) from None

    def _compare(self, table: Table, found: DeltaTable) -> None:
        differing = schema_differences(table, pa.schema(found.schema().to_arrow()))
        if differing:
            raise ForeignTable(
                f"The lake already holds a Delta table '{table.name}' that this project did not make, or that another "
                f"version made: {len(differing)} columns differ ({', '.join(differing[:5])}). Give an empty folder."
            )

    def _why(self, name: str, error: BaseException, action: str = "written") -> str:
        text = str(error).lower()
        place = self.files.place
        if place is not None and "containernotfound" in text:
            return f"Table {name}: container {place.container} of account {place.account} is not there."
        if place is not None and isinstance(error, OSError):
            return f"Table {name} cannot be {action}: {reason(error, CONTRIBUTOR)}."
        if "no space" in text or "os error 28" in text:
            return "The disk that holds the lake is full. Free some space, then run the batch again; nothing is lost."
        if "permission denied" in text or "read-only" in text:
            return "The lake folder is not writable. Give this user write access, or give another folder."
        return f"Table {name} cannot be {action}: {type(error).__name__}."


def statistics_columns(table: Table) -> list[str]:
    """Columns by which files are left unopened: the log holds smallest and largest value of these, and stays small."""
    return [c for c in dict.fromkeys((table.replaced_by, "batch_id", "study_key")) if c in table]


def bloom_columns(table: Table) -> list[str]:
    """Columns by which single rows of large tables are looked up: their files carry Bloom filters for them."""
    return [column for column in _BLOOM if column in table] if table.name in ("flat_metadata", "instance") else []


def schema_differences(table: Table, found: pa.Schema) -> list[str]:
    """Names of the table's columns that are missing from a schema or have another type there, and of extra ones."""
    actual = {field.name: normal_type(field.type) for field in found}
    expected = {column.name: normal_type(column.type) for column in table.columns}
    return sorted(name for name in actual.keys() | expected.keys() if actual.get(name) != expected.get(name))


def normal_type(kind: Any) -> str:
    """An Arrow type in words, the same for the variants that Delta does not tell apart."""
    kind = pa.field("x", kind).type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or str(kind).startswith("list_view"):
        return f"list<{normal_type(kind.value_type)}>"
    return {"large_string": "string", "string_view": "string"}.get(str(kind), str(kind))
