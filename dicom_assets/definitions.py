"""The one place where the graph is put together.

`build_defs` returns it fresh, for tests and for other settings; `defs` is the one that Dagster loads.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from dicom_assets.batch.engine import ReadingEngine
from dicom_assets.batch.read import Progress
from dicom_assets.defs.assets import ASSETS
from dicom_assets.defs.blob_events import event_sensors
from dicom_assets.defs.checks import CHECKS
from dicom_assets.defs.jobs import JOBS
from dicom_assets.defs.organize import organize_left, organize_sensor
from dicom_assets.defs.resources import work_resource
from dicom_assets.defs.schedules import SCHEDULES
from dicom_assets.defs.sensors import failure_sensor, new_files
from dicom_assets.defs.services import service_graph
from dicom_assets.settings import Settings, load


def build_defs(
    settings: Settings | None = None,
    resource_overrides: Mapping[str, Any] | None = None,
    progress: Callable[[Progress], None] | None = None,
    engine: ReadingEngine | None = None,
) -> dg.Definitions:
    """A fresh graph.

    settings: those of file and environment by default. resource_overrides: resources by key, for tests. progress:
    called while a batch is read. engine: reads the objects of every run. Raises SettingsError.
    """
    settings = settings or load()
    services = service_graph(settings)
    return dg.Definitions(
        assets=[*ASSETS, *services.assets],
        asset_checks=CHECKS,
        jobs=[*JOBS, organize_left, *services.jobs],
        sensors=[new_files, *event_sensors(settings), organize_sensor(settings), failure_sensor(settings)],
        schedules=[*SCHEDULES, *services.schedules],
        resources={"work": work_resource(settings, progress, engine), **(resource_overrides or {})},
        executor=dg.in_process_executor,
    )


# Dagster 1.13 warns about its own copying of sensors; a user of the command can do nothing about it.
warnings.filterwarnings("ignore", message="Parameter `owners` of initializer", category=dg.BetaWarning)

defs = build_defs()
