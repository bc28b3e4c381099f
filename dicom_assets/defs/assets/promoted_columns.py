"""promoted_columns: attributes that the settings promote, filled for what is there already. Unpartitioned, run by hand.

What `dicom-assets columns add` promotes, that command fills itself.
"""

from collections.abc import Iterable
from typing import Any

import dagster as dg

from dicom_assets.batch.promotion import promote
from dicom_assets.defs.asset_keys import asset_key
from dicom_assets.defs.reporting import clear_failures, code_of, fail_clearly, table_schema
from dicom_assets.defs.resources import RunContextParam
from dicom_assets.lake.column_list import Listed
from dicom_assets.settings import Settings


@fail_clearly
def promoted_columns(context: dg.AssetExecutionContext, work: RunContextParam) -> dg.MaterializeResult[Any]:
    """Every promoted column of the lake, whole, with how many values did not fit its type."""

    def tell(table: str, done: int, of: int) -> None:
        context.log.info(f"{table}: {done} of {of} files")

    with clear_failures():
        filled = promote(work.lake, work.settings, tell)
        lake = work.lake
    return dg.MaterializeResult(
        metadata={
            "columns": len(lake.columns),
            "filled_now": len(filled),
            "rows": lake.row_count("flat_metadata"),
            "misfits": sum(one.misfits for one in lake.columns),
            "list": dg.MetadataValue.md("\n".join(_lines(lake.columns))),
            **{f"columns of {name}": table_schema(lake.tables[name]) for name in ("flat_metadata", "instance")},
        }
    )


def _lines(columns: Iterable[Listed]) -> Iterable[str]:
    yield "| column | path | level | type | state | values that do not fit |"
    yield "|---|---|---|---|---|---|"
    for one in columns:
        column = one.column
        yield f"| {column.name} | {column.path} | {column.level} | {column.type} | {one.stage} | {one.misfits} |"


def definitions(settings: Settings) -> dg.Definitions:
    """The asset and its job, where the settings promote a column; nothing otherwise."""
    if not settings.columns:
        return dg.Definitions()
    asset = dg.asset(
        key=asset_key(settings, "promoted_columns"),
        group_name="metadata",
        kinds={"dicom", "deltalake"},
        description="Columns beyond the registry, of [[columns]] or `dicom-assets columns add`, filled from `header`.",
        metadata=code_of(promoted_columns),
    )(promoted_columns)
    job = dg.define_asset_job(
        "promote_columns",
        selection=dg.AssetSelection.assets(asset),
        description="Fills columns that are promoted, and takes those away that were removed.",
        executor_def=dg.in_process_executor,
    )
    return dg.Definitions(assets=[asset], jobs=[job])
