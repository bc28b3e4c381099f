"""Partitions: one for each batch. The claim log decides which batches there are; Dagster is told."""

from collections.abc import Iterable
from datetime import datetime, timedelta

import dagster as dg

from dicom_assets.batch.books import Books, Status

BATCH = dg.DynamicPartitionsDefinition(name="batch")
"""Batches by id, such as 20261120T143000Z-1f3a9c2e."""

REGISTER_AT_ONCE = 1_000
"""Partition keys that are registered in one call."""

RETIRE_AT_ONCE = 1_000
"""Partition keys that are taken away in one run of maintenance."""


def retired(books: Iterable[Books], days: int, now: datetime) -> set[str]:
    """Batches that closed more than so many days ago, and need no partition any more; none when days is 0."""
    if not days:
        return set()
    limit = now - timedelta(days=days)
    return {
        one.batch_id
        for one in books
        if one.status == Status.CLOSED and one.closed_at is not None and one.closed_at < limit
    }


def retire(instance: dg.DagsterInstance, batches: set[str]) -> int:
    """Takes partition keys of retired batches away, some at a time; how many."""
    name = BATCH.name or ""
    keys = sorted(batches & set(instance.get_dynamic_partitions(name)))[:RETIRE_AT_ONCE]
    for key in keys:
        instance.delete_dynamic_partition(name, key)
    return len(keys)
