"""instance, series, study: the touched studies, each rebuilt from all its rows in flat_metadata."""

from typing import Any

import dagster as dg

from dicom_assets.batch.publish import publish_hierarchy, touched_studies
from dicom_assets.defs.resources import WorkParam
from dicom_assets.defs.tables import batch_asset, materialized, one_step
from dicom_assets.lake.hierarchy import REBUILDS


def _level(name: str) -> dg.AssetsDefinition:
    @batch_asset(name, deps=REBUILDS[name][1], group="hierarchy", kinds={"duckdb", "deltalake"})
    def level(context: dg.AssetExecutionContext, work: WorkParam) -> dg.MaterializeResult[Any]:
        with one_step(work):
            staging = work.batch(context.partition_key).staging
            rows = publish_hierarchy(work.lake, staging, name)
            return materialized(work.lake, name, rows, touched_studies=len(touched_studies(staging)))

    return level


instance, series, study = (_level(name) for name in REBUILDS)
