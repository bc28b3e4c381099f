"""One batch run now, in this process, because a person asked for it.

Belongs here: holding the batch, deciding, running it. Does not belong here: which decisions there are
(`batch.decisions`), the jobs that ask for them in Dagster's UI (`decision_jobs`), options and printing (`cli`).
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import dagster as dg

from dicom_assets.batch import decisions
from dicom_assets.batch.books import Books, Status, books_of
from dicom_assets.batch.context import BatchBusy, OpenBatch, RunContext
from dicom_assets.defs.checks import GATE_STEP
from dicom_assets.defs.graph import build_defs
from dicom_assets.defs.jobs import register, run_batch
from dicom_assets.defs.sensors import mark
from dicom_assets.landing.claims import UnknownBatch

Decide = Callable[[OpenBatch], object]


@contextmanager
def _held(work: RunContext, batch_id: str) -> Iterator[OpenBatch]:
    """A batch that nobody else works on. Raises DecisionRefused."""
    try:
        batch = work.batch(batch_id, wait_seconds=0)
    except UnknownBatch as error:
        raise decisions.DecisionRefused(str(error)) from None
    except BatchBusy:
        raise decisions.DecisionRefused(
            f"A run of batch {batch_id} is under way, or another command holds it. Wait until it has ended."
        ) from None
    try:
        yield batch
    finally:
        work.release(batch_id)


def retry(
    work: RunContext, instance: dg.DagsterInstance, batch_id: str, shares: Mapping[str, float] | None = None
) -> Books:
    """Runs a batch that is not closed; its books afterwards. shares: bounds of the gate for this run alone.

    Raises DecisionRefused when it cannot be, SettingsError.
    """
    return _decided(work, instance, batch_id, decisions.retry, shares or {})


def accept(work: RunContext, instance: dg.DagsterInstance, batch_id: str, decided_by: str, reason: str) -> Books:
    """Accepts a paused batch and runs it; see `batch.decisions.accept`."""
    return _decided(work, instance, batch_id, lambda batch: decisions.accept(batch, decided_by, reason))


def dismiss(work: RunContext, instance: dg.DagsterInstance, batch_id: str, decided_by: str, reason: str) -> Books:
    """Dismisses a batch and runs it; see `batch.decisions.dismiss`."""
    return _decided(work, instance, batch_id, lambda batch: decisions.dismiss(batch, decided_by, reason))


def _decided(
    work: RunContext,
    instance: dg.DagsterInstance,
    batch_id: str,
    decide: Decide,
    shares: Mapping[str, float] | None = None,
) -> Books:
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    with _held(work, batch_id):
        with work.lake.look_once():
            decide(work.batch(batch_id))
        register(instance, [batch_id])
        bury_dead_runs(instance, batch_id)
        job = build_defs(work.settings, work=work).resolve_job_def("ingest_batch")
        work.say(f"Batch {batch_id}: running")
        result = run_batch(job, instance, batch_id, ops={GATE_STEP: {"config": dict(shares)}} if shares else {})
        if not result.success:
            mark(work, batch_id, result.run_id)
        books = books_of(work.lake, batch_id)
    return books or Books(batch_id, "", Status.FAILED, reason=f"its run {result.run_id} broke off")


def bury_dead_runs(instance: dg.DagsterInstance, batch_id: str) -> None:
    """Marks runs of a batch as failed that seem to run though nobody holds the batch: their process was killed."""
    active = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING]
    filters = dg.RunsFilter(job_name="ingest_batch", tags={"dagster/partition": batch_id}, statuses=active)
    for run in instance.get_runs(filters):
        instance.report_run_failed(run, "The process that ran it has ended.")
