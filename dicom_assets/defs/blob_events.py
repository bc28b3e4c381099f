"""Sensors of sources on Azure Storage: `blob_events` claims what queues announce, `missed_events` lists now and then.

Belongs here: ticks. Does not belong here: what is done with a message (`batch.claim_rounds`).
"""

import time
from datetime import datetime

import dagster as dg

from dicom_assets.batch.claim_rounds import claim_by_listing, claim_from_queue, queues
from dicom_assets.batch.context import INGEST_LOCK
from dicom_assets.defs.jobs import INGEST_BATCH
from dicom_assets.defs.partitions import BATCH
from dicom_assets.defs.reporting import fail_clearly
from dicom_assets.defs.resources import RunContextParam
from dicom_assets.defs.sensors import wanted_runs, what_waits
from dicom_assets.landing.opening import open_store
from dicom_assets.landing.store import SourceUnavailable
from dicom_assets.settings import Settings
from dicom_assets.storage.files import LakeError
from dicom_assets.storage.locks import LockBusy

INTERVAL_SECONDS = 15
LISTING_SECONDS = 40.0
"""Of a tick's 60 s."""
MISSED_INTERVAL_SECONDS = 60


def _busy() -> dg.SkipReason:
    return dg.SkipReason(f"`dicom-assets {INGEST_LOCK}` is at work on this lake; what it leaves is claimed later.")


def event_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """The sensors."""
    pause = settings.events.reconcile_minutes * 60

    @dg.sensor(
        name="blob_events",
        job_name=INGEST_BATCH,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reads storage queues for new blobs, claims them and runs each batch once.",
    )
    @fail_clearly
    def blob_events(context: dg.SensorEvaluationContext, work: RunContextParam) -> dg.SensorResult | dg.SkipReason:
        """One tick: take messages, claim, delete messages, ask for runs. One queue's fault holds up no other."""
        unavailable: list[str] = []
        gathering: list[tuple[int, datetime | None]] = []
        try:
            with work.claiming(wait_seconds=0):
                for (_, name), sources in queues(work).items():
                    try:
                        taken = claim_from_queue(work, sources, paced=True)
                    except SourceUnavailable as error:
                        unavailable.append(str(error))
                        continue
                    gathering.append((taken.gathering, taken.gathers_until))
                    if taken.messages:
                        counts = ", ".join(f"{count} {kind}" for kind, count in taken.counts() if count)
                        context.log.info("Queue %s: %s", name, counts)
                known = set(context.instance.get_dynamic_partitions(BATCH.name or ""))
                result = wanted_runs(work, known, announced=True)
        except LockBusy:
            return _busy()
        except LakeError as error:
            raise dg.Failure(str(error)) from None
        if result.run_requests:
            return result
        if unavailable:
            raise dg.Failure(" ".join(unavailable)) from None
        waits = any(number for number, _ in gathering)
        return dg.SkipReason(what_waits(0, gathering) if waits else "No event that announces anything new.")

    @dg.sensor(
        name="missed_events",
        job_name=INGEST_BATCH,
        minimum_interval_seconds=min(MISSED_INTERVAL_SECONDS, pause),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Lists sources that have a queue now and then, for what their events missed.",
    )
    @fail_clearly
    def missed_events(context: dg.SensorEvaluationContext, work: RunContextParam) -> dg.SkipReason:
        """One tick: go on with the listing that is under way, or begin one when the last is old enough.

        It only claims: a batch that two sensors ask for would run twice. The cursor is the time of the next listing,
        or where the one under way has come to.
        """
        now = time.time()
        cursor = context.cursor or ""
        if cursor.startswith("at ") and now < float(cursor[3:]):
            return dg.SkipReason("Everything was listed not long ago.")
        stores = [open_store(source) for source in settings.sources if source.queue]
        try:
            with work.claiming(wait_seconds=0):
                going_on = None if cursor.startswith("at ") else cursor
                claimed, places, unavailable = claim_by_listing(work, stores, going_on, LISTING_SECONDS)
        except LockBusy:
            return _busy()
        except LakeError as error:
            raise dg.Failure(str(error)) from None
        if unavailable is not None:
            raise dg.Failure(str(unavailable)) from None
        context.update_cursor(places or f"at {now + (MISSED_INTERVAL_SECONDS if work.looks.emptied else pause)}")
        batches = sum(len(one.claims) for one in claimed)
        return dg.SkipReason(f"{batches} batches of what no event announced; `blob_events` asks for their runs.")

    return [blob_events, missed_events]


def definitions(settings: Settings) -> dg.Definitions:
    """The sensors of queues, where a source has one; nothing otherwise."""
    any_queue = any(source.queue for source in settings.sources)
    return dg.Definitions(sensors=event_sensors(settings) if any_queue else [])
