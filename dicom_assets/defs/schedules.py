"""Schedules: maintenance once a night."""

import dagster as dg

from dicom_assets.defs.jobs import maintain_lake
from dicom_assets.settings import Settings

nightly_maintenance = dg.ScheduleDefinition(
    name="nightly_maintenance",
    job=maintain_lake,
    cron_schedule="30 2 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Compacts and vacuums the tables at 02:30 UTC.",
)


def definitions(_: Settings) -> dg.Definitions:
    """The schedules."""
    return dg.Definitions(schedules=[nightly_maintenance])
