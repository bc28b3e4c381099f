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
from dicom_assets.lake.query import arrow, connect, connected, quoted, scan
from dicom_assets.lake.registry import CLINICAL

ROWS_AT_ONCE = 2_000
"""Rows of a batch of the stream that is written: some megabytes."""

_DECIDING = [
    "source",
    "record_key",
    "record_type",
    "batch_id",
    "object_id",
    "record",
    "file_key",
    "version_at",
    "last_updated",
    "resource_id",
    "patient_reference",
    "PatientID",
    "IssuerOfPatientID",
    "patient_system",
]
"""What the decisions look at: never the records themselves, which may be large."""

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
-- one row per chosen record of `part`: its place there, and the identifier of the Patient that it refers to
SELECT
    place,
    CASE WHEN patient IS NULL THEN PatientID ELSE patient.PatientID END AS PatientID,
    CASE WHEN patient IS NULL THEN IssuerOfPatientID ELSE patient.issuer END AS IssuerOfPatientID,
    CASE WHEN patient IS NULL THEN patient_system ELSE patient.system END AS patient_system
FROM part AS written
SEMI JOIN chosen USING (batch_id, object_id, record)
LEFT JOIN patients
    ON patients.source = written.source AND written.record_type <> 'Patient'
    AND patients.name = {_PATIENT.format("written.patient_reference")}
ORDER BY place
"""


def publish_clinical(lake: Lake, staging: Staging) -> int:
    """Publishes a batch's clinical records; how many rows the batch now has in the table.

    Of the versions of one file, or of one record with a key of its own, only the newest stays. The rows of other
    batches that this changes are rewritten together with the batch's own, in one commit. A batch that neither brings
    records nor brought some before opens nothing of the table.
    """
    staged = staging.read_whole(Part.CLINICAL, _DECIDING)
    with lake.committing(CLINICAL.name):
        if not len(staged):
            if _had(lake, staging):
                lake.replace(CLINICAL.name, [staging.batch_id], CLINICAL.schema.empty_table())
            return 0
        with connect(lake, []) as connection:
            connection.register("staged", staged)
            connection.execute(f"CREATE TEMP VIEW published AS SELECT * FROM {scan(lake, CLINICAL.name)}")
            found = connection.execute(_AFFECTED, [staging.batch_id]).fetchall()
            affected = [batch for (batch,) in found]
            _choose(connection, affected)
            lake.replace(
                CLINICAL.name,
                [*affected, staging.batch_id],
                lambda: _current_rows(connection, lake, staging, affected),
            )
            own = connection.execute("SELECT count(*) FROM chosen WHERE batch_id = $1", [staging.batch_id]).fetchall()
    return int(own[0][0])


def _had(lake: Lake, staging: Staging) -> bool:
    """Whether the table has rows of the batch, from an earlier run."""
    with connect(lake, [CLINICAL.name], within=staging.scope(CLINICAL.name)) as connection:
        return bool(connection.execute("SELECT 1 FROM clinical LIMIT 1").fetchall())


def _choose(connection: duckdb.DuckDBPyConnection, affected: list[str]) -> None:
    """Decides which records stay and whose they are."""
    names = ", ".join(f'"{name}"' for name in _DECIDING)
    listed = ", ".join(map(quoted, affected)) or "NULL"
    connection.execute(
        f"CREATE TEMP VIEW versions AS SELECT {names} FROM staged "
        f"UNION ALL SELECT {names} FROM published WHERE batch_id IN ({listed})"
    )
    connection.execute(f"CREATE TEMP TABLE chosen AS {_CURRENT}")
    connection.execute(
        "CREATE TEMP VIEW current_rows AS SELECT * FROM versions SEMI JOIN chosen USING (batch_id, object_id, record)"
    )
    connection.execute(f"CREATE TEMP TABLE patients AS {_PATIENTS.format(names=names)}")


def _current_rows(
    connection: duckdb.DuckDBPyConnection, lake: Lake, staging: Staging, affected: list[str]
) -> Iterator[pa.RecordBatch]:
    """Rows of `clinical` for the staged batch and the affected ones, ROWS_AT_ONCE in memory at a time."""
    for batch in staging.batches(Part.CLINICAL):
        yield from _resolved(connection, batch)
    if affected:
        rows = scan(lake, CLINICAL.name, within={"batch_id": affected})
        listed = ", ".join(map(quoted, affected))
        with connected(lake) as other:  # another query on the same connection would end the stream
            of_affected = other.sql(f"SELECT * FROM {rows} WHERE batch_id IN ({listed})")
            for batch in of_affected.to_arrow_reader(ROWS_AT_ONCE):
                yield from _resolved(connection, batch)


def _resolved(connection: duckdb.DuckDBPyConnection, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The rows of a batch that stay, as they are published. What a record says never goes through DuckDB."""
    schema = CLINICAL.schema
    part = pa.table({name: batch[name] for name in _DECIDING} | {"place": range(len(batch))})
    connection.register("part", part)
    found = arrow(connection, _RESOLVED)
    if len(found):
        rows = pa.Table.from_batches([batch]).take(found["place"])
        columns = [found[name] if name in found.column_names else rows[name] for name in schema.names]
        yield from pa.table(columns, names=schema.names).cast(schema).combine_chunks().to_batches()
