"""cleanup: the batch's staging removed, its books closed."""

from typing import Any

import dagster as dg

from dicom_assets.defs.decorators import batch_asset, one_step
from dicom_assets.defs.resources import WorkParam

EVERYTHING = ["raw_files", "validated_batch", "flat_metadata", "clinical", "instance", "series", "study",
              "imaging_study", "diagnostic_report", "omop_identifier", "image_occurrence", "image_occurrence_origin",
              "mapping_coverage", "ingestion_errors"]  # fmt: skip


@batch_asset(
    "cleanup",
    deps=EVERYTHING,
    group="books",
    kinds={"python"},
    description="Counts the batch in the tables, removes its staging and closes its row in `batches`.",
)
def cleanup(context: dg.AssetExecutionContext, work: WorkParam) -> dg.MaterializeResult[Any]:
    """The last step of a batch."""
    with one_step(work):
        books = work.batch(context.partition_key).close(context.run.run_id)
        return dg.MaterializeResult(
            metadata={
                "seen": books.seen,
                "ingested": books.ingested,
                "quarantined": books.quarantined,
                "ignored": books.ignored,
                "deleted": books.deleted,
                "clinical_records": books.clinical_records,
                "clinical_rows": books.clinical_rows,
                "balance": books.balance,
            }
        )
