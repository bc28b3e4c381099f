"""diagnostic_report: the reports that arrived as FHIR, linked to their studies."""

from typing import Any

import dagster as dg

from dicom_assets.batch.standards import publish_diagnostic_report
from dicom_assets.defs.decorators import batch_asset, materialized, one_step
from dicom_assets.defs.resources import WorkParam


@batch_asset("diagnostic_report", deps=["clinical", "imaging_study"], group="standards", kinds={"python", "deltalake"})
def diagnostic_report(context: dg.AssetExecutionContext, work: WorkParam) -> dg.MaterializeResult[Any]:
    """The batch's reports, and those that its studies concern, linked anew."""
    with one_step(work):
        rows = publish_diagnostic_report(work.lake, work.batch(context.partition_key).staging)
        return materialized(work.lake, "diagnostic_report", rows)
