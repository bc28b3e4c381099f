"""Dagster's state for runs of this process: opening it.

Does not belong here: where it lies and whose it is (`state_folder`), running batches (`runner`), how events are kept
(`event_log`).
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from sqlalchemy.exc import DatabaseError, OperationalError

from dicom_assets.defs.state_folder import CHOSEN, dagster_home, enter
from dicom_assets.settings import Settings, SettingsError
from dicom_assets.storage import file_locks


def open_instance(settings: Settings) -> dg.DagsterInstance:
    """Dagster's state for this lake; to be used as a context manager, or disposed of.

    Raises SettingsError when it is another lake's, or cannot be read and written.
    """
    try:
        home = dagster_home(settings)
        home.mkdir(parents=True, exist_ok=True)
        enter(home, settings)
        if os.environ.get("DAGSTER_HOME") in (None, "", os.environ.get(CHOSEN)):
            os.environ[CHOSEN] = str(home)
        os.environ["DAGSTER_HOME"] = str(home)
        with _one_at_a_time(home):
            return dg.DagsterInstance.get()
    except (OSError, DatabaseError) as error:
        told = fault_of_state(error)
        if told is None:
            raise
        raise SettingsError(told) from None


def fault_of_state(error: Exception) -> str | None:
    """What is said when Dagster's state cannot be read or written, its disk being full, say; None for another fault.

    Of a database's own words only those of SQLite are passed on, which quote no value.
    """
    if isinstance(error, OSError):
        reason = error.strerror or type(error).__name__
    elif isinstance(error, OperationalError) or type(error) is DatabaseError:
        reason = str(error.orig) if isinstance(error.orig, sqlite3.Error) else type(error.orig).__name__
    else:
        return None
    home = os.environ.get("DAGSTER_HOME") or "the folder beside the lake"
    return (
        f"Dagster's state in {home} cannot be used: {reason}. See that its disk has space and that this user may write "
        "there, then run the command again. No batch is lost: what is claimed is run then."
    )


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Keeps two processes from making Dagster's tables at the same time, which fails in one of them."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        file_locks.lock(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)
