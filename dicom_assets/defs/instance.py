"""Dagster's state for runs of this process: where it lies, and opening it quickly.

Belongs here: what `dicom-assets ingest` does otherwise than a daemon with its own state, so that a batch does not spend
its time on SQLite. Does not belong here: running batches (`runner`).

Four habits of Dagster are changed for this process: it makes a database engine for each statement, waits for the disk
at each event, reads all of its migrations again for each database, and asks again and again what is there. Where a
later Dagster does otherwise, nothing is changed.
"""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy
from alembic.config import Config
from alembic.script import ScriptDirectory
from dagster._core.storage.event_log.sqlite import sqlite_event_log

from dicom_assets.settings import Settings

_PROJECT_FILES = ("dagster.yaml", "workspace.yaml")
_DAGSTER_YAML = """\
telemetry:
  enabled: false
nux:
  enabled: false
# Nothing is printed by a step, and copying what might be costs four processes a run.
compute_logs:
  module: dagster._core.storage.noop_compute_log_manager
  class: NoOpComputeLogManager
"""
_ENGINES = 8  # files of the event log whose engines are kept: the index, and those of the newest runs
_engines: dict[str, tuple[sqlalchemy.Engine, Callable[[], None]]] = {}


def dagster_home(settings: Settings) -> Path:
    """Where Dagster's state lies.

    DAGSTER_HOME; else the project's folder when it is the current one; else beside the lake, in `{lake}.dagster`, made
    when it is missing.
    """
    named = os.environ.get("DAGSTER_HOME")
    if named:
        return Path(named)
    here = Path.cwd()
    if all((here / name).is_file() for name in _PROJECT_FILES):
        return here
    if "://" in settings.lake:
        home = Path.home() / ".dicom-assets" / "dagster"
    else:
        lake = Path(settings.lake)
        home = lake.with_name(f"{lake.name}.dagster")
    home.mkdir(parents=True, exist_ok=True)
    config = home / "dagster.yaml"
    if not config.exists():
        config.write_text(_DAGSTER_YAML, encoding="utf-8")
    return home


@contextmanager
def opened_instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """Dagster's state for this lake; closed at the end, so that the process may be left at once."""
    with open_instance(settings) as instance:
        yield instance
    for _, dispose in _engines.values():
        dispose()
    _engines.clear()


def open_instance(settings: Settings) -> dg.DagsterInstance:
    """Dagster's state for this lake."""
    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", _commit_without_waiting)
    _keep_engines()
    _keep_migrations()
    home = dagster_home(settings)
    os.environ["DAGSTER_HOME"] = str(home)
    with _one_at_a_time(home):
        instance = dg.DagsterInstance.get()
    if isinstance(instance.event_log_storage, sqlite_event_log.SqliteEventLogStorage):
        for question in ("has_table", "has_dynamic_partition"):
            _remember_yes(instance.event_log_storage, question)
    return instance


def _remember_yes(storage: object, question: str) -> None:
    """Asks no second time what was answered with yes: each step asks whether its batch and a table are there."""
    ask = getattr(storage, question, None)
    if ask is None:
        return
    known: set[tuple[object, ...]] = set()

    def asked(*what: object) -> bool:
        if what not in known and ask(*what):
            known.add(what)
        return what in known

    setattr(storage, question, asked)


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Keeps two processes from making Dagster's tables at the same time, which fails in one of them."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _commit_without_waiting(connection: Any, _: object) -> None:
    """Lets SQLite commit Dagster's events without waiting for the disk at each: some hundred a batch.

    A write-ahead log stays whole even when the machine loses power; only the last events may be missing. The books are
    in the lake, not there.
    """
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = NORMAL")


def _keep_engines() -> None:
    """Lets Dagster's SQLite event log keep its connections instead of opening one for each statement.

    Dagster makes an engine a statement, which compiles the statement anew, opens the file and, closing it, writes the
    log back: most of what an event costs, and a batch has 200 of them. Where a later Dagster does otherwise, nothing
    is changed.
    """
    make = getattr(sqlite_event_log, "create_engine", None)
    if make is None or getattr(make, "keeps_engines", False):
        return

    def engine(url: str, **options: Any) -> sqlalchemy.Engine:
        if url not in _engines:
            options.pop("poolclass", None)  # SQLAlchemy's own choice for SQLite files keeps connections
            made = sqlalchemy.create_engine(url, **options)
            _engines[url] = (made, made.dispose)
            made.dispose = lambda close=True: None  # type: ignore[method-assign]
            if len(_engines) > _ENGINES:
                _engines.pop(next(iter(_engines)))[1]()
        return _engines[url][0]

    engine.keeps_engines = True  # type: ignore[attr-defined]
    sqlite_event_log.create_engine = engine  # type: ignore[attr-defined, assignment]


def _keep_migrations() -> None:
    """Lets Alembic read Dagster's migrations, 88 files, once instead of for each database."""
    read = ScriptDirectory.from_config
    if getattr(read, "keeps_migrations", False):
        return
    known: dict[str | None, ScriptDirectory] = {}

    def kept(config: Config) -> ScriptDirectory:
        place = config.get_main_option("script_location")
        if place not in known:
            known[place] = read(config)
        return known[place]

    kept.keeps_migrations = True  # type: ignore[attr-defined]
    ScriptDirectory.from_config = kept  # type: ignore[method-assign, assignment]
