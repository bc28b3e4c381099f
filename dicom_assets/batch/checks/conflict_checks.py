"""The rules of conflicts: what instances say differently is in the table, and nothing else is.

Belongs here: which rows of a batch's studies are compared. Does not belong here: the queries (`conflict_sql`).

Other studies with the same UIDs are found by the index of UIDs, which has a rule of its own, those of the same study in
other sources by looking through `study` as well. The index is looked through once for a batch: while it is the same, so
is what the step has found there. What another batch touches that is not closed is left to the batch
that closes last, as in `hierarchy_checks`: closed batches are looked at first, then what is judged, then what it is
judged by.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
from dicom_assets.curation.belonging import BELONGINGS, Owner, of
from dicom_assets.curation.study_instances import read_instances
from dicom_assets.curation.uid_index import Holders, find_holders
from dicom_assets.lake.query import records, scan, where
from dicom_assets.schema.keys import uid_numbers
from dicom_assets.schema.registry import UID_INDEX

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


@dataclass(frozen=True)
class _JudgedPatients:
    """What was said of patients. versions: of the tables then; None where studies were left to another batch."""

    result: CheckResult
    versions: Sequence[int] | None


def uids_are_indexed(context: CheckContext) -> CheckResult:
    """The index of UIDs has what the batch's metadata says, no less and no more."""
    scope = context.staging.scope("batch")["batch"]
    flat, index = (f"{scan(context.lake, name, within=scope)}{where(scope)}" for name in ("flat_metadata", "uid_index"))
    with context.lake.cursor() as connection:
        found = connection.execute(
            "SELECT DISTINCT study_key, uid FROM "
            f"(SELECT study_key, unnest([{', '.join(_UIDS)}]) AS uid FROM {flat}) WHERE uid IS NOT NULL"
        ).fetchall()
        keys = pa.array([key for key, _ in found], pa.string())
        numbers = pa.array(uid_numbers(uid for _, uid in found))
        connection.register("said", pa.table({"study_key": keys, "uid": numbers}))
        return compared(connection, "FROM said", f"SELECT study_key, uid FROM {index}", "study_key")


def _keys(name: str, values: Iterable[str]) -> pa.Table:
    return pa.table({name: pa.array(sorted(set(values)), pa.string())})


def _related(context: CheckContext, own: pa.Table, told: Iterable[Sequence[str]]) -> set[str]:
    """The touched studies, and those in which one of their UIDs stands as well.

    own: instances of the touched studies. told: studies of each conflict that may concern these.
    """
    touched = set(studies_of(context))
    uids = frozenset().union(*(own[name].unique().to_pylist() for name in _UIDS)) - {None}
    with context.lake.cursor() as connection:
        connection.register("own", own.select(["StudyInstanceUID"]))
        same = connection.execute(
            f"SELECT study_key FROM {scan(context.lake, 'study')} SEMI JOIN own USING (StudyInstanceUID)"
        ).fetchall()
    holders = context.staging.recall(Holders)
    if holders is None or holders.uids != uids or holders.version != context.lake.extents(UID_INDEX.name).version:
        holders = find_holders(context.lake, uids)
    return touched.union(
        holders.studies, (key for (key,) in same), *(studies for studies in told if touched.intersection(studies))
    )


def _instances(context: CheckContext, studies: Iterable[str]) -> pa.Table:
    """The instances of some studies."""
    keys = sorted(set(studies))
    if keys == sorted(studies_of(context)):
        rows = read_instances(context.lake, context.staging, keys)
        if rows is not None:
            return rows.select(list(dict.fromkeys(_COLUMNS)))
    scope = {"study_key": keys}
    listed = ", ".join(f'"{name}"' for name in dict.fromkeys(_COLUMNS))
    return context.answer(f"SELECT {listed} FROM {scan(context.lake, 'instance', within=scope)}{where(scope)}")


def _said(instances: pa.Table, attributes: Iterable[str]) -> list[str]:
    """Of some attributes those of which any instance says something: a statement that names more is slow to set up."""
    return [name for name in attributes if instances[name].null_count < len(instances)]


_TOLD = """
-- conflicts of the studies that the batch touches, and of their UIDs in other sources
SELECT * FROM {conflicts}
WHERE level <> 'patient' AND (list_has_any(study_keys, (SELECT list(study_key) FROM touched))
    OR StudyInstanceUID IN (SELECT StudyInstanceUID FROM own))
"""
_JUDGED = """
CREATE TEMP VIEW judged AS FROM told
"""
_OF_SETTLED = """
WHERE NOT coalesce(list_has_any(study_keys, (SELECT list(study_key) FROM unsettled)), false)
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
    touched = studies_of(context)
    if not touched:
        return CheckResult(True, 0, 0)
    # closed batches are looked at first, then what is judged, then what it is judged by
    _, version, _ = (context.lake.extents(name).version for name in ("batches", "batch_study", "conflict"))
    settings = context.settings.curation
    with context.lake.cursor() as connection:
        own = _instances(context, touched)
        connection.register("own", own)
        connection.register("touched", _keys("study_key", touched))
        connection.execute(f"CREATE TEMP TABLE told AS {_TOLD.format(conflicts=scan(context.lake, 'conflict'))}")
        told = records(connection, "SELECT level, attribute, study_keys FROM told")
        named = {(row["level"], row["attribute"]) for row in told}
        related = _related(context, own, [row["study_keys"] or () for row in told])
        unsettled = moving(context, related)
        connection.register("unsettled", unsettled)
        connection.execute(_JUDGED + (_OF_SETTLED if len(unsettled) else ""))
        found = _instances(context, related)
        connection.register("found", found)
        connection.execute(_BY + (_SETTLED if len(unsettled) else ""))
        others = "" if related == {*touched} else (
            " WHERE StudyInstanceUID IN (SELECT StudyInstanceUID FROM instances SEMI JOIN touched USING (study_key))"
        )  # fmt: skip
        connection.execute(f"CREATE TEMP VIEW own_studies AS FROM instances{others}")
        results = []
        doubtful = _doubtful(connection, _said(found, [one.keyword for one in BELONGINGS]))
        for owner in sql.GRAINS:
            attributes = {name for _, name in doubtful[owner]}
            attributes |= {name for level, name in named if level == owner and name not in sql.PARENTS}
            if not attributes:
                continue  # nothing is written in two ways, and no conflict is told
            connection.register("doubtful", _keys("StudyInstanceUID", (study for study, _ in doubtful[owner])))
            among = "(FROM own_studies SEMI JOIN doubtful USING (StudyInstanceUID))"
            results.append(
                compared(
                    connection,
                    sql.told(owner, among, settings, attributes),
                    f"FROM ({sql.there(owner, 'judged', attributes)}) "
                    "WHERE StudyInstanceUID IN (SELECT StudyInstanceUID FROM own) "
                    "OR StudyInstanceUID NOT IN (SELECT StudyInstanceUID FROM found)",
                    "shown_by",
                )
            )
        several = ", ".join(
            f"(SELECT count(*) FROM (SELECT 1 FROM instances GROUP BY {uid} HAVING min({parent}) <> max({parent})))"
            for uid, parent in sql.PARENTS.items()
        )
        (counts,) = connection.execute(f"SELECT {several}").fetchall()
        for uid, count in zip(sql.PARENTS, counts, strict=True):
            if not count and not any(attribute == uid for _, attribute in named):
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
    result = _together(results)
    context.staging.remember(_Judged(result, None if len(unsettled) else version))
    return result


def _doubtful(connection: duckdb.DuckDBPyConnection, attributes: Sequence[str]) -> Mapping[Owner, set[tuple[str, str]]]:
    """By owner the studies, and its attributes in them, that are written in two ways; attributes: that may be."""
    found: dict[Owner, set[tuple[str, str]]] = {owner: set() for owner in sql.GRAINS}
    first: dict[tuple[Owner, tuple[str | None, ...], str], Any] = {}
    names = {owner: [name for name in of(owner) if name in attributes] for owner in sql.GRAINS}
    uids = dict.fromkeys(name for grain in sql.GRAINS.values() for name in grain)
    listed = ", ".join(f'"{name}"' for name in dict.fromkeys([*uids, *attributes]))
    for row in records(connection, f"SELECT DISTINCT {listed} FROM own_studies"):
        for owner, grain in sql.GRAINS.items():
            named = tuple(row[name] for name in grain)
            for name in names[owner]:
                value = row[name]
                if value is not None and first.setdefault((owner, named, name), value) != value:
                    found[owner].add((row["StudyInstanceUID"], name))
    return found


def conflicts_hold_the_batch(context: CheckContext) -> CheckResult:
    """What the step writes last is there, and conflicts that were left to the batch that closes last are judged.

    Those that were judged whole while the batch was held are not judged again if no other batch has come since, nor are
    patients if their tables are as they were.
    """
    judged, patients = context.staging.recall(_Judged), context.staging.recall(_JudgedPatients)
    is_same = judged is not None and judged.version == context.lake.extents("batch_study").version
    conflicts = judged.result if judged is not None and is_same else conflicts_equal_instances(context)
    if patients is not None and patients.versions == _versions(context):
        return _together([patients.result, conflicts])
    return _together([patients_equal_instances(context), conflicts])


def _together(results: list[CheckResult]) -> CheckResult:
    differing = [name for one in results for name in one.differing]
    expected, actual = (sum(int(getattr(one, name)) for one in results) for name in ("expected", "actual"))
    return CheckResult(not differing, expected, actual, differing[:SHOWN])


def _versions(context: CheckContext) -> list[int]:
    """Of the tables that are looked at for patients."""
    names = ("batch_study", "conflict", "patient_value", "instance")
    return [context.lake.extents(name).version for name in names]


def patients_equal_instances(context: CheckContext) -> CheckResult:
    """What the touched studies say of their patients is what their instances say; their conflicts follow."""
    touched = studies_of(context)
    if not touched:
        return CheckResult(True, 0, 0)
    versions = _versions(context)
    settings = context.settings.curation
    scope = {"study_key": touched}
    unsettled = moving(context, touched)
    with context.lake.cursor() as connection:
        connection.register("unsettled", unsettled)
        connection.register("touched", _keys("study_key", touched))
        conflicts, values = scan(context.lake, "conflict"), scan(context.lake, "patient_value")
        own = f"SELECT patient_key FROM {scan(context.lake, 'patient_value', within=scope)}{where(scope)}"
        connection.execute(f"CREATE TEMP TABLE of_patients AS FROM {values} WHERE patient_key IN ({own})")
        connection.execute(
            "CREATE TEMP VIEW own AS FROM of_patients SEMI JOIN touched USING (study_key) "
            "ANTI JOIN unsettled USING (study_key)"
        )
        found = _instances(context, touched)
        connection.register("found", found)
        connection.execute("CREATE TEMP VIEW instances AS FROM found ANTI JOIN unsettled USING (study_key)")
        others = {key for (key,) in connection.execute("SELECT DISTINCT study_key FROM of_patients").fetchall()}
        is_moving = moving(context, {*touched, *others})
        connection.register("moving", is_moving)
        settled = "shown_by NOT IN (SELECT patient_key FROM of_patients SEMI JOIN moving USING (study_key))"
        mixed = [str(key) for (key,) in connection.execute(sql.patients_mixed_up("of_patients")).fetchall()]
        told = sql.values_told("instances", _said(found, of(Owner.PATIENT)))
        results = [
            compared(connection, told, sql.values_there("own"), "study_key"),
            CheckResult(not mixed, 0, len(mixed), mixed[:SHOWN]),
        ]
        doubtful = connection.execute(sql.patients_doubtful("of_patients", conflicts)).fetchall()
        if doubtful:  # of nobody is anything said in two ways, and no conflict is told, otherwise
            results.append(
                compared(
                    connection,
                    f"FROM ({sql.patients_told('of_patients', settings)}) WHERE {settled}",
                    f"FROM ({sql.patients_there(conflicts, [name for (name,) in doubtful])}) "
                    f"WHERE shown_by IN (SELECT patient_key FROM of_patients) AND {settled}",
                    "shown_by",
                )
            )
    result = _together(results)
    context.staging.remember(_JudgedPatients(result, None if len(unsettled) or len(is_moving) else versions))
    return result


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
