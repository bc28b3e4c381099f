"""ingestion_errors: everything that was found wrong or left out."""

from typing import Any

import dagster as dg

from dicom_assets.batch.publish import publish_rows
from dicom_assets.defs.decorators import batch_asset, materialized, one_step
from dicom_assets.defs.resources import WorkParam
from dicom_assets.lake.staging import Part


@batch_asset("ingestion_errors", deps=["validated_batch", "clinical"], group="books", kinds={"python", "deltalake"})
def ingestion_errors(context: dg.AssetExecutionContext, work: WorkParam) -> dg.MaterializeResult[Any]:
    """One row for each error, warning and remark of the batch."""
    with one_step(work):
        rows = publish_rows(work.lake, work.batch(context.partition_key).staging, Part.ERRORS)
        return materialized(work.lake, "ingestion_errors", rows)
