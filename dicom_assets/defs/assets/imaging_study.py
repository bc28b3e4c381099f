"""imaging_study: the touched studies as FHIR R4B ImagingStudy, in the table and as NDJSON files."""

from typing import Any

import dagster as dg

from dicom_assets.batch.standards import publish_imaging_study
from dicom_assets.defs.decorators import batch_asset, materialized, one_step
from dicom_assets.defs.resources import WorkParam


@batch_asset("imaging_study", deps=["study", "series", "instance"], group="standards", kinds={"python", "deltalake"})
def imaging_study(context: dg.AssetExecutionContext, work: WorkParam) -> dg.MaterializeResult[Any]:
    """One resource for each touched study, rebuilt from all its instances; entered-in-error when it has none left."""
    with one_step(work):
        rows, files = publish_imaging_study(work.lake, work.batch(context.partition_key).staging, work.settings)
        return materialized(work.lake, "imaging_study", rows, ndjson_files=files)
