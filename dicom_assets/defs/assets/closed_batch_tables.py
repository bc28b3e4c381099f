"""tag_profile and phi_risk: tables that follow closed batches. One step makes both, whenever batches have closed.

Belongs here: assets, checks, job, and when they are made. Does not belong here: what the tables hold (`curation`).
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from dicom_assets.curation.following import follow
from dicom_assets.curation.parity import Finding, every_series_is_judged, profiles_hold_every_object, risks
from dicom_assets.defs.asset_keys import asset_key, asset_keys
from dicom_assets.defs.jobs import CLOSING
from dicom_assets.defs.reporting import clear_failures, code_of, fail_clearly, table_description
from dicom_assets.defs.resources import RunContextParam
from dicom_assets.schema.table import Table
from dicom_assets.schema.tag_tables import PHI_RISK, TAG_PROFILE, TAG_PROFILE_PART
from dicom_assets.settings import Settings

JOB = "curate_lake"
NIGHTLY = "0 5 * * *"
PARITY, LOOK_AT = "equals_instance", "worth_a_look"


TABLES = {PHI_RISK: CLOSING, TAG_PROFILE_PART: CLOSING, TAG_PROFILE: TAG_PROFILE_PART.name}
"""What is made, and from what."""
CHECKS = (
    (PHI_RISK, PARITY, True, "Rows are the current series of closed batches."),
    (PHI_RISK, LOOK_AT, False, "No series names its patient in text, pixels or against its claim."),
    (TAG_PROFILE, PARITY, True, "Objects by device are the current instances of closed batches."),
)
"""Table, name, whether it blocks, and what it says."""


def _spec(settings: Settings, table: Table, above: str) -> dg.AssetSpec:
    shown = table_description(settings, table)
    return dg.AssetSpec(
        asset_key(settings, table.name),
        deps=[asset_key(settings, above)],
        group_name="curation",
        kinds={"python", "deltalake"},
        description=shown["description"],
        metadata=shown["metadata"] | code_of(follow),
        automation_condition=when() if above == CLOSING else None,  # what is made from them comes in the same run
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
    of_risk, of_profile = asset_keys(work.settings, (PHI_RISK.name, TAG_PROFILE.name))
    for name, more in counts.items():
        key = asset_key(work.settings, name)
        yield dg.MaterializeResult(asset_key=key, metadata={"dagster/row_count": rows[name], **more})
    yield _result(of_risk, PARITY, judged, dg.AssetCheckSeverity.ERROR)
    yield _result(of_risk, LOOK_AT, worth_a_look, dg.AssetCheckSeverity.WARN)
    yield _result(of_profile, PARITY, counted, dg.AssetCheckSeverity.ERROR)


def _result(asset: dg.AssetKey, name: str, found: Finding, severity: dg.AssetCheckSeverity) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=name,
        passed=found.passed,
        severity=severity,
        metadata={"expected": found.expected, "actual": found.actual, **found.counts},
    )


def when() -> dg.AutomationCondition[dg.AssetKey]:
    """When Dagster is to ask for the tables.

    Batches have closed since it last asked, or did before it ever looked; once a night, since erasing, and ingests with
    another state of Dagster, tell it nothing; each hour while that fails. One run at a time.
    """
    of = dg.AutomationCondition
    asked = of.newly_requested()
    closed = of.any_deps_updated().since(asked).with_label("batches have closed")
    some = of.any_deps_match(~of.missing())
    never = (of.missing() & some).newly_true().since(asked).with_label("batches have closed, and it was never made")
    nightly = of.cron_tick_passed(NIGHTLY).since(asked).with_label("once a night")
    again = (of.execution_failed() & of.cron_tick_passed("0 * * * *")).with_label("it failed, and an hour begins")
    return (closed | never | nightly | again) & ~of.in_progress()


def definitions(settings: Settings) -> dg.Definitions:
    """Assets, job, and the sensor that asks for them by their conditions."""
    assets = dg.multi_asset(
        name="closed_batch_tables",
        specs=[_spec(settings, table, above) for table, above in TABLES.items()],
        check_specs=[
            dg.AssetCheckSpec(name, asset=asset_key(settings, table.name), blocking=blocks, description=words)
            for table, name, blocks, words in CHECKS
        ],
    )(closed_batch_tables)
    job = dg.define_asset_job(
        JOB,
        selection=dg.AssetSelection.assets(assets),
        description="Brings tag_profile and phi_risk up to date with closed batches.",
        executor_def=dg.in_process_executor,
    )
    sensor = dg.AutomationConditionSensorDefinition(
        "closed_batches",
        target=dg.AssetSelection.assets(assets),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=60,
        description="Asks for tag_profile and phi_risk when batches have closed, each night, and again when it failed.",
    )
    return dg.Definitions(assets=[assets], jobs=[job], sensors=[sensor])
