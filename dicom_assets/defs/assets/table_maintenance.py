"""table_maintenance: small files into larger ones, old versions away. Unpartitioned, on a schedule of its own."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from dicom_assets.batch.books import all_books
from dicom_assets.defs.asset_keys import asset_key
from dicom_assets.defs.partitions import batches_to_retire, retire
from dicom_assets.defs.reporting import clear_failures, code_of, fail_clearly
from dicom_assets.defs.resources import RunContextParam
from dicom_assets.lake.maintenance import Maintenance, maintain
from dicom_assets.schema.registry import TABLES
from dicom_assets.settings import Settings

_COLUMNS = ("table", "files before", "files after", "bytes before", "bytes after", "files deleted", "readable back to")


@fail_clearly
def table_maintenance(context: dg.AssetExecutionContext, work: RunContextParam) -> dg.MaterializeResult[Any]:
    """Compaction and vacuum of every table, and partitions of old batches retired, with their effect as metadata."""
    with clear_failures():
        old = batches_to_retire(all_books(work.lake), work.settings.maintenance, datetime.now(UTC))
        partitions, runs = retire(context.instance, old)
        done = [maintain(work.lake, name, work.settings.maintenance.retention_hours) for name in TABLES]
    return dg.MaterializeResult(
        metadata={
            "files_before": sum(one.files_before for one in done),
            "files_after": sum(one.files_after for one in done),
            "bytes_before": sum(one.bytes_before for one in done),
            "bytes_after": sum(one.bytes_after for one in done),
            "partitions_retired": partitions,
            "runs_deleted": runs,
            "files_deleted": sum(one.files_deleted for one in done),
            "oldest_version_kept": max(one.oldest for one in done).isoformat(timespec="seconds"),
            "tables": dg.MetadataValue.md("\n".join(_lines(done))),
        }
    )


def _lines(done: Iterable[Maintenance]) -> Iterable[str]:
    yield f"| {' | '.join(_COLUMNS)} |"
    yield "|---" * len(_COLUMNS) + "|"
    for one in done:
        sizes = f"{one.files_before} | {one.files_after} | {one.bytes_before} | {one.bytes_after}"
        yield f"| {one.table} | {sizes} | {one.files_deleted} | {one.oldest:%Y-%m-%d %H:%M} |"


def definitions(settings: Settings) -> dg.Definitions:
    """The asset, its job, and its schedule, once a night."""
    asset = dg.asset(
        key=asset_key(settings, "table_maintenance"),
        group_name="books",
        kinds={"deltalake"},
        description="Compacts and vacuums every table of the lake; old versions stay readable within the retention.",
        metadata=code_of(table_maintenance),
    )(table_maintenance)
    job = dg.define_asset_job(
        "maintain_lake",
        selection=dg.AssetSelection.assets(asset),
        description="Compacts and vacuums the tables.",
        executor_def=dg.in_process_executor,
    )
    nightly = dg.ScheduleDefinition(
        name="nightly_maintenance",
        job=job,
        cron_schedule="30 2 * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Compacts and vacuums the tables at 02:30 UTC.",
    )
    return dg.Definitions(assets=[asset], jobs=[job], schedules=[nightly])
