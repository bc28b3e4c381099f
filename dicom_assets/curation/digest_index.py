"""The index of digests: which batches hold objects with a SOP Instance UID, a header or pixel data.

Belongs here: what objects may share, as keys and as numbers, entering a batch, looking keys up. Does not belong here:
what is a duplicate (`duplicates`).

A batch is entered before its rows are published, so that of two batches that run at the same time the later one sees
the earlier: the index may name a batch too many, whose rows are then looked for in vain, never one too few. It holds
numbers of sixty bits, eight bytes for each; two keys that meet in one cost a look at the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import arrow, connect, quoted, scan, where
from dicom_assets.lake.staging import SCHEMAS, Part, Staging
from dicom_assets.schema.registry import BATCH_DIGEST, FLAT_METADATA

SHARED: Mapping[str, str] = {"sop": "SOPInstanceUID", "header": "stable_digest", "pixels": "pixel_digest"}
"""What objects may share: by its name in keys, the column of flat_metadata."""

OBJECTS = "operation = 'upsert' AND version_text IS NULL"
"""SQL for the rows of flat_metadata that are objects; a change of a service is told of one, and has no bytes."""

COLUMNS = ["operation", "version_text", *SHARED.values()]
"""Columns of flat_metadata that this module looks at."""


def key(shared: str) -> str:
    """SQL for the shared_key of a row of flat_metadata; NULL where it has no such value."""
    return f"left(md5('{shared}:' || \"{SHARED[shared]}\"), 16)"


def number(shared_key: str) -> str:
    """SQL for the number by which the index has a key. shared_key: SQL."""
    return f"('0x' || left({shared_key}, 15))::BIGINT"


def keys_of(rows: str) -> str:
    """SQL for batch_id and shared_key of each object in some rows, in parentheses, and of each thing it may share."""
    each = ", ".join(map(key, SHARED))
    return (
        f"SELECT batch_id, shared_key FROM (SELECT batch_id, unnest([{each}]) AS shared_key FROM {rows} "
        f"WHERE {OBJECTS}) WHERE shared_key IS NOT NULL"
    )


def stage_keys(lake: Lake, staging: Staging, places: pa.Table, batches: Sequence[str]) -> None:
    """Enters a batch into the index, and stages the keys that it touches: the groups that are to be made again.

    To be called before its rows of flat_metadata are replaced. places: source, uri, member at which earlier batches
    (batches) had objects that count no more, or count again. Keys that were staged before stay. Raises LakeError.
    """
    batch = quoted(staging.batch_id)
    own = f"(SELECT {batch} AS batch_id, * FROM staged)"
    with lake.cursor() as connection:
        connection.register("staged", staging.read(Part.FLAT, COLUMNS))
        connection.register("places", places.select(["source", "uri", "member"]))
        connection.register("before", staging.read(Part.ALIKE))
        connection.execute(f"CREATE TEMP TABLE own AS {keys_of(own)}")
        entries = arrow(
            connection,
            f"SELECT batch_id, {number('shared_key')} AS digest, count(*) AS objects FROM own GROUP BY ALL "
            "ORDER BY digest",
        )
        earlier = "".join(
            f" UNION ALL SELECT shared_key, true FROM ({keys_of(f'({rows})')})"
            for rows in _earlier_rows(lake, staging.batch_id, batches if len(places) else ())
        )
        touched = arrow(
            connection,
            "SELECT shared_key, bool_or(was_there) AS was_there FROM (SELECT shared_key, false AS was_there FROM own "
            f"UNION ALL SELECT shared_key, true FROM before{earlier}) GROUP BY ALL ORDER BY ALL",
        )
    staging.put(Part.ALIKE, 0, touched.cast(SCHEMAS[Part.ALIKE]))
    staging.complete(Part.ALIKE, len(touched))
    with lake.committing(BATCH_DIGEST.name):
        lake.replace(BATCH_DIGEST.name, [staging.batch_id], entries.cast(BATCH_DIGEST.schema))


def _earlier_rows(lake: Lake, batch_id: str, batches: Sequence[str]) -> Iterator[str]:
    """SQL for rows that the batch had before, and for those of some batches at the table `places`, if there are any."""
    names = ", ".join(f'flat."{name}"' for name in ["batch_id", *COLUMNS])
    within = {"batch_id": [batch_id]}
    if lake.extents(FLAT_METADATA.name).within(within).any():
        yield f"SELECT {names} FROM {scan(lake, FLAT_METADATA.name, within=within)} AS flat{where(within)}"
    if batches:
        yield (
            f"SELECT {names} FROM {scan(lake, FLAT_METADATA.name, within={'batch_id': batches})} AS flat "
            "JOIN places ON places.source = flat.source AND places.uri = flat.uri "
            "AND places.member IS NOT DISTINCT FROM flat.member"
        )


def looked_for(staged: pa.Table, shared: pa.Table) -> pa.ChunkedArray:
    """Of staged keys those of which the table of duplicates may have rows. shared: what `several` has found of them.

    A group has several objects, which are in the index. Where it is not so any more, the batch has had one of them.
    """
    had = pc.fill_null(staged["was_there"], True)  # as an earlier release has staged it
    return pa.chunked_array([*staged.filter(had)["shared_key"].chunks, *shared["shared_key"].chunks], pa.string())


def enter_anew(lake: Lake, batches: Sequence[str]) -> None:
    """Enters some batches as flat_metadata has them now. Raises LakeError."""
    within = {"batch_id": batches}
    with lake.committing(BATCH_DIGEST.name):
        with lake.cursor() as connection:
            rows = f"(SELECT * FROM {scan(lake, FLAT_METADATA.name, within=within)}{where(within)})"
            entries = arrow(
                connection,
                f"SELECT batch_id, {number('shared_key')} AS digest, count(*) AS objects FROM ({keys_of(rows)}) "
                "GROUP BY ALL ORDER BY batch_id, digest",
            )
        lake.replace(BATCH_DIGEST.name, batches, entries.cast(BATCH_DIGEST.schema))


def several(lake: Lake, keys: pa.ChunkedArray | pa.Array) -> tuple[pa.Table, Sequence[str]]:
    """Of some keys those that several objects may have, as shared_key, and the batches that hold these.

    Reads the numbers of the whole index: 0.1 s of processor time for ten million. Raises LakeError.
    """
    with connect(lake, [BATCH_DIGEST.name]) as connection:
        connection.register("keys", pa.table({"shared_key": keys}))
        connection.execute(
            f"CREATE TEMP TABLE wanted AS SELECT DISTINCT shared_key, {number('shared_key')} AS digest FROM keys"
        )
        connection.execute(
            "CREATE TEMP TABLE found AS "
            "SELECT batch_id, digest, objects FROM batch_digest SEMI JOIN wanted USING (digest)"
        )
        doubtful = "SELECT digest FROM found GROUP BY digest HAVING sum(objects) > 1"
        found = arrow(connection, f"SELECT shared_key FROM wanted SEMI JOIN ({doubtful}) USING (digest) ORDER BY 1")
        batches = connection.execute(
            f"SELECT DISTINCT batch_id FROM found SEMI JOIN ({doubtful}) USING (digest) ORDER BY 1"
        ).fetchall()
    return found, [batch for (batch,) in batches]
