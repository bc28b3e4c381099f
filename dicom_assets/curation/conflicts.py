"""The table of conflicts: what instances say differently of what the information model has once.

Belongs here: which patients, studies and UIDs a batch's studies concern, and publishing what is found of them. Does not
belong here: the SQL that finds it (`told`), what belongs to whom (`belonging`), which value a series or study shows
(`lake.hierarchy`).

A row follows from current instances alone, corrections included: of a study, with its series and frames of reference,
in whatever sources hold it; of a patient, as far as patient_value says it of the studies that no one touches; of a UID,
of the studies that hold it. Studies that a batch touches concern what they tell now and what they told before: rows
that name them. So conflicts are published first and patient_value, which says what was told before, last: a kill in
between leaves enough to begin anew.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.curation import told, uid_index
from dicom_assets.curation.belonging import Owner, of
from dicom_assets.curation.patients import CLEANED, whose
from dicom_assets.curation.study_instances import ROWS_AT_ONCE, open_instances
from dicom_assets.lake.choice import NEWEST, SOURCE_RANK, Choice
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import arrow, connect, few, records, scan, where
from dicom_assets.lake.staging import Staging
from dicom_assets.lake.studies import study_scope
from dicom_assets.schema import keys
from dicom_assets.schema.registry import CONFLICT, PATIENT_VALUE

NEWEST_ROW = "version_at DESC, object_id DESC"
"""The order of rows of several sources; see `dicom_assets.serve.newest`."""

Row = dict[str, Any]

_TIMES = ("told_first_at", "told_last_at")


def publish_conflicts(lake: Lake, studies: Sequence[str], choice: Choice, staging: Staging | None = None) -> int:
    """Makes the conflicts anew that some studies concern, by their study_key; how many there are. Raises LakeError.

    staging: of the batch that is held, which keeps what was read for its rules.

    Whoever comes later sees what the other has published: UIDs are entered, and instances published, before.
    """
    if not studies:
        return 0
    with lake.committing(PATIENT_VALUE.name):
        scope = {"study_key": studies}
        of_studies = f"{scan(lake, PATIENT_VALUE.name, within=scope)}{where(scope)}"
        with open_instances(lake, staging, studies) as connection:
            own = arrow(connection, f"SELECT DISTINCT {', '.join(uid_index.UIDS)} FROM instance")
            found = connection.execute(f"SELECT DISTINCT patient_key FROM {of_studies}").fetchall()
        before = {key for (key,) in found}
        uids = {name: set(own[name].unique().to_pylist()) for name in uid_index.UIDS}
        holders = uid_index.find_holders(lake, set().union(*uids.values()) - {None})
        if staging is not None:
            staging.remember(holders)
        others = uid_index.other_studies(lake, holders, studies)
        had = _had(lake, studies, before, uids)
        looked_at = sorted({*studies, *others, *(key for row in had for key in _studies_of(row))})
        before |= {row["subject_key"] for row in had if row["level"] == Owner.PATIENT}
        about = {row["StudyInstanceUID"] for row in had if row["level"] in told.GRAINS} - {None}
        wanted = {row["values"]: row["counts"] for row in pc.value_counts(own["StudyInstanceUID"]).to_pylist()}
        if looked_at != sorted(studies):
            wanted = _sizes(lake, looked_at, {*wanted, *about})
        rows, values = _of_studies(lake, staging, looked_at, wanted, {*studies}, choice)
        if others or any(row["attribute"] in told.UIDS for row in had) or _have_several_parents(own):
            rows += _of_uids(lake, looked_at, uids, had)
        rows += _of_patients(lake, values, before, studies, choice)
        had += _had_of(lake, {row["subject_key"] for row in rows} - {row["subject_key"] for row in had})
        _replace(lake, had, rows)
        lake.replace(PATIENT_VALUE.name, studies, values)
    return len(rows)


def subject_key(kind: str, uid: str) -> str:
    """Hash of a UID that conflicts are about, such as `study`."""
    return keys.position(f"{kind} {uid}")


def _studies_of(row: Row) -> Sequence[str]:
    """The studies that have to be looked at for a row; a patient's are in patient_value."""
    return () if row["level"] == Owner.PATIENT else row["study_keys"]


def _had(lake: Lake, studies: Sequence[str], patients: set[str], uids: Mapping[str, set[str]]) -> list[Row]:
    """The rows that name one of some studies, and those about its UID or its patients."""
    about = patients | {subject_key("study", uid) for uid in uids["StudyInstanceUID"]}
    return _rows(
        lake,
        "list_has_any(study_keys, (SELECT list(key) FROM studies)) OR subject_key IN (SELECT key FROM about)",
        studies=studies,
        about=about,
    )


def _had_of(lake: Lake, about: set[str]) -> list[Row]:
    return _rows(lake, "subject_key IN (SELECT key FROM about)", about=about) if about else []


def _rows(lake: Lake, where: str, **tables: Iterable[str]) -> list[Row]:
    if not len(lake.extents(CONFLICT.name)):
        return []
    with lake.cursor() as connection:
        for name, values in tables.items():
            connection.register(name, pa.table({"key": pa.array(sorted(values), pa.string())}))
        times = ", ".join(f"list_transform({name}, lambda one: {told.utc('one')}) AS {name}" for name in _TIMES)
        return records(connection, f"SELECT * REPLACE ({times}) FROM {scan(lake, CONFLICT.name)} WHERE {where}")


def _of_studies(
    lake: Lake,
    staging: Staging | None,
    looked_at: Sequence[str],
    wanted: Mapping[str, int],
    touched: set[str],
    choice: Choice,
) -> tuple[list[Row], pa.Table]:
    """Conflicts of studies, series and frames of reference, by StudyInstanceUID; patient_value of the touched studies.

    looked_at: keys of all studies that may have these UIDs. wanted: how many instances there are about.
    """
    rows: list[Row] = []
    values = [PATIENT_VALUE.schema.empty_table()]
    with open_instances(lake, staging, looked_at) as connection:
        connection.register("touched", pa.table({"study_key": pa.array(sorted(touched), pa.string())}))
        for group in _groups(wanted):
            connection.register("wanted", pa.table({"StudyInstanceUID": pa.array(group, pa.string())}))
            connection.execute(f"CREATE OR REPLACE TEMP TABLE same AS {told.SAME}")
            same = arrow(connection, f"SELECT *, {CLEANED} FROM same")
            said = [name for name in told.COLUMNS if same[name].null_count < len(same)]
            connection.register("whose", whose(same))
            attributes = [name for name in of(Owner.PATIENT) if name in said]
            if attributes:
                found = few(connection, f"FROM ({told.patient_values(attributes)}) SEMI JOIN touched USING (study_key)")
                values.append(found.select(PATIENT_VALUE.schema.names).cast(PATIENT_VALUE.schema))
            for owner in told.GRAINS:
                rows += _owned(lake, connection, owner, _doubtful(same, owner, said), looked_at, choice)
    return rows, pa.concat_tables(values)


def _groups(wanted: Mapping[str, int]) -> Iterator[list[str]]:
    """UIDs of studies in runs of about ROWS_AT_ONCE instances."""
    group: list[str] = []
    held = 0
    for uid, count in sorted(wanted.items()):
        if group and held + count > ROWS_AT_ONCE:
            yield group
            group, held = [], 0
        group.append(uid)
        held += count
    if group:
        yield group


def _sizes(lake: Lake, looked_at: Sequence[str], wanted: Iterable[str]) -> dict[str, int]:
    """How many instances studies have, by StudyInstanceUID; looked_at: keys of all that may have these UIDs."""
    with connect(lake, ["instance"], within=study_scope(lake, ["instance"], looked_at)) as connection:
        connection.register("wanted", pa.table({"StudyInstanceUID": pa.array(sorted(wanted), pa.string())}))
        found = connection.execute(
            "SELECT StudyInstanceUID, count(*) FROM instance SEMI JOIN wanted USING (StudyInstanceUID) GROUP BY 1"
        ).fetchall()
    return dict(found)


def _doubtful(same: pa.Table, owner: Owner, said: Collection[str]) -> pa.Table:
    """Studies, series or frames of reference, by their UIDs, with the attributes that are written in two ways.

    same: as told.SAME gives it. said: attributes of which anything is said.
    """
    grain, attributes = told.GRAINS[owner], [name for name in of(owner) if name in said]
    first: dict[tuple[Any, ...], dict[str, Any]] = defaultdict(dict)
    found: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for row in same.select([*dict.fromkeys([*grain, *attributes])]).to_pylist():
        named = tuple(row[name] for name in grain)
        known, doubtful = first[named], found[named]
        for name in attributes:
            value = row[name]
            if value is not None and known.setdefault(name, value) != value and name not in doubtful:
                doubtful.append(name)
    written = [(named, names) for named, names in found.items() if names]
    columns = {name: pa.array([named[at] for named, _ in written], pa.string()) for at, name in enumerate(grain)}
    return pa.table({**columns, "attributes": pa.array([names for _, names in written], pa.list_(pa.string()))})


def _owned(
    lake: Lake,
    connection: duckdb.DuckDBPyConnection,
    owner: Owner,
    doubtful: pa.Table,
    looked_at: Sequence[str],
    choice: Choice,
) -> list[Row]:
    if not len(doubtful):  # nearly always, and the query behind this costs more to prepare than to run
        return []
    connection.register("doubtful", doubtful)
    written = set().union(*doubtful["attributes"].to_pylist())
    is_shown = owner is not Owner.FRAME_OF_REFERENCE
    asked = told.conflicts(owner, [name for name in of(owner) if name in written], choices=not is_shown)
    found = records(connection, asked)
    shown = None
    if is_shown and found:
        shown = _shown(lake, connection, owner, {row["attribute"] for row in found}, looked_at, choice)
    rows = []
    for row in found:
        named = {name: row[name] for name in told.GRAINS[owner]}
        value = chosen(row, choice) if shown is None else shown[tuple(named.values())][row["attribute"]]
        subject = subject_key("study", row["StudyInstanceUID"])
        rows.append(_row(owner, row, named, subject, value, choice.rule_of(row["attribute"])))
    return rows


def _shown(
    lake: Lake,
    connection: duckdb.DuckDBPyConnection,
    owner: Owner,
    attributes: Iterable[str],
    looked_at: Sequence[str],
    choice: Choice,
) -> dict[tuple[str, ...], Row]:
    """What the rows of series or study that count show of some attributes, by the UIDs that name them."""
    grain = told.GRAINS[owner]
    listed = ", ".join(f'{told.text(name)} AS "{name}"' for name in sorted(attributes))
    uids = ", ".join(grain)
    scope = study_scope(lake, [owner], looked_at)[owner]
    found = records(
        connection,
        f"SELECT {uids}, {listed} FROM {scan(lake, owner, within=scope)} SEMI JOIN doubtful USING ({uids})"
        f"{where(scope)} QUALIFY row_number() OVER (PARTITION BY {uids} ORDER BY {choice.newest_row(NEWEST_ROW)}) = 1",
    )
    return {tuple(row[name] for name in grain): row for row in found}


def chosen(row: Row, choice: Choice) -> str | None:
    """The value that a rule chooses where no row of series or study shows one. row: with choices, see `told`."""
    entries = [{**source, "of": place} for place, one in enumerate(row["choices"]) for source in one["sources"]]
    if choice.rule == SOURCE_RANK:
        ranks = {name: len(choice.ranks) - place for place, name in enumerate(choice.ranks)}
        best = max(ranks.get(one["source"], 0) for one in entries)
        entries = [one for one in entries if ranks.get(one["source"], 0) == best]
    newest = {one["of"]: max(_age(e) for e in entries if e["of"] == one["of"]) for one in entries}
    objects = {of: sum(e["objects"] for e in entries if e["of"] == of) for of in newest}
    is_frequent = choice.is_frequent(row["attribute"])
    of = max(newest, key=lambda one: (objects[one] if is_frequent else 0, newest[one]))
    value: str = max((e for e in entries if e["of"] == of), key=_age)["value"]
    return value


def _age(entry: Row) -> tuple[Any, ...]:
    return entry["at"], entry["number"], entry["name"]


def _have_several_parents(own: pa.Table) -> bool:
    """Whether a series or SOP Instance UID of the touched studies stands in two of them, or twice in one."""
    return any(
        len(own.group_by([uid, parent]).aggregate([])) > len(own.group_by(uid).aggregate([]))
        for uid, parent in told.UIDS.items()
    )


def _of_uids(lake: Lake, looked_at: Sequence[str], uids: Mapping[str, set[str]], had: Sequence[Row]) -> list[Row]:
    """Series and SOP Instance UIDs under several parents: of the touched studies, and those that were told of them."""
    rows = []
    names = ["instance"]
    with connect(lake, names, within=study_scope(lake, names, looked_at)) as connection:
        for uid in told.UIDS:
            level = "series" if uid == "SeriesInstanceUID" else "instance"
            about = uids[uid] | {row[uid] for row in had if row["attribute"] == uid}
            for row in records(connection, told.uid_conflicts(uid)):
                if row[uid] in about:
                    named = {uid: row[uid]}
                    rows.append(_row(level, {**row, "attribute": uid}, named, subject_key(level, row[uid]), None, None))
    return rows


_OTHERS = """
FROM {values} SEMI JOIN patients USING (patient_key) ANTI JOIN touched USING (study_key)
"""
"""What is said of patients in studies that nobody touches: `patient_value` is looked through whole, in few columns."""


def _of_patients(lake: Lake, values: pa.Table, before: set[str], studies: Sequence[str], choice: Choice) -> list[Row]:
    """Conflicts of the patients that the touched studies name now or named before."""
    patients = sorted(before | set(values["patient_key"].to_pylist()))
    with lake.cursor() as connection:
        connection.register("patients", pa.table({"patient_key": pa.array(patients, pa.string())}))
        connection.register("touched", pa.table({"study_key": pa.array(sorted(studies), pa.string())}))
        connection.register("own", values)
        others = _OTHERS.format(values=scan(lake, PATIENT_VALUE.name))
        said = "SELECT patient_key, attribute, said"
        every = f"({said} FROM own UNION ALL {said} {others})"
        ((contradicted,),) = connection.execute(
            f"CREATE TEMP TABLE contradicted AS {told.CONTRADICTED.format(patient_values=every)}"
        ).fetchall()
        if not contradicted:
            return []
        connection.execute(
            f"CREATE TEMP TABLE patient_values AS FROM (FROM own UNION ALL BY NAME (SELECT * {others})) "
            "SEMI JOIN contradicted USING (patient_key)"
        )
        found = records(connection, told.PATIENT_CONFLICTS)
    rows = []
    for row in found:
        owner = row["owner"]
        named = {"PatientID": owner["id"], "IssuerOfPatientID": owner["issuer"]}
        named |= {"StudyInstanceUID": owner["study"] if owner["id"] is None else None}
        value, rule = chosen(row, choice), choice.rule_of(row["attribute"])
        rows.append(_row(Owner.PATIENT, row, named, row["patient_key"], value, rule))
    return rows


def _row(
    level: str, found: Row, named: Mapping[str, str | None], subject: str, shown: str | None, rule: str | None
) -> Row:
    """A row of the table. found: attribute, study_keys, value_count and what is told, see `told`."""
    if level != Owner.PATIENT and rule == SOURCE_RANK and len(found["study_keys"]) < 2:
        rule = NEWEST  # of one source
    uids = [named.get(name) for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")]
    return {
        **dict.fromkeys(CONFLICT.schema.names),
        **named,
        "conflict_key": keys.correction_key(level, found["attribute"], subject, *uids),
        "subject_key": subject,
        "level": str(level),
        "attribute": found["attribute"],
        "study_keys": found["study_keys"],
        "value_count": found["value_count"],
        "told_values": [one["value"] for one in found["told"]],
        "told_objects": [one["objects"] for one in found["told"]],
        "told_first_at": [one["first"] for one in found["told"]],
        "told_last_at": [one["last"] for one in found["told"]],
        "shown_value": shown,
        "rule": rule,
    }


def _replace(lake: Lake, had: Sequence[Row], rows: Sequence[Row]) -> None:
    """Replaces the rows of subjects of which some are others now; most stay as they were."""
    old, new = ({row["conflict_key"]: row for row in some} for some in (had, rows))
    changed = {row["subject_key"] for key, row in (old | new).items() if old.get(key) != new.get(key)}
    if changed:
        fresh = [row for row in new.values() if row["subject_key"] in changed]
        with lake.committing(CONFLICT.name):
            lake.replace(CONFLICT.name, sorted(changed), pa.Table.from_pylist(fresh, schema=CONFLICT.schema))
