"""The Delta tables of one lake: made, checked, committed to, and what their files hold.

Belongs here: making tables and adding columns, the right to commit, committing. Does not belong here: looking at what
they are (`open_tables`), which files a commit names (`rewrite`), reading rows (`query`).

What is kept between two looks at the tables belongs to the object that opened them, and is dropped with it: open
tables, which keys each file holds, DuckDB's database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import duckdb
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from dicom_assets.lake import column_list, form, table_form, torn
from dicom_assets.lake.database import Database, clear_left_over
from dicom_assets.lake.extents import Extents
from dicom_assets.lake.file_keys import FileKeys
from dicom_assets.lake.open_tables import AT_ONCE, NOT_COMPARED, OpenTables
from dicom_assets.lake.open_tables import NoSuchVersion as NoSuchVersion
from dicom_assets.lake.table_form import ForeignTable as ForeignTable
from dicom_assets.schema.registry import TABLES, Table
from dicom_assets.storage import locks
from dicom_assets.storage.files import LakeError, LakeFiles

COMMIT_TRIES = 8
LOCK_SECONDS = 600.0
CHECKPOINT_COMMITS = 10
"""Commits after which a log is summed up, Delta's own default (delta-rs: 100).

Whoever opens a table, and each commit, reads the log from there on: 25 ms for a hundred, two requests for each.
"""


class Tables(OpenTables):
    """The tables and the files of one lake.

    uri: absolute folder or URL. Opening it makes the missing tables, adds the columns that a table of an earlier
    release lacks, and refuses foreign ones. tables: what each of them looks like here.
    """

    def __init__(
        self, uri: str, *, make: bool = True, synced: bool = True, take: column_list.Take | None = None
    ) -> None:
        """Opens the lake. Raises LakeError when it cannot be used, ForeignTable when it is not one of ours.

        make: also sets aside what a power cut has torn of its tables' logs. synced: see `LakeFiles`. take: takes values
        of promoted columns from headers; without it, rows of flat_metadata cannot be written into a lake that has some.
        """
        super().__init__(LakeFiles(uri, synced=synced), TABLES)
        self.form = form.require(self.files, make=make)
        self._take = take
        self.know_columns()
        self._checks: dict[str, Callable[[], None]] = {}
        self._database = Database(self.files)
        self.file_keys = FileKeys(self.files, self._database.read_keys)
        self.batches_of_studies: tuple[Extents, frozenset[str], list[str]] | None = None  # see `studies.batches_of`
        if make:
            self._make_tables()
            self.form = form.enter(self.files, self.form)
            clear_left_over(self.files)
        elif self.form.number < form.FORMAT:
            self._refuse_foreign()

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A DuckDB connection in memory without tables, as every query of the project starts.

        What is made in it must be TEMP, so that no other connection sees it.
        """
        return self._database.cursor()

    def keep_footers(self) -> None:
        """From here on what a file's footer says is kept for the next question; see `Database.keep_footers`."""
        self._database.keep_footers()

    def give_back(self) -> None:
        """Gives the system back what DuckDB has freed; see `Database.give_back`."""
        self._database.give_back()

    def scan_files(self, name: str, paths: Sequence[str], options: str = "") -> str:
        """SQL that stands for some files of a table, with all its columns; see `Database.scan`."""
        return self._database.scan(name, paths, self.columns_option(name) + options)

    def scan_footers(self, name: str, paths: Sequence[str]) -> str:
        """SQL that stands for the columns of some files of a table, see `Database.scan`: file_name, name and more."""
        return self._database.scan(name, paths).replace("read_parquet", "parquet_schema", 1)

    def know_columns(self) -> None:
        """Reads which columns are promoted, and how far each is. Raises LakeError."""
        self.columns = column_list.read(self.files)
        self.tables: Mapping[str, Table] = column_list.tables_with(self.columns)
        for shared in self._open.values():
            shared.mixed = NOT_COMPARED

    def keep_up_with_columns(self, name: str) -> None:
        """Reads the list of promoted columns again where the open table, as it was last read, has others.

        So whoever opened the lake before a column came, or went, learns of it before a commit. Raises LakeError.
        """
        shared = self._open[name]
        text = "" if shared.table is None else str(shared.table.schema().to_json())
        if text != shared.kept_up:
            shared.kept_up = text
            if table_form.names_in(text) != {*self.tables[name].schema.names}:
                self.know_columns()

    def complete(self, name: str, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Rows of a table on their way into a file, with the promoted columns that they lack, taken from `header`."""
        return column_list.complete(self.columns, self._take, rows) if name == "flat_metadata" else rows

    def hidden(self, name: str) -> list[str]:
        """Promoted columns of a table that whoever asks does not see yet: not all of its files have them."""
        return column_list.hidden(self.columns, name, self.schema(name).names) if self.columns else []

    def columns_option(self, name: str) -> str:
        """What DuckDB is told of the columns of a table's files: nothing where all of them have the table's own."""
        return table_form.sql_schema(self.tables[name].columns) if self.is_mixed(name) else ""

    def is_mixed(self, name: str) -> bool:
        """Whether files of a table may have other columns than the table. Raises LakeError, NoSuchVersion."""
        with self._explain(name), self._open[name].lock:
            shared = self._open[name]
            table = shared.table or self._current(name)
            if shared.mixed[0] != table.version():
                text = str(table.schema().to_json())
                same = text == shared.mixed[1]
                mixed = shared.mixed[2] if same else table_form.is_mixed(self.tables[name], text)
                shared.mixed = table.version(), text, mixed
            return shared.mixed[2]

    def commit(
        self, name: str, seen: Extents, actions: Sequence[AddAction | RemoveAction], anew: pa.Schema | None = None
    ) -> bool:
        """Commits which files come and go; whether it could, which it cannot when somebody else committed since `seen`.

        anew: the columns that the table has from then on; all files that it had go. Raises LakeError.
        """
        shared = self._open[name]
        with shared.lock:
            self._look_again(name)
            if shared.table is None or shared.table.version() != seen.version:
                return False
            # Files before the entry that names them: an entry that outlives them is what hurts.
            self.files.sync(f"{name}/{action.path}" for action in actions if isinstance(action, AddAction))
            metadata = {torn.ACTIONS: str(len(actions))}
            try:
                shared.table.create_write_transaction(
                    [*actions],
                    mode="append" if anew is None else "overwrite",
                    schema=self.tables[name].schema if anew is None else anew,
                    commit_properties=CommitProperties(custom_metadata=metadata, max_commit_retries=0),
                )
            except CommitFailedError:
                return False
            except (DeltaError, OSError) as error:
                raise LakeError(f"Table {name} cannot be written: {type(error).__name__}.") from None
            finally:
                shared.is_behind = True
            self.sync_log(name, seen.version + 1)
        return True

    def sync_log(self, name: str, version: int, *, checkpoint: bool = False) -> None:
        """Returns when an entry of a table's log is on the disk, and a checkpoint of it. Raises LakeError."""
        root = self.files.local_root
        if root is None or not self.files.synced:
            return
        entries = [f"{version:020d}.json"]
        if checkpoint or (version + 1) % CHECKPOINT_COMMITS == 0:
            entries += [f"{version:020d}.checkpoint.parquet", "_last_checkpoint"]
        folder = f"{name}/_delta_log"
        self.files.sync(f"{folder}/{entry}" for entry in entries if (root / folder / entry).exists())

    @contextmanager
    def committing(self, name: str) -> Iterator[None]:
        """Holds the right to commit to a table: what is read inside cannot be outdated by another publisher."""
        try:
            with locks.held(self.files, name, LOCK_SECONDS) as check:
                self._checks[name] = check
                self._look_again()
                self._require_known(name)
                try:
                    yield
                finally:
                    del self._checks[name]
        except locks.LockBusy:
            raise LakeError(
                f"Another process has been writing to table {name} for {LOCK_SECONDS:.0f} s. "
                "Wait for it, or end it, then run the batch again."
            ) from None

    def _require_known(self, name: str) -> None:
        """Before a commit: a version that the log does not know any more is not gone on from.

        Its successor's entry is gone as well, so that a commit would take its number and nobody would ever see it.
        """
        shared = self._open[name]
        with shared.lock:
            if shared.table is not None and self._is_forgotten(name, shared.table.version()):
                shared.table = None

    def check_right(self, name: str) -> None:
        """Raises LakeError when the right to commit to a table was taken by `committing` and is lost by now."""
        check = self._checks.get(name)
        if check is not None:
            check()

    def _make_tables(self) -> None:
        """Looks at every table before anything is made or added: a lake that is refused stays as it is."""
        tables = [*TABLES.values()]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = list(pool.map(self._find, tables))
            list(pool.map(self._complete, tables, found))

    def _refuse_foreign(self) -> None:
        """Whoever only reads a lake without a number of this release looks as well whether its tables are ours."""
        for table in TABLES.values():
            try:
                self._lacks(table, self._load(table.name))
            except TableNotFoundError:
                continue
            except (DeltaError, OSError) as error:
                raise LakeError(self._why(table.name, error, "opened")) from None

    def _find(self, table: Table) -> tuple[DeltaTable, table_form.Lacking] | None:
        """A table that is there, with what it lacks; None when there is none.

        Raises ForeignTable, OtherFormat, LakeError.
        """
        try:
            found = self._open_whole(table)
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            raise LakeError(self._why(table.name, error, "opened")) from None
        return found, self._lacks(table, found)

    def _complete(self, table: Table, found: tuple[DeltaTable, table_form.Lacking] | None) -> None:
        """Makes a table that was not found, and leaves it closed; gives another one what it lacks."""
        if found is None:
            self._make(table)
        else:
            self._open[table.name].enter(self._bring_up_to_date(table) if found[1] else found[0])

    def _bring_up_to_date(self, table: Table) -> DeltaTable:
        """Gives a table of an earlier release the columns and comments that it lacks; files stay as they are."""
        with self.committing(table.name):
            found = self._load(table.name)
            lacking, version = self._lacks(table, found), found.version()
            try:
                table_form.bring_up_to_date(found, lacking)
            except (DeltaError, OSError) as error:
                raise LakeError(self._why(table.name, error)) from None
            found = self._load(table.name)
            for entry in range(version + 1, found.version() + 1):
                self.sync_log(table.name, entry)
        return found

    def _open_whole(self, table: Table) -> DeltaTable:
        """Opens a table; sets aside what is torn of its log, when it does not open otherwise."""
        try:
            return self._load(table.name)
        except TableNotFoundError:
            raise
        except (torn.TornLog, DeltaError):
            log = torn.log_of(self.files, table.name)
            if log is None or not (torn.torn_entries(log) or torn.torn_checkpoints(log)):
                raise
        with self.committing(table.name):
            if 0 in torn.mend(self.files, table.name):
                self._begin_again(table)
        return self._load(table.name)

    def mend_tables(self) -> None:
        """Opens every table, or sets it aside and makes it anew where its log is beyond reading. Raises LakeError.

        What was set aside is missing from then on, as `torn.MARK` says.
        """
        for table in TABLES.values():
            try:
                self._complete(table, self._find(table))
                continue
            except (ForeignTable, form.OtherFormat):
                raise
            except LakeError as error:
                if not isinstance(error.__cause__ or error.__context__ or error, torn.TornLog | DeltaError):
                    raise
            with self.committing(table.name):
                torn.set_table_aside(self.files, table.name)
            self._make(table)

    def _make(self, table: Table) -> None:
        self._create(table, self.location(table.name))
        log = f"{table.name}/_delta_log"
        self.files.sync([f"{log}/{0:020d}.json", log, table.name])

    def _begin_again(self, table: Table) -> None:
        """Writes the first entry of a log, which is lost, anew."""
        place = f"{torn.FOLDER}/{table.name}/made"
        self._create(table, f"{self.uri}/{place}")
        first = f"_delta_log/{0:020d}.json"
        self.files.put(f"{table.name}/{first}", self.files.get(f"{place}/{first}"))
        self.files.delete(place)

    def _create(self, table: Table, location: str) -> None:
        try:
            table_form.create(table, location, self.storage_options, CHECKPOINT_COMMITS)
        except (DeltaError, OSError) as error:
            raise LakeError(self._why(table.name, error)) from None

    def _lacks(self, table: Table, found: DeltaTable) -> table_form.Lacking:
        promoted = [one.column.column() for one in self.columns if table.name in one.way]
        return table_form.lacking(TABLES[table.name], found, self.form, promoted)
