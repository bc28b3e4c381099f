"""From staging to the shared tables: each function publishes one table for one batch, idempotently.

Belongs here: which rows of a table a batch replaces, and by what. Does not belong here: the commit itself
(`lake.delta`), the SQL of the hierarchy (`lake.hierarchy`).
"""

from __future__ import annotations

import pyarrow as pa

from dicom_assets.batch.staging import Part, Staging
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.hierarchy import REBUILDS
from dicom_assets.lake.query import arrow, connect, quoted, scan
from dicom_assets.lake.registry import CLINICAL, TABLES


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
    with lake.committing("flat_metadata"):
        touched = _touched(lake, staging)
        staging.put(Part.TOUCHED, 0, touched)
        lake.replace("flat_metadata", [staging.batch_id], lambda: staging.reader(Part.FLAT))
    return sum(len(table) for table in staging.tables(Part.FLAT, ["object_id"]))


def _touched(lake: Lake, staging: Staging) -> pa.Table:
    keys = {key for table in staging.tables(Part.FLAT, ["study_key"]) for key in table["study_key"].to_pylist()}
    keys.update(staging.read(Part.TOUCHED)["study_key"].to_pylist())
    with connect(lake, ["flat_metadata"]) as connection:
        had = connection.execute(
            f"SELECT DISTINCT study_key FROM flat_metadata WHERE batch_id = {quoted(staging.batch_id)}"
        ).fetchall()
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
    sql, sources = REBUILDS[name]
    with lake.committing(name):
        with connect(lake, sources) as connection:
            connection.register("touched", touched)
            rows = arrow(connection, sql).cast(TABLES[name].schema)
        lake.replace(name, touched["study_key"].to_pylist(), rows)
    return len(rows)


_NEWEST_FILES = """
-- one row per clinical file: the object that is its newest version, among staged and published ones
SELECT file_key, arg_max(object_id, (version_at, object_id)) AS object_id
FROM versions
GROUP BY file_key
"""


def publish_clinical(lake: Lake, staging: Staging) -> int:
    """Publishes a batch's clinical records; how many rows the batch now has in the table.

    Of the versions of one file only the newest stays, and within it each record once. The rows of other batches that
    it replaces are rewritten together with the batch's own, in one commit.
    """
    with lake.committing(CLINICAL.name):
        staged = staging.read(Part.CLINICAL)
        with connect(lake, []) as connection:
            connection.register("staged", staged)
            connection.execute(f"CREATE VIEW published AS SELECT * FROM {scan(lake, CLINICAL.name)}")
            affected = [
                batch
                for (batch,) in connection.execute(
                    "SELECT DISTINCT batch_id FROM published SEMI JOIN staged USING (file_key) WHERE batch_id <> $1",
                    [staging.batch_id],
                ).fetchall()
            ]
            replaced = [*affected, staging.batch_id]
            listed = ", ".join(map(quoted, affected)) or "NULL"
            connection.execute(
                f"CREATE TEMP TABLE versions AS SELECT * FROM staged UNION ALL BY NAME "
                f"SELECT * FROM published WHERE batch_id IN ({listed})"
            )
            newest = arrow(
                connection,
                f"SELECT * FROM versions SEMI JOIN ({_NEWEST_FILES}) USING (file_key, object_id) "
                "ORDER BY batch_id, object_id, record",
            )
        rows = newest.select(CLINICAL.schema.names).cast(CLINICAL.schema)
        lake.replace(CLINICAL.name, replaced, rows)
    return sum(1 for batch in rows["batch_id"].to_pylist() if batch == staging.batch_id)
