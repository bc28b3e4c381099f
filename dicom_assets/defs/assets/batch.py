"""The assets of a batch, one for each table of `batch.steps`, and `cleanup`."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dagster as dg

from dicom_assets.batch.context import RunContext
from dicom_assets.batch.steps import STEPS, Run, Step
from dicom_assets.defs.asset_keys import asset_key, asset_keys, name_of
from dicom_assets.defs.jobs import CLOSING, INGEST_BATCH
from dicom_assets.defs.partitions import BATCH
from dicom_assets.defs.reporting import OUTSIDE, code_of, fail_clearly, materialized, one_step, table_description
from dicom_assets.defs.resources import RunContextParam
from dicom_assets.schema.registry import BATCHES, TABLES
from dicom_assets.settings import Settings


def _spec(settings: Settings, step: Step, name: str) -> dg.AssetSpec:
    above, make = step.tables[name]
    shown: dict[str, Any] = {"description": step.description, "metadata": {}}
    if name in TABLES:
        shown = table_description(settings, TABLES[name])
    return dg.AssetSpec(
        asset_key(settings, name),
        deps=asset_keys(settings, above),
        group_name=step.group,
        kinds=set(step.kinds),
        tags={"dicom_assets/step": step.name},
        partitions_def=BATCH,
        description=shown["description"],
        metadata=shown["metadata"] | code_of(make),
    )


def _assets_of(settings: Settings, step: Step) -> dg.AssetsDefinition:
    """What one step of a run makes; where it makes several tables, each can be made alone as well."""

    @dg.multi_asset(
        name=step.name,
        specs=[_spec(settings, step, name) for name in step.tables],
        can_subset=len(step.tables) > 1,
        retry_policy=OUTSIDE,
    )
    @fail_clearly
    def assets(context: dg.AssetExecutionContext, work: RunContextParam) -> Iterator[dg.MaterializeResult[Any]]:
        run = Run(context.run.run_id, reaches_end=_reaches_end(context.run))
        keys = {name_of(key): key for key in context.selected_asset_keys}

        def make(name: str) -> dg.MaterializeResult[Any]:
            with one_step(work, context.partition_key):
                batch = work.batch(context.partition_key)
                with batch.timing(name if step.side_by_side else step.name):
                    made = materialized(work.lake, keys[name], step.tables[name][1](batch, run))
                if name == CLOSING:
                    context.log_event(_books(work, made, context.partition_key))
            return made

        names = [name for name in step.tables if name in keys]
        if not step.side_by_side:
            yield from map(make, names)
            return
        with one_step(work, context.partition_key):
            work.batch(context.partition_key)  # held by one thread, before several ask for it
        with ThreadPoolExecutor(len(names)) as pool:
            yield from pool.map(make, names)

    return assets


def _books(work: RunContext, closed: dg.MaterializeResult[Any], batch_id: str) -> dg.AssetMaterialization:
    """What is told of `batches`: no step makes it, each writes its batch's row there, and the last one closes it."""
    metadata = {**(closed.metadata or {}), "dagster/row_count": work.lake.row_count(BATCHES.name)}
    return dg.AssetMaterialization(asset_key(work.settings, BATCHES.name), metadata=metadata, partition=batch_id)


def _reaches_end(run: dg.DagsterRun) -> bool:
    """Whether a run closes the books of its batch, as the whole job does; assets can be made alone as well."""
    assets, steps = run.asset_selection, run.step_keys_to_execute
    return (not assets or CLOSING in map(name_of, assets)) and (not steps or CLOSING in steps)


def batch_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """The assets of one batch, in the order of the flow."""
    return [_assets_of(settings, step) for step in STEPS]


def _batches(settings: Settings) -> dg.AssetSpec:
    """The table of the books: nothing that a run could make alone."""
    return dg.AssetSpec(
        asset_key(settings, BATCHES.name),
        deps=[asset_key(settings, CLOSING)],
        group_name="books",
        kinds={"deltalake"},
        partitions_def=BATCH,
        **table_description(settings, BATCHES),
    )


def definitions(settings: Settings) -> dg.Definitions:
    """The assets of a batch, and the job that makes all of them."""
    assets = batch_assets(settings)
    ingest_batch = dg.define_asset_job(
        INGEST_BATCH,
        selection=dg.AssetSelection.assets(*assets),
        description="One batch, from its manifest to closed books.",
        tags={"dagster/max_runtime": "21600"},
        executor_def=dg.in_process_executor,
    )
    return dg.Definitions(assets=[*assets, _batches(settings)], jobs=[ingest_batch])
