"""What became of the clinical records that a batch brought, counted in the table itself.

Belongs here: SQL written independently of the code that decides which versions stay (`versions`). Does not belong here:
what happens when the numbers differ (`checks`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow.compute as pc

from dicom_assets.batch.staging import Part, Staging
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import connected, quoted, scan

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
    file_key, object_id, record, batch_id,
    CASE
        WHEN file_key <> record_key THEN NULL  -- its file goes as a whole
        WHEN record_type = 'Patient' OR patient_reference IS NULL
            THEN [PatientID, ifnull(patient_system, IssuerOfPatientID)]
        ELSE regexp_extract_all(patient_reference, '(?s)^(?:Patient/|urn:(?:uuid|oid):)?(.*)$', 1)
    END AS named,
    (
        ifnull(last_updated, version_at), version_at, object_id, if(file_key = record_key, record, 0), batch_id
    ) AS version
"""
"""A row with how it names its patient, and its place among the versions that name the same one."""

NEWEST = """
-- one row per file, or record with a key of its own and patient that it names: the newest version in the table
SELECT file_key, named, max(version) AS newest
FROM (SELECT DISTINCT file_key, named, version FROM published)
SEMI JOIN staged USING (file_key)
GROUP BY ALL
"""

COMPARED = """
-- one row per staged record: whether it has been replaced, or is there
SELECT
    object_id,
    ifnull(newest > version, false) AS is_replaced,
    EXISTS (
        SELECT 1 FROM own
        WHERE own.file_key = staged.file_key AND own.object_id = staged.object_id AND own.record = staged.record
    ) AS is_there
FROM staged
LEFT JOIN newest ON newest.file_key = staged.file_key AND newest.named IS NOT DISTINCT FROM staged.named
"""


@dataclass(frozen=True, slots=True)
class Counted:
    """Records read, records of which it is known what became of them, and object_ids of some that are neither."""

    read: int
    accounted: int
    lost: Sequence[str]


def counted(lake: Lake, staging: Staging, shown: int) -> Counted:
    """Counts a batch's records: rows of the table, rows replaced by a newer version, record errors."""
    staged = staging.read(Part.CLINICAL, _COMPARED)
    errors = pc.sum(pc.equal(staging.read(Part.ERRORS, ["code"])["code"], "RECORD_INVALID")).as_py() or 0
    batch = quoted(staging.batch_id)
    own = scan(lake, "clinical", within=staging.scope("clinical")["clinical"])
    read = len(staged) + errors
    with connected(lake) as connection:
        connection.execute(f"CREATE TEMP VIEW own AS FROM {own} WHERE batch_id = {batch}")
        there = int(connection.execute("SELECT count(*) FROM own").fetchall()[0][0])
        if not len(staged):
            return Counted(read, there + errors, ())
        connection.register("read", staged)
        connection.execute(
            f"CREATE TEMP VIEW staged AS SELECT {_VERSION} FROM (SELECT *, {batch} AS batch_id FROM read)"
        )
        connection.execute(f"CREATE TEMP VIEW published AS SELECT {_VERSION} FROM {scan(lake, 'clinical')}")
        connection.execute(f"CREATE TEMP TABLE newest AS {NEWEST}")
        replaced, lost = connection.execute(
            f"""
            SELECT
                count(*) FILTER (is_replaced),
                min(DISTINCT object_id, {shown}) FILTER (NOT is_replaced AND NOT is_there)
            FROM ({COMPARED})
            """
        ).fetchall()[0]
    return Counted(read, there + replaced + errors, lost or ())
