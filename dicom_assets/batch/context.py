"""Everything that one process needs to work on batches of one lake, opened when it is first asked for.

Belongs here: the engine that reads, the right to work on a batch, its steps that are more than one call. Does not
belong here: lake, sources and claims by themselves (`lake_context`), Dagster (it hands this object to assets as a
resource).
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.batch import books, closing, datasets, dismissal, own_rows
from dicom_assets.batch.books import Books, Decision, Status
from dicom_assets.batch.checks.contract import CheckContext, Said
from dicom_assets.batch.erasure.record import is_under_way
from dicom_assets.batch.expand import expand, nothing_known
from dicom_assets.batch.house_rules import HouseRule, apply_rules, rules_of
from dicom_assets.batch.known import known_before
from dicom_assets.batch.lake_context import INGEST_LOCK as INGEST_LOCK
from dicom_assets.batch.lake_context import LakeContext
from dicom_assets.batch.leaving import leave, own_manifest, report_absent
from dicom_assets.batch.organize import Organizing, unfinished
from dicom_assets.batch.presence import require_source, while_source_is_there
from dicom_assets.batch.publish import Before, publish_flat, publish_rows
from dicom_assets.batch.read_ahead import ReadAhead
from dicom_assets.batch.same_uids import stage_same_uids
from dicom_assets.batch.superseding import publish_ledger, supersede
from dicom_assets.batch.validate import Progress, read_batch
from dicom_assets.batch.withdrawals import stage_claimed, stage_judged
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.staging import FOLDER as STAGING
from dicom_assets.lake.staging import Part, Staging, StagingCache, again
from dicom_assets.landing.claims import BatchKind
from dicom_assets.landing.looks import Looks
from dicom_assets.landing.opening import lies_elsewhere, open_store
from dicom_assets.landing.store import SourceUnavailable
from dicom_assets.reading.engine import ProcessEngine, ReadingEngine, cluster_address
from dicom_assets.reading.memory import give_back
from dicom_assets.reading.processes import start_origin
from dicom_assets.settings import Settings, SettingsError, SourceSettings
from dicom_assets.storage import locks
from dicom_assets.storage.files import LakeError

BATCH_WAIT_SECONDS = 60.0


class BatchBusy(Exception):
    """Another process works on the batch."""


class BatchClosed(LakeError):
    """A step that would open a closed batch was run alone."""


@dataclass
class RunContext(LakeContext):
    """A lake, its sources and the batches that this process holds; a context manager that lets go of them.

    progress: called while a batch is read. shared_engine: reads instead of processes of its own, and outlives it. The
    rest: see LakeContext.
    """

    progress: Callable[[Progress], None] = lambda _: None
    shared_engine: ReadingEngine | None = None
    _held: ExitStack = field(default_factory=ExitStack, repr=False)
    _batches: dict[str, tuple[OpenBatch, ExitStack]] = field(default_factory=dict, repr=False)
    _ahead: dict[str, ReadAhead] = field(default_factory=dict, repr=False)
    _closing: threading.Event = field(default_factory=threading.Event, repr=False)
    house_rules: tuple[HouseRule, ...] = field(default=(), init=False, repr=False)
    unmoved: dict[str, str] = field(default_factory=dict)
    """Batches in mode `organize` whose moving could not be finished, and why."""

    def __enter__(self) -> Self:
        """Begins. Raises SettingsError for a rule of the house that cannot be asked."""
        give_back()
        self.house_rules = rules_of(self.settings)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lets go of every batch, and of the lake."""
        self._closing.set()
        for batch_id in list(self._batches):
            self.release(batch_id)
        self._held.close()
        self.forget_all()

    @cached_property
    def engine(self) -> ReadingEngine:
        """What reads: the Dask cluster that is named, else the engine that was given, else processes of its own."""
        where = cluster_address()
        if where is not None:
            from dicom_assets.reading.dask_engine import DaskEngine  # an extra

            return self._held.enter_context(DaskEngine(where, self.settings.reading))
        return self.shared_engine or self._held.enter_context(ProcessEngine(self.settings.reading))

    def expect_reading(self) -> None:
        """Begins what takes most of a second before the first object is read, where processes read; `start_origin`."""
        if self.shared_engine is None and cluster_address() is None:
            start_origin()

    def batch(self, batch_id: str, wait_seconds: float = BATCH_WAIT_SECONDS) -> OpenBatch:
        """Holds a batch until this object ends. Raises UnknownBatch, BatchBusy."""
        if batch_id not in self._batches:
            manifest = self.log.manifest(batch_id)
            lock = ExitStack()
            try:
                check = lock.enter_context(locks.held(self.lake.files, f"batch-{batch_id}", wait_seconds, once=True))
            except locks.LockBusy:
                raise BatchBusy(
                    f"Another process works on batch {batch_id}. Wait until it has ended, then run it again."
                ) from None
            if is_under_way(self.lake.files):  # see `erasure.removal`
                lock.close()
                raise BatchBusy(
                    f"An erasure is under way, and batch {batch_id} waits for it. If it was broken off, "
                    "`dicom-assets erase --resume` finishes it, and so does `dicom-assets ingest`."
                )
            self.lake.keep_footers()
            self._batches[batch_id] = (
                OpenBatch(self, manifest, Staging(self.lake.files, batch_id, StagingCache(check))),
                lock,
            )
        return self._batches[batch_id][0]

    def release(self, batch_id: str) -> None:
        """Lets go of a batch, when nothing is written into its staging any more."""
        ahead = self._ahead.pop(batch_id, None)
        if ahead is not None:
            ahead.end()
        _, lock = self._batches.pop(batch_id)
        lock.close()

    @cached_property
    def _reader(self) -> ThreadPoolExecutor:
        return self._held.enter_context(ThreadPoolExecutor(1, thread_name_prefix="reading-ahead"))

    def read_ahead(self, batch_id: str, run_id: str) -> None:
        """Begins to expand and read a batch for a run that comes later. Raises UnknownBatch, BatchBusy, SettingsError.

        Batches are read in the order in which this is asked for. Only staging is written, so a batch that is never run
        stays as it was claimed. What a source in mode `organize` holds is moved by its run, and a cluster reads in its
        own time: neither is read ahead.
        """
        batch = self.batch(batch_id, wait_seconds=0)
        if batch.source.mode != "organize" and batch_id not in self._ahead and cluster_address() is None:
            self._ahead[batch_id] = ReadAhead(run_id, self._reader.submit(self._expand_and_read, batch, run_id))

    def _expand_and_read(self, batch: OpenBatch, run_id: str) -> tuple[int, Mapping[str, int]]:
        def progress(now: Progress) -> None:
            if self._closing.is_set():
                raise CancelledError
            self.progress(now)

        return batch.expand(), batch.read(run_id, progress)

    def read_before(self, batch_id: str, run_id: str) -> tuple[int, Mapping[str, int]] | None:
        """What came of reading a batch ahead of this run: objects and members, and objects by outcome; None without it.

        Waits for the end of it, and raises what went wrong, once: a retry of the step reads anew.
        """
        found = self._ahead.get(batch_id)
        if found is None or found.run_id != run_id:
            return None
        if found.result.exception() is not None:
            self.forget_ahead(batch_id)
        return found.result.result()

    def forget_ahead(self, batch_id: str) -> None:
        """Lets a batch be read anew when its run asks again."""
        self._ahead.pop(batch_id, None)

    def organize_left(self) -> list[str]:
        """Finishes the moving of closed batches that was broken off; which. Raises LakeError.

        A batch that cannot be moved keeps no other from it; `unmoved` says why.
        """
        self.unmoved.clear()
        done: list[str] = []
        left = unfinished(self.lake.files)
        if not left:
            return done
        closed = {row.batch_id for row in books.all_books(self.lake) if row.status == Status.CLOSED}
        for batch_id in left:
            if batch_id in closed:
                with RunContext(self.settings) as other:
                    try:
                        batch = other.batch(batch_id, wait_seconds=0)
                    except BatchBusy:
                        continue  # whoever holds it finishes it
                    try:
                        batch.organizing.finish()
                    except SourceUnavailable as error:
                        self.unmoved[batch_id] = f"Batch {batch_id} is closed, and its objects are not moved. {error}"
                        continue
                done.append(batch_id)
        return done

    def clear_left_staging(self) -> list[str]:
        """Removes what is staged of closed batches, as a holder that was stopped leaves it; whose. Raises LakeError."""
        staged = {name.split("/")[1] for name in self.lake.files.names(STAGING)}
        if not staged:
            return []
        closed = {row.batch_id for row in books.all_books(self.lake) if row.status == Status.CLOSED}
        left = sorted(staged & closed)
        for batch_id in left:
            with RunContext(self.settings) as other, suppress(BatchBusy):
                staging = other.batch(batch_id, wait_seconds=0).staging
                known = books.books_of(self.lake, batch_id)
                if known is not None and known.status == Status.CLOSED:
                    staging.remove()
        return left


@dataclass(frozen=True)
class OpenBatch:
    """One batch that this process holds, and the steps that are more than one call."""

    work: RunContext
    manifest: pa.Table
    staging: Staging
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each step took that this process has taken, by name."""
    said: dict[object, Said] = field(default_factory=dict, repr=False, compare=False)
    """What rules have said of the batch since it was read; closing it asks those again whose tables have changed."""

    @contextmanager
    def timing(self, step: str) -> Iterator[None]:
        """Notes how long a step takes; a part of it that fails counts as well."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - began

    @property
    def batch_id(self) -> str:
        """Its id."""
        return self.staging.batch_id

    @property
    def kind(self) -> BatchKind:
        """Why it was claimed."""
        return BatchKind(self.manifest["batch_kind"][0].as_py())

    @property
    def lake(self) -> Lake:
        """The lake."""
        return self.work.lake

    @property
    def settings(self) -> Settings:
        """The settings of this process."""
        return self.work.settings

    @property
    def looks(self) -> Looks:
        """What is remembered of the sources."""
        return self.work.looks

    @property
    def source(self) -> SourceSettings:
        """The source that the batch was claimed from. Raises SettingsError when it is not configured any more."""
        return self.work.settings.source(self.source_name)

    @property
    def source_name(self) -> str:
        """The name of that source."""
        name: str = self.manifest["source"][0].as_py()
        return name

    def require_place(self) -> None:
        """Raises SettingsError when the source is another folder now: what was claimed elsewhere is not to be had."""
        if lies_elsewhere(self.source, self.manifest["uri"][0].as_py()):
            raise SettingsError(
                f"Batch {self.batch_id} was claimed from another folder than source '{self.source_name}' is now. Give "
                "--landing as it was given then, or correct the source's root."
            )

    @property
    def is_dismissed(self) -> bool:
        """Whether a person has decided to close it without its objects, which then are not looked at."""
        known = books.books_of(self.lake, self.batch_id)
        return known is not None and known.decision == Decision.DISMISSED

    @while_source_is_there
    def begin(self, run_id: str, *, to_the_end: bool = True) -> int:
        """Opens the books, expands the manifest and publishes raw_files; how many objects and members there are.

        to_the_end: whether the run goes on until it closes the books. Raises BatchClosed when it does not and the batch
        is closed, SourceUnavailable, LakeError.
        """
        known = books.books_of(self.lake, self.batch_id)
        if known is not None and known.status == Status.CLOSED and not to_the_end:
            raise BatchClosed(
                f"Batch {self.batch_id} is closed: one of its steps alone would open it, and nothing would close it. "
                f"{again(self.batch_id)}"
            )
        organizing = None if self.is_dismissed else self.organizing
        if organizing is not None:
            self.require_place()
            organizing.begin_again(closed=known is not None and known.status == Status.CLOSED)
        books.open_batch(self.lake, self.batch_id, self.source_name, run_id, len(self.manifest), self.kind)
        if organizing is not None and organizing.is_placed:
            self.staging.begin()
            seen = organizing.stage(self.staging, own_manifest(self.manifest, self.work.log.returns)[1])
        else:
            before = self.work.read_before(self.batch_id, run_id)
            seen = self.expand() if before is None else before[0]
        publish_rows(self.lake, self.staging, Part.RAW)
        books.open_batch(self.lake, self.batch_id, self.source_name, run_id, seen, self.kind)
        return seen

    @while_source_is_there
    def judge(self, run_id: str) -> Mapping[str, int]:
        """Reads every object, stages what it says, publishes the ledger; objects by outcome."""
        self.said.clear()
        before = self.work.read_before(self.batch_id, run_id)
        outcomes = self.read(run_id, self.work.progress) if before is None else before[1]
        self.work.forget_ahead(self.batch_id)
        if own_rows.stage_rows(self.lake, self.staging, self.manifest, run_id):
            outcomes = Counter(self.staging.read_whole(Part.LEDGER, ["outcome"])["outcome"].to_pylist())
        outcomes = self._let_leave(run_id, outcomes)
        datasets.fit(self.lake, self.staging, self.work.settings.clinical, run_id)
        outcomes = apply_rules(self.lake, self.staging, self.work.house_rules, run_id) or outcomes
        publish_ledger(self.lake, self.staging)
        return outcomes

    def _let_leave(self, run_id: str, outcomes: Mapping[str, int]) -> Mapping[str, int]:
        """Lets what could not be read leave the batch; what is left, objects by outcome."""
        left = leave(self.lake, self.staging, self.manifest, self.work.log.returns, self._pauses)
        if not left:
            return outcomes
        publish_rows(self.lake, self.staging, Part.RAW)
        rest = {outcome: count - left.get(outcome, 0) for outcome, count in outcomes.items()}
        books.open_batch(self.lake, self.batch_id, self.source_name, run_id, sum(rest.values()), self.kind)
        return rest

    @property
    def _pauses(self) -> tuple[float, ...]:
        return self.work.settings.claiming.again_seconds

    def publish_flat(self, run_id: str = "") -> int:
        """Publishes flat_metadata and stages its conflicts; how many rows the batch has in it. Raises LakeError."""
        rows = publish_flat(self.lake, self.staging, self._before)
        stage_same_uids(self.lake, self.staging, run_id)
        return rows

    def _before(self) -> Before:
        """By uri the earlier batches that had claimed it, or read what lies there now."""
        before = dict(self.work.places.before(self.batch_id))
        for uri, batch in zip(self.manifest["uri"].to_pylist(), self.manifest["read_in"].to_pylist(), strict=True):
            if batch is not None:
                before[uri] = [*before.get(uri, ()), batch]
        return before

    def expand(self) -> int:
        """Stages one row for each object of the manifest and each member in it; how many. Raises SourceUnavailable."""
        if self.kind == BatchKind.DELETE:
            return stage_claimed(self.manifest, self.staging)
        before = known_before(self.lake, self.batch_id) if self.kind == BatchKind.ARRIVAL else nothing_known
        own, settled = own_manifest(self.manifest, self.work.log.returns)
        self.staging.begin()
        if self.is_dismissed:
            return dismissal.stage_places(self.lake, self.staging, own)
        seen = expand(own, self.source, self.work.settings, self.staging, self.work.engine, before, settled)
        self.staging.complete(Part.RAW, seen)
        require_source(self, Part.RAW, "verdict")
        return own_rows.stage_places(self.lake, self.staging, own)

    def read(self, run_id: str, progress: Callable[[Progress], None]) -> Mapping[str, int]:
        """Reads every object of what was expanded and stages what it says; objects by outcome."""
        if self.is_dismissed:
            return dismissal.stage_refusals(self.lake, self.staging, run_id)
        if self.kind == BatchKind.DELETE:
            return stage_judged(self.manifest, self.staging, run_id)
        outcomes = read_batch(self.staging, self.work.settings, self.source, self.work.engine, run_id, progress)
        require_source(self, Part.LEDGER, "code")
        return outcomes

    @property
    def organizing(self) -> Organizing:
        """The moving of the batch's objects, for sources in mode `organize`."""
        return Organizing(self.lake, open_store(self.source), self.batch_id, self.work.settings)

    def close(self, run_id: str) -> Books:
        """Closes the books; in mode `organize` then moves what was ingested.

        Raises BooksDiffer when the tables are not what the books would say of them; LakeError, SourceUnavailable.
        """
        closed = closing.unchanged(self.lake, self.staging)
        if self.is_dismissed:  # its objects stay where they are, if their source is there at all
            return closed or self._close_books(run_id)
        organizing = self.organizing
        if closed is not None:
            if organizing.is_planned:
                organizing.finish()
            return closed
        closing.compare(CheckContext(self.lake, self.staging, settings=self.work.settings, said=self.said))
        moves = self.source.mode == "organize" and self.kind == BatchKind.ARRIVAL  # what was read again lies well
        if organizing.is_placed or (moves and self.staging.left()):
            organizing.prepare(self.staging, compress=self.source.compress)
        report_absent(self.staging, self.manifest, self.work.log.returns, self._pauses)
        if self.kind == BatchKind.REREAD or pc.max(self.manifest["attempt"]).as_py() > 1:
            supersede(self.lake, self.staging, self._before())
        closed = books.close_batch(self.lake, self.staging, run_id, self.seconds)
        if organizing.is_planned:
            organizing.finish()
        return closed

    def _close_books(self, run_id: str) -> Books:
        closing.compare(CheckContext(self.lake, self.staging, settings=self.work.settings, said=self.said))
        return books.close_batch(self.lake, self.staging, run_id, self.seconds)

    def stop(self, status: Status, reason: str, run_id: str, *, code: str | None = None) -> Books:
        """Pauses the batch, or marks it failed; code: of its own error row."""
        return books.stop_batch(self.lake, self.staging, status, reason, run_id, source=self.source_name, code=code)
