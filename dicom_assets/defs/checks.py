"""Asset checks, one for each rule of `batch.checks.rules`. One that blocks and fails pauses its batch, and that alone.

Belongs here: how a rule becomes a check of Dagster. Does not belong here: the rules.
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from dicom_assets.batch.books import Books, Status
from dicom_assets.batch.checks.contract import CheckContext, CheckResult, NamedRule, judge
from dicom_assets.batch.checks.rules import ALL_RULES, judged
from dicom_assets.batch.context import RunContext
from dicom_assets.batch.house_rules import rules_of
from dicom_assets.batch.steps import STEPS
from dicom_assets.batch.waits import commands, markdown
from dicom_assets.defs.asset_keys import asset_key, name_of
from dicom_assets.defs.partitions import BATCH
from dicom_assets.defs.reporting import WHAT_TO_DO, clear_failures, fail_clearly
from dicom_assets.defs.resources import RunContextParam
from dicom_assets.settings import GateSettings, Settings

GATE_STEP = "validated_batch_gate"
"""Name of the step of the gate, below which its bounds stand in the config of a run."""


STATE_TAG = "dicom_assets/state"
"""Tag of a run that has left its batch paused: by it the list of runs tells these from those that broke off."""


class GateConfig(dg.Config):
    """Bounds of the gate for one run; unset ones are those of the settings."""

    quarantined_share: float | None = None
    ignored_share: float | None = None
    record_error_share: float | None = None
    minimum: int | None = None
    none_ingested: int | None = None


def _result(key: dg.AssetKey, rule: NamedRule, result: CheckResult, paused: Books | None) -> dg.AssetCheckResult:
    """What Dagster is told of a rule. paused: the books of the batch, when it is this rule that has paused it."""
    metadata: dict[str, Any] = {"expected": result.expected, "actual": result.actual}
    if result.differing:
        metadata["differing"] = dg.MetadataValue.json(list(result.differing))
    if paused is not None:
        metadata[WHAT_TO_DO] = dg.MetadataValue.md(markdown(paused.batch_id, paused.status, paused.reason))
    is_error = (rule.blocking and not result.only_warns) or result.is_severe
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=rule.name,
        passed=result.passed,
        severity=dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN,
        metadata=metadata,
        description=result.explanation or rule.description,
    )


def _judged(seen: CheckContext, rules: Sequence[NamedRule]) -> Iterator[tuple[NamedRule, CheckResult]]:
    """Each rule with what it says, in their order.

    One after the other: whoever reads with pydicom silences Python's warnings, which hold values, and that is no matter
    of one thread alone.
    """
    for rule in rules:
        yield rule, judge(seen, rule.rule)


def _evaluated(
    context: dg.AssetCheckExecutionContext, work: RunContext, rules: Sequence[NamedRule], limits: GateSettings
) -> Iterator[dg.AssetCheckResult]:
    """The results of some rules; the first blocking one that does not hold pauses the batch, and ends the run."""
    results: list[dg.AssetCheckResult] = []
    stopped = None
    with clear_failures():
        batch = work.batch(context.partition_key)
        for rule, result in _judged(judged(batch, limits), rules):
            paused = None
            if rule.blocking and result.stops and stopped is None:
                words = result.explanation or f"{rule.description}: expected {result.expected}, actual {result.actual}"
                paused = batch.stop(Status.PAUSED, f"{rule.table}.{rule.name}: {words}", context.run.run_id)
                stopped = paused
                context.log.error("Batch %s is paused. %s", paused.batch_id, paused.reason)
            results.append(_result(asset_key(work.settings, rule.table), rule, result, paused))
    yield from results
    if stopped is not None:
        context.instance.add_run_tags(context.run.run_id, {STATE_TAG: str(Status.PAUSED)})
        raise _paused(stopped)


def _paused(books: Books) -> dg.Failure:
    """What a run says that ends because its batch is paused: what that is, why, and what can be done."""
    words = [
        f"Batch {books.batch_id} is paused and waits for a decision. Nothing broke off: the run has ended here because "
        f"a check does not hold. {books.reason}",
        "What you can do:",
        *(f"  {one.text}: {one.what}" for one in commands(books.batch_id, books.status, books.reason)),
    ]
    todo = dg.MetadataValue.md(markdown(books.batch_id, books.status, books.reason))
    return dg.Failure("\n".join(words), {WHAT_TO_DO: todo}, allow_retries=False)


def _spec(settings: Settings, rule: NamedRule) -> dg.AssetCheckSpec:
    key = asset_key(settings, rule.table)
    return dg.AssetCheckSpec(
        rule.name, asset=key, description=rule.description, blocking=rule.blocking, partitions_def=BATCH
    )


def _checks_of(settings: Settings, step: str, rules: Sequence[NamedRule]) -> dg.AssetChecksDefinition:
    """The checks of what one step makes: one step of a run for all of them, and each to be run alone as well."""

    @dg.multi_asset_check(
        name=f"{step}_checks",
        specs=[_spec(settings, rule) for rule in rules],
        can_subset=True,
    )
    @fail_clearly
    def checks(context: dg.AssetCheckExecutionContext, work: RunContextParam) -> Iterator[dg.AssetCheckResult]:
        wanted = {(name_of(key.asset_key), key.name) for key in context.selected_asset_check_keys}
        chosen = [rule for rule in rules if (rule.table, rule.name) in wanted]
        yield from _evaluated(context, work, chosen, work.settings.gate)

    return checks


def _gate(settings: Settings, rule: NamedRule) -> dg.AssetChecksDefinition:
    """The gate is a step of its own, since its bounds can be given for one run."""

    @dg.multi_asset_check(name=GATE_STEP, specs=[_spec(settings, rule)])
    @fail_clearly
    def gate(
        context: dg.AssetCheckExecutionContext, work: RunContextParam, config: GateConfig
    ) -> Iterator[dg.AssetCheckResult]:
        limits = work.settings.gate.model_copy(update=config.model_dump(exclude_none=True))
        yield from _evaluated(context, work, [rule], limits)

    return gate


def checks_of_batch(settings: Settings) -> Iterator[dg.AssetChecksDefinition]:
    """Every check of a batch."""
    steps = {table: step.name for step in STEPS for table in step.tables}
    by_step: dict[str, list[NamedRule]] = {}
    for rule in ALL_RULES:
        if rule.name == "gate":
            yield _gate(settings, rule)
        else:
            by_step.setdefault(steps[rule.table], []).append(rule)
    for step, rules in by_step.items():
        yield _checks_of(settings, step, rules)


# Partitions on checks are marked as a preview in 1.13; that they keep their history per batch is what we need.
warnings.filterwarnings("ignore", category=dg.PreviewWarning)


def definitions(settings: Settings) -> dg.Definitions:
    """The checks. Raises SettingsError for a rule of the house that cannot be asked, before anything is run."""
    rules_of(settings)
    return dg.Definitions(asset_checks=[*checks_of_batch(settings)])
