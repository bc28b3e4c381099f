"""The one resource of the graph: `work`, which holds lake, sources and batches for as long as a run lasts."""

from collections.abc import Callable, Iterator

import dagster as dg

from dicom_assets.batch.engine import ReadingEngine
from dicom_assets.batch.read import Progress
from dicom_assets.batch.work import Work
from dicom_assets.settings import Settings

WorkParam = dg.ResourceParam[Work]


def work_resource(
    settings: Settings, progress: Callable[[Progress], None] | None = None, engine: ReadingEngine | None = None
) -> dg.ResourceDefinition:
    """A resource that opens a Work for each run and lets go of its batches at the run's end."""

    @dg.resource(description="Lake, sources and the batches that a run holds")
    def work(_: dg.InitResourceContext) -> Iterator[Work]:
        with Work(settings, progress or (lambda _: None), engine) as opened:
            yield opened

    return work
