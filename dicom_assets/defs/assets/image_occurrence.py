"""omop_identifier, image_occurrence, image_occurrence_origin: the touched series for OMOP, and how they were made."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from dicom_assets.batch.standards import publish_identifiers, publish_occurrences
from dicom_assets.defs.decorators import batch_step, materialized, one_step
from dicom_assets.defs.resources import WorkParam

_FROM = {
    "omop_identifier": ("series", "study"),
    "image_occurrence": ("series", "omop_identifier"),
    "image_occurrence_origin": ("series", "omop_identifier", "image_occurrence"),
}


@batch_step("occurrences", _FROM, "standards", {"python", "deltalake"})
def occurrences(context: dg.AssetExecutionContext, work: WorkParam) -> Iterator[dg.MaterializeResult[Any]]:
    """Ids for series that have none yet, and surrogates for persons, visits and procedures nobody mapped; then rows."""
    staging = work.batch(context.partition_key).staging
    for name in _FROM:
        if dg.AssetKey(name) in context.selected_asset_keys:
            with one_step(work):
                if name == "omop_identifier":
                    rows = publish_identifiers(work.lake, staging, work.settings)
                else:
                    rows = publish_occurrences(work.lake, staging, work.settings, name)
                made = materialized(work.lake, name, rows)
            yield made
