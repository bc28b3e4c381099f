"""Which later batch has read an object again: `superseded_by` in the ledger.

Belongs here: writing it, when the later batch closes and when an earlier one is published again. Does not belong here:
which row of flat_metadata counts (`lake.overwritten`), choosing what is read again (`reread`).

The outcome in an earlier batch stays what it was, and so do its books. Of several later readings the next one is named,
so the rows of one object are a chain. What a later batch did not find as it was claimed supersedes nothing.
"""

from __future__ import annotations

import pyarrow.compute as pc

from dicom_assets.batch.publish import Before
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import arrow, connect, quoted
from dicom_assets.lake.staging import Part, Staging
from dicom_assets.schema.codes import NOT_ARRIVED, WAITING
from dicom_assets.schema.registry import VALIDATED_BATCH

_NAME = VALIDATED_BATCH.name

_UNREAD = (
    f"coalesce(code IN ({', '.join(quoted(code) for code in sorted(NOT_ARRIVED))}), false) OR outcome = '{WAITING}'"
)
"""SQL for rows of the ledger whose object was not there, or could not be read."""

_MARKED = f"""
-- the rows of those batches of the ledger in which something is superseded by this one
SELECT * EXCLUDE (is_marked) REPLACE (CASE WHEN is_marked THEN $batch ELSE superseded_by END AS superseded_by)
FROM (
    SELECT ledger.*, superseded_by IS NULL AND own.object_id IS NOT NULL AS is_marked
    FROM {_NAME} AS ledger LEFT JOIN own USING (object_id)
)
QUALIFY bool_or(is_marked) OVER (PARTITION BY batch_id)
"""


def publish_ledger(lake: Lake, staging: Staging) -> int:
    """Replaces a batch's rows of validated_batch by the staged ones; how many. Raises StagingMissing, LakeError.

    What later batches have entered in the rows that there were stays.
    """
    rows = staging.read_whole(Part.LEDGER)
    with lake.committing(_NAME):
        with connect(lake, [_NAME], within=staging.scope(_NAME)) as connection:
            known = arrow(connection, f"SELECT object_id, superseded_by FROM {_NAME} WHERE superseded_by IS NOT NULL")
        if len(known):
            at = pc.index_in(rows["object_id"], known["object_id"].combine_chunks())
            place = rows.schema.get_field_index("superseded_by")
            rows = rows.set_column(place, rows.schema.field(place), known["superseded_by"].combine_chunks().take(at))
        lake.replace(_NAME, [staging.batch_id], rows)
    return len(rows)


def supersede(lake: Lake, staging: Staging, earlier: Before) -> int:
    """Enters a batch in the ledger rows of earlier ones that have the same objects; in how many batches.

    earlier: by uri the batches that had claimed it before. Raises StagingMissing, LakeError.
    """
    before = {batch for batches in earlier.values() for batch in batches}
    if not before:
        return 0
    with lake.cursor() as connection:
        connection.register("staged", staging.read_whole(Part.LEDGER, ["object_id", "outcome", "code"]))
        own = arrow(connection, f"SELECT object_id FROM staged WHERE NOT ({_UNREAD})")
    with lake.committing(_NAME):
        with connect(lake, [_NAME], within={_NAME: {"batch_id": before}}) as connection:
            connection.register("own", own)
            marked = connection.sql(_MARKED, params={"batch": staging.batch_id}).to_arrow_table()
        batches = marked["batch_id"].unique().to_pylist()
        if batches:
            lake.replace(_NAME, batches, marked.select(VALIDATED_BATCH.schema.names).cast(VALIDATED_BATCH.schema))
    return len(batches)
