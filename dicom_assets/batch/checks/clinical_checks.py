"""What became of the clinical records that a batch brought, counted in the table itself.

Belongs here: SQL written independently of the code that decides which versions stay (`versions`). Does not belong here:
what happens when the numbers differ (`checks`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.overwritten import last_claims
from dicom_assets.lake.query import quoted, scan
from dicom_assets.lake.staging import Part, Staging
from dicom_assets.schema.registry import CLINICAL

_COMPARED = [
    "record_key",
    "file_key",
    "version_at",
    "last_updated",
    "object_id",
    "record",
    "record_type",
    "patient_reference",
    "PatientID",
    "patient_system",
    "IssuerOfPatientID",
]

_VERSION = """
    file_key, object_id, record, batch_id, is_keyed,
    CASE
        WHEN NOT is_keyed THEN NULL  -- its file goes as a whole
        WHEN record_type = 'Patient' OR patient_reference IS NULL
            THEN [PatientID, ifnull(patient_system, IssuerOfPatientID)]
        ELSE regexp_extract_all(patient_reference, '(?s)^(?:Patient/|urn:(?:uuid|oid):)?(.*)$', 1)
    END AS named,
    (
        ifnull(last_updated, version_at), version_at, object_id, if(is_keyed, record, 0), batch_id
    ) AS version
"""
"""A row with how it names its patient, and its place among the versions that name the same one."""

UNSURE = """
-- one row per staged record that is not in the table, or whose file is replaced as a whole
SELECT staged.*, own.record IS NOT NULL AS is_there
FROM staged LEFT JOIN own USING (file_key, object_id, record)
WHERE own.record IS NULL OR NOT staged.is_keyed
"""

NEWEST = """
-- one row per file, or record with a key of its own and patient that it names: the newest version in the table
SELECT file_key, named, max(version) AS newest
FROM (SELECT DISTINCT file_key, named, version FROM published)
SEMI JOIN unsure USING (file_key)
GROUP BY ALL
"""

COMPARED = """
-- one row per staged record that is not sure: whether it has been replaced, or is there
SELECT
    unsure.object_id, is_there,
    CASE
        WHEN NOT is_keyed AND claims.object_id IS NOT NULL THEN claims.object_id <> unsure.object_id
        ELSE ifnull(newest > version, false)
    END AS is_replaced
FROM unsure
LEFT JOIN newest ON newest.file_key = unsure.file_key AND newest.named IS NOT DISTINCT FROM unsure.named
LEFT JOIN claims ON claims.place_key = unsure.file_key
"""

OVERTAKEN = """
-- one row per object whose records stand in the table though something else was claimed in their file's place since
SELECT DISTINCT published.object_id
FROM published JOIN claims ON claims.place_key = published.file_key
WHERE NOT is_keyed AND claims.object_id <> published.object_id
"""


@dataclass(frozen=True, slots=True)
class Counted:
    """Records read, records of which it is known what became of them, and object_ids of some that are neither."""

    read: int
    accounted: int
    lost: Sequence[str]


def counted(lake: Lake, staging: Staging, shown: int) -> Counted:
    """Counts a batch's records: rows of the table, rows replaced by a newer version, record errors."""
    staged = _staged(staging)
    errors = pc.sum(pc.equal(staging.read_whole(Part.ERRORS, ["code"])["code"], "RECORD_INVALID")).as_py() or 0
    batch = quoted(staging.batch_id)
    own = scan(lake, "clinical", within=staging.scope("clinical")["clinical"])
    read = len(staged) + errors
    with lake.cursor() as connection:
        connection.execute(f"CREATE TEMP VIEW own AS FROM {own} WHERE batch_id = {batch}")
        there = int(connection.execute("SELECT count(*) FROM own").fetchall()[0][0])
        claims = last_claims(lake, staging.read_whole(Part.RAW, ["source", "uri", "member"]))
        if not len(staged) and not len(claims):
            return Counted(read, there + errors, ())
        connection.register("claims", claims)
        connection.register("read", staged)
        connection.execute(
            f"CREATE TEMP VIEW staged AS SELECT {_VERSION} FROM (SELECT *, {batch} AS batch_id FROM read)"
        )
        connection.execute(
            f"CREATE TEMP VIEW published AS SELECT {_VERSION} "
            f"FROM (SELECT *, file_key = record_key AS is_keyed FROM {scan(lake, 'clinical')})"
        )
        connection.execute(f"CREATE TEMP TABLE unsure AS {UNSURE}")
        connection.execute(f"CREATE TEMP TABLE newest AS {NEWEST}")
        replaced, lost = connection.execute(
            f"""
            SELECT
                count(*) FILTER (is_replaced),
                min(DISTINCT object_id, {shown}) FILTER (NOT is_replaced AND NOT is_there)
            FROM ({COMPARED})
            """
        ).fetchall()[0]
        overtaken = [one for (one,) in connection.execute(f"{OVERTAKEN} LIMIT {shown}").fetchall()]
    lost = [*(lost or ()), *overtaken]
    return Counted(read, there + replaced + errors, lost)


def _staged(staging: Staging) -> pa.Table:
    """The staged records in narrow columns. is_keyed: whether a record has a key of its own."""
    schema = pa.schema([CLINICAL.schema.field(name) for name in _COMPARED])
    parts = []
    for batch in chain([pa.RecordBatch.from_pylist([], schema=schema)], staging.batches(Part.CLINICAL, _COMPARED)):
        columns = {name: batch[name] for name in _COMPARED if name != "record_key"}
        columns |= {name: batch[name].dictionary_encode() for name in ("object_id", "record_type", "patient_system")}
        parts.append(pa.table({**columns, "is_keyed": pc.equal(batch["file_key"], batch["record_key"])}))
    return pa.concat_tables(parts).unify_dictionaries()
