"""Objects that the lake has more than once: groups of objects that are alike, and how their members differ.

Belongs here: which objects make a group, and the table `duplicate`. Does not belong here: where to look
(`digest_index`), what of a header is compared (`dicom.stable`, `differences`), the rules that judge it
(`batch.checks.duplicate_checks`).

Only what objects say and what lies in storage counts, as it was received: corrections change none of it. Each group is
made again from all objects that share its key, whichever batch brought them, so the order of batches makes no
difference. An object whose place was claimed again takes no part, nor does a change of a service, which has no bytes.

Objects of which only headers were read, and objects that were read whole, meet in a group as long as nothing says that
they differ: as soon as two different digests are known in it, those that were not read whole are left to themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import duckdb
import pyarrow as pa

from dicom_assets.curation.differences import TRANSFER_SYNTAX, ObjectName, Pair, differences
from dicom_assets.curation.digest_index import COLUMNS, OBJECTS, SHARED, key, looked_for, several
from dicom_assets.lake import overwritten
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.headers import KeptHeaders
from dicom_assets.lake.hierarchy import OVERTAKEN
from dicom_assets.lake.query import arrow, quoted, scan, where
from dicom_assets.lake.staging import Part, Staging
from dicom_assets.schema.registry import DUPLICATE, OVERWRITTEN

PIXEL_DATA = "PixelData"

_TOLD = ["batch_id", "object_id", "source", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]
_LOOKED_AT = [
    *dict.fromkeys([*_TOLD, *COLUMNS, "uri", "member", "size", "content_digest", "bytes_digest", "ingested_at"])
]

_CANDIDATES = " OR ".join(f"{key(one)} IN (SELECT shared_key FROM keys)" for one in SHARED)
"""SQL for the rows of flat_metadata that share one of the wanted keys."""

_CURRENT = f"""
-- rows of flat_metadata whose place was not claimed again
SELECT flat.* FROM candidates AS flat ANTI JOIN overwritten AS last ON {OVERTAKEN}
"""

_MEMBERS = f"""
-- one row per object and likeness in which it may have a group; base: what members share besides the key, NULL where it
-- has no part in such a group; read_digest: what tells those apart that were read whole
SELECT * FROM (
    SELECT * EXCLUDE (one), unnest(one) FROM (
        SELECT *, unnest([
            {{'kind': 'bytes', 'shared_key': {key("sop")}, 'read_digest': bytes_digest,
                'base': if(content_digest IS NULL, NULL, concat_ws('/', content_digest, size))}},
            {{'kind': 'sop_instance', 'shared_key': {key("sop")}, 'read_digest': NULL, 'base': ''}},
            {{'kind': 'header', 'shared_key': {key("header")}, 'read_digest': pixel_digest, 'base': ''}},
            {{'kind': 'pixels', 'shared_key': {key("pixels")}, 'read_digest': NULL, 'base': ''}}
        ]) AS one FROM current_rows
    )
) SEMI JOIN keys USING (shared_key) WHERE base IS NOT NULL
"""

_GROUPS = f"""
-- one row per member of a group; a group of objects that are the same bytes is none of another kind. Groups are made by
-- aggregates, which cost half of what windows do
WITH parted AS (
    SELECT members.*, if(apart.kind IS NULL, '', coalesce(read_digest, 'unread')) AS part
    FROM members LEFT JOIN (
        SELECT kind, shared_key, base FROM members GROUP BY ALL HAVING min(read_digest) <> max(read_digest)
    ) AS apart USING (kind, shared_key, base)
),
named AS (
    SELECT *, left(md5(concat_ws('/', kind, shared_key, base, part)), 16) AS group_id FROM parted
),
found AS (
    SELECT group_id, min({{'ingested_at': ingested_at, 'batch_id': batch_id, 'object_id': object_id,
        'bytes_digest': bytes_digest, 'pixel_digest': pixel_digest}}) AS first
    FROM named GROUP BY group_id, kind
    HAVING count(*) > 1 AND (
        kind = 'bytes'
        OR kind = 'pixels' AND min(SOPInstanceUID) <> max(SOPInstanceUID)
        OR kind IN ('header', 'sop_instance') AND (
            min((content_digest, size)) <> max((content_digest, size)) OR min(bytes_digest) <> max(bytes_digest)
        )
    )
)
SELECT
    group_id, kind, shared_key, {", ".join(f'"{name}"' for name in _TOLD)}, bytes_digest, pixel_digest, first,
    batch_id = first.batch_id AND object_id = first.object_id AS is_first
FROM named JOIN found USING (group_id)
"""

_KNOWN = """
-- one row per member and first one of its group: how they differ by what the table says, where neither is of the batch
SELECT own.batch_id, own.object_id, first.batch_id AS first_batch, first.object_id AS first_object,
    any_value(own.differs_in) AS differs_in
FROM there_rows AS own JOIN there_rows AS first USING (group_id)
WHERE own.kind <> 'bytes' AND NOT own.is_first AND first.is_first
    AND own.batch_id IS DISTINCT FROM $batch AND first.batch_id IS DISTINCT FROM $batch
GROUP BY ALL
"""

_PAIRS = """
-- one row per member and first one of its group whose headers must be read to tell how they differ
SELECT DISTINCT batch_id, object_id, first.batch_id AS first_batch, first.object_id AS first_object
FROM groups ANTI JOIN known ON known.batch_id = groups.batch_id AND known.object_id = groups.object_id
    AND known.first_batch = groups.first.batch_id AND known.first_object = groups.first.object_id
WHERE kind <> 'bytes' AND NOT is_first
ORDER BY first_batch, batch_id, first_object, object_id
"""

_ROWS = f"""
-- the rows of the table; a SOP Instance UID under which objects differ in their transfer syntax alone makes no group
SELECT
    group_id, kind, shared_key, {", ".join(f'groups."{name}"' for name in _TOLD)}, is_first,
    CASE kind
        WHEN 'pixels' THEN 'pixel data'
        WHEN 'bytes' THEN if(groups.bytes_digest IS NULL OR first.bytes_digest IS NULL, 'header and size', 'bytes')
        ELSE if(groups.pixel_digest IS NULL OR first.pixel_digest IS NULL, 'header', 'header and pixel data')
    END AS compared,
    if(groups.pixel_digest <> first.pixel_digest AND NOT list_contains(coalesce(differs, []), '{PIXEL_DATA}'),
        list_append(coalesce(differs, []), '{PIXEL_DATA}'), coalesce(differs, [])) AS differs_in
FROM groups LEFT JOIN (
    SELECT batch_id, object_id, first_batch, first_object, differs_in AS differs FROM told
    UNION ALL SELECT batch_id, object_id, first_batch, first_object, differs_in FROM known
) AS told ON kind <> 'bytes' AND told.batch_id = groups.batch_id AND told.object_id = groups.object_id
    AND told.first_batch = groups.first.batch_id AND told.first_object = groups.first.object_id
QUALIFY kind <> 'sop_instance' OR bool_or(len(list_filter(differs_in, lambda name: name <> '{TRANSFER_SYNTAX}')) > 0)
    OVER (PARTITION BY group_id)
"""


@dataclass(frozen=True)
class Looked:
    """What the step has found in the index, for the rules of the same batch.

    keys: that several objects may share. batches: that hold these.
    """

    keys: pa.Table
    batches: Sequence[str]


def publish_duplicates(lake: Lake, staging: Staging) -> int:
    """Makes the groups again that a batch touches; how many members they have now.

    Raises StagingMissing when flat_metadata was not published, LakeError.
    """
    staged = staging.read_whole(Part.ALIKE)
    looked, members = _make(lake, staged["shared_key"], staging, partial(looked_for, staged))
    staging.remember(looked)
    return members


def make_again(lake: Lake, keys: pa.Array | pa.ChunkedArray) -> int:
    """Makes the groups of some keys again; how many members they have now. Raises LakeError."""
    every = pa.chunked_array(keys) if isinstance(keys, pa.Array) else keys
    return _make(lake, every, None, lambda _: every)[1]


def _make(
    lake: Lake, keys: pa.ChunkedArray, staging: Staging | None, among: Callable[[pa.Table], pa.ChunkedArray]
) -> tuple[Looked, int]:
    """Makes the groups of some keys. among: those keys of which there may be rows, by those that are shared now."""
    with lake.committing(DUPLICATE.name):
        shared, batches = several(lake, keys)
        there = _there(lake, among(shared))
        looked, rows = Looked(shared, batches), DUPLICATE.schema.empty_table()
        if len(shared):
            rows = _rows(lake, looked, there, staging)
        if len(rows) or len(there):
            _replace(lake, there, rows)
    return looked, len(rows)


def _replace(lake: Lake, there: pa.Table, rows: pa.Table) -> None:
    """Puts rows in place of those that the table has of the same keys.

    Where a group has got members and is the same otherwise, these alone are added: keys are spread over the whole
    table, so that replacing those of a batch would rewrite most of its files.
    """
    with lake.cursor() as connection:
        connection.register("there_rows", there)
        connection.register("made", rows)
        found = connection.execute(
            "SELECT DISTINCT shared_key FROM (FROM there_rows EXCEPT FROM made) ORDER BY 1"
        ).fetchall()
        gone = [key for (key,) in found]
        connection.register("gone", pa.table({"shared_key": pa.array(gone, pa.string())}))
        fresh = arrow(
            connection,
            f"FROM made ANTI JOIN (FROM there_rows ANTI JOIN gone USING (shared_key)) "
            f"USING ({', '.join(DUPLICATE.key)})",
        )
        lake.replace(DUPLICATE.name, gone, fresh.cast(DUPLICATE.schema))


def _there(lake: Lake, keys: pa.ChunkedArray) -> pa.Table:
    """The rows that the table has of some keys."""
    if not len(keys) or not len(lake.extents(DUPLICATE.name)):
        return DUPLICATE.schema.empty_table()
    names = ", ".join(DUPLICATE.schema.names)
    source = scan(lake, DUPLICATE.name, within={DUPLICATE.replaced_by: keys.to_pylist()})
    with lake.cursor() as connection:
        connection.register("wanted", pa.table({DUPLICATE.replaced_by: keys}))
        found = arrow(connection, f"SELECT {names} FROM {source} SEMI JOIN wanted USING ({DUPLICATE.replaced_by})")
        return found.cast(DUPLICATE.schema)


def _rows(lake: Lake, looked: Looked, there: pa.Table, staging: Staging | None) -> pa.Table:
    """The rows of the groups of some keys.

    there: those that the table has. staging: of the batch that is held, whose rows are others by now.
    """
    kept = None if staging is None else staging.recall(KeptHeaders)
    with lake.cursor() as connection:
        _find_groups(lake, connection, looked)
        connection.register("there_rows", there)
        known = arrow(connection, _KNOWN.replace("$batch", "NULL" if staging is None else quoted(staging.batch_id)))
        connection.register("known", known)
        pairs = [(ObjectName(*pair[:2]), ObjectName(*pair[2:])) for pair in connection.execute(_PAIRS).fetchall()]
        connection.register("told", _told(differences(lake, pairs, kept)))
        return arrow(connection, _ROWS).select(DUPLICATE.schema.names).cast(DUPLICATE.schema)


def _told(found: Mapping[Pair, Sequence[str]]) -> pa.Table:
    """How members differ from the first ones, as rows."""
    columns = [[one[at] for one in ((*own, *first) for own, first in found)] for at in range(4)]
    names = ("batch_id", "object_id", "first_batch", "first_object")
    arrays = {name: pa.array(column, pa.string()) for name, column in zip(names, columns, strict=True)}
    return pa.table({**arrays, "differs_in": pa.array(list(found.values()), pa.list_(pa.string()))})


def _find_groups(lake: Lake, connection: duckdb.DuckDBPyConnection, looked: Looked) -> None:
    """Makes the table `groups`: one row per member of a group of some keys."""
    flat = {"batch_id": looked.batches}
    connection.register("keys", looked.keys)
    names = ", ".join(f'"{name}"' for name in _LOOKED_AT)
    connection.execute(
        f"CREATE TEMP TABLE candidates AS SELECT {names} FROM {scan(lake, 'flat_metadata', within=flat)}{where(flat)} "
        f"AND {OBJECTS} AND ({_CANDIDATES})"
    )
    again: Mapping[str, Sequence[str]] = {"place_key": []}
    if len(lake.extents(OVERWRITTEN.name)):
        places = arrow(connection, "SELECT DISTINCT source, uri, member FROM candidates")
        again = {"place_key": overwritten.place_keys(places).to_pylist()}
    source = scan(lake, OVERWRITTEN.name, within=again)
    connection.execute(f"CREATE TEMP VIEW overwritten AS SELECT * FROM {source}{where(again)}")
    connection.execute(f"CREATE TEMP TABLE current_rows AS {_CURRENT}")
    connection.execute(f"CREATE TEMP TABLE members AS {_MEMBERS}")
    connection.execute(f"CREATE TEMP TABLE groups AS {_GROUPS}")
