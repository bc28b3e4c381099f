"""Running batches in this process: what `dicom-assets ingest` does.

Belongs here: Dagster's home, claiming until nothing is new, running every open batch, saying why one did not close.
Does not belong here: options and printing (`cli`).
"""

import logging
import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.tags import PARTITION_NAME_TAG

from dicom_assets.batch import dask_engine
from dicom_assets.batch.books import Books, Status, books_of
from dicom_assets.batch.read import Progress
from dicom_assets.batch.readers import Readers
from dicom_assets.batch.work import BatchBusy, Work
from dicom_assets.definitions import build_defs
from dicom_assets.defs.jobs import claim_everywhere, register
from dicom_assets.defs.sensors import mark
from dicom_assets.lake.locks import LockBusy
from dicom_assets.landing.claims import Claimed, seconds_until
from dicom_assets.landing.store import SourceUnavailable
from dicom_assets.settings import Settings

CHANGING_SECONDS = 600.0
"""How long `ingest` waits for objects that never come to rest."""

_PROJECT_FILES = ("dagster.yaml", "workspace.yaml")
_DAGSTER_YAML = """\
telemetry:
  enabled: false
nux:
  enabled: false
"""
_ENGINES = 8  # files of the event log whose engines are kept: the index, and those of the newest runs
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class Ended:
    """What an ingest did: the books of the batches it ran, and how many objects still changed when it gave up."""

    books: tuple[Books, ...]
    waiting: int

    @property
    def closed(self) -> bool:
        """Whether every batch closed and nothing is left behind."""
        return self.waiting == 0 and all(one.status == Status.CLOSED for one in self.books)


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


def open_instance(settings: Settings) -> dg.DagsterInstance:
    """Dagster's state for this lake."""
    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", _commit_without_waiting)
    _keep_engines()
    os.environ["DAGSTER_HOME"] = str(dagster_home(settings))
    return dg.DagsterInstance.get()


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
    log back: most of what an event costs, and a batch has 250 of them. Where a later Dagster does otherwise, nothing
    is changed.
    """
    make = getattr(sqlite_event_log, "create_engine", None)
    if make is None or getattr(make, "keeps_engines", False):
        return
    kept: dict[str, tuple[sqlalchemy.Engine, Callable[[], None]]] = {}

    def engine(url: str, **options: Any) -> sqlalchemy.Engine:
        if url not in kept:
            options.pop("poolclass", None)  # SQLAlchemy's own choice for SQLite files keeps connections
            made = sqlalchemy.create_engine(url, **options)
            kept[url] = (made, made.dispose)
            made.dispose = lambda close=True: None  # type: ignore[method-assign]
            if len(kept) > _ENGINES:
                kept.pop(next(iter(kept)))[1]()
        return kept[url][0]

    engine.keeps_engines = True  # type: ignore[attr-defined]
    sqlite_event_log.create_engine = engine  # type: ignore[attr-defined, assignment]


def ingest(
    settings: Settings,
    instance: dg.DagsterInstance,
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Ended:
    """Claims what is new and runs every batch whose books are open, until nothing is left.

    say: called with a sentence about what happens. progress: called while a batch is read. Raises SourceUnavailable,
    LakeError, SettingsError.
    """
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    done: dict[str, Books] = {}
    with Work(settings) as work, _alone(work, say), Readers(settings.reading) as readers:
        runs = _Runs(work, instance, readers, say, progress)
        started = time.monotonic()
        for batch in work.organize_left():
            say(f"Batch {batch}: the moving of its objects was broken off and is finished now.")
        while True:
            rounds, unavailable = _claim(work)
            batches = [batch for batch in work.unclosed() if batch not in done]
            register(instance, batches)
            for batch in batches:
                done[batch] = runs.run(batch)
            if unavailable is not None:
                raise unavailable
            waiting = sum(one.waiting for one in rounds)
            if any(one.more for one in rounds):
                continue
            if not waiting:
                work.organize_left()  # what a batch could not move although its books closed is told here
                return Ended(tuple(done.values()), 0)
            if time.monotonic() - started > CHANGING_SECONDS:
                say(f"{waiting} objects still change after {CHANGING_SECONDS:.0f} s; they are left for the next time.")
                return Ended(tuple(done.values()), waiting)
            _wait(rounds, waiting, say)


def _claim(work: Work) -> tuple[list[Claimed], SourceUnavailable | None]:
    """What was claimed, and the source that could not be listed: what the others brought is run all the same."""
    try:
        return claim_everywhere(work), None
    except SourceUnavailable as error:
        return [], error


@contextmanager
def _alone(work: Work, say: Callable[[str], None]) -> Iterator[None]:
    """Holds the right to claim for as long as an ingest lasts; says so when it has to wait for another one."""
    with ExitStack() as held:
        try:
            held.enter_context(work.claiming(wait_seconds=0.2))
        except LockBusy:
            say("Another ingest is at work on this lake; waiting until it has ended.")
            held.enter_context(work.claiming(wait_seconds=math.inf))
        yield


def _wait(rounds: list[Claimed], waiting: int, say: Callable[[str], None]) -> None:
    seconds = max(1, max(seconds_until(one.quiet_at) for one in rounds))
    say(f"{waiting} objects were written just now; waiting {seconds} s until they are complete.")
    time.sleep(seconds)


@dataclass
class _Runs:
    """Runs batches one after the other, with one job and one set of reading processes for all."""

    work: Work
    instance: dg.DagsterInstance
    readers: Readers
    say: Callable[[str], None]
    progress: Callable[[Progress], None]

    @cached_property
    def job(self) -> dg.JobDefinition:
        """The job, put together once."""
        return build_defs(self.work.settings, progress=self.progress, engine=self.readers).resolve_job_def(
            "ingest_batch"
        )

    def run(self, batch: str) -> Books:
        """Runs one batch to its end; its books afterwards."""
        if dask_engine.address() is None:
            self.readers.start()
        self._wait_for_others(batch)
        books = books_of(self.work.lake, batch)
        if books is not None and books.status == Status.CLOSED:
            return books
        self._bury_dead_runs(batch)
        self.say(f"Batch {batch}: running")
        result = self.job.execute_in_process(
            partition_key=batch, instance=self.instance, raise_on_error=False, run_config=_QUIET
        )
        if not result.success:
            mark(self.work, batch, result.run_id, _reason(result))
        books = books_of(self.work.lake, batch)
        if books is None:
            return Books(batch, "", Status.FAILED, reason=_reason(result), started_at=datetime.now(UTC))
        return books

    def _wait_for_others(self, batch: str) -> None:
        while True:
            try:
                with Work(self.work.settings) as other:
                    other.batch(batch, wait_seconds=0.5)
                return
            except BatchBusy:
                self.say(f"Batch {batch} is being run by another process; waiting for it.")
                time.sleep(2)

    def _bury_dead_runs(self, batch: str) -> None:
        """Marks runs of a batch as failed that seem to run though nobody holds the batch: their process was killed."""
        active = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING]
        filters = dg.RunsFilter(job_name="ingest_batch", tags={PARTITION_NAME_TAG: batch}, statuses=active)
        for run in self.instance.get_runs(filters):
            self.instance.report_run_failed(run, "The process that ran it has ended.")


def _reason(result: dg.ExecuteInProcessResult) -> str:
    """The first failure in words. Only our own sentences are passed on: a library's may hold values."""
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            if data.user_failure_data is not None and data.user_failure_data.description:
                return f"{event.step_key}: {data.user_failure_data.description}"
            return f"{event.step_key} broke off; see run {result.run_id} in Dagster."
    return f"See run {result.run_id} in Dagster."
