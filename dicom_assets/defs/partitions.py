"""Partitions: one for each batch. The claim log decides which batches there are; Dagster is told."""

from collections.abc import Iterable
from datetime import datetime, timedelta

import dagster as dg

from dicom_assets.batch.books import Books, Status
from dicom_assets.settings import MaintenanceSettings

BATCH = dg.DynamicPartitionsDefinition(name="batch")
"""Batches by id, such as 20261120T143000Z-1f3a9c2e."""

REGISTER_AT_ONCE = 1_000
"""Partition keys that are registered in one call."""

RETIRE_AT_ONCE = 1_000
"""Partitions that are taken away in one run of maintenance; the next one goes on."""

_PARTITION_TAG = "dagster/partition"
_KEYS_A_QUERY = 100


def batches_to_retire(books: Iterable[Books], maintenance: MaintenanceSettings, now: datetime) -> set[str]:
    """Batches that need no partition any more; pure.

    Those that closed more than `partition_days` ago, and of the others all but the `partition_most` that closed last.
    Whatever is run again closes again, and is among the newest then.
    """
    closed = sorted(
        ((one.closed_at, one.batch_id) for one in books if one.status == Status.CLOSED and one.closed_at is not None),
        reverse=True,
    )
    days, most = maintenance.partition_days, maintenance.partition_most
    limit = now - timedelta(days=days)
    return {
        batch
        for place, (closed_at, batch) in enumerate(closed)
        if (days and closed_at < limit) or (most and place >= most)
    }


def retire(instance: dg.DagsterInstance, batches: set[str], most: int = RETIRE_AT_ONCE) -> tuple[int, int]:
    """Takes partitions of batches and their runs out of Dagster, some at a time, the oldest first; how many of each.

    Runs go first, so that what is broken off in between is gone on with the next time. A batch that is being run, or is
    to be, stays.
    """
    name = BATCH.name or ""
    keys = sorted(batches & set(instance.get_dynamic_partitions(name)))[:most]
    partitions = runs = 0
    for start in range(0, len(keys), _KEYS_A_QUERY):
        some = keys[start : start + _KEYS_A_QUERY]
        found: dict[str, list[dg.DagsterRun]] = {key: [] for key in some}
        for run in instance.get_runs(dg.RunsFilter(tags={_PARTITION_TAG: some})):
            found[run.tags[_PARTITION_TAG]].append(run)
        for key, its_runs in found.items():
            if not all(run.is_finished for run in its_runs):
                continue
            for run in its_runs:
                instance.delete_run(run.run_id)
            instance.delete_dynamic_partition(name, key)
            partitions, runs = partitions + 1, runs + len(its_runs)
    return partitions, runs
