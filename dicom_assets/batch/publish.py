"""From staging to the shared tables: each function publishes one table for one batch, idempotently.

Belongs here: which rows of a table a batch replaces, and by what. Does not belong here: the commit itself
(`lake.delta`), the SQL of the hierarchy (`lake.hierarchy`), clinical records (`batch.clinical`), the tables of FHIR and
OMOP (`batch.standards`).
"""

from __future__ import annotations

import pyarrow as pa

from dicom_assets.batch.staging import Part, Staging
from dicom_assets.lake import studies
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.hierarchy import REBUILDS
from dicom_assets.lake.query import arrow, connect
from dicom_assets.lake.registry import TABLES


def publish_rows(lake: Lake, staging: Staging, part: Part) -> int:
    """Replaces a batch's rows of raw_files, validated_batch or ingestion_errors by the staged ones; how many."""
    name = str(part)
    rows = staging.read(part, TABLES[name].schema.names)
    with lake.committing(name):
        lake.replace(name, [staging.batch_id], rows)
    return len(rows)


def publish_flat(lake: Lake, staging: Staging) -> int:
    """Replaces a batch's rows of flat_metadata, one staged chunk in memory at a time; how many there are.

    The studies that the batch touches, by its new rows and by those it had, are staged first: a kill between the two
    leaves no study behind that would have to be rebuilt.
    """
    studies.build(lake)
    with lake.committing("flat_metadata"):
        touched = _touched(lake, staging)
        staging.put(Part.TOUCHED, 0, touched)
        studies.enter(lake, staging.batch_id, touched["study_key"].to_pylist())
        lake.replace("flat_metadata", [staging.batch_id], lambda: staging.batches(Part.FLAT))
    return sum(len(batch) for batch in staging.batches(Part.FLAT, ["object_id"]))


def _touched(lake: Lake, staging: Staging) -> pa.Table:
    keys = {key for batch in staging.batches(Part.FLAT, ["study_key"]) for key in batch["study_key"].to_pylist()}
    keys.update(staging.read(Part.TOUCHED)["study_key"].to_pylist())
    with connect(lake, ["flat_metadata"], within=staging.scope("flat_metadata")) as connection:
        had = connection.execute("SELECT DISTINCT study_key FROM flat_metadata").fetchall()
    keys.update(key for (key,) in had)
    return pa.table({"study_key": sorted(keys)}, schema=pa.schema([pa.field("study_key", pa.string())]))


def touched_studies(staging: Staging) -> pa.Table:
    """The study_keys that a batch touches. Raises StagingMissing when flat_metadata was not published."""
    staging.require(Part.TOUCHED)
    return staging.read(Part.TOUCHED)


def publish_hierarchy(lake: Lake, staging: Staging, name: str) -> int:
    """Rebuilds the touched studies of instance, series or study from all their rows; how many rows they now have.

    Reading and commit happen under the table's lock, so that of two batches that touch one study the later publisher
    has read what the earlier one wrote.
    """
    touched = touched_studies(staging)
    keys = touched["study_key"].to_pylist()
    sql, sources = REBUILDS[name]
    with lake.committing(name):
        with connect(lake, sources, within=studies.study_scope(lake, sources, keys)) as connection:
            connection.register("touched", touched)
            rows = arrow(connection, sql).cast(TABLES[name].schema)
        lake.replace(name, keys, rows)
    return len(rows)
