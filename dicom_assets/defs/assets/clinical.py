"""clinical: the records that came with the images."""

from typing import Any

import dagster as dg

from dicom_assets.batch.clinical import publish_clinical
from dicom_assets.defs.decorators import batch_asset, materialized, one_step
from dicom_assets.defs.resources import WorkParam


@batch_asset("clinical", deps=["validated_batch", "flat_metadata"], group="clinical", kinds={"duckdb", "deltalake"})
def clinical(context: dg.AssetExecutionContext, work: WorkParam) -> dg.MaterializeResult[Any]:
    """One row for each clinical record; newer versions of files and records replace older ones."""
    with one_step(work):
        accepted = work.settings.clinical.accepted_identity_changes
        rows = publish_clinical(work.lake, work.batch(context.partition_key).staging, context.run.run_id, accepted)
        return materialized(work.lake, "clinical", rows)
