"""Running batches in this process: what `dicom-assets ingest` does.

Belongs here: claiming until nothing is new, running every open batch, saying why one did not close. Does not belong
here: Dagster's state (`instance`), options and printing (`cli`).
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from itertools import zip_longest

import dagster as dg

from dicom_assets.batch.books import Books, Status, books_of
from dicom_assets.batch.claim_rounds import next_delivery, only_ingest
from dicom_assets.batch.context import BatchBusy, RunContext
from dicom_assets.batch.first_delivery import FirstDelivery, RunIds, first_delivery, read_ahead
from dicom_assets.batch.reread import Choice, Chosen, choose, claim_chosen
from dicom_assets.batch.validate import Progress
from dicom_assets.defs.graph import build_defs
from dicom_assets.defs.jobs import register, run_batch
from dicom_assets.defs.sensors import mark
from dicom_assets.defs.single_batches import bury_dead_runs
from dicom_assets.lake.torn import needs_verifying
from dicom_assets.landing.claims import ClaimRound, seconds_until
from dicom_assets.landing.returns import Waiting, waiting
from dicom_assets.printing import counted
from dicom_assets.settings import Settings

CHANGING_SECONDS = 600.0
"""How long `ingest` waits for objects that never come to rest."""


@dataclass(frozen=True)
class Ended:
    """What an ingest did: the books of the batches it ran, and what it left behind.

    waiting: objects that still changed when it gave up. troubles: what else it left and why, a sentence for each
    source. unread: objects that could not be read and wait to be read again.
    """

    books: tuple[Books, ...]
    waiting: int
    troubles: tuple[str, ...] = ()
    unread: tuple[Waiting, ...] = ()

    @property
    def closed(self) -> bool:
        """Whether every batch closed and nothing is left behind."""
        left = self.waiting or self.troubles or self.unread
        return not left and all(one.status == Status.CLOSED for one in self.books)


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
    with first_delivery(settings, say, progress) as first:
        return run_deliveries(first, instance)


def reread(
    settings: Settings,
    instance: dg.DagsterInstance,
    choice: Choice,
    say: Callable[[str], None] = lambda _: None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> tuple[Chosen, Ended]:
    """Claims what is to be read again, and runs these batches; see `batch.reread`.

    Raises NothingChosen, QueryError, SettingsError, SourceUnavailable, LakeError.
    """
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    with RunContext(settings, progress, say=say) as work, only_ingest(work):
        chosen = choose(work, choice)
        batches = [claim.batch_id for claim in claim_chosen(work, chosen)]
        register(instance, batches)
        runs, done = _Runs(work, instance), {}
        for batch, following in zip_longest(batches, batches[1:]):
            done[batch] = runs.run(batch, following)
        return chosen, _ended(work, done, 0)


def run_deliveries(first: FirstDelivery, instance: dg.DagsterInstance) -> Ended:
    """Runs what was claimed first, then claims and runs until nothing is left; see `ingest`."""
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    work, found = first.work, first.found
    done: dict[str, Books] = {}
    runs = _Runs(work, instance, first.run_ids)
    started = time.monotonic()
    while True:
        register(instance, list(found.batches))
        for batch, following in zip_longest(found.batches, found.batches[1:]):
            done[batch] = runs.run(batch, following)
        if found.unavailable is not None:
            raise found.unavailable
        changing = sum(one.waiting for one in found.claimed)
        if any(one.more for one in found.claimed):
            found = next_delivery(work, done)
            continue
        if not changing:
            # Seldom: what it needs is not imported before.
            if needs_verifying(work.lake.files):
                from dicom_assets.defs.mending import mend_after_power_cut

                mend_after_power_cut(work, instance, work.say)
            work.organize_left()  # what a batch could not move although its books closed is told here
            return _ended(work, done, 0)
        if time.monotonic() - started > CHANGING_SECONDS:
            left = counted(changing, "object")
            work.say(f"Left for the next time, since still changing after {CHANGING_SECONDS:.0f} s: {left}.")
            return _ended(work, done, changing)
        _wait(found.claimed, changing, work.say)
        found = next_delivery(work, done)


def _ended(work: RunContext, done: Mapping[str, Books], changing: int) -> Ended:
    configured = {source.name for source in work.settings.sources}
    unread = [one for one in waiting(work.log.returned()) if one.source in configured]
    return Ended(tuple(done.values()), changing, _troubles(work), tuple(unread))


def _troubles(work: RunContext) -> tuple[str, ...]:
    """What is wrong with sources whose faults keep nothing else from being done."""
    looks = work.looks
    passed_over = (
        f"Source '{source}': {counted(count, 'folder')} could not be read; see `dicom-assets errors`."
        for source, count in looks.passed_over.items()
        if count
    )
    return (*looks.emptied.values(), *passed_over, *work.unmoved.values())


def _wait(rounds: Sequence[ClaimRound], changing: int, say: Callable[[str], None]) -> None:
    seconds = max(1, max(seconds_until(one.quiet_at) for one in rounds))
    say(f"Waiting {seconds} s for what was written just now to be complete: {counted(changing, 'object')}.")
    time.sleep(seconds)


@dataclass
class _Runs:
    """Runs batches one after the other, with one job, one lake and one set of reading processes for all."""

    work: RunContext
    instance: dg.DagsterInstance
    run_ids: RunIds = field(default_factory=RunIds)

    @cached_property
    def job(self) -> dg.JobDefinition:
        """The job, put together once."""
        return build_defs(self.work.settings, work=self.work).resolve_job_def("ingest_batch")

    def run(self, batch: str, following: str | None) -> Books:
        """Runs one batch to its end, and reads the following one meanwhile; its books afterwards."""
        work = self.work
        self._hold(batch)
        try:
            books = books_of(work.lake, batch)
            if books is not None and books.status == Status.CLOSED:
                return books
            bury_dead_runs(self.instance, batch)
            read_ahead(work, batch, self.run_ids)
            if following is not None:
                read_ahead(work, following, self.run_ids)
            work.say(f"Batch {batch}: running")
            result = run_batch(self.job, self.instance, batch, self.run_ids.of(batch))
            if not result.success:
                mark(work, batch, result.run_id, _reason(result))
            books = books_of(work.lake, batch)
            if books is None:
                return Books(batch, "", Status.FAILED, reason=_reason(result), started_at=datetime.now(UTC))
            return books
        finally:
            work.release(batch)

    def _hold(self, batch: str) -> None:
        while True:
            try:
                self.work.batch(batch, wait_seconds=0.5)
                return
            except BatchBusy:
                self.work.say(f"Batch {batch} is being run by another process; waiting for it.")
                time.sleep(2)


def _reason(result: dg.ExecuteInProcessResult) -> str:
    """The first failure in words. Only our own sentences are passed on: a library's may hold values."""
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            if data.user_failure_data is not None and data.user_failure_data.description:
                return f"{event.step_key}: {data.user_failure_data.description}"
            return f"{event.step_key} broke off; see run {result.run_id} in Dagster."
    return f"See run {result.run_id} in Dagster."
