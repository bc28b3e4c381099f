"""Sensors: `new_files` claims what has arrived and asks for its runs; `mark_failed` enters broken runs in the books."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

from dicom_assets.batch.books import Status, all_books, books_of
from dicom_assets.batch.claim_rounds import claim_by_listing
from dicom_assets.batch.context import INGEST_LOCK, RunContext
from dicom_assets.defs.jobs import INGEST_BATCH, runs_batch
from dicom_assets.defs.partitions import BATCH, REGISTER_AT_ONCE, batches_to_retire
from dicom_assets.defs.reporting import fail_clearly
from dicom_assets.defs.resources import RunContextParam
from dicom_assets.landing.claims import UnknownBatch
from dicom_assets.landing.opening import open_store
from dicom_assets.settings import Settings
from dicom_assets.storage.files import LakeError
from dicom_assets.storage.locks import LockBusy

INTERVAL_SECONDS = 15
RUNS_PER_TICK = 20
LISTING_SECONDS = 40.0
"""Of a tick's 60 s; a listing that takes longer goes on with the next tick."""


def wanted_runs(work: RunContext, known: set[str], *, announced: bool) -> dg.SensorResult:
    """Runs for batches that were claimed and never started, and partitions for those that Dagster does not know.

    announced: those of sources with a queue, otherwise all others; a run_key counts for one sensor alone, so each batch
    must have one that asks for it. Decided from the claim log alone: a tick that died after its claim is made good by
    the next one. run_key is the batch's id, fingerprint included, so a batch that is asked for twice runs once.
    """
    queued = {source.name for source in work.settings.sources if source.queue}
    mine = {claim.batch_id for claim in work.log.claims() if (claim.source in queued) == announced}
    asked = [batch for batch in work.unstarted() if batch in mine][:RUNS_PER_TICK]
    known = known | batches_to_retire(all_books(work.lake), work.settings.maintenance, datetime.now(UTC))
    requests = [dg.RunRequest(run_key=batch, partition_key=batch) for batch in asked]
    # A batch that waited for its source has had its run; the one that was refused makes the key of the next.
    requests += [
        dg.RunRequest(run_key=f"{batch}-after-{refused}", partition_key=batch)
        for batch, refused in work.waited().items()
        if batch in mine and batch not in asked
    ][: RUNS_PER_TICK - len(asked)]
    every = dict.fromkeys([*asked, *(claim.batch_id for claim in work.log.claims())])
    fresh = [batch for batch in every if batch not in known]
    return dg.SensorResult(
        run_requests=requests, dynamic_partitions_requests=[BATCH.build_add_request(fresh[:REGISTER_AT_ONCE])]
    )


def what_waits(writing: int, gathering: Sequence[tuple[int, datetime | None]]) -> str:
    """What a tick says that asks for no run.

    writing: objects that are younger than the quiet period. gathering: objects that wait for more to come, and until
    when, for each source or queue.
    """
    sentences: list[str] = []
    if writing:
        are, they = ("1 object is", "it") if writing == 1 else (f"{writing} objects are", "they")
        sentences.append(f"{are} still being written; {they} will be picked up next time.")
    moments = [until for _, until in gathering if until is not None]
    if moments:
        count = sum(number for number, _ in gathering)
        wait = "1 object waits" if count == 1 else f"{count} objects wait"
        until = max(moments).astimezone(UTC) + timedelta(seconds=59)  # the minute that is over by then
        sentences.append(f"{wait} for more to come, until {until:%H:%M} UTC at the latest.")
    return " ".join(sentences) or "Nothing new."


@dg.sensor(
    name="new_files",
    job_name=INGEST_BATCH,
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Claims what is new in the landing zone and runs each batch once.",
)
@fail_clearly
def new_files(context: dg.SensorEvaluationContext, work: RunContextParam) -> dg.SensorResult | dg.SkipReason:
    """One tick: list, claim, ask for runs. A source that is not there fails the ticks that bring nothing else.

    Sources with a queue are left to `blob_events`. The cursor is where listings that ran out of time have come to.
    """
    try:
        with work.claiming(wait_seconds=0):
            stores = [open_store(source) for source in work.settings.sources if not source.queue]
            claimed, cursor, unavailable = claim_by_listing(work, stores, context.cursor, LISTING_SECONDS, paced=True)
            context.update_cursor(cursor)
            result = wanted_runs(work, set(context.instance.get_dynamic_partitions(BATCH.name or "")), announced=False)
    except LockBusy:
        return dg.SkipReason(f"`dicom-assets {INGEST_LOCK}` is at work on this lake; what it leaves is claimed later.")
    except LakeError as error:
        raise dg.Failure(str(error)) from None
    if result.run_requests:
        return result
    if unavailable is not None:
        raise dg.Failure(str(unavailable)) from None
    return dg.SensorResult(
        skip_reason=what_waits(
            sum(one.waiting for one in claimed), [(one.gathering, one.gathers_until) for one in claimed]
        ),
        dynamic_partitions_requests=result.dynamic_partitions_requests,
    )


def failure_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor that marks a batch failed when its run broke off; run-status sensors take no resources of a run."""

    @dg.run_failure_sensor(
        name="mark_failed",
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Enters a run that broke off in the books of its batch.",
    )
    @fail_clearly
    def mark_failed(context: dg.RunFailureSensorContext) -> None:
        batch = context.dagster_run.tags.get("dagster/partition")
        if batch is not None and runs_batch(context.dagster_run):
            with RunContext(settings) as work:
                mark(work, batch, context.dagster_run.run_id)

    return mark_failed


def definitions(settings: Settings) -> dg.Definitions:
    """The sensors: `new_files` where a source is listed, and not left to its queue."""
    listed = [new_files] if any(not source.queue for source in settings.sources) else []
    return dg.Definitions(sensors=[*listed, failure_sensor(settings)])


def mark(work: RunContext, batch_id: str, run_id: str, reason: str = "The run broke off; see its log.") -> None:
    """Marks a batch failed, unless it is closed or paused, or another run has taken it over."""
    known = books_of(work.lake, batch_id)
    if known is not None and (known.status in (Status.CLOSED, Status.PAUSED) or known.run_id not in (None, run_id)):
        return
    try:
        work.batch(batch_id).stop(Status.FAILED, reason, run_id)
    except UnknownBatch:
        return  # the run was asked for with a key that names no batch: there are no books to mark
