"""Everything that one process needs to work on batches of one lake, opened when it is first asked for.

Belongs here: putting lake, sources, claims and engine together from settings, and the right to work on a batch. Does
not belong here: Dagster (it hands this object to assets as a resource), and what is done with a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from dicom_assets.batch import books, datasets
from dicom_assets.batch.ahead import Ahead, ReadingAhead
from dicom_assets.batch.books import Books, Status
from dicom_assets.batch.engine import ProcessEngine, ReadingEngine, cluster_address
from dicom_assets.batch.expand import expand
from dicom_assets.batch.known import known_before
from dicom_assets.batch.leaving import leave, own_manifest, report_absent
from dicom_assets.batch.memory import give_back
from dicom_assets.batch.organize import Organizing, unfinished
from dicom_assets.batch.publish import publish_flat, publish_rows, write_flat
from dicom_assets.batch.read import Progress, read_batch
from dicom_assets.batch.staging import Kept, Part, Staging
from dicom_assets.lake import locks, recent
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import forget_answers
from dicom_assets.lake.rewrite import Written
from dicom_assets.landing.claims import ClaimLog
from dicom_assets.landing.store import LandingStore
from dicom_assets.landing.stores import open_store
from dicom_assets.settings import Settings, SourceSettings

BATCH_WAIT_SECONDS = 60.0
INGEST_LOCK = "ingest"
"""Held by `dicom-assets ingest` from its first claim to its last run, and by a sensor's tick while it claims."""


class BatchBusy(Exception):
    """Another process works on the batch."""


@dataclass
class Work:
    """A lake, its sources and the batches that this process holds; a context manager that lets go of them.

    progress: called while a batch is read. shared_engine: reads instead of processes of its own, and outlives it.
    """

    settings: Settings
    progress: Callable[[Progress], None] = lambda _: None
    shared_engine: ReadingEngine | None = None
    _held: ExitStack = field(default_factory=ExitStack, repr=False)
    _batches: dict[str, tuple[BatchWork, ExitStack]] = field(default_factory=dict, repr=False)
    _ahead: dict[str, Ahead] = field(default_factory=dict, repr=False)
    _written: dict[str, Future[Written]] = field(default_factory=dict, repr=False)

    def __enter__(self) -> Self:
        """Begins."""
        give_back()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lets go of every batch."""
        if "reading_ahead" in self.__dict__:
            self.reading_ahead.stop()
        for batch_id in list(self._batches):
            self.release(batch_id)
        self._held.close()

    @cached_property
    def lake(self) -> Lake:
        """The lake; made when it is new. Raises LakeError."""
        return Lake(self.settings.lake)

    @cached_property
    def engine(self) -> ReadingEngine:
        """What reads: the Dask cluster that is named, else the engine that was given, else processes of its own."""
        where = cluster_address()
        if where is not None:
            from dicom_assets.batch.dask_engine import DaskEngine  # an extra

            return self._held.enter_context(DaskEngine(where, self.settings.reading))
        return self.shared_engine or self._held.enter_context(ProcessEngine(self.settings.reading))

    @cached_property
    def log(self) -> ClaimLog:
        """The lake's claims."""
        return ClaimLog(self.lake.files)

    @contextmanager
    def claiming(self, wait_seconds: float) -> Iterator[None]:
        """The right to claim and to start what was claimed. Raises LockBusy after wait_seconds."""
        with locks.held(self.lake.files, INGEST_LOCK, wait_seconds):
            yield

    def stores(self) -> list[LandingStore]:
        """The configured sources, open."""
        return [open_store(source) for source in self.settings.sources]

    def batch(self, batch_id: str, wait_seconds: float = BATCH_WAIT_SECONDS) -> BatchWork:
        """Holds a batch until this object ends. Raises UnknownBatch, BatchBusy."""
        if batch_id not in self._batches:
            manifest = self.log.manifest(batch_id)
            lock = ExitStack()
            try:
                lock.enter_context(locks.held(self.lake.files, f"batch-{batch_id}", wait_seconds, once=True))
            except locks.LockBusy:
                raise BatchBusy(
                    f"Another process works on batch {batch_id}. Wait until it has ended, then run it again."
                ) from None
            self._batches[batch_id] = BatchWork(self, manifest, Staging(self.lake.files, batch_id, Kept())), lock
        return self._batches[batch_id][0]

    def release(self, batch_id: str) -> None:
        """Lets go of a batch, when nothing is written into its staging any more, and of what was kept for its steps."""
        ahead = self._ahead.pop(batch_id, None)
        if ahead is not None:
            steps: list[Future[Any]] = [ahead.outcomes, ahead.seen]
            wait([step for step in steps if not step.cancel()])
        self.forget_written(batch_id)
        recent.forget(self.lake.uri)
        forget_answers(self.lake)
        _, lock = self._batches.pop(batch_id)
        lock.close()

    @cached_property
    def reading_ahead(self) -> ReadingAhead:
        """The thread that reads batches ahead."""
        return ReadingAhead()

    def read_ahead(self, batch_id: str, run_id: str) -> None:
        """Begins to expand and read a batch for a run that comes later. Raises UnknownBatch, BatchBusy, SettingsError.

        What a source in mode `organize` holds is moved by its run, so it is not touched before.
        """
        batch = self.batch(batch_id, wait_seconds=0)
        if batch.source.mode == "organize" or batch_id in self._ahead:
            return
        self._ahead[batch_id] = self.reading_ahead.begin(
            run_id, batch.expand, lambda tell: batch.read(run_id, tell), self.progress
        )

    def ahead(self, batch_id: str, run_id: str | None = None) -> Ahead | None:
        """What is read ahead of a batch, for this run if one is given."""
        found = self._ahead.get(batch_id)
        return found if found is not None and run_id in (None, found.run_id) else None

    def forget_ahead(self, batch_id: str) -> None:
        """Lets a batch be read anew when its run asks again."""
        self._ahead.pop(batch_id, None)

    @cached_property
    def _writer(self) -> ThreadPoolExecutor:
        return self._held.enter_context(ThreadPoolExecutor(1, thread_name_prefix="writing-ahead"))

    def write_ahead(self, batch_id: str) -> None:
        """Begins to write the files of flat_metadata of a batch that is read, while its checks are run.

        Processes that read have nothing to do then, unless another batch is read ahead. What is staged on an object
        store is at hand in this process alone.
        """
        batch = self.batch(batch_id)
        busy = bool(self._ahead) or batch.lake.files.local_root is None or cluster_address() is not None
        engine = None if busy else self.engine
        self._written[batch_id] = self._writer.submit(write_flat, batch.lake, batch.staging, engine)

    def written(self, batch_id: str) -> Written | None:
        """The files that were written ahead, once; None when there are none. Raises LakeError."""
        found = self._written.pop(batch_id, None)
        return None if found is None else found.result()

    def forget_written(self, batch_id: str) -> None:
        """Leaves what is written ahead to vacuum, when nothing of the batch is read any more."""
        found = self._written.pop(batch_id, None)
        if found is not None and not found.cancel():
            wait([found])

    def organize_left(self) -> list[str]:
        """Finishes the moving of closed batches that was broken off; which. Raises LakeError, SourceUnavailable."""
        done: list[str] = []
        left = unfinished(self.lake.files)
        if not left:
            return done
        closed = {row.batch_id for row in books.all_books(self.lake) if row.status == Status.CLOSED}
        for batch_id in left:
            if batch_id in closed:
                with Work(self.settings) as other:
                    try:
                        batch = other.batch(batch_id, wait_seconds=0)
                    except BatchBusy:
                        continue  # whoever holds it finishes it
                    batch.organizing.finish()
                done.append(batch_id)
        return done

    def unstarted(self) -> list[str]:
        """Batches that were claimed and never started, oldest first."""
        started = {row.batch_id for row in books.all_books(self.lake)}
        return [claim.batch_id for claim in self.log.claims() if claim.batch_id not in started]

    def unclosed(self) -> list[str]:
        """Batches whose books are not closed, oldest first."""
        closed = {row.batch_id for row in books.all_books(self.lake) if row.status == Status.CLOSED}
        return [claim.batch_id for claim in self.log.claims() if claim.batch_id not in closed]


@dataclass(frozen=True)
class BatchWork:
    """One batch that this process holds, and the steps that are more than one call."""

    work: Work
    manifest: pa.Table
    staging: Staging

    @property
    def batch_id(self) -> str:
        """Its id."""
        return self.staging.batch_id

    @property
    def lake(self) -> Lake:
        """The lake."""
        return self.work.lake

    @property
    def source(self) -> SourceSettings:
        """The source that the batch was claimed from. Raises SettingsError when it is not configured any more."""
        return self.work.settings.source(self.manifest["source"][0].as_py())

    def begin(self, run_id: str) -> int:
        """Opens the books, expands the manifest and publishes raw_files; how many objects and members there are."""
        organizing = self.organizing
        known = books.books_of(self.lake, self.batch_id)
        organizing.begin_again(closed=known is not None and known.status == Status.CLOSED)
        books.open_batch(self.lake, self.batch_id, self.source.name, run_id, len(self.manifest))
        ahead = self.work.ahead(self.batch_id, run_id)
        if organizing.is_placed:
            seen = organizing.stage(self.staging, own_manifest(self.manifest, self.work.log.returns)[1])
        elif ahead is None:
            seen = self.expand()
        else:
            with self._once():
                seen = ahead.seen.result()
        publish_rows(self.lake, self.staging, Part.RAW)
        books.open_batch(self.lake, self.batch_id, self.source.name, run_id, seen)
        return seen

    def judge(self, run_id: str) -> Mapping[str, int]:
        """Reads every object, stages what it says, publishes the ledger; objects by outcome."""
        self.work.forget_written(self.batch_id)
        ahead = self.work.ahead(self.batch_id, run_id)
        if ahead is None:
            outcomes = self.read(run_id, self.work.progress)
        else:
            with self._once():
                outcomes = ahead.outcomes.result()
        self.work.forget_ahead(self.batch_id)
        outcomes = self._let_leave(run_id, outcomes)
        self.work.write_ahead(self.batch_id)
        datasets.fit(self.lake, self.staging, self.work.settings.clinical, run_id)
        publish_rows(self.lake, self.staging, Part.LEDGER)
        return outcomes

    def _let_leave(self, run_id: str, outcomes: Mapping[str, int]) -> Mapping[str, int]:
        """Lets what could not be read leave the batch; what is left, objects by outcome."""
        left = leave(self.lake, self.staging, self.manifest, self.work.log.returns, self._pauses)
        if not left:
            return outcomes
        publish_rows(self.lake, self.staging, Part.RAW)
        rest = {outcome: count - left.get(outcome, 0) for outcome, count in outcomes.items()}
        books.open_batch(self.lake, self.batch_id, self.source.name, run_id, sum(rest.values()))
        return rest

    @property
    def _pauses(self) -> tuple[float, ...]:
        return self.work.settings.claiming.again_seconds

    def publish_flat(self) -> int:
        """Publishes flat_metadata; how many rows the batch has in it. Raises LakeError."""
        return publish_flat(self.lake, self.staging, self.work.written(self.batch_id))

    def expand(self) -> int:
        """Stages one row for each object of the manifest and each member in it; how many. Raises SourceUnavailable."""
        before = known_before(self.lake, self.batch_id)
        own, settled = own_manifest(self.manifest, self.work.log.returns)
        return expand(own, self.source, self.work.settings, self.staging, self.work.engine, before, settled)

    def read(self, run_id: str, progress: Callable[[Progress], None]) -> Mapping[str, int]:
        """Reads every object of what was expanded and stages what it says; objects by outcome."""
        return read_batch(self.staging, self.work.settings, self.source, self.work.engine, run_id, progress)

    @contextmanager
    def _once(self) -> Iterator[None]:
        """What was read ahead is taken once: when it failed, a retry of the step does it anew."""
        taken = False
        try:
            yield
            taken = True
        finally:
            if not taken:
                self.work.forget_ahead(self.batch_id)

    @property
    def organizing(self) -> Organizing:
        """The moving of the batch's objects, for sources in mode `organize`."""
        return Organizing(self.lake, open_store(self.source), self.batch_id, self.work.settings)

    def close(self, run_id: str) -> Books:
        """Closes the books; in mode `organize` then moves what was ingested. Raises LakeError, SourceUnavailable."""
        organizing = self.organizing
        if organizing.is_placed or (self.source.mode == "organize" and self.staging.left()):
            organizing.prepare(self.staging, compress=self.source.compress)
        report_absent(self.staging, self.manifest, self.work.log.returns, self._pauses)
        closed = books.close_batch(self.lake, self.staging, run_id)
        if organizing.is_planned:
            organizing.finish()
        return closed

    def stop(self, status: Status, reason: str, run_id: str) -> Books:
        """Pauses the batch, or marks it failed."""
        return books.stop_batch(
            self.lake, self.staging, status, reason, run_id, source=self.manifest["source"][0].as_py()
        )
