"""Which versions of clinical records stay, which one counts, and whose record it is.

Belongs here: the decisions, in SQL over narrow columns, linear in what a batch brings and in the table. Does not belong
here: writing what was decided (`clinical`), reading records (`dicom_assets.clinical`).

The result depends on the versions that there are and on no order of arrival, but for the order in which one file
changed: of the versions of one file of records without keys only the one that was claimed last stays, and none when
what was claimed there last is no file of records. Of a record with a key of its own stays, for each way in which its
versions name their patient, the newest version, together with the time of the first one; nearly always that is one row.
Among these the patient is the one that the first version names of which it is known; a version that names another one
is held until a person resolves it (IDENTITY_CHANGED), and of the others the newest counts. What is missing does not
contradict, and two versions of a Patient are one person as long as they have an identifier in common.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import chain

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.extents import Extents
from dicom_assets.lake.query import arrow, quoted, scan
from dicom_assets.lake.staging import Part, Staging
from dicom_assets.schema.registry import CLINICAL

_READ = [
    "object_id",
    "source",
    "server",
    "record_key",
    "file_key",
    "record",
    "record_type",
    "version_at",
    "last_updated",
    "resource_id",
    "patient_reference",
    "PatientID",
    "IssuerOfPatientID",
    "patient_system",
    "patient_identifiers",
]
"""What the decisions look at: never the records themselves, which may be large."""

_REPEATED = ("object_id", "source", "server", "record_type", "IssuerOfPatientID", "patient_system")

_NAME = "regexp_replace(patient_reference, '^(Patient/|urn:uuid:|urn:oid:)', '')"
"""What names a Patient within its server, in a reference or in the resource itself."""

_COLUMNS = f"""
    place, batch_id, object_id, record, source, coalesce(server, '') AS server, file_key,
    is_keyed, record_type = 'Patient' AS is_patient,
    coalesce(last_updated, version_at) AS told_at, version_at, coalesce(identity_since, told_at) AS since,
    {_NAME} AS name, PatientID, IssuerOfPatientID, patient_system, resource_id, patient_identifiers,
    version_state, identity_since,
    CASE
        WHEN record_type <> 'Patient' AND patient_reference IS NOT NULL THEN 'as ' || {_NAME}
        ELSE concat_ws('|', coalesce(patient_system, IssuerOfPatientID), PatientID)
    END AS stated
"""
"""A row as it is compared. place: where it stands among the staged rows, then the files of the table; NULL for what the
batch had in the table before. stated: how it names its patient by itself, which no other record changes."""

_NEWEST = "told_at, version_at, object_id, record, batch_id"
_ORDER = ", ".join(f"{column} DESC" for column in _NEWEST.split(", "))
"""Newest first: by meta.lastUpdated where the resource tells it, then by the file's time; one object may come twice."""

_EARLIER = """
-- one row per row of the table of the same record or file as a staged one, or of a file that the batch claimed again;
-- what the batch itself had is replaced, and tells no more than who was named before
SELECT published.* FROM published
SEMI JOIN (SELECT file_key FROM staged UNION SELECT file_key FROM last_claims) AS here USING (file_key)
WHERE place IS NOT NULL OR identity_since IS NOT NULL OR patient_identifiers IS NOT NULL
"""

_OLD_READINGS = """
-- one row per row of a file that was claimed once more since and read again as it was: that reading stands in its place
SELECT every.place, every.batch_id, every.file_key
FROM ({rows}) AS every JOIN last_claims ON last_claims.object_id = every.object_id
WHERE last_claims.batch_id <> every.batch_id AND every.place IS NOT NULL
"""

_READ_LAST = """
-- without the rows of files that were claimed once more since and read again as they were
ANTI JOIN (SELECT object_id, batch_id AS last_batch FROM last_claims) AS again
    ON again.object_id = every.object_id AND again.last_batch <> every.batch_id
"""

_CONTESTED = """
-- one row per record with a key of its own that has several versions
SELECT file_key FROM (
    SELECT file_key FROM staged WHERE is_keyed
    UNION ALL
    SELECT file_key FROM earlier WHERE is_keyed
)
GROUP BY file_key HAVING count(*) > 1
"""

_OLD_FILES = f"""
-- one row per row of a file of records without keys that something was claimed in the place of, or that has a newer
-- version
WITH versions AS (
    SELECT DISTINCT file_key, told_at, version_at, object_id, batch_id FROM staged WHERE NOT is_keyed
    UNION
    SELECT DISTINCT file_key, told_at, version_at, object_id, batch_id FROM earlier
    WHERE NOT is_keyed AND place IS NOT NULL
),
old AS (
    SELECT versions.* FROM versions LEFT JOIN last_claims USING (file_key)
    QUALIFY coalesce(
        versions.object_id <> last_claims.object_id,
        row_number() OVER (
            PARTITION BY file_key
            ORDER BY {", ".join(f"versions.{one}" for one in _ORDER.replace(" record DESC,", "").split(", "))}
        ) > 1
    )
)
SELECT place, batch_id FROM staged SEMI JOIN old USING (file_key, told_at, version_at, object_id, batch_id)
UNION ALL
SELECT place, batch_id FROM earlier SEMI JOIN old USING (file_key, told_at, version_at, object_id, batch_id)
WHERE place IS NOT NULL
"""

_DECIDED = f"""
-- one row per version of a contested record in `rivals`: whether it stays, and what it is
WITH merged AS (
    SELECT
        * EXCLUDE (since, patient_identifiers),
        min(since) OVER same AS since,
        list(patient_identifiers) OVER same AS identifiers,
        row_number() OVER (PARTITION BY file_key, stated ORDER BY place IS NULL, {_ORDER}) = 1 AS stays
    FROM rivals
    WINDOW same AS (PARTITION BY file_key, stated)
),
variants AS (
    SELECT
        * EXCLUDE (identifiers, stays),
        CASE WHEN is_patient THEN list_sort(list_distinct(flatten(identifiers))) END AS patient_identifiers
    FROM merged WHERE stays AND place IS NOT NULL
),
founders AS (
    SELECT file_key, arg_min({{id: id, issuer: issuer, others: patient_identifiers}}, (since, stated)) AS founder
    FROM variants WHERE id IS NOT NULL GROUP BY file_key
),
compared AS (
    SELECT
        variants.*,
        coalesce(id <> founder.id OR issuer <> founder.issuer, false)
            AND NOT coalesce(list_has_any(patient_identifiers, founder.others), false)
            AND file_key NOT IN (SELECT file_key FROM accepted) AS is_held
    FROM variants LEFT JOIN founders USING (file_key)
)
SELECT
    place, batch_id, object_id, record, file_key, true AS stays,
    CASE
        WHEN is_held THEN 'held'
        WHEN row_number() OVER (PARTITION BY file_key, is_held ORDER BY {_ORDER}) > 1 THEN 'superseded'
    END AS state,
    CASE WHEN since < told_at THEN since END AS since,
    patient, patient_identifiers
FROM compared
UNION ALL
SELECT place, batch_id, object_id, record, file_key, false, NULL, NULL, NULL, NULL
FROM merged WHERE NOT stays AND place IS NOT NULL
"""

_PATIENTS = f"""
-- one row per name of a Patient within its server: its number and identifier; of namesakes the newest one
WITH known AS (
    SELECT {{columns}} FROM staged ANTI JOIN contested USING (file_key) WHERE is_patient
    UNION ALL
    SELECT {{columns}} FROM staged SEMI JOIN counting USING (place)
    UNION ALL
    SELECT {{columns}} FROM earlier SEMI JOIN counting USING (place)
    UNION ALL
    SELECT {{columns}} FROM published ANTI JOIN staged USING (file_key)
    WHERE is_patient AND version_state IS NULL AND place IS NOT NULL
),
named AS (
    SELECT * EXCLUDE (resource_id, name), unnest([resource_id, name]) AS name FROM known WHERE PatientID IS NOT NULL
)
SELECT source, server, name, PatientID AS id, IssuerOfPatientID AS issuer, patient_system AS system
FROM named
WHERE name IS NOT NULL
QUALIFY row_number() OVER (PARTITION BY source, server, name ORDER BY {_ORDER}) = 1
""".format(columns=f"source, server, name, resource_id, PatientID, IssuerOfPatientID, patient_system, {_NEWEST}")

_MOVED = """
-- one row per record of the table that the batch does not bring and that a Patient whom it brings has made another's
WITH touched AS (
    SELECT source, server, unnest([resource_id, name]) AS name FROM staged WHERE is_patient
    UNION
    SELECT source, server, unnest([resource_id, name]) AS name FROM earlier WHERE is_patient
)
SELECT DISTINCT file_key
FROM published
JOIN patients USING (source, server, name)
SEMI JOIN touched USING (source, server, name)
ANTI JOIN staged USING (file_key)
WHERE NOT is_patient AND place IS NOT NULL
    AND (
        version_state IS NOT NULL  -- told again when the batch is run again
        OR (PatientID, IssuerOfPatientID, patient_system) IS DISTINCT FROM (id, issuer, system)
    )
"""

_RIVALS_OF_PATIENTS = """
-- one row per version of a contested Patient
SELECT *, PatientID AS id, IssuerOfPatientID AS issuer, NULL::BIGINT AS patient
FROM (FROM staged UNION ALL BY NAME FROM earlier) SEMI JOIN contested USING (file_key)
WHERE is_patient
"""

_RIVALS = """
-- one row per version of a contested record of another kind, with the patient that it refers to
SELECT
    versions.*,
    CASE WHEN patient IS NULL THEN PatientID ELSE patients.id END AS id,
    CASE WHEN patient IS NULL THEN IssuerOfPatientID ELSE patients.issuer END AS issuer,
    patient
FROM (FROM staged UNION ALL BY NAME FROM earlier) AS versions
SEMI JOIN contested USING (file_key)
LEFT JOIN patients USING (source, server, name)
WHERE NOT is_patient
"""

_ONLY = """
-- one row per version of an uncontested record that is another than it was: its patient is known, or known anew
SELECT place, batch_id, patient, since_before AS since
FROM (
    SELECT place, batch_id, file_key, source, server, name, NULL::TIMESTAMPTZ AS since_before
    FROM staged WHERE NOT is_patient
    UNION ALL
    SELECT place, batch_id, file_key, source, server, name, identity_since
    FROM published SEMI JOIN moved USING (file_key)
)
ANTI JOIN contested USING (file_key)
JOIN patients USING (source, server, name)
"""

_CHANGES = """
-- one row per version that does not stay as it is
SELECT place, batch_id, true AS stays, NULL AS state, since, patient, NULL::VARCHAR[] AS identifiers FROM only_one
UNION ALL
SELECT place, batch_id, stays, state, since, patient, patient_identifiers FROM decided
UNION ALL
SELECT place, batch_id, false, NULL, NULL, NULL, NULL FROM old_files
UNION ALL
SELECT place, batch_id, false, NULL, NULL, NULL, NULL FROM old_readings
ORDER BY place
"""

_AFFECTED = """
-- one row per other batch of which a row changes
WITH was AS (
    SELECT place, version_state, identity_since, PatientID, IssuerOfPatientID, patient_system, patient_identifiers
    FROM earlier WHERE place IS NOT NULL
)
SELECT DISTINCT batch_id
FROM changes
JOIN was USING (place)
LEFT JOIN patients USING (patient)
WHERE NOT stays
    OR (version_state, identity_since) IS DISTINCT FROM (state, since)
    OR coalesce(identifiers <> patient_identifiers, false)
    OR (
        patient IS NOT NULL
        AND (PatientID, IssuerOfPatientID, patient_system) IS DISTINCT FROM (id, issuer, system)
    )
UNION
SELECT DISTINCT batch_id FROM only_one WHERE place >= $staged
UNION
SELECT DISTINCT batch_id FROM old_readings WHERE place >= $staged
"""

_HELD = """
-- one row per held version of a record that the batch brings, or whose patient it brings
SELECT batch_id, object_id, record, file_key FROM decided WHERE state = 'held' ORDER BY ALL
"""


@dataclass(frozen=True)
class Decisions:
    """What becomes of the versions of records that a batch brings, and of those that are there.

    changes: sorted by place: stays, state, since, patient (row of `patients`) and identifiers of versions that do not
    stay as they are. firsts: place of the first row of each file of the table. affected: other batches whose rows
    change. held: batch_id, object_id, record and file_key of the versions that a person has to resolve.
    """

    changes: pa.Table
    patients: pa.Table
    firsts: dict[str, int]
    affected: list[str]
    held: pa.Table


def staged_rows(staging: Staging) -> pa.Table:
    """What the decisions look at of a batch's staged records, with `place`, in their order."""
    parts: list[pa.Table] = []
    first = 0
    schema = pa.schema([CLINICAL.schema.field(name) for name in _READ])
    for batch in chain([pa.RecordBatch.from_pylist([], schema=schema)], staging.batches(Part.CLINICAL, _READ)):
        columns = {
            name: batch[name].dictionary_encode() if name in _REPEATED else batch[name]
            for name in batch.schema.names
            if name != "record_key"
        }
        columns["is_keyed"] = pc.equal(batch["record_key"], batch["file_key"])
        parts.append(pa.table({**columns, "place": pa.array(range(first, first + len(batch)), pa.int64())}))
        first += len(batch)
    return pa.concat_tables(parts).unify_dictionaries()


def decide(
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    seen: Extents,
    staging: Staging,
    staged: pa.Table,
    claims: pa.Table,
    accepted: Collection[str],
) -> Decisions:
    """Decides about all versions that a batch touches; the table is the one of `seen`.

    claims: see `lake.overwritten.last_claims`, of the batch's places. accepted: records whose versions may name several
    patients. Raises LakeError.
    """
    first, firsts = len(staged), {}
    for path, rows in zip(seen.paths.tolist(), seen.rows.tolist(), strict=True):
        firsts[str(path).rsplit("/", 1)[-1]] = first
        first += int(rows)
    connection.register("last_claims", claims.rename_columns(["file_key", "object_id", "batch_id"]))
    _register(connection, lake, seen, staging, staged, firsts, accepted)
    _make(connection, "earlier", _EARLIER)
    _make(connection, "contested", _CONTESTED)
    _make(connection, "rivals", _RIVALS_OF_PATIENTS)
    _make(connection, "decided", _DECIDED)
    _make(connection, "counting", "SELECT place FROM decided WHERE stays AND state IS NULL")
    _make(connection, "patients", f"SELECT *, row_number() OVER () - 1 AS patient FROM ({_PATIENTS}) ORDER BY patient")
    _move(connection)
    _make(connection, "rivals", _RIVALS)
    connection.execute(f"INSERT INTO decided {_DECIDED}")
    _make(connection, "only_one", _ONLY)
    _make(connection, "old_files", _OLD_FILES)
    _make(connection, "changes", _CHANGES)
    affected = connection.execute(f"{_AFFECTED} ORDER BY 1", {"staged": len(staged)}).fetchall()
    return Decisions(
        arrow(connection, "SELECT * EXCLUDE (batch_id) FROM changes ORDER BY place"),
        arrow(connection, "SELECT id, issuer, system FROM patients ORDER BY patient"),
        firsts,
        [batch for (batch,) in affected],
        arrow(connection, _HELD),
    )


def _make(connection: duckdb.DuckDBPyConnection, name: str, sql: str) -> None:
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {sql}")


def _register(
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    seen: Extents,
    staging: Staging,
    staged: pa.Table,
    firsts: dict[str, int],
    accepted: Collection[str],
) -> None:
    """Makes `staged` and `published` known, each as _COLUMNS, and what else the decisions look at."""
    connection.register("staged_rows", staged)
    connection.register("accepted", pa.table({"file_key": pa.array(sorted(accepted), pa.string())}))
    connection.register(
        "files", pa.table({"file": pa.array(firsts, pa.string()), "first": pa.array(firsts.values(), pa.int64())})
    )
    nothing = "NULL::VARCHAR AS version_state, NULL::TIMESTAMPTZ AS identity_since"
    source = scan(lake, CLINICAL.name, paths=seen.paths.tolist(), filename=True, row_number=True)
    place = f"CASE WHEN batch_id <> {quoted(staging.batch_id)} THEN first + file_row_number END"
    every = {
        "staged": f"SELECT *, {quoted(staging.batch_id)} AS batch_id, {nothing} FROM staged_rows",
        "published": f"SELECT *, file_key = record_key AS is_keyed, {place} AS place "
        f"FROM {source} LEFT JOIN files ON file = parse_filename(filename)",
    }
    some = connection.execute("SELECT count(*) FROM last_claims").fetchall()[0][0]
    old = " UNION ALL ".join(f"SELECT place, batch_id, object_id, file_key FROM ({rows})" for rows in every.values())
    _make(connection, "old_readings", _OLD_READINGS.format(rows=old) + ("" if some else " AND false"))
    for name, rows in every.items():
        connection.execute(
            f"CREATE OR REPLACE TEMP VIEW {name} AS "
            f"SELECT {_COLUMNS} FROM ({rows}) AS every {_READ_LAST if some else ''}"
        )


def _move(connection: duckdb.DuckDBPyConnection) -> None:
    """Adds to `earlier` and `contested` the records whose patient the batch's Patients change."""
    brings = connection.execute(
        "SELECT EXISTS (FROM staged WHERE is_patient) OR EXISTS (FROM earlier WHERE is_patient)"
    ).fetchall()[0][0]
    _make(connection, "moved", _MOVED if brings else "SELECT file_key FROM contested WHERE false")
    several = "SELECT file_key FROM published SEMI JOIN moved USING (file_key) GROUP BY file_key HAVING count(*) > 1"
    _make(connection, "rivalling", several)
    connection.execute("INSERT INTO earlier FROM published SEMI JOIN rivalling USING (file_key)")
    connection.execute("INSERT INTO contested FROM rivalling")
