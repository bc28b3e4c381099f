"""What Dagster is told about tables: schema and lineage from the registry, counts, and errors that are worth a retry.

Belongs here: the one decorator for assets of the batch graph. Does not belong here: what an asset does.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import dagster as dg

from dicom_assets.batch.closing import BooksDiffer
from dicom_assets.batch.context import BatchBusy, BatchClosed, Work
from dicom_assets.defs import failures
from dicom_assets.defs.partitions import BATCH
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import sql_type
from dicom_assets.lake.staging import StagingMissing
from dicom_assets.lake.tables import ForeignTable
from dicom_assets.landing.claims import UnknownBatch
from dicom_assets.landing.looks import SourceEmptied
from dicom_assets.omop.concepts import MappingError
from dicom_assets.omop.integers import IdentifiersExhausted
from dicom_assets.reading.memory import give_back
from dicom_assets.schema.codes import Outcome
from dicom_assets.schema.registry import TABLES, Table
from dicom_assets.settings import SettingsError

OWNERS = ["team:imaging-data"]

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


def column_lineage(table: Table) -> dg.TableColumnLineage:
    """Which columns of upstream tables a table's columns come from: those of the same name, nearest table first."""
    upstream = [TABLES[name] for name in table.upstream]
    deps = {
        column.name: [
            dg.TableColumnDep(dg.AssetKey(source.name), column.name) for source in upstream if column.name in source
        ]
        for column in table.columns
    }
    return dg.TableColumnLineage({name: found for name, found in deps.items() if found})


def _told(name: str) -> dict[str, Any]:
    """Description and metadata of an asset that is a table."""
    table = TABLES[name]
    return {
        "description": f"{table.description}\n\nOne row: {table.grain}.",
        "metadata": {"dagster/column_schema": table_schema(table), "dagster/column_lineage": column_lineage(table)},
    }


def batch_asset(
    name: str, *, deps: Iterable[str], group: str, kinds: set[str], **options: Any
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """An asset of one batch: partitioned, owned, described from the registry, retried for outside reasons."""
    decorator: Callable[[Callable[..., Any]], dg.AssetsDefinition] = dg.asset(
        name=name,
        deps=list(deps),
        partitions_def=BATCH,
        group_name=group,
        kinds=kinds,
        owners=OWNERS,
        retry_policy=OUTSIDE,
        **({**_told(name), **options} if name in TABLES else options),
    )
    return lambda function: decorator(fail_clearly(function))


def batch_step(
    name: str, tables: Mapping[str, Iterable[str]], group: str, kinds: set[str]
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Assets of one batch that one step of a run makes one after the other; each can be made alone as well.

    tables: in their order, what each is made from. A step of its own would take longer than a small batch's rows do.
    """
    decorator: Callable[[Callable[..., Any]], dg.AssetsDefinition] = dg.multi_asset(
        name=name,
        specs=[
            dg.AssetSpec(table, deps=list(deps), group_name=group, kinds=kinds, owners=OWNERS, **_told(table))
            for table, deps in tables.items()
        ],
        partitions_def=BATCH,
        can_subset=True,
        retry_policy=OUTSIDE,
    )
    return lambda function: decorator(fail_clearly(function))


def materialized(
    lake: Lake, name: str, rows: int, **counts: int | float | str | dg.MetadataValue[Any]
) -> dg.MaterializeResult[Any]:
    """The result of an asset that is a table: rows of the batch, rows of the table, further counts.

    What making it has freed goes back to the system.
    """
    give_back()
    return dg.MaterializeResult(
        asset_key=name,
        metadata={
            "dagster/partition_row_count": rows,
            "dagster/row_count": lake.row_count(name),
            **counts,
        },
    )


def clear_failures() -> AbstractContextManager[None]:
    """Turns errors into failures of a step: retried where the reason may pass, final where a person must help.

    Errors that say no sentence of ours may hold values of rows, so only type and place are passed on.
    """
    return failures.clear_failures(FINAL)


@contextmanager
def one_step(work: Work) -> Iterator[None]:
    """What a step of a batch does: with clear failures, and with one look at each table of the lake."""
    with clear_failures(), work.lake.look_once():
        yield


def runs_to_the_end(run: dg.DagsterRun) -> bool:
    """Whether a run closes the books of its batch, as the whole job does; assets can be made alone as well."""
    assets, steps = run.asset_selection, run.step_keys_to_execute
    return (not assets or dg.AssetKey("cleanup") in assets) and (not steps or "cleanup" in steps)


def outcome_counts(outcomes: Mapping[str, int]) -> dict[str, int]:
    """Counts of every outcome, zero ones too, so that the plots have no holes."""
    return {str(outcome): int(outcomes.get(outcome, 0)) for outcome in Outcome}
