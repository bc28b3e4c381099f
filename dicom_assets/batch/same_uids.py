"""Objects of different content that claim one SOP Instance UID: told as warnings of the batch that brings the last one.

Belongs here: finding them among the studies that a batch touches, and staging their errors. Does not belong here: which
of them counts as the instance (`lake.hierarchy`), the rule that sees whether they are told (`same_uid_checks`).

Content is the header without File Meta Information, which every software writes anew; pixels are not read for it. Two
versions of one place (a file that was overwritten), and changes of a service, are no two objects. What is looked at are
the studies that the batch touches, since headers are read: that a UID stands in another series or study as well,
whatever is said of it there, is in the table of conflicts (`dicom_assets.curation`).

Nothing is told before the batch's rows of flat_metadata are committed. So of two batches that run at the same time the
one that commits last sees both. What a later batch has told is not told again when an earlier one is run again, so that
its books stay as they were.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import pyarrow as pa

from dicom_assets.batch.publish import touched_studies
from dicom_assets.lake import overwritten
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.headers import KeptHeaders, headers
from dicom_assets.lake.hierarchy import OVERTAKEN
from dicom_assets.lake.query import arrow, connect, quoted
from dicom_assets.lake.staging import SCHEMAS, Part, Staging
from dicom_assets.lake.studies import study_scope
from dicom_assets.schema.codes import CODES

CODE = "SOP_INSTANCE_CONFLICT"
STAGE = "identity"
"""Where these are found: in no object by itself."""

ERRORS_FILE = 999_996
"""Number of the staged file that holds these errors; chunks are numbered from 0."""

_FILES = "operation = 'upsert' AND version_text IS NULL"

_DOUBTFUL = f"""
-- one row per SOP instance of the touched studies that the batch has a part in and for which digests differ
SELECT source, SOPInstanceUID
FROM flat_metadata SEMI JOIN touched USING (study_key)
WHERE {_FILES}
GROUP BY ALL
HAVING count(DISTINCT content_digest) > 1 AND count(DISTINCT (uri, member)) > 1 AND bool_or(batch_id = $batch)
"""

_PLACED = f"""
-- one row per object that claims such a UID; what a later batch has told already is left to that one. is_compared:
-- whether the step that makes groups of duplicates reads its header as well, if there are no other objects in the group
SELECT batch_id, object_id, source, SOPInstanceUID, uri, member,
    batch_id = $batch OR row_number() OVER (
        PARTITION BY SOPInstanceUID ORDER BY ingested_at, batch_id, object_id
    ) = 1 AS is_compared
FROM flat_metadata AS flat
SEMI JOIN touched USING (study_key)
SEMI JOIN doubtful USING (source, SOPInstanceUID)
ANTI JOIN overwritten AS last ON {OVERTAKEN}
LEFT JOIN (
    SELECT DISTINCT batch_id, object_id, code FROM ingestion_errors WHERE code = '{CODE}'
) AS told USING (batch_id, object_id)
WHERE {_FILES} AND (
    told.code IS NULL OR ingested_at <= (SELECT max(ingested_at) FROM flat_metadata WHERE batch_id = $batch)
)
"""

_CONFLICTING = """
-- one row per object of the batch whose SOP Instance UID is claimed from another place with another content
SELECT object_id, uri, member, objects, contents
FROM placed
JOIN (
    SELECT source, SOPInstanceUID, count(*) AS objects, count(DISTINCT content) AS contents
    FROM placed JOIN said USING (batch_id, object_id)
    GROUP BY ALL
    HAVING contents > 1 AND count(DISTINCT (uri, member)) > 1
) USING (source, SOPInstanceUID)
WHERE batch_id = $batch
ORDER BY object_id
"""

_WITHOUT = tuple(
    (re.compile(pattern), instead)
    for pattern, instead in (
        (r'^\{("0002[0-9A-F]{4}":\{[^{}]*\},?)*', ""),
        (r',?"[0-9A-F]{8}":\{"vr":"(O[BDFLVW]|UN)"[^{}]*\}', ""),
        (r',"BulkDataURI":"\?offset=[0-9]+&length=[0-9]+"', ""),
        (r'"BulkDataURI":"\?offset=[0-9]+', '"BulkDataURI":"?'),
        (r"(^|\{),", r"\1"),
    )
)
"""What the content of a header is without: File Meta Information, bulk values, and where others lie in the object."""


def stage_same_uids(lake: Lake, staging: Staging, run_id: str) -> int:
    """Stages a warning for each object of a published batch that claims another one's SOP Instance UID; how many.

    Raises StagingMissing when flat_metadata was not published, LakeError.
    """
    found = _conflicting(lake, staging)
    if not found and not any(name.endswith(f"/{ERRORS_FILE:06d}.arrow") for name in staging.names(Part.ERRORS)):
        return 0
    code = CODES[CODE]
    errors = [
        {
            "batch_id": staging.batch_id,
            "object_id": row["object_id"],
            "stage": STAGE,
            "code": code.name,
            "record": 0,
            "severity": str(code.severity),
            "detail": f"{row['objects']} objects claim its SOP Instance UID, with {row['contents']} different headers",
            "uri": row["uri"],
            "member": row["member"],
            "occurred_at": datetime.now(UTC),
            "run_id": run_id,
        }
        for row in found
    ]
    staging.put(Part.ERRORS, ERRORS_FILE, pa.Table.from_pylist(errors, schema=SCHEMAS[Part.ERRORS]))
    staging.complete_as_it_is(Part.ERRORS)
    return len(errors)


def _conflicting(lake: Lake, staging: Staging) -> list[dict[str, Any]]:
    touched = touched_studies(staging)
    keys = touched["study_key"].to_pylist()
    if not keys:
        return []
    scope = dict(study_scope(lake, ["flat_metadata"], keys))
    batch = quoted(staging.batch_id)
    with connect(lake, ["flat_metadata"], within=scope) as connection:
        connection.register("touched", touched)
        doubtful = arrow(connection, _DOUBTFUL.replace("$batch", batch))
    if not len(doubtful):
        return []
    scope |= overwritten.scope_of(lake, keys, scope["flat_metadata"])
    scope["ingestion_errors"] = {"batch_id": scope["flat_metadata"]["batch_id"]}
    with connect(lake, [*scope], within=scope) as connection:
        connection.register("touched", touched)
        connection.register("doubtful", doubtful)
        placed = arrow(connection, _PLACED.replace("$batch", batch))
        connection.register("placed", placed)
        kept = KeptHeaders(lake.extents("flat_metadata").version)
        connection.register("said", _said(lake, placed, kept))
        staging.remember(kept)
        rows: list[dict[str, Any]] = arrow(connection, _CONFLICTING.replace("$batch", batch)).to_pylist()
    return rows


def _said(lake: Lake, placed: pa.Table, kept: KeptHeaders) -> pa.Table:
    """What objects say: their batch_id, object_id and content, as a digest of the header without _WITHOUT.

    Headers are read a row group at a time: DuckDB holds two thousand of them for each of its threads, which may be
    megabytes each. kept: gets those that are compared once more.
    """
    said: dict[str, list[str | None]] = {"batch_id": [], "object_id": [], "content": []}
    compared = placed.filter(placed["is_compared"])
    again = {*zip(compared["batch_id"].to_pylist(), compared["object_id"].to_pylist(), strict=True)}
    for own in headers(lake, placed.select(["batch_id", "object_id"])):
        names = [own[name].to_pylist() for name in ("batch_id", "object_id")]
        texts = own["header"].to_pylist()
        said["batch_id"] += names[0]
        said["object_id"] += names[1]
        said["content"] += [None if header is None else _content(header) for header in texts]
        for *name, header in zip(*names, texts, strict=True):
            if header is not None and (one := (name[0], name[1])) in again:
                kept.enter(one, header)
    return pa.table(said, schema=pa.schema([(name, pa.string()) for name in said]))


def _content(header: str) -> str:
    for pattern, instead in _WITHOUT:
        header = pattern.sub(instead, header)
    return blake2b(header.encode(), digest_size=16).hexdigest()
