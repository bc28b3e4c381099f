"""validated_batch: what became of each object. The only asset that opens objects; its checks gate everything after."""

from typing import Any

import dagster as dg

from dicom_assets.defs.decorators import batch_asset, materialized, one_step, outcome_counts
from dicom_assets.defs.resources import WorkParam


@batch_asset("validated_batch", deps=["raw_files"], group="landing", kinds={"python", "deltalake"})
def validated_batch(context: dg.AssetExecutionContext, work: WorkParam) -> dg.MaterializeResult[Any]:
    """One row for each object, with its outcome; rows of metadata, records and errors are staged."""
    with one_step(work):
        outcomes = outcome_counts(work.batch(context.partition_key).judge(context.run.run_id))
        return materialized(work.lake, "validated_batch", sum(outcomes.values()), **outcomes)
