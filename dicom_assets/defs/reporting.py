"""What Dagster is told about tables: schema and lineage from the registry, counts, and errors that are worth a retry.

Does not belong here: what an asset does.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import dagster as dg

from dicom_assets.batch.books import Status
from dicom_assets.batch.closing import BooksDiffer
from dicom_assets.batch.context import BatchBusy, BatchClosed, RunContext
from dicom_assets.batch.steps import Result
from dicom_assets.batch.waits import markdown
from dicom_assets.defs import failures
from dicom_assets.defs.asset_keys import asset_key, asset_keys, name_of
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import sql_type
from dicom_assets.lake.staging import StagingMissing
from dicom_assets.lake.tables import ForeignTable
from dicom_assets.landing.claims import UnknownBatch
from dicom_assets.landing.looks import SourceEmptied
from dicom_assets.omop.concepts import MappingError
from dicom_assets.omop.integers import IdentifiersExhausted
from dicom_assets.reading.memory import give_back
from dicom_assets.schema.registry import Table, column_sources
from dicom_assets.settings import Settings, SettingsError

WHAT_TO_DO = "what you can do"
"""Name of the metadata that say what a person can do about a batch that waits."""

# Storage and commits fail for outside reasons that pass; three tries over some seconds outlast a blip, and what
# lasts longer needs a person.
OUTSIDE = dg.RetryPolicy(max_retries=2, delay=1, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)

FINAL = (
    ForeignTable,
    UnknownBatch,
    SourceEmptied,
    SettingsError,
    BatchBusy,
    BatchClosed,
    BooksDiffer,
    StagingMissing,
    MappingError,
    IdentifiersExhausted,
)

fail_clearly = failures.fail_clearly(FINAL)
"""Decorates every function that Dagster calls: what it raises leaves as `clear_failures` says."""


def table_schema(table: Table) -> dg.TableSchema:
    """A table's columns as Dagster shows them."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                column.name,
                sql_type(column.type),
                column.description,
                constraints=dg.TableColumnConstraints(nullable=column.nullable),
            )
            for column in table.columns
        ]
    )


def column_lineage(settings: Settings, table: Table) -> dg.TableColumnLineage:
    """Which columns of upstream tables a table's columns come from: those of the same name, nearest table first."""
    return dg.TableColumnLineage(
        {
            name: [dg.TableColumnDep(asset_key(settings, source), column) for source, column in sources]
            for name, sources in column_sources(table).items()
        }
    )


def table_description(settings: Settings, table: Table) -> dict[str, Any]:
    """Description and metadata of an asset that is a table."""
    return {
        "description": f"{table.description}\n\nOne row: {table.grain}.",
        "metadata": {
            "dagster/column_schema": table_schema(table),
            "dagster/column_lineage": column_lineage(settings, table),
            "dagster/table_name": table.name,
            "dagster/uri": f"{settings.lake.rstrip('/')}/{table.name}",
        },
    }


def code_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Metadata that say where a function is written, under whatever it is wrapped in."""
    while True:
        if isinstance(function, partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        else:
            break
    code = function.__code__
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # references to code are a beta in 1.13
        place = dg.LocalFileCodeReference(file_path=code.co_filename, line_number=code.co_firstlineno)
        return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[place])}


def audit_asset(
    settings: Settings,
    table: Table,
    function: Callable[..., Any],
    *,
    deps: Sequence[str],
    kinds: set[str],
    checks: Mapping[str, str],
) -> dg.AssetsDefinition:
    """Makes a function the asset of a table that says how the lake differs from where it is copied from.

    checks: descriptions by name.
    """
    key, shown = asset_key(settings, table.name), table_description(settings, table)
    specs = [dg.AssetCheckSpec(name, asset=key, description=description) for name, description in checks.items()]
    return dg.asset(
        key=key,
        deps=asset_keys(settings, deps),
        group_name="books",
        kinds=kinds,
        check_specs=specs,
        description=shown["description"],
        metadata=shown["metadata"] | code_of(function),
    )(function)


def materialized(lake: Lake, key: dg.AssetKey, result: Result) -> dg.MaterializeResult[Any]:
    """What Dagster keeps of a step's result: rows of the batch and of the table, further counts, pages of Markdown.

    What making it has freed goes back to the system.
    """
    give_back()
    metadata: dict[str, Any] = {}
    if result.rows is not None:
        metadata = {"dagster/partition_row_count": result.rows, "dagster/row_count": lake.row_count(name_of(key))}
    metadata |= result.counts
    metadata |= {page: dg.MetadataValue.md(text) for page, text in result.pages.items()}
    return dg.MaterializeResult(asset_key=key, metadata=metadata)


def clear_failures() -> AbstractContextManager[None]:
    """Turns errors into failures of a step: retried where the reason may pass, final where a person must help.

    Errors that say no sentence of ours may hold values of rows, so only type and place are passed on.
    """
    return failures.clear_failures(FINAL)


@contextmanager
def one_step(work: RunContext, batch_id: str) -> Iterator[None]:
    """What a step of a batch does: with clear failures, and with one look at each table of the lake.

    A failure says what can be done about the batch.
    """
    try:
        with clear_failures(), work.lake.look_once():
            yield
    except dg.Failure as failure:
        commands = dg.MetadataValue.md(markdown(batch_id, Status.FAILED))
        metadata = {**failure.metadata, WHAT_TO_DO: commands}
        raise dg.Failure(failure.description, metadata, failure.allow_retries) from None
