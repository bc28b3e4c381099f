"""What became of the clinical records that a batch brought, counted in the table itself.

Belongs here: SQL written independently of the code that decides which versions stay (`versions`). Does not belong here:
what happens when the numbers differ (`checks`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.overwritten import last_claims
from dicom_assets.lake.query import quoted, scan
from dicom_assets.lake.staging import Part, Staging

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
    file_key, object_id, is_keyed,
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

UNSURE = f"""
-- one row per staged record that is not in the table, or file that is replaced as a whole, with whether it is there
SELECT {_VERSION}, is_there, count(*) AS records
FROM (SELECT *, hash(file_key, object_id, record) IN (FROM own_names) AS is_there FROM staged)
WHERE NOT (is_there AND is_keyed)
GROUP BY ALL
"""

NEWEST = f"""
-- one row per file, or record with a key of its own and patient that it names: the newest version in the table
SELECT file_key, named, max(version) AS newest
FROM (SELECT DISTINCT {_VERSION} FROM published SEMI JOIN unsure USING (file_key))
GROUP BY ALL
"""

COMPARED = """
-- one row per staged record or file that is not sure: whether it has been replaced, or is there
SELECT
    unsure.object_id, is_there, records,
    CASE
        WHEN unsure.object_id IN (SELECT object_id FROM claims WHERE batch_id <> {batch}) THEN true  -- read again since
        WHEN NOT is_keyed AND claims.object_id IS NOT NULL THEN claims.object_id <> unsure.object_id
        ELSE ifnull(newest > version, false)
    END AS is_replaced
FROM unsure
LEFT JOIN newest ON newest.file_key = unsure.file_key AND newest.named IS NOT DISTINCT FROM unsure.named
LEFT JOIN claims ON claims.place_key = unsure.file_key
"""

OVERTAKEN = """
-- one row per object whose records stand in the table though something else was claimed in their file's place since,
-- or the file was read again
SELECT DISTINCT published.object_id
FROM published JOIN claims ON claims.place_key = published.file_key
WHERE NOT is_keyed AND claims.object_id <> published.object_id
UNION
SELECT DISTINCT published.object_id
FROM published JOIN claims USING (object_id)
WHERE claims.batch_id <> published.batch_id
"""


@dataclass(frozen=True, slots=True)
class Counted:
    """Records read, records of which it is known what became of them, and object_ids of some that are neither."""

    read: int
    accounted: int
    lost: Sequence[str]


def counted(lake: Lake, staging: Staging, shown: int) -> Counted:
    """Counts a batch's records: rows of the table, rows replaced by a newer version, record errors.

    Staged records stream by; those that the table has as they are, which are almost all, are known by a hash each.
    """
    staged = sum(len(batch) for batch in staging.batches(Part.CLINICAL, ["record"]))
    told = staging.read_whole(Part.ERRORS, ["stage", "code"])
    told = told.filter(pc.equal(told["stage"], "record"))["code"]
    errors = pc.sum(pc.is_in(told, pa.array(["RECORD_INVALID", "ERASED"]))).as_py() or 0
    batch = quoted(staging.batch_id)
    own = scan(lake, "clinical", within=staging.scope("clinical")["clinical"])
    read = staged + errors
    with lake.cursor() as connection:
        connection.execute(f"CREATE TEMP VIEW own AS FROM {own} WHERE batch_id = {batch}")
        there = int(connection.execute("SELECT count(*) FROM own").fetchall()[0][0])
        claims = last_claims(lake, staging.read_whole(Part.RAW, ["source", "uri", "member"]))
        if not staged and not len(claims):
            return Counted(read, there + errors, ())
        connection.register("claims", claims)
        connection.register("read", staging.reader(Part.CLINICAL, _COMPARED))
        connection.execute(
            f"CREATE TEMP VIEW staged AS SELECT *, {batch} AS batch_id, file_key = record_key AS is_keyed FROM read"
        )
        connection.execute(
            f"CREATE TEMP VIEW published AS SELECT *, file_key = record_key AS is_keyed FROM {scan(lake, 'clinical')}"
        )
        connection.execute("CREATE TEMP TABLE own_names AS SELECT DISTINCT hash(file_key, object_id, record) FROM own")
        connection.execute(f"CREATE TEMP TABLE unsure AS {UNSURE}")
        connection.execute(f"CREATE TEMP TABLE newest AS {NEWEST}")
        replaced, lost = connection.execute(
            f"""
            SELECT
                coalesce(sum(records) FILTER (is_replaced), 0)::BIGINT,
                min(DISTINCT object_id, {shown}) FILTER (NOT is_replaced AND NOT is_there)
            FROM ({COMPARED.format(batch=batch)})
            """
        ).fetchall()[0]
        overtaken = [one for (one,) in connection.execute(f"{OVERTAKEN} LIMIT {shown}").fetchall()]
    lost = [*(lost or ()), *overtaken]
    return Counted(read, there + replaced + errors, lost)
