"""Duplicates over the whole lake: every group that flat_metadata has, without the index, against the table.

Belongs here: the rule, and which keys have to be made again. Does not belong here: the rules of one batch, whose SQL it
shares (`checks.duplicate_checks`), making groups (`curation.duplicates`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from dicom_assets.batch.checks.duplicate_checks import DIGESTS, GROUPS, MEMBERS, THERE
from dicom_assets.batch.verification.findings import SHOWN, Finding, Sound
from dicom_assets.schema.registry import BATCH_DIGEST, DUPLICATE, FLAT_METADATA, OVERWRITTEN

RULE = "duplicates"
DESCRIPTION = "Groups of duplicates = objects that are alike in flat_metadata"

_SHARED = """
-- objects that share a digest with another one and whose place was not claimed again
SELECT * FROM (
    SELECT batch_id, object_id, source, uri, member, ingested_at, SOPInstanceUID, size, content_digest, stable_digest,
        bytes_digest, pixel_digest
    FROM {flat}
    WHERE operation = 'upsert' AND version_text IS NULL AND (
        ('0x' || md5('sop:' || SOPInstanceUID)[1:15])::BIGINT IN (SELECT digest FROM repeated)
        OR ('0x' || md5('header:' || stable_digest)[1:15])::BIGINT IN (SELECT digest FROM repeated)
        OR ('0x' || md5('pixels:' || pixel_digest)[1:15])::BIGINT IN (SELECT digest FROM repeated)
    )
) AS flat
WHERE NOT EXISTS (
    SELECT 1 FROM {overwritten} AS last
    WHERE last.source = flat.source AND last.uri = flat.uri
        AND coalesce(last.member, '') = coalesce(flat.member, '') AND last.claimed_at > flat.ingested_at
)
"""

_OTHER_CONTENT = """
-- SOP Instance UIDs, as keys, whose objects differ in more than File Meta Information
SELECT shared_key
FROM (SELECT shared_key, unnest(members, recursive := true) FROM expected_groups WHERE kind = 'sop_instance') AS own
JOIN (
    SELECT batch_id, object_id, pixel_digest, (
        SELECT hash(list((one.key, CASE
            WHEN one.key IN ('7FE00008', '7FE00009', '7FE00010')
            THEN regexp_extract(one.value::VARCHAR, 'length=[0-9]+')
            ELSE regexp_replace(one.value::VARCHAR, '"BulkDataURI":"[?]offset=[0-9]+', '', 'g') END)
            ORDER BY one.key))
        FROM json_each(header) AS one WHERE NOT starts_with(one.key, '0002')
    ) AS said
    FROM {flat}
    WHERE object_id IN (SELECT unnest(members).object_id FROM expected_groups WHERE kind = 'sop_instance')
) AS flat USING (batch_id, object_id)
GROUP BY 1 HAVING min(said) <> max(said) OR count(DISTINCT pixel_digest) > 1
"""

_DIFFERING = """
SELECT DISTINCT shared_key FROM (
    SELECT kind, shared_key, batch_id, object_id, first_one, number, 1 AS times FROM expected
    WHERE kind <> 'sop_instance' OR shared_key IN (SELECT shared_key FROM other_content)
    UNION ALL
    SELECT *, -1 AS times FROM there
)
WHERE ('0x' || left(shared_key, 15))::BIGINT NOT IN (SELECT digest FROM moving)
GROUP BY kind, shared_key, batch_id, object_id, first_one, number HAVING sum(times) <> 0
ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Alike(Finding):
    """What the rule found. keys: values of shared_key whose groups are to be made again."""

    keys: Sequence[str] = ()


def look(sound: Sound, closed: pa.Table) -> Finding:
    """What the rule finds. closed: batch_ids, read before anything else; what other batches touch is passed over.

    Raises LakeError, duckdb.Error.
    """
    names = (FLAT_METADATA.name, OVERWRITTEN.name, DUPLICATE.name, BATCH_DIGEST.name)
    if not sound.opens(*names):
        return Alike(RULE, DESCRIPTION, told="not looked at: a table cannot be opened", is_note=True)
    # The table before what it is made from, the index last: a batch enters itself before it publishes anything.
    duplicate, gone, flat, index = (
        sound.source(name) for name in (DUPLICATE.name, OVERWRITTEN.name, FLAT_METADATA.name, BATCH_DIGEST.name)
    )
    with sound.lake.cursor() as connection:
        connection.register("closed", closed)
        connection.execute(f"CREATE TEMP TABLE there AS {THERE.format(duplicate=duplicate)}")
        connection.execute(
            f"CREATE TEMP TABLE repeated AS SELECT digest FROM ({DIGESTS.format(flat=flat)}) "
            "GROUP BY 1 HAVING sum(objects) > 1"
        )
        connection.execute(f"CREATE TEMP TABLE shared AS {_SHARED.format(flat=flat, overwritten=gone)}")
        connection.execute(f"CREATE TEMP TABLE expected_groups AS {GROUPS.format(flat='shared')}")
        connection.execute(f"CREATE TEMP TABLE expected AS {MEMBERS.format(groups='FROM expected_groups')}")
        connection.execute(f"CREATE TEMP TABLE other_content AS {_OTHER_CONTENT.format(flat=flat)}")
        connection.execute(
            f"CREATE TEMP TABLE moving AS SELECT DISTINCT digest FROM {index} ANTI JOIN closed USING (batch_id)"
        )
        keys = [key for (key,) in connection.execute(_DIFFERING).fetchall()]
    return Alike(RULE, DESCRIPTION, len(keys), shown=keys[:SHOWN], keys=keys)
