"""Everything of the graph that is about DICOM services: assets, jobs, schedules, made for the settings at hand.

Belongs here: when windows are asked for and audits run. Does not belong here: what either does (`assets`).
"""

from contextlib import suppress
from datetime import UTC, datetime

import dagster as dg

from dicom_assets.defs.asset_keys import asset_key
from dicom_assets.defs.assets.dicom_changes import dicom_changes_asset
from dicom_assets.defs.assets.dicom_service_audit import dicom_service_audit_asset
from dicom_assets.defs.reporting import fail_clearly
from dicom_assets.defs.unfinished_runs import UNDER_WAY
from dicom_assets.defs.windows import CATCH_UP, due, tick_cron, wanted
from dicom_assets.service.sync import prepare_landing
from dicom_assets.settings import Settings

SYNC_TAGS = {"dicom_assets/changes": "window"}
"""Tag of the runs of `sync_dicom_changes`; `dagster.yaml` lets one of them run at a time."""


def definitions(settings: Settings) -> dg.Definitions:
    """Assets, jobs and schedules, where the changes of a service are followed; nothing otherwise.

    Makes the landing folders of the services, so that the sensor finds something to list before the first window.
    """
    if not settings.followed:
        return dg.Definitions()
    for service in settings.followed:
        with suppress(OSError):  # the run that lands there says what is wrong
            prepare_landing(service)
    changes, audited = dicom_changes_asset(settings), dicom_service_audit_asset(settings)
    sync = dg.define_asset_job(
        "sync_dicom_changes",
        selection=dg.AssetSelection.assets(changes),
        description="One window of changes of every DICOM service, from the server to the landing zone.",
        tags=SYNC_TAGS,
        executor_def=dg.in_process_executor,
    )
    audit = dg.define_asset_job(
        "audit_dicom_services",
        selection=dg.AssetSelection.assets(audited),
        description="Compares every DICOM service with the lake.",
        executor_def=dg.in_process_executor,
    )
    nightly_audit = dg.ScheduleDefinition(
        name="nightly_audit",
        job=audit,
        cron_schedule="0 4 * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Audits every DICOM service at 04:00 UTC.",
    )
    return dg.Definitions(
        assets=[changes, audited],
        jobs=[sync, audit],
        schedules=[_schedule(settings), nightly_audit],
    )


def _schedule(settings: Settings) -> dg.ScheduleDefinition:
    """Asks for each window once it has been closed for the delay, and for those that failed before."""
    changes, landing = settings.changes, asset_key(settings, "dicom_changes")

    @dg.schedule(
        name="closed_windows",
        job_name="sync_dicom_changes",
        cron_schedule=tick_cron(changes.window_minutes, changes.delay_minutes),
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Reads each window of changes {changes.delay_minutes} minutes after it has closed.",
    )
    @fail_clearly
    def closed_windows(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        at = context.scheduled_execution_time.astimezone(UTC)
        keys = due(changes, max(at, datetime.now(UTC)), CATCH_UP)
        landed = context.instance.get_materialized_partitions(landing)
        active = context.instance.get_runs(dg.RunsFilter(job_name="sync_dicom_changes", statuses=[*UNDER_WAY]))
        under_way = {run.tags.get("dagster/partition", "") for run in active}
        asked = wanted(keys, landed, under_way)
        if not asked:
            return dg.SkipReason("Every window that is due has been read, or is being read.")
        # A key of its own for each tick: a window that failed is asked for again, a tick that is repeated is not.
        return [dg.RunRequest(run_key=f"{key}@{at:%Y%m%dT%H%M}", partition_key=key) for key in asked]

    return closed_windows
