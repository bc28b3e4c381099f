"""The sensor `alerts`: tells people what waits for them. It is there where the settings name somebody to tell.

Belongs here: the tick, and the runs that only Dagster knows of. Does not belong here: what is told, and to whom
(`monitoring`).

It looks at books and sources, and does not wait for events of Dagster: a batch that was paused while no daemon ran is
told as well, whoever ran it, and one that is run again is told once.
"""

from datetime import UTC, datetime, timedelta

import dagster as dg

from dicom_assets.defs.asset_keys import name_of
from dicom_assets.defs.jobs import runs_batch
from dicom_assets.defs.reporting import fail_clearly
from dicom_assets.defs.resources import RunContextParam
from dicom_assets.monitoring.occasions import Told, failed_run
from dicom_assets.monitoring.outbox import RUN_DAYS, tell
from dicom_assets.settings import Settings
from dicom_assets.storage.locks import LockBusy

INTERVAL_SECONDS = 60
RUNS = 100
"""Failed runs that one tick looks at, the newest ones."""


def failed_runs(instance: dg.DagsterInstance, now: datetime) -> list[Told]:
    """Runs that failed of late and are no batch's; what became of a batch, its books say."""
    since = now - timedelta(days=RUN_DAYS - 1)
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since)
    found = []
    for record in instance.get_run_records(failed, limit=RUNS):
        run, ended = record.dagster_run, record.end_time
        if ended is not None and not runs_batch(run):
            found.append(failed_run(_what(run), run.run_id, datetime.fromtimestamp(ended, UTC)))
    return found


def _what(run: dg.DagsterRun) -> str:
    """What a run was of: its job, or, where it was asked for by assets and has none of ours, these."""
    assets = sorted(map(name_of, run.asset_selection or ()))
    return ", ".join(assets) if assets and run.job_name.startswith("__") else f"job {run.job_name}"


@dg.sensor(
    name="alerts",
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells people of batches and sources that wait for them, and of runs that failed.",
)
@fail_clearly
def alerts(context: dg.SensorEvaluationContext, work: RunContextParam) -> dg.SkipReason:
    """One tick. A receiver that is away fails nothing: its messages are sent with a later one."""
    try:
        told = tell(work.lake, work.settings, failed_runs(context.instance, datetime.now(UTC)))
    except LockBusy:
        return dg.SkipReason("Another process is telling people of this lake right now.")
    return dg.SkipReason(" ".join([f"{told.sent} messages sent.", *told.away]))


def definitions(settings: Settings) -> dg.Definitions:
    """The sensor, if anybody is to be told."""
    return dg.Definitions(sensors=[alerts] if settings.alerts else [])
