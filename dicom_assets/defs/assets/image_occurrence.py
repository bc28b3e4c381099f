"""omop_identifier, image_occurrence, image_occurrence_origin: the touched series for OMOP, and how they were made."""

from typing import Any

import dagster as dg

from dicom_assets.batch.standards import publish_identifiers, publish_occurrences
from dicom_assets.defs.resources import WorkParam
from dicom_assets.defs.tables import batch_asset, materialized, one_step


@batch_asset("omop_identifier", deps=["series", "study"], group="standards", kinds={"python", "deltalake"})
def omop_identifier(context: dg.AssetExecutionContext, work: WorkParam) -> dg.MaterializeResult[Any]:
    """An id for each series that has none yet, and surrogates for persons, visits and procedures nobody mapped."""
    with one_step(work):
        rows = publish_identifiers(work.lake, work.batch(context.partition_key).staging, work.settings)
        return materialized(work.lake, "omop_identifier", rows)


def _occurrences(name: str, *after: str) -> dg.AssetsDefinition:
    @batch_asset(name, deps=["series", "omop_identifier", *after], group="standards", kinds={"python", "deltalake"})
    def table(context: dg.AssetExecutionContext, work: WorkParam) -> dg.MaterializeResult[Any]:
        with one_step(work):
            rows = publish_occurrences(work.lake, work.batch(context.partition_key).staging, work.settings, name)
            return materialized(work.lake, name, rows)

    return table


image_occurrence = _occurrences("image_occurrence")
# Its check compares the two: when the first one is tried again, this one has to wait for it.
image_occurrence_origin = _occurrences("image_occurrence_origin", "image_occurrence")
