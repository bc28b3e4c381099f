"""What a kill left of moving objects in sources of mode `organize`: a sensor that looks, a job that finishes it.

Belongs here: when it happens. As a rule the asset `cleanup` moves. Does not belong here: the moving (`batch.organize`).
"""

import dagster as dg

from dicom_assets.batch.organize import unfinished
from dicom_assets.defs.reporting import clear_failures, fail_clearly
from dicom_assets.defs.resources import RunContextParam
from dicom_assets.landing.store import SourceUnavailable
from dicom_assets.settings import Settings
from dicom_assets.storage.files import LakeError

INTERVAL_SECONDS = 300


@dg.op(description="Finishes the moving of closed batches that was broken off.")
@fail_clearly
def organize(context: dg.OpExecutionContext, work: RunContextParam) -> None:
    """Goes on with every plan that is not finished and that nobody is at."""
    with clear_failures():
        done = work.organize_left()
        if work.unmoved:
            raise SourceUnavailable(" ".join(work.unmoved.values()))
    context.log.info("%d batches organized", len(done))


@dg.job(description="Finishes the moving of closed batches that was broken off.", executor_def=dg.in_process_executor)
def organize_left() -> None:
    """Finishes what was left."""
    organize()


@dg.sensor(
    name="left_unorganized",
    job=organize_left,
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Looks for batches whose objects were not moved to the end.",
)
@fail_clearly
def left_unorganized(context: dg.SensorEvaluationContext, work: RunContextParam) -> dg.RunRequest | dg.SkipReason:
    """One tick: a run when the last tick has seen the same batch already, so that one under way is left alone."""
    try:
        left = unfinished(work.lake.files)
    except LakeError as error:
        raise dg.Failure(str(error)) from None
    still = set(left) & set((context.cursor or "").split())
    context.update_cursor(" ".join(left))
    return dg.RunRequest() if still else dg.SkipReason("Nothing was left.")


def definitions(settings: Settings) -> dg.Definitions:
    """The job and its sensor, where a source is organized; nothing otherwise."""
    if not any(source.mode == "organize" for source in settings.sources):
        return dg.Definitions()
    return dg.Definitions(jobs=[organize_left], sensors=[left_unorganized])
