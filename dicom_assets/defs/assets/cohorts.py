"""cohort: a frozen selection, verified, and exported where its run says where to; one partition for each cohort.

Belongs here: asset, check, job, and the sensor that makes cohorts partitions. Does not belong here: what is compared
and copied (`curation.cohorts`).
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from pydantic import Field

from dicom_assets.curation.cohorts import frozen
from dicom_assets.curation.cohorts.changes import Verified, verify_cohort
from dicom_assets.curation.cohorts.export import BUCKET, LAYOUTS, Wish, export_cohort
from dicom_assets.defs.asset_keys import asset_key
from dicom_assets.defs.decision_jobs import account
from dicom_assets.defs.reporting import clear_failures, code_of, fail_clearly
from dicom_assets.defs.resources import RunContextParam
from dicom_assets.settings import Settings

NAME = "cohort"
JOB = "verify_cohort"
CHECK = "unchanged"
SHOWN = 20

COHORT = dg.DynamicPartitionsDefinition(name="cohort")
"""Cohorts by name."""


class CohortConfig(dg.Config):
    """What a run does with a cohort besides verifying it: nothing by default."""

    destination: str | None = Field(None, description="Folder or az:// address to export to; none: nothing is exported")
    layout: str = Field(LAYOUTS[0], description=f"Folders and name of an object: {', '.join(LAYOUTS)}")
    deidentify: bool = Field(False, description="Take identifiers out")
    despite_risk: str | None = Field(None, description="Why, though phi_risk is high or unknown; it is recorded")
    by: str | None = Field(None, description="Who asks for it; the account of this process when it is not given")


@fail_clearly
def cohort(context: dg.AssetExecutionContext, config: CohortConfig, work: RunContextParam) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster looks for the bare class
    """Verifies one cohort, and exports it where its configuration names a destination."""
    name = context.partition_key
    metadata: dict[str, Any] = {}
    missing: Mapping[str, int] = {}
    with clear_failures():
        found = verify_cohort(work.lake, work.settings, name)
        if config.destination is not None:
            by = config.by or account()
            wish = Wish(config.destination, by, config.layout, config.deidentify, config.despite_risk, BUCKET)
            done = export_cohort(work.lake, work.settings, name, wish, context.log.info)
            missing = done.missing
            metadata |= {f"export: {what}": number for what, number in done.counts.items()}
    metadata |= {"dagster/partition_row_count": found.objects, "unchanged": found.unchanged}
    metadata |= {str(what): int(number) for what, number in found.counts.items()}
    return dg.MaterializeResult(metadata=metadata, check_results=[_check(found, missing)])


def _check(found: Verified, missing: Mapping[str, int]) -> dg.AssetCheckResult:
    told = [f"{number} {what}" for what, number in sorted(found.counts.items())]
    told += [f"{number} not exported: {why}" for why, number in sorted(missing.items())]
    return dg.AssetCheckResult(
        check_name=CHECK,
        passed=found.is_unchanged and not missing,
        severity=dg.AssetCheckSeverity.WARN,
        description=", ".join(told) or None,
        metadata={
            "expected": found.objects,
            "actual": found.unchanged,
            "differing": dg.MetadataValue.json([f"{one}: {what}" for one, what in found.differing[:SHOWN]]),
        },
    )


@dg.sensor(
    name="cohorts_to_partitions",
    job_name=JOB,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Makes each cohort of the lake a partition, and takes those away that were removed; runs nothing.",
)
@fail_clearly
def cohorts_to_partitions(
    context: dg.SensorEvaluationContext, work: RunContextParam
) -> dg.SensorResult | dg.SkipReason:
    """One tick."""
    with clear_failures():
        there = set(frozen.names(work.lake.files))
    known = set(context.instance.get_dynamic_partitions(COHORT.name or ""))
    requests: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = []
    if there - known:
        requests.append(COHORT.build_add_request(sorted(there - known)))
    if known - there:
        requests.append(COHORT.build_delete_request(sorted(known - there)))
    if not requests:
        return dg.SkipReason("Each cohort is a partition.")
    return dg.SensorResult(dynamic_partitions_requests=requests)


def definitions(settings: Settings) -> dg.Definitions:
    """Asset, job and sensor."""
    key = asset_key(settings, NAME)
    words = "Objects of the cohort are what they were when it was made, and none is missing in an export"
    newest = dg.LastPartitionMapping()  # as the newest batch left it
    asset = dg.asset(
        key=key,
        deps=[dg.AssetDep(asset_key(settings, "instance"), partition_mapping=newest)],
        partitions_def=COHORT,
        group_name="curation",
        kinds={"dicom", "python"},
        check_specs=[dg.AssetCheckSpec(CHECK, asset=key, description=words)],
        description="A frozen selection of objects, compared with the lake, exported when its run is configured to.",
        metadata=code_of(cohort),
    )(cohort)
    job = dg.define_asset_job(
        JOB,
        selection=dg.AssetSelection.assets(asset),
        description="Verifies one cohort, and exports it when configured to.",
        executor_def=dg.in_process_executor,
    )
    return dg.Definitions(assets=[asset], jobs=[job], sensors=[cohorts_to_partitions])
