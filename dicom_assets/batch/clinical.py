"""Publishing clinical records: the newest version of each, and whose record it is.

Belongs here: which rows of `clinical` a batch replaces, and by what. Does not belong here: reading records
(`dicom_assets.clinical`), the commit itself (`lake.delta`).

The order of arrival makes no difference. Versions are compared with each other, not with the clock, and a reference to
a Patient that arrives later is resolved when it does: the batches that hold such rows are rewritten together with the
one that brings the Patient, in one commit.
"""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pyarrow as pa

from dicom_assets.batch.staging import Part, Staging
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import connect, quoted, scan
from dicom_assets.lake.registry import CLINICAL

ROWS_AT_ONCE = 2_000
"""Rows of a batch of the stream that is written: some megabytes."""

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
    SELECT {{names}} FROM current_rows WHERE record_type = 'Patient'
    UNION ALL
    SELECT {{names}} FROM published
    WHERE record_type = 'Patient' AND record_key NOT IN (SELECT record_key FROM versions WHERE record_type = 'Patient')
),
named AS (
    SELECT source, unnest([resource_id, {_PATIENT.format("patient_reference")}]) AS name, known.* EXCLUDE (source)
    FROM known
    WHERE PatientID IS NOT NULL
)
SELECT
    source, name,
    arg_max({{{{PatientID: PatientID, issuer: IssuerOfPatientID, system: patient_system}}}}, {VERSION}) AS patient
FROM named
WHERE name IS NOT NULL
GROUP BY ALL
"""

_RESOLVED = f"""
-- one row per chosen record of {{rows}}, with the identifier of the Patient that it refers to
SELECT written.* REPLACE (
    CASE WHEN patient IS NULL THEN PatientID ELSE patient.PatientID END AS PatientID,
    CASE WHEN patient IS NULL THEN IssuerOfPatientID ELSE patient.issuer END AS IssuerOfPatientID,
    CASE WHEN patient IS NULL THEN patient_system ELSE patient.system END AS patient_system
)
FROM {{rows}} AS written
SEMI JOIN chosen USING (batch_id, object_id, record)
LEFT JOIN patients
    ON patients.source = written.source AND written.record_type <> 'Patient'
    AND patients.name = {_PATIENT.format("written.patient_reference")}
"""

_DECIDING = [name for name in CLINICAL.schema.names if name != "record_values"]
"""What the decisions look at: everything but the records themselves, which may be large."""


def publish_clinical(lake: Lake, staging: Staging) -> int:
    """Publishes a batch's clinical records; how many rows the batch now has in the table.

    Of the versions of one file, or of one record with a key of its own, only the newest stays. The rows of other
    batches that this changes are rewritten together with the batch's own, in one commit.
    """
    with lake.committing(CLINICAL.name), connect(lake, []) as connection:
        connection.register("staged", staging.read(Part.CLINICAL, _DECIDING))
        connection.execute(f"CREATE TEMP VIEW published AS SELECT * FROM {scan(lake, CLINICAL.name)}")
        affected = [batch for (batch,) in connection.execute(_AFFECTED, [staging.batch_id]).fetchall()]
        listed = ", ".join(map(quoted, affected)) or "NULL"
        connection.execute(f"CREATE TEMP VIEW affected AS SELECT * FROM published WHERE batch_id IN ({listed})")
        _choose(connection)
        lake.replace(CLINICAL.name, [*affected, staging.batch_id], lambda: _current_rows(connection, staging))
        own = connection.execute("SELECT count(*) FROM chosen WHERE batch_id = $1", [staging.batch_id]).fetchall()
    return int(own[0][0])


def _choose(connection: duckdb.DuckDBPyConnection) -> None:
    """Decides which records stay and whose they are."""
    names = ", ".join(f'"{name}"' for name in _DECIDING)
    union = f"SELECT {names} FROM staged UNION ALL SELECT {names} FROM affected"
    connection.execute(f"CREATE TEMP VIEW versions AS {union}")
    connection.execute(f"CREATE TEMP TABLE chosen AS {_CURRENT}")
    connection.execute(
        "CREATE TEMP VIEW current_rows AS SELECT * FROM versions SEMI JOIN chosen USING (batch_id, object_id, record)"
    )
    connection.execute(f"CREATE TEMP TABLE patients AS {_PATIENTS.format(names=names)}")


def _current_rows(connection: duckdb.DuckDBPyConnection, staging: Staging) -> pa.RecordBatchReader:
    """Rows of `clinical` for the staged batch and the affected ones: one staged file in memory at a time."""
    schema = CLINICAL.schema

    def batches() -> Iterator[pa.RecordBatch]:
        for table in staging.tables(Part.CLINICAL):
            connection.register("part", table)
            yield from resolved("part")
        yield from resolved("affected")

    def resolved(rows: str) -> Iterator[pa.RecordBatch]:
        for batch in connection.sql(_RESOLVED.format(rows=rows)).to_arrow_reader(ROWS_AT_ONCE):
            arrays = [batch[name].cast(schema.field(name).type) for name in schema.names]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())
