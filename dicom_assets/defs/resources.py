"""The one resource of the graph: `work`, which holds lake, sources and batches for as long as a run lasts."""

from collections.abc import Iterator

import dagster as dg

from dicom_assets.batch.context import RunContext
from dicom_assets.defs.reporting import fail_clearly
from dicom_assets.reading.engine import ReadingEngine
from dicom_assets.settings import Settings

RunContextParam = dg.ResourceParam[RunContext]


def work_resource(
    settings: Settings, engine: ReadingEngine | None = None, opened: RunContext | None = None
) -> dg.ResourceDefinition:
    """A resource that opens a RunContext for each run and lets go of its batches at the run's end.

    opened: one that is open already and outlives the runs.
    """

    @dg.resource(description="Lake, sources and the batches that a run holds")
    @fail_clearly
    def work(_: dg.InitResourceContext) -> Iterator[RunContext]:
        if opened is not None:
            yield opened
            return
        with RunContext(settings, shared_engine=engine) as own:
            yield own

    return work
