"""Partitions: one for each batch. The claim log decides which batches there are; Dagster is told."""

import dagster as dg

BATCH = dg.DynamicPartitionsDefinition(name="batch")
"""Batches by id, such as 20261120T143000Z-1f3a9c2e."""

REGISTER_AT_ONCE = 1_000
"""Partition keys that are registered in one call."""
