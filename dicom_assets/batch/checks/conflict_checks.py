"""The rules of conflicts: what instances say differently is in the table, and nothing else is.

Belongs here: which rows of a batch's studies are compared. Does not belong here: the queries (`conflict_sql`).

Other studies with the same UIDs are found by the index of UIDs, which has a rule of its own, those of the same study in
other sources by looking through `study` as well. What another batch touches that is not closed is left to the batch
that closes last, as in `hierarchy_checks`: closed batches are looked at first, then what is judged, then what it is
judged by.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from dicom_assets.batch.checks import conflict_sql as sql
from dicom_assets.batch.checks.contract import (
    SHOWN,
    CheckContext,
    CheckResult,
    NamedRule,
    compared,
    moving,
    studies_of,
)
from dicom_assets.curation.belonging import BELONGINGS
from dicom_assets.lake.query import arrow, connect, scan, where
from dicom_assets.schema.keys import uid_number

_COLUMNS = (
    "study_key", "source", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "first_seen_at", "updated_at",
    "version_at", "sequence", "object_id", *(one.keyword for one in BELONGINGS),
)  # fmt: skip
"""Columns of instances that conflicts follow from."""


_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


@dataclass(frozen=True)
class _Judged:
    """What was said of conflicts. version: of batch_study then; None where studies were left to another batch."""

    result: CheckResult
    version: int | None


def uids_are_indexed(context: CheckContext) -> CheckResult:
    """The index of UIDs has what the batch's metadata says, no less and no more."""
    listed = " UNION ".join(
        f"SELECT study_key, {uid} AS uid FROM flat_metadata WHERE {uid} IS NOT NULL" for uid in _UIDS
    )
    with connect(
        context.lake, ["flat_metadata", "uid_index"], within=context.staging.scope("flat_metadata", "uid_index")
    ) as connection:
        said = arrow(connection, listed)
        numbers = pa.array([uid_number(uid) for uid in said["uid"].to_pylist()], pa.int64())
        connection.register("said", pa.table({"study_key": said["study_key"], "uid": numbers}))
        return compared(connection, "FROM said", "SELECT study_key, uid FROM uid_index", "study_key")


def _keys(name: str, values: Iterable[str]) -> pa.Table:
    return pa.table({name: pa.array(sorted(set(values)), pa.string())})


def _related(context: CheckContext) -> set[str]:
    """The touched studies, and those in which one of their UIDs stands as well."""
    touched = studies_of(context)
    own = context.answer(_instances_sql(context, touched))
    uids = set().union(*(own[name].to_pylist() for name in _UIDS)) - {None}
    with context.lake.cursor() as connection:
        connection.register("own", own)
        connection.register("touched", _keys("study_key", touched))
        connection.register("uids", pa.table({"uid": pa.array(sorted(map(uid_number, uids)), pa.int64())}))
        found = connection.execute(
            f"""
            SELECT study_key FROM {scan(context.lake, "study")} SEMI JOIN own USING (StudyInstanceUID)
            UNION
            SELECT study_key FROM {scan(context.lake, "uid_index")} SEMI JOIN uids USING (uid)
            UNION
            SELECT unnest(study_keys) FROM {scan(context.lake, "conflict")}
            WHERE level <> 'patient' AND list_has_any(study_keys, (SELECT list(study_key) FROM touched))
            """
        ).fetchall()
    return {*touched, *(key for (key,) in found)}


def _instances_sql(context: CheckContext, studies: Iterable[str]) -> str:
    scope = {"study_key": sorted(set(studies))}
    listed = ", ".join(f'"{name}"' for name in dict.fromkeys(_COLUMNS))
    return f"SELECT {listed} FROM {scan(context.lake, 'instance', within=scope)}{where(scope)}"


@contextmanager
def _compared(context: CheckContext, studies: set[str]) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with `unsettled`, those of some studies that other open batches touch, and `touched`."""
    unsettled = moving(context, studies)
    with context.lake.cursor() as connection:
        connection.register("unsettled", unsettled)
        connection.register("touched", _keys("study_key", studies_of(context)))
        yield connection


_JUDGED = """
CREATE TEMP TABLE judged AS
SELECT * FROM {conflicts}
WHERE level <> 'patient'
    AND NOT coalesce(list_has_any(study_keys, (SELECT list(study_key) FROM unsettled)), false)
    AND (list_has_any(study_keys, (SELECT list(study_key) FROM touched))
    OR StudyInstanceUID IN (SELECT StudyInstanceUID FROM own))
"""

_BY = """
-- the instances of studies that the batch touches, in every source, and of those that have one of their UIDs
CREATE TEMP VIEW instances AS SELECT * FROM found
"""
_SETTLED = """
WHERE StudyInstanceUID NOT IN (SELECT StudyInstanceUID FROM found SEMI JOIN unsettled USING (study_key))
"""


def conflicts_equal_instances(context: CheckContext) -> CheckResult:
    """Conflicts of the touched studies, and of UIDs that stand in them, are what their instances say differently."""
    if not studies_of(context):
        return CheckResult(True, 0, 0)
    version = context.lake.extents("batch_study").version
    related = _related(context)
    settings = context.settings.curation
    with _compared(context, related) as connection:
        conflicts = scan(context.lake, "conflict")
        connection.register("own", context.answer(_instances_sql(context, studies_of(context))))
        connection.execute(_JUDGED.format(conflicts=conflicts))
        connection.register("found", context.answer(_instances_sql(context, related)))
        is_settled = not connection.execute("SELECT 1 FROM unsettled LIMIT 1").fetchall()
        connection.execute(_BY + ("" if is_settled else _SETTLED))
        others = "" if related == {*studies_of(context)} else (
            " WHERE StudyInstanceUID IN (SELECT StudyInstanceUID FROM instances SEMI JOIN touched USING (study_key))"
        )  # fmt: skip
        connection.execute(f"CREATE TEMP VIEW own_studies AS FROM instances{others}")
        results = []
        named = set(connection.execute("SELECT DISTINCT level, attribute FROM judged").fetchall())
        for owner in sql.GRAINS:
            doubtful = sql.doubtful(owner, "own_studies")
            connection.execute(f"CREATE OR REPLACE TEMP TABLE doubtful AS {doubtful}")
            attributes = {name for (name,) in connection.execute("SELECT DISTINCT attribute FROM doubtful").fetchall()}
            attributes |= {name for level, name in named if level == owner and name not in sql.PARENTS}
            if not attributes:
                continue  # nothing is written in two ways, and no conflict is told
            told = "(FROM own_studies SEMI JOIN doubtful USING (StudyInstanceUID))"
            results.append(
                compared(
                    connection,
                    sql.told(owner, told, settings, attributes),
                    f"FROM ({sql.there(owner, 'judged', attributes)}) "
                    "WHERE StudyInstanceUID IN (SELECT StudyInstanceUID FROM own) "
                    "OR StudyInstanceUID NOT IN (SELECT StudyInstanceUID FROM found)",
                    "shown_by",
                )
            )
        for uid in sql.PARENTS:
            several = (
                f"SELECT {uid} FROM instances GROUP BY 1 HAVING min({sql.PARENTS[uid]}) <> max({sql.PARENTS[uid]})"
            )
            there = f"SELECT {uid} FROM judged WHERE attribute = '{uid}'"
            if not connection.execute(f"SELECT 1 FROM ({several} UNION ALL {there}) LIMIT 1").fetchall():
                continue
            mine = f"(SELECT {uid} FROM instances SEMI JOIN touched USING (study_key))"
            results.append(
                compared(
                    connection,
                    f"FROM ({sql.uids_told(uid, 'instances')}) WHERE uid IN {mine}",
                    f"FROM ({sql.uids_there(uid, 'judged')}) WHERE uid IN {mine}",
                    "shown_by",
                )
            )
    found = _together(results)
    context.staging.remember(_Judged(found, version if is_settled else None))
    return found


def conflicts_hold_the_batch(context: CheckContext) -> CheckResult:
    """What the step writes last is there, and conflicts that were left to the batch that closes last are judged.

    Those that were judged whole while the batch was held are not judged again if no other batch has come since.
    """
    judged = context.staging.recall(_Judged)
    is_same = judged is not None and judged.version == context.lake.extents("batch_study").version
    conflicts = judged.result if judged is not None and is_same else conflicts_equal_instances(context)
    return _together([patients_equal_instances(context), conflicts])


def _together(results: list[CheckResult]) -> CheckResult:
    differing = [name for one in results for name in one.differing]
    expected, actual = (sum(int(getattr(one, name)) for one in results) for name in ("expected", "actual"))
    return CheckResult(not differing, expected, actual, differing[:SHOWN])


def patients_equal_instances(context: CheckContext) -> CheckResult:
    """What the touched studies say of their patients is what their instances say; their conflicts follow."""
    touched = studies_of(context)
    if not touched:
        return CheckResult(True, 0, 0)
    settings = context.settings.curation
    scope = {"study_key": touched}
    with _compared(context, {*touched}) as connection:
        conflicts, values = scan(context.lake, "conflict"), scan(context.lake, "patient_value")
        own = f"(SELECT * FROM {scan(context.lake, 'patient_value', within=scope)}{where(scope)})"
        connection.execute(f"CREATE TEMP TABLE own AS FROM {own} ANTI JOIN unsettled USING (study_key)")
        connection.register("found", context.answer(_instances_sql(context, touched)))
        connection.execute("CREATE TEMP VIEW instances AS FROM found ANTI JOIN unsettled USING (study_key)")
        connection.execute(
            f"CREATE TEMP TABLE of_patients AS FROM {values} WHERE patient_key IN (SELECT patient_key FROM {own})"
        )
        others = {key for (key,) in connection.execute("SELECT DISTINCT study_key FROM of_patients").fetchall()}
        connection.register("moving", moving(context, {*touched, *others}))
        settled = "shown_by NOT IN (SELECT patient_key FROM of_patients SEMI JOIN moving USING (study_key))"
        mixed = [str(key) for (key,) in connection.execute(sql.patients_mixed_up("of_patients")).fetchall()]
        results = [
            compared(connection, sql.values_told("instances"), sql.values_there("own"), "study_key"),
            CheckResult(not mixed, 0, len(mixed), mixed[:SHOWN]),
        ]
        attributes = arrow(connection, sql.patients_doubtful("of_patients", conflicts))["attribute"].to_pylist()
        if attributes:  # of nobody is anything said in two ways, and no conflict is told, otherwise
            results.append(
                compared(
                    connection,
                    f"FROM ({sql.patients_told('of_patients', settings)}) WHERE {settled}",
                    f"FROM ({sql.patients_there(conflicts, attributes)}) "
                    f"WHERE shown_by IN (SELECT patient_key FROM of_patients) AND {settled}",
                    "shown_by",
                )
            )
    return _together(results)


_FOUND = """
SELECT level, attribute, count(*) AS conflicts, min(DISTINCT subject_key, {shown}) AS subjects FROM {conflicts}
WHERE list_has_any(study_keys, (SELECT list(study_key) FROM touched)) OR subject_key IN (FROM patients)
GROUP BY ALL ORDER BY ALL
"""


def no_conflicts(context: CheckContext) -> CheckResult:
    """The studies and patients of the batch have no conflict; how many they have, by level and attribute."""
    touched = studies_of(context)
    scope = {"study_key": touched}
    with context.lake.cursor() as connection:
        connection.register("touched", _keys("study_key", touched))
        values = scan(context.lake, "patient_value", within=scope)
        connection.execute(f"CREATE TEMP VIEW patients AS SELECT DISTINCT patient_key FROM {values}{where(scope)}")
        found = connection.execute(_FOUND.format(conflicts=scan(context.lake, "conflict"), shown=SHOWN)).fetchall()
    listed = "; ".join(f"{level}: {attribute} {count}" for level, attribute, count, _ in found)
    subjects = sorted({key for *_, keys in found for key in keys})[:SHOWN]
    return CheckResult(not found, 0, sum(count for _, _, count, _ in found), subjects, listed)


CONFLICT_RULES: tuple[NamedRule, ...] = (
    NamedRule("conflict", "uids_are_indexed", "The index has every UID of the batch", uids_are_indexed),
    NamedRule("conflict", "equals_instances", "Conflicts of the touched studies = what their instances say differently",
              conflicts_equal_instances),
    NamedRule("conflict", "patients_equal_instances", "Conflicts of their patients = what all their studies say",
              patients_equal_instances),
    NamedRule("conflict", "no_conflicts", "Studies and patients of the batch without conflicts", no_conflicts,
              blocking=False),
)  # fmt: skip
"""Every rule of this module."""
