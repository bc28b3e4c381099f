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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from dicom_assets.curation.differences import TRANSFER_SYNTAX, ObjectName, Pair, differences
from dicom_assets.curation.digest_index import COLUMNS, OBJECTS, SHARED, key, several
from dicom_assets.lake import overwritten
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.hierarchy import OVERTAKEN
from dicom_assets.lake.query import arrow, connect, scan, where
from dicom_assets.lake.staging import Part, Staging
from dicom_assets.schema.duplicate_tables import Likeness
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

_MEMBERS = " UNION ALL ".join(
    f"SELECT *, '{one}' AS shared, {key(one)} AS shared_key FROM current_rows "
    f"SEMI JOIN keys ON {key(one)} = keys.shared_key"
    for one in SHARED
)
"""SQL for one row per object and wanted key that it has."""

_LIKENESSES = """
-- one row per object and likeness in which it may have a group; base: what members share besides the key; read_digest:
-- what tells those apart that were read whole
SELECT 'bytes' AS kind, concat_ws('/', content_digest, size) AS base, bytes_digest AS read_digest, * FROM members
WHERE shared = 'sop' AND content_digest IS NOT NULL
UNION ALL SELECT 'sop_instance', '', NULL, * FROM members WHERE shared = 'sop'
UNION ALL SELECT 'header', '', pixel_digest, * FROM members WHERE shared = 'header'
UNION ALL SELECT 'pixels', '', NULL, * FROM members WHERE shared = 'pixels'
"""

_GROUPS = f"""
-- one row per member of a group; a group of objects that are the same bytes is none of another kind
WITH alike AS ({_LIKENESSES}),
parted AS (
    SELECT *, if(min(read_digest) OVER one <> max(read_digest) OVER one, coalesce(read_digest, 'unread'), '') AS part
    FROM alike WINDOW one AS (PARTITION BY kind, shared_key, base)
),
named AS (
    SELECT *, left(md5(concat_ws('/', kind, shared_key, base, part)), 16) AS group_id FROM parted
)
SELECT
    group_id, kind, shared_key, {", ".join(f'"{name}"' for name in _TOLD)}, bytes_digest, pixel_digest,
    row_number() OVER ordered AS place,
    first_value({{'batch_id': batch_id, 'object_id': object_id, 'bytes_digest': bytes_digest,
        'pixel_digest': pixel_digest}}) OVER ordered AS first
FROM named
WINDOW ordered AS (PARTITION BY group_id ORDER BY ingested_at, batch_id, object_id),
    alone AS (PARTITION BY group_id)
QUALIFY count(*) OVER alone > 1 AND (
    kind = 'bytes'
    OR kind = 'pixels' AND min(SOPInstanceUID) OVER alone <> max(SOPInstanceUID) OVER alone
    OR kind IN ('header', 'sop_instance') AND (
        min((content_digest, size)) OVER alone <> max((content_digest, size)) OVER alone
        OR min(bytes_digest) OVER alone <> max(bytes_digest) OVER alone
    )
)
"""


@dataclass(frozen=True)
class Looked:
    """What the step has found in the index, for the rules of the same batch. keys: that several objects may share."""

    keys: pa.Table
    batches: Sequence[str]


def publish_duplicates(lake: Lake, staging: Staging) -> int:
    """Makes the groups again that a batch touches; how many members they have now.

    Raises StagingMissing when flat_metadata was not published, LakeError.
    """
    keys = staging.read_whole(Part.ALIKE)["shared_key"]
    looked, members = _make(lake, keys, staging.batch_id)
    staging.remember(looked)
    return members


def make_again(lake: Lake, keys: pa.Array | pa.ChunkedArray) -> int:
    """Makes the groups of some keys again; how many members they have now. Raises LakeError."""
    return _make(lake, keys, None)[1]


def _make(lake: Lake, keys: pa.Array | pa.ChunkedArray, batch_id: str | None) -> tuple[Looked, int]:
    with lake.committing(DUPLICATE.name):
        there = _there(lake, keys)
        shared, batches = several(lake, keys)
        if not len(shared) and not len(there):
            return Looked(shared, batches), 0
        rows = pa.Table.from_pylist(list(_rows(lake, shared, batches, there, batch_id)), schema=DUPLICATE.schema)
        touched = {*shared["shared_key"].to_pylist(), *there["shared_key"].to_pylist()}
        if not rows.equals(there):
            lake.replace(DUPLICATE.name, sorted(touched), rows)
    return Looked(shared, batches), len(rows)


def _there(lake: Lake, keys: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The rows that the table has of some keys."""
    if not len(lake.extents(DUPLICATE.name)):
        return DUPLICATE.schema.empty_table()
    within = {DUPLICATE.name: {DUPLICATE.replaced_by: keys.to_pylist()}}
    with connect(lake, [DUPLICATE.name], within=within) as connection:
        return arrow(connection, f"FROM {DUPLICATE.name}").select(DUPLICATE.schema.names).cast(DUPLICATE.schema)


def _rows(
    lake: Lake, keys: pa.Table, batches: Sequence[str], there: pa.Table, batch_id: str | None
) -> Iterator[Mapping[str, Any]]:
    """The rows of the groups of some keys. there: those that the table has; batch_id: whose rows are others by now."""
    if not len(keys):
        return
    with lake.cursor() as connection:
        members = _groups(lake, connection, keys, batches)
    known = _known(there, batch_id)
    told = differences(lake, [pair for one in members if (pair := _pair(one)) is not None and pair not in known])
    rows = [_row(one, {**known, **told}) for one in members]
    same = {row["group_id"] for row in rows} - {row["group_id"] for row in rows if _has_other_content(row)}
    yield from (row for row in rows if row["kind"] != Likeness.SOP_INSTANCE or row["group_id"] not in same)


def _groups(
    lake: Lake, connection: duckdb.DuckDBPyConnection, keys: pa.Table, batches: Sequence[str]
) -> list[dict[str, Any]]:
    flat = {"batch_id": batches}
    connection.register("keys", keys)
    names = ", ".join(f'"{name}"' for name in _LOOKED_AT)
    connection.execute(
        f"CREATE TEMP TABLE candidates AS SELECT {names} FROM {scan(lake, 'flat_metadata', within=flat)}{where(flat)} "
        f"AND {OBJECTS} AND ({_CANDIDATES})"
    )
    places = arrow(connection, "SELECT DISTINCT source, uri, member FROM candidates")
    again: Mapping[str, Sequence[str]] = {"place_key": []}
    if len(lake.extents(OVERWRITTEN.name)):
        again = {"place_key": overwritten.place_keys(places).to_pylist()}
    source = scan(lake, OVERWRITTEN.name, within=again)
    connection.execute(f"CREATE TEMP VIEW overwritten AS SELECT * FROM {source}{where(again)}")
    connection.execute(f"CREATE TEMP TABLE current_rows AS {_CURRENT}")
    connection.execute(f"CREATE TEMP TABLE members AS {_MEMBERS}")
    found: list[dict[str, Any]] = arrow(connection, _GROUPS).to_pylist()
    return sorted(found, key=lambda one: (one["first"]["batch_id"], one["group_id"], one["place"]))


def _pair(member: Mapping[str, Any]) -> Pair | None:
    """A member and the first of its group, where their headers must be read to tell how they differ."""
    if member["kind"] == Likeness.BYTES or member["place"] == 1:
        return None
    first = member["first"]
    own = ObjectName(member["batch_id"], member["object_id"])
    return own, ObjectName(first["batch_id"], first["object_id"])


def _known(there: pa.Table, batch_id: str | None) -> dict[Pair, Sequence[str]]:
    """How members differ from the first ones by what the table says, where neither is a row of this batch."""
    listed = there.select(["group_id", "kind", "batch_id", "object_id", "is_first", "differs_in"]).to_pylist()
    firsts = {row["group_id"]: ObjectName(row["batch_id"], row["object_id"]) for row in listed if row["is_first"]}
    found: dict[Pair, Sequence[str]] = {}
    for row in listed:
        own, first = ObjectName(row["batch_id"], row["object_id"]), firsts.get(row["group_id"])
        if row["kind"] == Likeness.BYTES or first is None or batch_id in (own.batch_id, first.batch_id):
            continue
        found[own, first] = row["differs_in"]
    return found


def _row(member: Mapping[str, Any], told: Mapping[Pair, Sequence[str]]) -> dict[str, Any]:
    pair, first = _pair(member), member["first"]
    differs = [*told[pair]] if pair is not None else []
    read, first_read = member["pixel_digest"], first["pixel_digest"]
    if None not in (read, first_read) and read != first_read and PIXEL_DATA not in differs:
        differs.append(PIXEL_DATA)
    return {
        **{name: member[name] for name in ("group_id", "kind", "shared_key", *_TOLD)},
        "is_first": member["place"] == 1,
        "compared": _compared(member, first),
        "differs_in": differs,
    }


def _compared(member: Mapping[str, Any], first: Mapping[str, Any]) -> str:
    """What of a member was compared with the first one."""
    if member["kind"] == Likeness.PIXELS:
        return "pixel data"
    if member["kind"] == Likeness.BYTES:
        return "header and size" if None in (member["bytes_digest"], first["bytes_digest"]) else "bytes"
    return "header" if None in (member["pixel_digest"], first["pixel_digest"]) else "header and pixel data"


def _has_other_content(row: Mapping[str, Any]) -> bool:
    return any(name != TRANSFER_SYNTAX for name in row["differs_in"])
