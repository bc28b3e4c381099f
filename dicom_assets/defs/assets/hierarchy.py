"""instance, series, study: the touched studies, each rebuilt from all its rows in flat_metadata."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from dicom_assets.batch.publish import publish_hierarchy, touched_studies
from dicom_assets.defs.decorators import batch_step, materialized, one_step
from dicom_assets.defs.resources import WorkParam
from dicom_assets.lake.hierarchy import REBUILDS


@batch_step(
    "hierarchy", {name: sources for name, (_, sources) in REBUILDS.items()}, "hierarchy", {"duckdb", "deltalake"}
)
def hierarchy(context: dg.AssetExecutionContext, work: WorkParam) -> Iterator[dg.MaterializeResult[Any]]:
    """One level after the other, each from the one below."""
    staging = work.batch(context.partition_key).staging
    for name in REBUILDS:
        if dg.AssetKey(name) in context.selected_asset_keys:
            with one_step(work):
                rows = publish_hierarchy(work.lake, staging, name)
                made = materialized(work.lake, name, rows, touched_studies=len(touched_studies(staging)))
            yield made
