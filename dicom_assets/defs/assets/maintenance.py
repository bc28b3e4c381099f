"""table_maintenance: small files into larger ones, old versions away. Unpartitioned, on a schedule of its own."""

from typing import Any

import dagster as dg

from dicom_assets.defs.resources import WorkParam
from dicom_assets.defs.tables import OWNERS, clear_failures
from dicom_assets.lake.maintenance import maintain
from dicom_assets.lake.registry import TABLES


@dg.asset(
    name="table_maintenance",
    group_name="books",
    kinds={"deltalake"},
    owners=OWNERS,
    description="Compacts and vacuums every table of the lake; old versions stay readable within the retention.",
)
def table_maintenance(work: WorkParam) -> dg.MaterializeResult[Any]:
    """Compaction and vacuum of every table, with their effect as metadata."""
    with clear_failures():
        done = [maintain(work.lake, name, work.settings.maintenance.retention_hours) for name in TABLES]
    return dg.MaterializeResult(
        metadata={
            "files_before": sum(one.files_before for one in done),
            "files_after": sum(one.files_after for one in done),
            "files_deleted": sum(one.files_deleted for one in done),
            "tables": dg.MetadataValue.md(
                "\n".join(
                    [
                        "| table | files before | files after | files deleted |",
                        "|---|---|---|---|",
                        *(f"| {d.table} | {d.files_before} | {d.files_after} | {d.files_deleted} |" for d in done),
                    ]
                )
            ),
        }
    )
