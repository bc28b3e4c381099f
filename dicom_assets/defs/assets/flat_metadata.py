"""flat_metadata: what each accepted DICOM object says."""

from typing import Any

import dagster as dg

from dicom_assets.defs.decorators import batch_asset, materialized, one_step
from dicom_assets.defs.resources import WorkParam


@batch_asset("flat_metadata", deps=["validated_batch"], group="metadata", kinds={"dicom", "deltalake"})
def flat_metadata(context: dg.AssetExecutionContext, work: WorkParam) -> dg.MaterializeResult[Any]:
    """One row for each accepted DICOM object, whatever version of its instance it is."""
    with one_step(work):
        rows = work.batch(context.partition_key).publish_flat(context.run.run_id)
        return materialized(work.lake, "flat_metadata", rows)
