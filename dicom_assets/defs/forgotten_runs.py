"""What Dagster's state says of what was erased: runs that name an object of it are deleted, and their pages wiped.

Belongs here: Dagster's files, where its state is SQLite. No patient data is ever told to Dagster, but the object_ids of
what failed a check are, and an object_id is a hash of a path. Does not belong here: the search that proves it
(`batch.erasure.search`).

SQLite only marks what was deleted as free. So each database is written anew (VACUUM), and its write-ahead log is taken
in and cut.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import dagster as dg

from dicom_assets.settings import UserError
from dicom_assets.storage.traces import Terms

WAIT_SECONDS = 30.0
"""How long a database that somebody else writes is waited for."""


def forget_runs(instance: dg.DagsterInstance, folders: Sequence[Path], terms: Terms) -> list[str]:
    """Deletes the runs that name one of some texts, with what Dagster keeps of a run that it has deleted; which.

    Dagster deletes a run with its events, and leaves what its checks have found in a table of its own. A run whose
    rows are all that is left of it, since Dagster has deleted it before, is among those that are named.
    """
    found: set[str] = set()
    for path in databases(folders):
        with closing(sqlite3.connect(path, timeout=WAIT_SECONDS)) as connection:
            found |= _runs_in(connection, terms)
    runs = sorted(found)
    for run_id in runs:
        if instance.get_run_by_id(run_id) is not None:
            instance.delete_run(run_id)
    for path in databases(folders):
        with closing(sqlite3.connect(path, timeout=WAIT_SECONDS)) as connection, connection:
            for table in _tables_of_runs(connection):
                connection.executemany(f'DELETE FROM "{table}" WHERE run_id = ?', [(run_id,) for run_id in runs])
    return runs


def databases(folders: Sequence[Path]) -> Iterator[Path]:
    """The SQLite files below some folders."""
    for folder in folders:
        yield from sorted(path for path in folder.rglob("*.db") if path.is_file())


def clean(folders: Sequence[Path]) -> None:
    """Writes each database anew, so that nothing that was deleted is left in its pages or its log. Raises UserError."""
    for path in databases(folders):
        try:
            with closing(sqlite3.connect(path, timeout=WAIT_SECONDS, isolation_level=None)) as connection:
                connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise UserError(
                f"Dagster's state cannot be cleaned ({type(error).__name__}): end `dagster dev` and what else uses it, "
                "then run `dicom-assets erase --resume`."
            ) from None


def _tables_of_runs(connection: sqlite3.Connection) -> list[str]:
    """The tables whose rows are of runs."""
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return [
        table
        for table in tables
        if any(row[1] == "run_id" for row in connection.execute(f'PRAGMA table_info("{table}")'))
    ]


def _runs_in(connection: sqlite3.Connection, terms: Terms) -> set[str]:
    """Ids of runs in whose rows one of some texts stands, in any table that has a column for it."""
    found: set[str] = set()
    for table in _tables_of_runs(connection):
        rows = connection.execute(f'SELECT run_id, * FROM "{table}"')
        for run_id, *values in rows:
            text = "\n".join(str(value) for value in values if value is not None)
            if run_id and terms.stand_in(text.encode("utf-8", "surrogateescape")):
                found.add(str(run_id))
    return found
