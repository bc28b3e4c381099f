"""raw_files: what arrived."""

from typing import Any

import dagster as dg

from dicom_assets.defs.decorators import batch_asset, materialized, one_step, runs_to_the_end
from dicom_assets.defs.resources import WorkParam


@batch_asset("raw_files", deps=[], group="landing", kinds={"python", "deltalake"})
def raw_files(context: dg.AssetExecutionContext, work: WorkParam) -> dg.MaterializeResult[Any]:
    """One row for each object of the batch's manifest and each member of each archive in it."""
    with one_step(work):
        batch = work.batch(context.partition_key)
        seen = batch.begin(context.run.run_id, to_the_end=runs_to_the_end(context.run))
        return materialized(work.lake, "raw_files", seen, seen=seen, claimed=len(batch.manifest))
