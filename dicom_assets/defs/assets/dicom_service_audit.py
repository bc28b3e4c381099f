"""dicom_service_audit: studies in which the lake differs from the services that it is copied from."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from dicom_assets.defs.asset_keys import asset_key
from dicom_assets.defs.reporting import audit_asset, clear_failures, fail_clearly
from dicom_assets.defs.resources import RunContextParam
from dicom_assets.defs.windows import border, due, never_read
from dicom_assets.schema.registry import DICOM_SERVICE_AUDIT as TABLE
from dicom_assets.service.audit_lake import Audit, audit
from dicom_assets.service.client import ServiceClient
from dicom_assets.service.errors import ServiceError
from dicom_assets.settings import ChangesSettings, Settings

NO_WINDOW_MISSING = "no_window_missing"
_SHOWN = 20


def last_due(changes: ChangesSettings, now: datetime) -> datetime:
    """Start of the last window that is due: what changed since may not have been read yet."""
    width = timedelta(minutes=changes.window_minutes)
    return border(now - timedelta(minutes=changes.delay_minutes), changes.window_minutes) - width


@fail_clearly
def dicom_service_audit(context: dg.AssetExecutionContext, work: RunContextParam) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster looks for the bare class
    """Compares every service with the lake; the check fails with numbers and says what repairs the difference."""
    audits: list[Audit] = []
    now = datetime.now(UTC)
    since = last_due(work.settings.changes, now)
    landed = context.instance.get_materialized_partitions(asset_key(work.settings, "dicom_changes"))
    missing = never_read(due(work.settings.changes, now, timedelta(days=36_500)), landed)
    with clear_failures():
        for service in work.settings.followed:
            try:
                with ServiceClient(service) as client:
                    audits.append(audit(client, work.lake, since))
            except ServiceError as error:
                raise dg.Failure(str(error)) from None
    rows = sum(len(one.findings) for one in audits)
    return dg.MaterializeResult(
        metadata={"dagster/row_count": rows, "studies": sum(one.studies for one in audits)},
        check_results=[_check(audits), _windows(missing)],
    )


def dicom_service_audit_asset(settings: Settings) -> dg.AssetsDefinition:
    """The asset for these settings."""
    return audit_asset(
        settings,
        TABLE,
        dicom_service_audit,
        deps=["study"],
        kinds={"dicom", "deltalake"},
        checks={
            TABLE.name: "The lake holds the studies of every DICOM service, with as many instances in each.",
            NO_WINDOW_MISSING: "Every window of changes that is due has been read, since the first one that was.",
        },
    )


def _check(audits: list[Audit]) -> dg.AssetCheckResult:
    found = [one for one in audits if one.findings]
    return dg.AssetCheckResult(
        check_name=TABLE.name,
        passed=not found,
        description=(
            f"{sum(len(one.findings) for one in found)} studies differ. To repair exactly these: "
            + "; ".join(one.command for one in found)
            if found
            else "Lake and services agree."
        ),
        metadata={
            "expected": 0,
            "actual": sum(len(one.findings) for one in audits),
            "services": dg.MetadataValue.json(
                {
                    one.service: {
                        "studies": one.studies,
                        "instances": one.instances,
                        "left_out": one.left_out,
                        **one.counts(),
                    }
                    for one in audits
                }
            ),
        },
    )


def _windows(missing: list[str]) -> dg.AssetCheckResult:
    shown = ",".join(missing[:_SHOWN])
    command = f"dagster job backfill -j sync_dicom_changes --partitions {shown} --noprompt"
    return dg.AssetCheckResult(
        check_name=NO_WINDOW_MISSING,
        passed=not missing,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(missing)} windows were never read. To read them: {command}"
        if missing
        else "None is missing.",
        metadata={"expected": 0, "actual": len(missing)},
    )
