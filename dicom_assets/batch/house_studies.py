"""What the lake has of the studies of a batch from batches that were claimed before it, for rules about whole studies.

Belongs here: choosing those rows. Does not belong here: asking a rule of them (`house_rules`).

A rule about a study is asked of what the study is with this batch: its own objects, and those that batches claimed
earlier have brought and that were not deleted or overwritten by then. What the batch brings anew of an instance, or at
a place, takes the place of what was there. Later batches are left out, so that a batch that is run again comes to the
same; values are those that were received, without corrections.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.lake import overwritten, studies
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import connect
from dicom_assets.lake.quoting import named
from dicom_assets.lake.staging import Part, Staging
from dicom_assets.schema.registry import FLAT_METADATA

ROWS_AT_ONCE = 2_000
"""Rows, with their headers where a rule asks for these, that are in memory at a time."""

_INSTANCE = ("source", "study_key", "SeriesInstanceUID", "SOPInstanceUID")
_PLACE = ("source", "uri", "member")

_EARLIER = """
-- one row per instance that earlier batches have brought, is current without this batch, and is not brought anew by it
SELECT {columns} FROM (
    SELECT flat.*, row_number() OVER (
        PARTITION BY {instance} ORDER BY version_at DESC, sequence DESC, object_id DESC
    ) AS _age
    FROM flat_metadata AS flat
    ANTI JOIN overwritten AS last
        ON last.source = flat.source AND last.uri = flat.uri AND last.member IS NOT DISTINCT FROM flat.member
        AND last.claimed_at > flat.ingested_at AND last.claimed_at < $claimed AND flat.version_text IS NULL
    ANTI JOIN places
        ON places.source = flat.source AND places.uri = flat.uri AND places.member IS NOT DISTINCT FROM flat.member
        AND flat.version_text IS NULL
    WHERE batch_id <> $batch AND ingested_at < $claimed
) AS before
ANTI JOIN brought USING ({instance})
WHERE _age = 1 AND operation = 'upsert'
"""


def earlier_rows(lake: Lake, staging: Staging, keys: Sequence[str], columns: Sequence[str]) -> pa.RecordBatchReader:
    """Rows of some studies of a batch from earlier ones, in some columns. Raises LakeError."""
    studies.build(lake)
    schema = pa.schema([FLAT_METADATA.schema.field(name).with_nullable(True) for name in columns])
    claimed = _claimed(staging)
    if claimed is None:
        return pa.RecordBatchReader.from_batches(schema, ())
    scope = dict(studies.study_scope(lake, ["flat_metadata"], keys))
    scope |= overwritten.scope_of(lake, keys, scope["flat_metadata"])
    sql = _EARLIER.format(columns=", ".join(map(named, columns)), instance=", ".join(_INSTANCE))

    def found() -> Iterator[pa.RecordBatch]:
        with connect(lake, [*scope], within=scope) as connection:
            connection.register("brought", staging.read(Part.FLAT, [*_INSTANCE]))
            connection.register("places", staging.read(Part.RAW, [*_PLACE]))
            rows = connection.sql(sql, params={"claimed": claimed, "batch": staging.batch_id})
            for batch in rows.to_arrow_reader(ROWS_AT_ONCE):
                yield from pa.Table.from_batches([batch]).cast(schema).to_batches()

    return pa.RecordBatchReader.from_batches(schema, found())


def _claimed(staging: Staging) -> datetime | None:
    """When the batch was claimed."""
    found: datetime | None = pc.min(staging.read(Part.RAW, ["claimed_at"])["claimed_at"]).as_py()
    return found
