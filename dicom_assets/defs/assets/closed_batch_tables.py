"""tag_profile and phi_risk: tables that follow closed batches. One step makes both, whenever batches have closed.

Belongs here: assets, checks, job and sensor. Does not belong here: what the tables hold (`curation`).
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import dagster as dg

from dicom_assets.curation.following import follow
from dicom_assets.curation.parity import Finding, every_series_is_judged, profiles_hold_every_object, risks
from dicom_assets.curation.tag_profile import lagging, stale_profiles
from dicom_assets.defs.reporting import OWNERS, clear_failures, fail_clearly, table_description
from dicom_assets.defs.resources import RunContextParam
from dicom_assets.defs.unfinished_runs import UNDER_WAY
from dicom_assets.schema.tag_tables import PHI_RISK, TAG_PROFILE, TAG_PROFILE_PART
from dicom_assets.settings import Settings

JOB = "curate_lake"
PARITY, LOOK_AT = "equals_instance", "worth_a_look"


def _spec(name: str, deps: list[str], shown: dict[str, Any]) -> dg.AssetSpec:
    return dg.AssetSpec(name, deps=deps, group_name="curation", kinds={"python", "deltalake"}, owners=OWNERS, **shown)


@dg.multi_asset(
    name="closed_batch_tables",
    specs=[
        _spec(PHI_RISK.name, ["cleanup"], table_description(PHI_RISK)),
        _spec(TAG_PROFILE_PART.name, ["cleanup"], table_description(TAG_PROFILE_PART)),
        _spec(TAG_PROFILE.name, [TAG_PROFILE_PART.name], table_description(TAG_PROFILE)),
    ],
    check_specs=[
        dg.AssetCheckSpec(
            PARITY, asset=PHI_RISK.name, blocking=True, description="Rows are the current series of closed batches."
        ),
        dg.AssetCheckSpec(
            LOOK_AT,
            asset=PHI_RISK.name,
            description="No series names its patient in text, pixels or against its claim.",
        ),
        dg.AssetCheckSpec(
            PARITY,
            asset=TAG_PROFILE.name,
            blocking=True,
            description="Objects by device are the current instances of closed batches.",
        ),
    ],
)
@fail_clearly
def closed_batch_tables(
    context: dg.AssetExecutionContext, work: RunContextParam
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    """Takes in all that has changed since the last time."""
    lake = work.lake
    with clear_failures():
        done = follow(lake, context.log.info)
        rows = {name: lake.row_count(name) for name in (PHI_RISK.name, TAG_PROFILE_PART.name, TAG_PROFILE.name)}
        judged = every_series_is_judged(lake, done.versions)
        worth_a_look = risks(lake)
        counted = profiles_hold_every_object(lake, done.versions)
    counts = {
        PHI_RISK.name: {"series_judged": done.series, "texts_that_changed": done.texts},
        TAG_PROFILE_PART.name: {"batches_counted": done.batches},
        TAG_PROFILE.name: {"profiles_added_up": done.profiles},
    }
    for name, more in counts.items():
        yield dg.MaterializeResult(asset_key=name, metadata={"dagster/row_count": rows[name], **more})
    yield _result(PHI_RISK.name, PARITY, judged, dg.AssetCheckSeverity.ERROR)
    yield _result(PHI_RISK.name, LOOK_AT, worth_a_look, dg.AssetCheckSeverity.WARN)
    yield _result(TAG_PROFILE.name, PARITY, counted, dg.AssetCheckSeverity.ERROR)


def _result(asset: str, name: str, found: Finding, severity: dg.AssetCheckSeverity) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=name,
        passed=found.passed,
        severity=severity,
        metadata={"expected": found.expected, "actual": found.actual, **found.counts},
    )


curate_lake = dg.define_asset_job(
    JOB,
    selection=dg.AssetSelection.assets(PHI_RISK.name, TAG_PROFILE_PART.name, TAG_PROFILE.name),
    description="Brings tag_profile and phi_risk up to date with closed batches.",
)


@dg.sensor(
    name="closed_batches",
    job=curate_lake,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for tag_profile and phi_risk when batches have closed since; again each hour while that fails.",
)
@fail_clearly
def closed_batches(context: dg.SensorEvaluationContext, work: RunContextParam) -> dg.SensorResult | dg.SkipReason:
    """One tick."""
    if context.instance.get_runs(dg.RunsFilter(job_name=JOB, statuses=[*UNDER_WAY]), limit=1):
        return dg.SkipReason("They are being brought up to date.")
    with clear_failures():
        waiting = lagging(work.lake) or stale_profiles(work.lake)
    if not waiting:
        return dg.SkipReason("Every closed batch is in them.")
    what = sha256(" ".join(waiting).encode()).hexdigest()[:16]
    return dg.SensorResult(run_requests=[dg.RunRequest(run_key=f"{what}@{datetime.now(UTC):%Y%m%dT%H}")])


def definitions(_: Settings) -> dg.Definitions:
    """Assets, job and sensor."""
    return dg.Definitions(assets=[closed_batch_tables], jobs=[curate_lake], sensors=[closed_batches])
