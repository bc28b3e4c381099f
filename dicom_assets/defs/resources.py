"""The one resource of the graph: `work`, which holds lake, sources and batches for as long as a run lasts."""

from collections.abc import Iterator

import dagster as dg

from dicom_assets.batch.context import Work
from dicom_assets.defs.decorators import fail_clearly
from dicom_assets.reading.engine import ReadingEngine
from dicom_assets.settings import Settings

WorkParam = dg.ResourceParam[Work]


def work_resource(
    settings: Settings, engine: ReadingEngine | None = None, opened: Work | None = None
) -> dg.ResourceDefinition:
    """A resource that opens a Work for each run and lets go of its batches at the run's end.

    opened: one that is open already and outlives the runs.
    """

    @dg.resource(description="Lake, sources and the batches that a run holds")
    @fail_clearly
    def work(_: dg.InitResourceContext) -> Iterator[Work]:
        if opened is not None:
            yield opened
            return
        with Work(settings, shared_engine=engine) as own:
            yield own

    return work
