"""forwarded: what a batch has ingested, stored at the DICOM service that its source names; nothing where none does.

Belongs here: asset, checks, job and sensor. Does not belong here: what is sent (`batch.forwarding`), the rule that
counts it (`batch.checks.forwarding_checks`).
"""

import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from dicom_assets.batch.books import books_of
from dicom_assets.batch.checks.contract import CheckResult
from dicom_assets.batch.checks.forwarding_checks import forwarded_equals_ingested
from dicom_assets.batch.forwarding import Fate, forward, waiting
from dicom_assets.defs.asset_keys import asset_key
from dicom_assets.defs.partitions import BATCH
from dicom_assets.defs.reporting import clear_failures, code_of, fail_clearly
from dicom_assets.defs.resources import RunContextParam
from dicom_assets.defs.unfinished_runs import UNDER_WAY
from dicom_assets.service.errors import ServiceRefused
from dicom_assets.settings import Settings

NAME = "forwarded"
JOB = "forward_batch"
RUNS_PER_TICK = 4
SHOWN = 20

# The client has tried for minutes already; one more try outlasts a restart of the service. A batch that still fails
# is asked for again by the sensor in the next hour.
ONCE_MORE = dg.RetryPolicy(max_retries=1, delay=60)


# As in `defs.checks`: that a check keeps its history per batch is a preview in 1.13.
warnings.filterwarnings("ignore", category=dg.PreviewWarning)


@fail_clearly
def forwarded(context: dg.AssetExecutionContext, work: RunContextParam) -> dg.MaterializeResult[Any]:
    """Sends what is not there yet; what the service refuses is told by object_id and code."""
    with clear_failures():
        try:
            found = forward(work.lake, work.settings, context.partition_key)
        except ServiceRefused as error:
            raise dg.Failure(str(error), allow_retries=False) from None  # who does not take us will not in a minute
    counts = {str(fate): int(found.counts.get(fate, 0)) for fate in Fate}
    return dg.MaterializeResult(
        metadata={
            "dagster/partition_row_count": found.ingested,
            "service": found.service,
            **counts,
            "not there": dg.MetadataValue.json([f"{name}: {why}" for name, why in found.left[:SHOWN]]),
        }
    )


@fail_clearly
def forwarded_checks(context: dg.AssetCheckExecutionContext, work: RunContextParam) -> Iterator[dg.AssetCheckResult]:
    """Counts what was written down against the ledger."""
    with clear_failures():
        known = books_of(work.lake, context.partition_key)
        service = "" if known is None else work.settings.source(known.source).forward_to or ""
        whole, there = forwarded_equals_ingested(work.lake, context.partition_key, service)
    key = asset_key(work.settings, NAME)
    yield _result(key, "equals_ingested", whole, dg.AssetCheckSeverity.ERROR)
    yield _result(key, "none_is_left", there, dg.AssetCheckSeverity.WARN)


def _result(key: dg.AssetKey, name: str, found: CheckResult, severity: dg.AssetCheckSeverity) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=name,
        asset_key=key,
        passed=found.passed,
        severity=severity,
        description=found.explanation or None,
        metadata={
            "expected": found.expected,
            "actual": found.actual,
            "differing": dg.MetadataValue.json(list(found.differing)),
        },
    )


@dg.sensor(
    name="batches_to_forward",
    job_name=JOB,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for each closed batch that is to be forwarded and was not yet; again each hour while that fails.",
)
@fail_clearly
def batches_to_forward(context: dg.SensorEvaluationContext, work: RunContextParam) -> dg.SensorResult | dg.SkipReason:
    """One tick: what waits, but for what is under way."""
    with clear_failures():
        left = waiting(work.lake, work.settings)
    active = context.instance.get_runs(dg.RunsFilter(job_name=JOB, statuses=[*UNDER_WAY]))
    under_way = {run.tags.get("dagster/partition", "") for run in active}
    known = set(context.instance.get_dynamic_partitions(BATCH.name or ""))
    asked = [batch for batch in left if batch in known - under_way][:RUNS_PER_TICK]
    if not asked:
        return dg.SkipReason("Nothing waits to be forwarded, or it is under way.")
    hour = datetime.now(UTC).strftime("%Y%m%dT%H")
    return dg.SensorResult(
        run_requests=[dg.RunRequest(run_key=f"{batch}@{hour}", partition_key=batch) for batch in asked]
    )


def definitions(settings: Settings) -> dg.Definitions:
    """Asset, checks, job and sensor, where a source forwards; nothing otherwise."""
    if not any(source.forward_to for source in settings.sources):
        return dg.Definitions()
    key = asset_key(settings, NAME)
    asset = dg.asset(
        key=key,
        deps=[asset_key(settings, "cleanup")],
        partitions_def=BATCH,
        group_name="services",
        kinds={"dicom", "python"},
        retry_policy=ONCE_MORE,
        description="What a batch has ingested, stored at the DICOM service that its source names in forward_to.",
        metadata=code_of(forwarded),
    )(forwarded)
    counted = "Ingested objects = stored + already there + refused + unread"
    there = "Each ingested object is at the service"
    checks = dg.multi_asset_check(
        name="forwarded_checks",
        specs=[
            dg.AssetCheckSpec("equals_ingested", asset=key, description=counted, blocking=True, partitions_def=BATCH),
            dg.AssetCheckSpec("none_is_left", asset=key, description=there, partitions_def=BATCH),
        ],
    )(forwarded_checks)
    job = dg.define_asset_job(
        JOB,
        selection=dg.AssetSelection.assets(asset),
        description="Stores what one batch has ingested at a DICOM service.",
        executor_def=dg.in_process_executor,
    )
    return dg.Definitions(assets=[asset], asset_checks=[checks], jobs=[job], sensors=[batches_to_forward])
