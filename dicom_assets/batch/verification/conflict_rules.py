"""Rules over the table of conflicts: the whole of it is what all instances say differently.

Belongs here: looking at a part of the lake after the other. Does not belong here: the queries, which the rules of a
batch ask as well (`checks.conflict_sql`).

Studies go by the hash of their UID, so that all sources of a study are looked at together; UIDs and patients by theirs.
What a study that is between two states has a part in is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import duckdb
import pyarrow as pa

from dicom_assets.batch.checks import conflict_sql as sql
from dicom_assets.batch.verification.findings import SHOWN, Finding, Sound
from dicom_assets.settings import CurationSettings

ROWS_AT_ONCE = 1_000_000
"""Instances that are looked at together, about."""

_DESCRIPTIONS = {
    "conflict": "Conflicts = what instances say differently, with the value that is shown by the rule of the settings",
    "patient_value": "What studies say of patients = what their instances say",
    "patient_conflict": "Conflicts of patients = what their studies say differently, shown by the rule of the settings",
}
_TABLES = ("conflict", "patient_value", "instance", "batch_study")

_DIFFERING = """
SELECT DISTINCT shown_by FROM (
    SELECT * EXCLUDE (times) FROM (
        SELECT *, 1 AS times FROM ({expected}) UNION ALL SELECT *, -1 AS times FROM ({actual})
    ) GROUP BY ALL HAVING sum(times) <> 0
)
"""


def look(sound: Sound, closed: pa.Table, chosen: Sequence[str] | None, settings: CurationSettings) -> Iterator[Finding]:
    """What each rule finds. closed: batch_ids, read before anything else. chosen: only studies that these touch.

    Raises LakeError, duckdb.Error.
    """
    if not sound.opens(*_TABLES):
        for name, text in _DESCRIPTIONS.items():
            yield Finding(name, text, told="not looked at: a table cannot be opened", is_note=True)
        return
    with sound.lake.cursor() as connection:
        _views(connection, sound, closed, chosen)
        parts = max(1, -(-sound.lake.row_count("instance") // ROWS_AT_ONCE))
        found: dict[str, set[str]] = {name: set() for name in _DESCRIPTIONS}
        for part in range(parts):
            found["conflict"] |= _studies(connection, settings, f"% {parts} = {part}")
            found["conflict"] |= _uids(connection, f"% {parts} = {part}")
            found["patient_value"] |= _values(connection, f"% {parts} = {part}")
            found["patient_conflict"] |= _patients(connection, settings, f"% {parts} = {part}")
        mixed = connection.execute(sql.patients_mixed_up("own_values")).fetchall()
        found["patient_value"] |= {key for (key,) in mixed}
    for name, text in _DESCRIPTIONS.items():
        keys = sorted(found[name])
        yield Finding(name, text, len(keys), studies=keys, shown=keys[:SHOWN])


def _views(connection: duckdb.DuckDBPyConnection, sound: Sound, closed: pa.Table, chosen: Sequence[str] | None) -> None:
    """Tables before what they are made from, and the index last, in which a batch is entered before it writes."""
    sources = {name: sound.source(name) for name in _TABLES}
    connection.register("closed", closed)
    connection.execute(
        f"CREATE TEMP TABLE moving AS SELECT DISTINCT study_key FROM {sources['batch_study']} "
        "ANTI JOIN closed USING (batch_id)"
    )
    wanted = "true"
    if chosen is not None:
        connection.register("chosen", pa.table({"batch_id": pa.array(list(chosen), pa.string())}))
        connection.execute(
            f"CREATE TEMP TABLE wanted AS SELECT DISTINCT study_key FROM {sources['batch_study']} "
            "SEMI JOIN chosen USING (batch_id)"
        )
        wanted = "study_key IN (SELECT study_key FROM wanted)"
    for name in ("conflict", "patient_value", "instance"):
        connection.execute(f"CREATE TEMP VIEW all_{name} AS FROM {sources[name]}")
    moved = "coalesce(list_has_any(study_keys, (SELECT list(study_key) FROM moving)), false)"
    of_chosen = "true" if chosen is None else "list_has_any(study_keys, (SELECT list(study_key) FROM wanted))"
    connection.execute(f"CREATE TEMP TABLE judged AS FROM all_conflict WHERE NOT {moved} AND {of_chosen}")
    connection.execute(
        "CREATE TEMP TABLE unsettled AS SELECT DISTINCT StudyInstanceUID FROM all_instance "
        "SEMI JOIN moving USING (study_key)"
    )
    connection.execute(
        f"CREATE TEMP VIEW instances AS FROM all_instance WHERE StudyInstanceUID IN "
        f"(SELECT StudyInstanceUID FROM all_instance WHERE {wanted}) "
        "AND StudyInstanceUID NOT IN (SELECT StudyInstanceUID FROM unsettled)"
    )
    for own, name in (("own_values", "patient_value"), ("own_instances", "instance")):
        connection.execute(
            f"CREATE TEMP VIEW {own} AS FROM all_{name} "
            f"WHERE {wanted} AND study_key NOT IN (SELECT study_key FROM moving)"
        )
    connection.execute(
        "CREATE TEMP VIEW of_patients AS FROM all_patient_value "
        f"WHERE patient_key IN (SELECT patient_key FROM all_patient_value WHERE {wanted}) AND patient_key NOT IN "
        "(SELECT patient_key FROM all_patient_value WHERE study_key IN (SELECT study_key FROM moving))"
    )


def _differing(connection: duckdb.DuckDBPyConnection, expected: str, actual: str) -> set[str]:
    found = connection.execute(_DIFFERING.format(expected=expected, actual=actual)).fetchall()
    return {key for (key,) in found}


def _named(connection: duckdb.DuckDBPyConnection, bad: set[str], table: str, told: str, instances: str) -> set[str]:
    """Keys of studies that conflicts or instances name for what differs; told, instances: SQL for its name there."""
    if not bad:
        return set()
    connection.register("bad", pa.table({"name": pa.array(sorted(bad), pa.string())}))
    found = connection.execute(
        f"SELECT unnest(study_keys) FROM all_conflict WHERE {told} IN (FROM bad) "
        f"UNION SELECT study_key FROM {table} WHERE {instances} IN (FROM bad)"
    ).fetchall()
    return {key for (key,) in found}


def _studies(connection: duckdb.DuckDBPyConnection, settings: CurationSettings, part: str) -> set[str]:
    own = f"hash(StudyInstanceUID) {part}"
    bad: set[str] = set()
    for owner in sql.GRAINS:
        judged = sql.there(owner, "judged")
        told = sql.told(owner, f"(FROM instances WHERE {own})", settings)
        bad |= _differing(connection, told, f"FROM ({judged}) WHERE {own}")
    return _named(connection, bad, "all_instance", "md5(StudyInstanceUID)", "md5(StudyInstanceUID)")


def _uids(connection: duckdb.DuckDBPyConnection, part: str) -> set[str]:
    found: set[str] = set()
    for uid in sql.PARENTS:
        moving = f"{uid} NOT IN (SELECT {uid} FROM all_instance SEMI JOIN moving USING (study_key))"
        rows = f"(FROM all_instance WHERE hash({uid}) {part} AND {moving} AND {uid} IN (SELECT {uid} FROM instances))"
        there = f"FROM ({sql.uids_there(uid, 'judged')}) WHERE hash(uid) {part}"
        bad = _differing(connection, sql.uids_told(uid, rows), there)
        found |= _named(connection, bad, "all_instance", f"md5({uid})", f"md5({uid})")
    return found


def _values(connection: duckdb.DuckDBPyConnection, part: str) -> set[str]:
    own = f"hash(study_key) {part}"
    told = sql.values_told(f"(FROM own_instances WHERE {own})")
    there = sql.values_there(f"(FROM own_values WHERE {own})")
    expected, actual = (f"SELECT study_key AS shown_by, * EXCLUDE (study_key) FROM ({rows})" for rows in (told, there))
    return _differing(connection, expected, actual)


def _patients(connection: duckdb.DuckDBPyConnection, settings: CurationSettings, part: str) -> set[str]:
    own = f"hash(patient_key) {part}"
    expected = sql.patients_told(f"(FROM of_patients WHERE {own})", settings)
    actual = f"FROM ({sql.patients_there('judged')}) WHERE hash(shown_by) {part}"
    bad = _differing(connection, expected, actual)
    return _named(connection, bad, "all_patient_value", "subject_key", "patient_key")
