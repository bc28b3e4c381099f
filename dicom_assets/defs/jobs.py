"""Jobs: `ingest_batch` runs one batch, `claim_new_files` claims by hand, `maintain_lake` keeps the tables quick."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from dicom_assets.batch.claim_rounds import claim_everywhere
from dicom_assets.defs.assets import BATCH_ASSETS
from dicom_assets.defs.decorators import clear_failures, fail_clearly
from dicom_assets.defs.executor import side_by_side
from dicom_assets.defs.partitions import BATCH, REGISTER_AT_ONCE
from dicom_assets.defs.resources import WorkParam

ingest_batch = dg.define_asset_job(
    "ingest_batch",
    selection=dg.AssetSelection.assets(*BATCH_ASSETS),
    executor_def=side_by_side,
    description="One batch, from its manifest to closed books.",
    tags={"dagster/max_runtime": "21600"},
)

maintain_lake = dg.define_asset_job(
    "maintain_lake",
    selection=dg.AssetSelection.assets("table_maintenance"),
    executor_def=dg.in_process_executor,
    description="Compacts and vacuums the tables.",
)


def register(instance: dg.DagsterInstance, keys: list[str]) -> list[str]:
    """Makes the batches known to Dagster that are not yet; which."""
    known = set(instance.get_dynamic_partitions(BATCH.name or ""))
    fresh = [key for key in keys if key not in known]
    for start in range(0, len(fresh), REGISTER_AT_ONCE):
        instance.add_dynamic_partitions(BATCH.name or "", fresh[start : start + REGISTER_AT_ONCE])
    return fresh


@dg.op(description="Claims what is new in every source and registers the batches.")
@fail_clearly
def claim(context: dg.OpExecutionContext, work: WorkParam) -> None:
    """What the sensor does, by hand."""
    with clear_failures():
        rounds = claim_everywhere(work)
        register(context.instance, work.unclosed())
    for sentence in work.looks.emptied.values():
        context.log.warning(sentence)
    context.log.info(
        "%d batches claimed, %d objects still wait", sum(len(r.claims) for r in rounds), sum(r.waiting for r in rounds)
    )


@dg.job(executor_def=dg.in_process_executor, description="Claims new objects by hand; runs nothing.")
def claim_new_files() -> None:
    """Claims by hand."""
    claim()


JOBS: Sequence[Any] = [ingest_batch, maintain_lake, claim_new_files]
"""Every job."""
