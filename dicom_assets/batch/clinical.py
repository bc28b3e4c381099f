"""Publishing clinical records: the newest version of each, and whose record it is.

Belongs here: which rows of `clinical` a batch replaces, and by what. Does not belong here: reading records
(`dicom_assets.clinical`), the commit itself (`lake.delta`).

The order of arrival makes no difference. Versions are compared with each other, not with the clock, and a reference to
a Patient that arrives later is resolved when it does: the batches that hold such rows are rewritten together with the
one that brings the Patient, in one commit.
"""

from __future__ import annotations

import duckdb
import pyarrow as pa

from dicom_assets.batch.staging import Part, Staging
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import arrow, connect, quoted, scan
from dicom_assets.lake.registry import CLINICAL

VERSION = "(coalesce(last_updated, version_at), version_at, object_id)"
"""What orders the versions of a record or file: meta.lastUpdated where the resource tells it, then the file's time."""

_PATIENT = "regexp_replace({}, '^(Patient/|urn:uuid:|urn:oid:)', '')"
"""What names a Patient within its source, in a reference or in the resource itself."""

_AFFECTED = f"""
-- one row per other batch whose rows this one changes: replaced by newer versions, or resolved to another patient
SELECT DISTINCT batch_id FROM (
    SELECT batch_id FROM published SEMI JOIN staged USING (file_key)
    UNION ALL
    SELECT published.batch_id
    FROM published
    JOIN staged AS patient
        ON patient.record_type = 'Patient' AND patient.PatientID IS NOT NULL
        AND patient.source = published.source
        AND {_PATIENT.format("published.patient_reference")}
            IN (patient.resource_id, {_PATIENT.format("patient.patient_reference")})
    WHERE published.record_type <> 'Patient' AND published.patient_reference IS NOT NULL
        AND (published.PatientID, published.IssuerOfPatientID, published.patient_system)
            IS DISTINCT FROM (patient.PatientID, patient.IssuerOfPatientID, patient.patient_system)
)
WHERE batch_id <> $1
"""

_CURRENT = f"""
-- one row per record among staged and affected rows: the newest one; a table keeps the records of its newest file
SELECT batch_id, object_id, record FROM versions
QUALIFY CASE
    WHEN file_key = record_key THEN row_number() OVER (PARTITION BY file_key ORDER BY {VERSION} DESC, record DESC)
    ELSE dense_rank() OVER (PARTITION BY file_key ORDER BY {VERSION} DESC)
END = 1
"""

_PATIENTS = f"""
-- one row per name of a Patient within its source: its identifier
WITH known AS (
    SELECT * FROM current_rows WHERE record_type = 'Patient'
    UNION ALL BY NAME
    SELECT * FROM published
    WHERE record_type = 'Patient' AND record_key NOT IN (SELECT record_key FROM versions WHERE record_type = 'Patient')
),
named AS (
    SELECT source, unnest([resource_id, {_PATIENT.format("patient_reference")}]) AS name, known.* EXCLUDE (source)
    FROM known
    WHERE PatientID IS NOT NULL
)
SELECT
    source, name,
    arg_max({{PatientID: PatientID, issuer: IssuerOfPatientID, system: patient_system}}, {VERSION}) AS patient
FROM named
WHERE name IS NOT NULL
GROUP BY ALL
"""

_RESOLVED = f"""
-- one row per current record, with the identifier of the Patient that it refers to
SELECT current_rows.* REPLACE (
    CASE WHEN patient IS NULL THEN PatientID ELSE patient.PatientID END AS PatientID,
    CASE WHEN patient IS NULL THEN IssuerOfPatientID ELSE patient.issuer END AS IssuerOfPatientID,
    CASE WHEN patient IS NULL THEN patient_system ELSE patient.system END AS patient_system
)
FROM current_rows
LEFT JOIN patients
    ON patients.source = current_rows.source AND current_rows.record_type <> 'Patient'
    AND patients.name = {_PATIENT.format("current_rows.patient_reference")}
ORDER BY batch_id, object_id, record
"""


def publish_clinical(lake: Lake, staging: Staging) -> int:
    """Publishes a batch's clinical records; how many rows the batch now has in the table.

    Of the versions of one file, or of one record with a key of its own, only the newest stays. The rows of other
    batches that this changes are rewritten together with the batch's own, in one commit.
    """
    with lake.committing(CLINICAL.name):
        staged = staging.read(Part.CLINICAL)
        with connect(lake, []) as connection:
            connection.register("staged", staged)
            connection.execute(f"CREATE VIEW published AS SELECT * FROM {scan(lake, CLINICAL.name)}")
            affected = [batch for (batch,) in connection.execute(_AFFECTED, [staging.batch_id]).fetchall()]
            rows = _current_rows(connection, affected)
        lake.replace(CLINICAL.name, [*affected, staging.batch_id], rows)
    return sum(1 for batch in rows["batch_id"].to_pylist() if batch == staging.batch_id)


def _current_rows(connection: duckdb.DuckDBPyConnection, affected: list[str]) -> pa.Table:
    """Rows of `clinical` for the staged batch and the affected ones."""
    listed = ", ".join(map(quoted, affected)) or "NULL"
    connection.execute(
        "CREATE TEMP TABLE versions AS SELECT * FROM staged UNION ALL BY NAME "
        f"SELECT * FROM published WHERE batch_id IN ({listed})"
    )
    connection.execute(
        f"CREATE TEMP TABLE current_rows AS SELECT * FROM versions SEMI JOIN ({_CURRENT}) "
        "USING (batch_id, object_id, record)"
    )
    connection.execute(f"CREATE TEMP TABLE patients AS {_PATIENTS}")
    return arrow(connection, _RESOLVED).select(CLINICAL.schema.names).cast(CLINICAL.schema)
