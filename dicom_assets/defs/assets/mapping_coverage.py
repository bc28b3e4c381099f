"""mapping_coverage: how much of the lake is mapped and linked, as a table, a Markdown table and a plot."""

from typing import Any

import dagster as dg

from dicom_assets.batch.standards import publish_coverage
from dicom_assets.defs.decorators import batch_asset, materialized, one_step
from dicom_assets.defs.resources import WorkParam
from dicom_assets.omop.coverage import chart, markdown, measures

COUNTED = ["imaging_study", "diagnostic_report", "image_occurrence", "image_occurrence_origin", "clinical"]


@batch_asset("mapping_coverage", deps=COUNTED, group="standards", kinds={"duckdb", "deltalake"})
def mapping_coverage(context: dg.AssetExecutionContext, work: WorkParam) -> dg.MaterializeResult[Any]:
    """Shares of the whole lake, and values that are not mapped by volume; numbers become plots over the batches."""
    with one_step(work):
        rows = publish_coverage(work.lake)
        shares = measures(rows)
        return materialized(
            work.lake,
            "mapping_coverage",
            len(rows),
            coverage=dg.MetadataValue.md(markdown(rows)),
            chart=dg.MetadataValue.md(chart(shares)),
            **{one.name: round(one.share, 4) for one in shares if one.share is not None},
        )
