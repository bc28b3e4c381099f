"""The assets of a batch, one for each table of `batch.steps`, and `cleanup`."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from dicom_assets.batch.steps import STEPS, Run, Step
from dicom_assets.defs.partitions import BATCH
from dicom_assets.defs.reporting import OUTSIDE, OWNERS, fail_clearly, materialized, one_step, table_description
from dicom_assets.defs.resources import RunContextParam
from dicom_assets.schema.registry import TABLES
from dicom_assets.settings import Settings


def _spec(step: Step, name: str) -> dg.AssetSpec:
    above, _ = step.tables[name]
    shown = table_description(TABLES[name]) if name in TABLES else {"description": step.description}
    kinds = set(step.kinds)
    return dg.AssetSpec(
        name, deps=list(above), group_name=step.group, kinds=kinds, owners=OWNERS, partitions_def=BATCH, **shown
    )


def _assets_of(step: Step) -> dg.AssetsDefinition:
    """What one step of a run makes; where it makes several tables, each can be made alone as well."""

    @dg.multi_asset(
        name=step.name,
        specs=[_spec(step, name) for name in step.tables],
        can_subset=len(step.tables) > 1,
        retry_policy=OUTSIDE,
    )
    @fail_clearly
    def assets(context: dg.AssetExecutionContext, work: RunContextParam) -> Iterator[dg.MaterializeResult[Any]]:
        run = Run(context.run.run_id, reaches_end=_reaches_end(context.run))
        for name, (_, make) in step.tables.items():
            if dg.AssetKey(name) in context.selected_asset_keys:
                with one_step(work, context.partition_key):
                    batch = work.batch(context.partition_key)
                    with batch.timing(step.name):
                        made = materialized(work.lake, name, make(batch, run))
                yield made

    return assets


def _reaches_end(run: dg.DagsterRun) -> bool:
    """Whether a run closes the books of its batch, as the whole job does; assets can be made alone as well."""
    assets, steps = run.asset_selection, run.step_keys_to_execute
    return (not assets or dg.AssetKey("cleanup") in assets) and (not steps or "cleanup" in steps)


BATCH_ASSETS = [_assets_of(step) for step in STEPS]
"""The assets of one batch, in the order of the flow."""


def definitions(_: Settings) -> dg.Definitions:
    """The assets of a batch."""
    return dg.Definitions(assets=BATCH_ASSETS)
