"""The one place where the graph is put together: assets, checks, jobs, sensors, schedules, resources."""

import warnings
from collections.abc import Mapping
from typing import Any

import dagster as dg

from dicom_assets.batch.context import Work
from dicom_assets.defs.assets import ASSETS
from dicom_assets.defs.blob_events import event_sensors
from dicom_assets.defs.checks import CHECKS
from dicom_assets.defs.executor import side_by_side
from dicom_assets.defs.jobs import JOBS
from dicom_assets.defs.organize import organize_left, organize_sensor
from dicom_assets.defs.resources import work_resource
from dicom_assets.defs.schedules import SCHEDULES
from dicom_assets.defs.sensors import failure_sensor, new_files
from dicom_assets.defs.services import service_graph
from dicom_assets.reading.engine import ReadingEngine
from dicom_assets.settings import Settings, load


def build_defs(
    settings: Settings | None = None,
    resource_overrides: Mapping[str, Any] | None = None,
    engine: ReadingEngine | None = None,
    work: Work | None = None,
) -> dg.Definitions:
    """A fresh graph.

    settings: those of file and environment by default. resource_overrides: resources by key, for tests. engine: reads
    the objects of every run. work: open already, for runs in this process that share it. Raises SettingsError.
    """
    settings = settings or load()
    services = service_graph(settings)
    return dg.Definitions(
        assets=[*ASSETS, *services.assets],
        asset_checks=CHECKS,
        jobs=[*JOBS, organize_left, *services.jobs],
        sensors=[new_files, *event_sensors(settings), organize_sensor(settings), failure_sensor(settings)],
        schedules=[*SCHEDULES, *services.schedules],
        resources={"work": work_resource(settings, engine, work), **(resource_overrides or {})},
        executor=side_by_side,
    )


# Dagster 1.13 warns about its own copying of sensors; a user of the command can do nothing about it.
warnings.filterwarnings("ignore", message="Parameter `owners` of initializer", category=dg.BetaWarning)
