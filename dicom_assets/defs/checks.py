"""Asset checks, one for each rule of `batch.checks`. A blocking check that fails pauses its batch, and that alone.

Belongs here: how a rule becomes a check of Dagster. Does not belong here: the rules.
"""

import warnings
from typing import Any

import dagster as dg

from dicom_assets.batch.books import Status
from dicom_assets.batch.checks import RULES, CheckContext, CheckResult, NamedRule
from dicom_assets.batch.standard_checks import STANDARD_RULES
from dicom_assets.batch.work import Work
from dicom_assets.defs.partitions import BATCH
from dicom_assets.defs.resources import WorkParam
from dicom_assets.defs.tables import clear_failures
from dicom_assets.settings import GateSettings


class GateConfig(dg.Config):
    """Bounds of the gate for one run; unset ones are those of the settings."""

    quarantined_share: float | None = None
    minimum: int | None = None


def _result(rule: NamedRule, result: CheckResult) -> dg.AssetCheckResult:
    metadata: dict[str, Any] = {"expected": result.expected, "actual": result.actual}
    if result.differing:
        metadata["differing"] = dg.MetadataValue.json(list(result.differing))
    is_error = rule.blocking or result.is_severe
    severity = dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(
        passed=result.passed, severity=severity, metadata=metadata, description=result.explanation or rule.description
    )


def _evaluate(
    context: dg.AssetCheckExecutionContext, work: Work, rule: NamedRule, limits: GateSettings
) -> dg.AssetCheckResult:
    with clear_failures():
        batch = work.batch(context.partition_key)
        result = rule.rule(CheckContext(batch.lake, batch.staging, limits, work.settings.omop))
        if rule.blocking and not result.passed:
            words = result.explanation or f"{rule.description}: expected {result.expected}, actual {result.actual}"
            batch.stop(Status.PAUSED, f"{rule.table}.{rule.name}: {words}", context.run.run_id)
    return _result(rule, result)


def _check(rule: NamedRule) -> dg.AssetChecksDefinition:
    options: dict[str, Any] = {
        "asset": rule.table,
        "name": rule.name,
        "description": rule.description,
        "blocking": rule.blocking,
        "partitions_def": BATCH,
    }
    if rule.name == "gate":

        @dg.asset_check(**options)
        def gate(context: dg.AssetCheckExecutionContext, work: WorkParam, config: GateConfig) -> dg.AssetCheckResult:
            limits = work.settings.gate.model_copy(update=config.model_dump(exclude_none=True))
            return _evaluate(context, work, rule, limits)

        return gate

    @dg.asset_check(**options)
    def check(context: dg.AssetCheckExecutionContext, work: WorkParam) -> dg.AssetCheckResult:
        return _evaluate(context, work, rule, work.settings.gate)

    return check


# Partitions on checks are marked as a preview in 1.13; that they keep their history per batch is what we need.
warnings.filterwarnings("ignore", category=dg.PreviewWarning)

CHECKS = [_check(rule) for rule in (*RULES, *STANDARD_RULES)]
"""Every check."""
