"""Rules of duplicates: the index has every digest, groups are what objects say, and how their members differ.

Belongs here: SQL of its own over flat_metadata, with what arrived instead of the table overwritten. Does not belong
here: the SQL that makes groups (`curation.duplicates`); `verify`, which looks at all keys without the index.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from dicom_assets.batch.checks.arrivals import arrivals, placed
from dicom_assets.batch.checks.contract import SHOWN, CheckContext, CheckResult, NamedRule, compared
from dicom_assets.curation.digest_index import looked_for, several
from dicom_assets.curation.duplicates import Looked
from dicom_assets.lake.query import arrow, scan, where
from dicom_assets.lake.staging import Part
from dicom_assets.schema.registry import BATCH_DIGEST, DUPLICATE

DIGESTS = """
-- one row per digest of some objects: how many of them have it
SELECT batch_id, ('0x' || md5(said)[1:15])::BIGINT AS digest, count(*) AS objects
FROM (
    SELECT batch_id, unnest([
        'sop:' || SOPInstanceUID, 'header:' || stable_digest, 'pixels:' || pixel_digest
    ]) AS said
    FROM {flat} WHERE operation <> 'delete' AND version_text IS NULL
)
WHERE said IS NOT NULL
GROUP BY ALL
"""
"""flat: rows of flat_metadata."""

_NARROW = """batch_id, object_id, source, uri, member, operation, version_text, ingested_at, study_key, SOPInstanceUID,
    size, content_digest, stable_digest, bytes_digest, pixel_digest"""

GROUPS = """
-- one row per group of objects that are alike: its members, oldest first; alone: those with another content
WITH alike AS (
    SELECT 'bytes' AS kind, 'sop:' || SOPInstanceUID AS said, (content_digest, size)::VARCHAR AS besides,
        bytes_digest AS digest, *
    FROM {flat} WHERE content_digest IS NOT NULL
    UNION ALL SELECT 'sop_instance', 'sop:' || SOPInstanceUID, '', NULL, * FROM {flat}
    UNION ALL SELECT 'header', 'header:' || stable_digest, '', pixel_digest, *
        FROM {flat} WHERE stable_digest IS NOT NULL
    UNION ALL SELECT 'pixels', 'pixels:' || pixel_digest, '', NULL, * FROM {flat} WHERE pixel_digest IS NOT NULL
),
known AS (SELECT kind, said, besides, min(digest) <> max(digest) AS differ FROM alike GROUP BY ALL)
SELECT kind, md5(said)[1:16] AS shared_key, CASE WHEN differ THEN digest END AS own, besides,
    list_sort(list({{'at': ingested_at, 'batch_id': batch_id, 'object_id': object_id}})) AS members
FROM alike JOIN known USING (kind, said, besides)
GROUP BY ALL
HAVING count(*) > 1 AND CASE kind
    WHEN 'bytes' THEN true
    WHEN 'pixels' THEN min(SOPInstanceUID) < max(SOPInstanceUID)
    ELSE min((content_digest, size)) < max((content_digest, size)) OR min(bytes_digest) < max(bytes_digest) END
"""
"""flat: objects that count, rows of flat_metadata."""

MEMBERS = """
SELECT kind, shared_key, one.batch_id, one.object_id, members[1].object_id AS first_one, len(members) AS number
FROM ({groups}), unnest(members) AS each(one)
"""
"""groups: SQL as GROUPS is."""

THERE = """
SELECT kind, shared_key, batch_id, object_id,
    max(object_id) FILTER (is_first) OVER alike AS first_one, count(*) OVER alike AS number
FROM {duplicate}
WINDOW alike AS (PARTITION BY group_id)
"""
"""duplicate: rows of the table."""

_SAMPLE = 20
"""Members of one batch that are compared with their first ones in one other batch, by their headers."""

_DIFFERING = """
-- members of a sample whose header differs from that of the first one in another number of elements than is told; pixel
-- data may differ by what was read of them
SELECT object_id FROM sample LEFT JOIN (
    SELECT number, count(*) FILTER (own IS DISTINCT FROM other) AS differing
    FROM (
        SELECT number, key, max(said) FILTER (is_own) AS own, max(said) FILTER (NOT is_own) AS other
        FROM (
            SELECT number, is_own, element.key,
                regexp_replace(element.value::VARCHAR, '"BulkDataURI":"[?]offset=[0-9]+', '', 'g') AS said
            FROM (
                SELECT number, true AS is_own, batch_id, object_id FROM sample
                UNION ALL SELECT number, false, first_batch, first_one FROM sample
            ) JOIN headers USING (batch_id, object_id), json_each(headers.header) AS element
        )
        WHERE (key >= '0003' OR key = '00020010') AND key <> '7FE00010'
        GROUP BY ALL
    )
    GROUP BY ALL
) USING (number)
WHERE differing IS DISTINCT FROM told
"""


def digests_are_indexed(context: CheckContext) -> CheckResult:
    """The index has the digests of the batch's objects, and no other one of it."""
    scope = context.staging.scope("flat_metadata")["flat_metadata"]
    listed = "batch_id, SOPInstanceUID, stable_digest, pixel_digest, operation, version_text"
    flat = f"(SELECT {listed} FROM {scan(context.lake, 'flat_metadata', within=scope)}{where(scope)})"
    index = f"(SELECT * FROM {scan(context.lake, BATCH_DIGEST.name, within=scope)}{where(scope)})"
    with context.lake.cursor() as connection:
        return compared(
            connection, DIGESTS.format(flat=flat), f"SELECT batch_id, digest, objects FROM {index}", "digest"
        )


def _looked(context: CheckContext) -> Looked:
    """What the step found in the index, or what is found there now, where another process has taken the step."""
    found = context.staging.recall(Looked)
    return found or Looked(*several(context.lake, context.staging.read_whole(Part.ALIKE)["shared_key"]))


@dataclass(frozen=True)
class _Judged:
    """What was said of groups. version: of the index then; None where groups were left to another batch."""

    result: CheckResult
    version: int | None


_UNSETTLED = """
-- keys of which another batch that is not closed has a part: an object, what came to its place, a member of a group;
-- changing: batches that are neither closed nor the one that is judged
SELECT DISTINCT md5(said)[1:16] AS shared_key FROM (
    SELECT unnest(['sop:' || SOPInstanceUID, 'header:' || stable_digest, 'pixels:' || pixel_digest]) AS said
    FROM arrived WHERE batch_id IN (FROM changing) OR last_batch IN (FROM changing)
)
WHERE said IS NOT NULL
UNION
SELECT shared_key FROM duplicate_rows WHERE batch_id IN (FROM changing)
"""


def members_are_alike(context: CheckContext) -> CheckResult:
    """The groups that the batch touches have the members that flat_metadata has, oldest first, and no others.

    Whether objects of one SOP Instance UID differ in more than File Meta Information is told by their headers alone:
    such a group may be missing here (`differences_are_told`). What another batch that is not closed has a part in may
    change between two reads: it is left to the batch that closes last.
    """
    version = context.lake.extents(BATCH_DIGEST.name).version
    with context.lake.cursor() as connection:
        closed = arrow(connection, f"SELECT batch_id FROM {scan(context.lake, 'batches')} WHERE status = 'closed'")
    looked = context.once("looked", _looked)
    there = context.once("duplicate", _there)
    found, is_whole = CheckResult(True, 0, 0), True
    if len(looked.keys) or len(there):
        found, is_whole = _alike(context, looked, there, closed)
    context.staging.remember(_Judged(found, version if is_whole else None))
    return found


def _alike(context: CheckContext, looked: Looked, there: pa.Table, closed: pa.Table) -> tuple[CheckResult, bool]:
    """Compares groups; and whether these are all. there: rows of the table; closed: batches that change no more."""
    flat = {"batch_id": looked.batches}
    with context.lake.cursor() as connection:
        connection.register("keys", looked.keys)
        connection.register("closed", closed)
        connection.register("duplicate_rows", there)
        connection.execute(
            f"CREATE TEMP TABLE shared AS SELECT {_NARROW} FROM {scan(context.lake, 'flat_metadata', within=flat)}"
            f"{where(flat)} AND operation <> 'delete' AND version_text IS NULL AND ("
            "md5('sop:' || SOPInstanceUID)[1:16] IN (SELECT shared_key FROM keys) "
            "OR md5('header:' || stable_digest)[1:16] IN (SELECT shared_key FROM keys) "
            "OR md5('pixels:' || pixel_digest)[1:16] IN (SELECT shared_key FROM keys))"
        )
        studies = [key for (key,) in connection.execute("SELECT DISTINCT study_key FROM shared").fetchall()]
        rows = placed(
            "shared", arrivals(context.lake, {"batch_id": looked.batches, "study_key": studies}, studies, "shared")
        )
        connection.execute(f"CREATE TEMP TABLE arrived AS SELECT * FROM {rows}")
        connection.execute(
            f"""
            CREATE TEMP TABLE changing AS SELECT batch_id FROM (
                SELECT batch_id FROM arrived UNION SELECT last_batch FROM arrived UNION
                SELECT batch_id FROM duplicate_rows
            ) ANTI JOIN closed USING (batch_id) WHERE batch_id <> {context.batch}
            """
        )
        connection.execute(f"CREATE TEMP TABLE unsettled AS {_UNSETTLED}")
        groups = GROUPS.format(flat="(SELECT * FROM arrived WHERE takes_part)")
        connection.execute(
            f"CREATE TEMP TABLE expected AS SELECT * FROM ({MEMBERS.format(groups=groups)}) SEMI JOIN keys "
            "USING (shared_key) ANTI JOIN unsettled USING (shared_key)"
        )
        connection.execute(
            f"CREATE TEMP TABLE there AS FROM ({THERE.format(duplicate='duplicate_rows')}) "
            "ANTI JOIN unsettled USING (shared_key)"
        )
        left = connection.execute(
            "SELECT 1 FROM unsettled WHERE shared_key IN (SELECT shared_key FROM keys) "
            "OR shared_key IN (SELECT shared_key FROM duplicate_rows) LIMIT 1"
        ).fetchall()
        result = compared(
            connection,
            "SELECT * FROM expected WHERE kind <> 'sop_instance' "
            "OR shared_key IN (SELECT shared_key FROM there WHERE kind = 'sop_instance')",
            "SELECT * FROM there",
        )
    return result, not left


def groups_hold_the_batch(context: CheckContext) -> CheckResult:
    """Groups that were left to the batch that closes last are judged, with objects of whatever batch has come since.

    Those that were judged whole while the batch was held are not judged again if no other batch has come since.
    """
    judged = context.staging.recall(_Judged)
    if judged is not None and judged.version == context.lake.extents(BATCH_DIGEST.name).version:
        return judged.result
    context.staging.remember(Looked(*several(context.lake, context.staging.read_whole(Part.ALIKE)["shared_key"])))
    return members_are_alike(context)


def _there(context: CheckContext) -> pa.Table:
    """The rows that the table has of the keys that the batch touches."""
    if not len(context.lake.extents(DUPLICATE.name)):
        return DUPLICATE.schema.empty_table()
    staged, shared = context.staging.read_whole(Part.ALIKE), context.once("looked", _looked).keys
    keys = looked_for(staged, shared)
    source = scan(context.lake, DUPLICATE.name, within={DUPLICATE.replaced_by: keys.to_pylist()})
    with context.lake.cursor() as connection:
        connection.register("wanted", pa.table({"shared_key": keys}))
        return arrow(connection, f"SELECT * FROM {source} SEMI JOIN wanted USING (shared_key)")


def differences_are_told(context: CheckContext) -> CheckResult:
    """Of some members the number of attributes told is the number of elements in which their headers differ."""
    there = context.once("duplicate", _there)
    if not len(there):
        return CheckResult(True, 0, 0)
    with context.lake.cursor() as connection:
        connection.register("duplicate_rows", there)
        connection.execute(
            f"""
            CREATE TEMP TABLE sample AS
            SELECT row_number() OVER () AS number, * FROM (
                SELECT own.batch_id, own.object_id, first.batch_id AS first_batch, first.object_id AS first_one,
                    len(list_filter(own.differs_in, lambda name: name <> 'PixelData')) AS told
                FROM duplicate_rows AS own JOIN duplicate_rows AS first USING (group_id)
                WHERE own.kind <> 'bytes' AND NOT own.is_first AND first.is_first AND own.batch_id = {context.batch}
                QUALIFY first.batch_id = min(first.batch_id) OVER ()
                ORDER BY hash(own.object_id, own.kind) LIMIT {_SAMPLE}
            )
            """
        )
        (number,) = connection.execute("SELECT count(*) FROM sample").fetchall()[0]
        if not number:
            return CheckResult(True, 0, 0)
        sides = "SELECT batch_id, object_id FROM sample UNION SELECT first_batch, first_one FROM sample"
        found = connection.execute(sides).fetchall()
        within = {"batch_id": sorted({batch for batch, _ in found}), "object_id": sorted({one for _, one in found})}
        connection.execute(
            f"CREATE TEMP TABLE headers AS SELECT batch_id, object_id, header "
            f"FROM {scan(context.lake, 'flat_metadata', within=within)}{where(within)}"
        )
        wrong = sorted({one for (one,) in connection.execute(_DIFFERING).fetchall()})
    return CheckResult(not wrong, number, number - len(wrong), wrong[:SHOWN])


def duplicates_are_few(context: CheckContext) -> CheckResult:
    """None of the batch's objects is there more than once."""
    there = context.once("duplicate", _there)
    with context.lake.cursor() as connection:
        connection.register("duplicate_rows", there)
        found = connection.execute(
            "SELECT kind, count(DISTINCT object_id), min(DISTINCT object_id, "
            f"{SHOWN}) FROM duplicate_rows WHERE batch_id = {context.batch} GROUP BY 1 ORDER BY 1"
        ).fetchall()
        (objects,) = connection.execute(
            f"SELECT count(DISTINCT object_id) FROM duplicate_rows WHERE batch_id = {context.batch}"
        ).fetchall()[0]
    told = ", ".join(f"{kind}: {number}" for kind, number, _ in found)
    names = sorted({name for *_, some in found for name in some})[:SHOWN]
    return CheckResult(not found, 0, objects, names, f"Objects of the batch by kind of group: {told}." if found else "")


DUPLICATE_RULES: tuple[NamedRule, ...] = (
    NamedRule("duplicate", "digests_are_indexed", "The index has every digest of the batch", digests_are_indexed),
    NamedRule("duplicate", "members_are_alike", "Groups of duplicates are what objects say", members_are_alike),
    NamedRule("duplicate", "differences_are_told", "Members differ as told", differences_are_told),
    NamedRule("duplicate", "no_duplicates", "No object of the batch is there more than once", duplicates_are_few,
              blocking=False),
)  # fmt: skip
"""Every rule of this module."""
