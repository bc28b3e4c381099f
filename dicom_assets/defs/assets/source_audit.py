"""source_audit: current instances whose objects are gone at the folders and containers that they came from."""

import dagster as dg

from dicom_assets.batch.source_audits import Audited, audits
from dicom_assets.defs.jobs import register
from dicom_assets.defs.reporting import audit_asset, clear_failures, fail_clearly
from dicom_assets.defs.resources import RunContextParam
from dicom_assets.schema.registry import SOURCE_AUDIT as TABLE
from dicom_assets.settings import Settings


@fail_clearly
def source_audit(context: dg.AssetExecutionContext, work: RunContextParam) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster looks for the bare class
    """Audits every source with deletions = "report" or "follow"; what is followed becomes batches of deletes."""
    with clear_failures():
        found = list(audits(work))
        register(context.instance, [batch for one in found for batch in one.claimed])
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": sum(one.instances for one in found),
            "listed": sum(one.listed for one in found),
            "files_gone": sum(one.files for one in found),
            "batches_of_deletes": sum(len(one.claimed) for one in found),
        },
        check_results=[_check(found)],
    )


def _check(found: list[Audited]) -> dg.AssetCheckResult:
    open_ones = [one for one in found if not one.is_settled]
    told = [one.trouble or f"Source '{one.source}': {one.files} files are gone." for one in open_ones]
    return dg.AssetCheckResult(
        check_name=TABLE.name,
        passed=not open_ones,
        severity=dg.AssetCheckSeverity.WARN,
        description=" ".join(told) or "Nothing is gone, or it is followed.",
        metadata={"expected": 0, "actual": sum(one.files for one in open_ones)},
    )


def definitions(settings: Settings) -> dg.Definitions:
    """The asset, its job and its schedule, where a source does not ignore what is gone; nothing otherwise."""
    if all(source.deletions == "ignore" for source in settings.sources):
        return dg.Definitions()
    asset = audit_asset(
        settings,
        TABLE,
        source_audit,
        deps=["instance"],
        kinds={"python", "deltalake"},
        checks={TABLE.name: "What is current lies at its source, or its going was followed."},
    )
    job = dg.define_asset_job(
        "audit_sources",
        selection=dg.AssetSelection.assets(asset),
        description="Looks for what is gone at folders and containers.",
        executor_def=dg.in_process_executor,
    )
    nightly = dg.ScheduleDefinition(
        name="nightly_source_audit",
        job=job,
        cron_schedule="0 3 * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Audits folders and containers at 03:00 UTC.",
    )
    return dg.Definitions(assets=[asset], jobs=[job], schedules=[nightly])
