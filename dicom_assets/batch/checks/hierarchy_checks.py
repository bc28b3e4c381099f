"""Rules of the hierarchy's values: the newest version wins, counts are counted, attributes are what the rule shows.

Belongs here: the same answers as `lake.hierarchy` gives, found in another way: the newest version as a maximum instead
of by a window, the value that is shown by position in Arrow instead of by an aggregate. Does not belong here: which
instances, series and studies there are (`checks`).

What an instance, a series or a study is, and its counts, are compared for all of them; all columns for a sample of
about SAMPLE_INSTANCES instances, another one in each batch. Code that copies or chooses wrongly does so for more than
one row in a thousand; to compare 150 columns of every row took a third of what all rules took.

Studies that another batch, which is not closed, touches too may change between two reads; they are compared by the
batch that closes last. Closed batches are looked at first, then what is judged, then what it is judged by, so that a
batch whose rows are seen is seen as open or has its metadata seen.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.batch.checks.arrivals import arrivals
from dicom_assets.batch.checks.contract import CheckContext, CheckResult, NamedRule, compared, settled, studies_of
from dicom_assets.batch.checks.corrected import corrected, is_corrected, tables_of
from dicom_assets.lake.moved_studies import origins_of
from dicom_assets.lake.query import arrow, scan, where
from dicom_assets.lake.quoting import one_of
from dicom_assets.lake.studies import study_scope
from dicom_assets.schema.attributes import ATTRIBUTES, CODE_PARTS, TOLD_WITH, Level
from dicom_assets.schema.correction_tables import CORRECTED_BY, RECEIVED
from dicom_assets.schema.registry import FLAT_METADATA, INSTANCE, TABLES
from dicom_assets.settings import CurationSettings

SAMPLE_INSTANCES = 1_000
"""Instances that are compared in all columns, and whose series and studies are."""

_INSTANCE_KEY = "source, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID"
_VERSION = "version_at, sequence, object_id"
_NAMES = ("patient_family_name", "patient_given_name", "patient_ideographic_name", "patient_phonetic_name")
_FROM_ALL = ("ModalitiesInStudy", "PatientID", "IssuerOfPatientID")
"""What a study says that follows from all its instances."""


def _view(context: CheckContext, name: str, keys: Sequence[str], columns: str = "*") -> str:
    """SQL for the rows that a table has of some studies, which settles what is looked at."""
    scope = study_scope(context.lake, [name], keys)[name]
    return f"(SELECT {columns} FROM {scan(context.lake, name, within=scope)}{where(scope)})"


def _versions(context: CheckContext, keys: Sequence[str]) -> str:
    """SQL for rows that flat_metadata has of some studies; takes_part: nothing came to their place since."""
    if not is_corrected(context.lake):
        return _received(context, keys)
    origins = sorted(origins_of(context.lake, keys))
    return corrected(_received(context, origins), *tables_of(context.lake), studies=one_of(keys))


def _received(context: CheckContext, keys: Sequence[str]) -> str:
    """The same, as they were received."""
    scope = study_scope(context.lake, ["flat_metadata"], keys)["flat_metadata"]
    return f"""(
        SELECT
            flat.*,
            last.batch_id IS NULL OR last.claimed_at < flat.ingested_at OR version_text IS NOT NULL
                OR (last.claimed_at = flat.ingested_at AND operation = 'upsert') AS takes_part
        FROM {_view(context, "flat_metadata", keys)} AS flat
        LEFT JOIN {arrivals(context.lake, scope, keys)} AS last
            ON last.source = flat.source AND last.uri = flat.uri
            AND coalesce(last.member, '') = coalesce(flat.member, '')
    )"""


def instances_are_newest(context: CheckContext) -> CheckResult:
    """Each instance is the newest version that flat_metadata has, in every column; its times are those of all."""
    keys = studies_of(context)
    if not keys:
        return CheckResult(True, 0, 0)
    closed = scan(context.lake, "batches")
    instances = _view(context, "instance", keys)
    versions = _versions(context, keys)
    with context.lake.cursor() as connection:
        connection.register("settled", settled(context, closed))
        (total,) = connection.execute(
            f"SELECT count(*) FROM {_view(context, 'instance', keys, 'study_key')} SEMI JOIN settled USING (study_key)"
        ).fetchall()[0]
        every = max(1, total // SAMPLE_INSTANCES)
        told = _TOLD if is_corrected(context.lake) else ()
        listed, identity = (", ".join(f'"{one}"' for one in (*names, *told)) for names in (_COPIED, _IDENTITY))
        chosen = f"hash({context.batch}, SOPInstanceUID) % {every} = 0"
        return _compare_instances(
            connection, versions, instances, f"hash(CASE WHEN {chosen} THEN hash({listed}) END, {identity})"
        )


_IDENTITY = ("uri", "member", "size", "PatientID", "IssuerOfPatientID")
"""Columns of an instance that are compared for every one, besides its key and version."""
_TOLD = (CORRECTED_BY, *RECEIVED)
"""Columns of an instance that corrections give it."""
_COPIED = tuple(c.name for c in INSTANCE.columns if c.name in FLAT_METADATA)


def _compare_instances(connection: duckdb.DuckDBPyConnection, versions: str, instances: str, said: str) -> CheckResult:
    """Whether the instances of the settled studies are the newest versions; said: SQL for what is compared of them."""
    return compared(
        connection,
        f"""
        SELECT study_key, {_INSTANCE_KEY}, newest.object_id, newest.said, first_seen_at, updated_at FROM (
            SELECT
                study_key, {_INSTANCE_KEY},
                max({{
                    version_at: version_at, sequence: sequence, object_id: object_id, ingested_at: ingested_at,
                    is_there: operation = 'upsert', said: {said}
                }}) FILTER (takes_part) AS newest,
                min(ingested_at) AS first_seen_at,
                max(ingested_at) AS updated_at
            FROM {versions} SEMI JOIN settled USING (study_key)
            GROUP BY ALL
        )
        WHERE newest.is_there
        """,
        f"""
        SELECT study_key, {_INSTANCE_KEY}, object_id, {said} AS said, first_seen_at, updated_at
        FROM {instances} SEMI JOIN settled USING (study_key)
        """,
    )


_BY = f"""{_INSTANCE_KEY}, study_key, {_VERSION}, size, first_seen_at, updated_at, Modality, PatientID,
    IssuerOfPatientID, corrections"""
_COUNTED_BY = f"""
CREATE TEMP TABLE instances AS
SELECT
    {_BY}
FROM {{instances}} SEMI JOIN settled USING (study_key)
"""
"""What groups are counted by: one row per instance of the settled studies."""

_NAMED_BY = """(
    SELECT {grain}, list(DISTINCT one ORDER BY one) AS corrections
    FROM (SELECT {grain}, unnest(corrections) AS one FROM instances) GROUP BY {grain}
) AS named"""
"""The corrections of the instances of a group, where there are some."""

_SERIES_COUNTS = f"""
SELECT * FROM (
    SELECT
        study_key, source, StudyInstanceUID, SeriesInstanceUID, count(SOPInstanceUID) AS instance_count,
        sum(size)::BIGINT AS size, min(first_seen_at) AS first_seen_at, max(updated_at) AS updated_at,
        max(version_at) AS version_at,
        max({{version_at: version_at, sequence: sequence, object_id: object_id}}).object_id AS object_id
    FROM instances
    GROUP BY study_key, source, StudyInstanceUID, SeriesInstanceUID
) LEFT JOIN {_NAMED_BY.format(grain="study_key, SeriesInstanceUID")} USING (study_key, SeriesInstanceUID)
"""


def clean(column: str) -> str:
    """What a text says: NULL when nothing is left without control characters and without space around it."""
    plain = rf"regexp_replace({column}, '[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]', '', 'g')"
    return rf"nullif(regexp_replace({plain}, '^[\pZ\t\n\r\x85]+|[\pZ\t\n\r\x85]+$', '', 'g'), '')"


def _patients(settings: CurationSettings) -> str:
    """SQL for whose studies are, and by which of several names; see below."""
    counts = ["of_id" if is_frequent("PatientID", settings) else "0"]
    counts.append("of_issuer" if is_frequent("IssuerOfPatientID", settings) else "0")
    chosen = [
        f"(max({{c: {count}, newest: newest_{name}}}) FILTER ({name} IS NOT NULL)).newest.said"
        for name, count in zip(("id", "issuer"), counts, strict=True)
    ]
    return f"""
-- one row per study: how many patients its instances name, found by looking for what each pair of names adds
SELECT
    study_key, source, StudyInstanceUID,
    CASE WHEN count(id) = 0 THEN 0 ELSE greatest(
        count(*) FILTER (id IS NOT NULL AND (issuer IS NOT NULL OR coalesce(NOT list_contains(issued, id), true))),
        any_value(issuers)
    ) END AS patient_count,
    {chosen[0]} AS PatientID,
    {chosen[1]} AS IssuerOfPatientID
FROM (
    SELECT
        *,
        list(id) FILTER (issuer IS NOT NULL) OVER study AS issued,
        len(list_distinct(list(issuer) OVER study)) AS issuers,
        sum(instances) OVER (PARTITION BY study_key, id) AS of_id,
        sum(instances) OVER (PARTITION BY study_key, issuer) AS of_issuer
    FROM (
        SELECT
            study_key, source, StudyInstanceUID, id, issuer, count(*) AS instances,
            max({{v: version_at, s: sequence, o: object_id, said: PatientID}}) FILTER (id IS NOT NULL) AS newest_id,
            max({{v: version_at, s: sequence, o: object_id, said: IssuerOfPatientID}})
                FILTER (issuer IS NOT NULL) AS newest_issuer
        FROM (SELECT *, {clean("PatientID")} AS id, {clean("IssuerOfPatientID")} AS issuer FROM instances)
        GROUP BY ALL
    )
    WINDOW study AS (PARTITION BY study_key, source, StudyInstanceUID)
)
GROUP BY study_key, source, StudyInstanceUID
"""


def _study_counts(settings: CurationSettings) -> str:
    return f"""
SELECT * FROM (
    SELECT
        study_key, source, StudyInstanceUID, count(DISTINCT SeriesInstanceUID) AS series_count,
        count(SOPInstanceUID) AS instance_count,
        sum(size)::BIGINT AS size, min(first_seen_at) AS first_seen_at, max(updated_at) AS updated_at,
        max(version_at) AS version_at,
        max({{version_at: version_at, sequence: sequence, object_id: object_id}}).object_id AS object_id
    FROM instances
    GROUP BY study_key, source, StudyInstanceUID
) JOIN ({_patients(settings)}) USING (study_key, source, StudyInstanceUID)
LEFT JOIN {_NAMED_BY.format(grain="study_key")} USING (study_key)
"""


def is_frequent(column: str, settings: CurationSettings) -> bool:
    """Whether of a column the value of most instances is shown."""
    own: str | None = settings.attribute_rules.get(TOLD_WITH.get(column, column))
    return (own or settings.conflict_rule) == "most_frequent"


def _grain(name: str) -> list[str]:
    return ["study_key", *TABLES[name].key]


def _attributes(name: str) -> list[str]:
    """The columns of series or study that are the newest that an instance tells, whatever that is."""
    levels = {Level.STUDY, Level.SERIES} if name == "series" else {Level.STUDY}
    names = [a.keyword for a in ATTRIBUTES if a.level in levels] + [c.column for c in CODE_PARTS if c.level in levels]
    left_out = {*TABLES[name].key, *(_FROM_ALL if name == "study" else ())}
    return [column for column in (*names, *_NAMES) if column not in left_out]


def _looked_at(name: str) -> list[str]:
    """The columns of instances that series or study are compared with."""
    told = _attributes(name)
    return list(
        dict.fromkeys([*map(str.strip, _BY.split(",")), *told, *(TOLD_WITH[c] for c in told if c in TOLD_WITH)])
    )


def groups_equal_instances(name: str, context: CheckContext) -> CheckResult:
    """Each touched series or study has the counts of its instances, and the newest value that any of them tells."""
    keys = studies_of(context)
    if not keys:
        return CheckResult(True, 0, 0)
    closed = scan(context.lake, "batches")
    rows = _view(context, name, keys)
    instances = _view(context, "instance", keys, ", ".join(f'"{column}"' for column in _looked_at(name)))
    with context.lake.cursor() as connection:
        connection.register("settled", settled(context, closed))
        connection.execute(_COUNTED_BY.format(instances=instances))
        judged = f"FROM {rows} SEMI JOIN settled USING (study_key)"
        counted = _SERIES_COUNTS if name == "series" else _study_counts(context.settings.curation)
        names = [column for column in TABLES[name].schema.names if column in _COUNTED[name]]
        listed = ", ".join([*_grain(name), *names])
        result = compared(connection, f"SELECT {listed} FROM ({counted})", f"SELECT {listed} {judged}", "study_key")
        if result.passed and name == "study":
            result = compared(
                connection,
                "SELECT study_key, array_to_string(list(DISTINCT Modality ORDER BY Modality), '\\') AS modalities "
                "FROM instances WHERE Modality IS NOT NULL GROUP BY study_key",
                f"SELECT study_key, array_to_string(ModalitiesInStudy, '\\') AS modalities {judged} "
                "WHERE ModalitiesInStudy IS NOT NULL",
                "study_key",
            )
        if not result.passed:
            return result
        sample = _values_are_newest(context, connection, name, judged, instances)
    return result if sample.passed else sample


_COUNTED = {
    "series": {"corrections", "instance_count", "size", "first_seen_at", "updated_at", "version_at", "object_id"},
    "study": {
        "corrections", "series_count", "instance_count", "patient_count", "PatientID", "IssuerOfPatientID", "size",
        "first_seen_at", "updated_at", "version_at", "object_id",
    },
}  # fmt: skip


def _values_are_newest(
    context: CheckContext, connection: duckdb.DuckDBPyConnection, name: str, judged: str, instances: str
) -> CheckResult:
    """Each attribute of some series or studies is the value that the rule shows: by default the newest."""
    said = ", ".join(f'"{column}"' for column in _attributes(name))
    key = ", ".join(_grain(name))
    connection.execute(_SAMPLE.format(batch=context.batch, most=SAMPLE_INSTANCES))
    connection.register("shown_values", _shown(connection, name, instances, context.settings.curation))
    return compared(
        connection,
        f"SELECT {key}, hash({said}) AS said FROM shown_values",
        f"SELECT {key}, hash({said}) AS said {judged} WHERE study_key IN (FROM sample)",
        "study_key",
    )


_SAMPLE = """
-- studies in an order that is another one for each batch, until they have so many instances
CREATE TEMP TABLE sample AS
SELECT study_key FROM (
    SELECT study_key, sum(size) OVER (ORDER BY hash({batch}, study_key), study_key) - size AS before
    FROM (SELECT study_key, count(*) AS size FROM instances GROUP BY study_key)
)
WHERE before < {most}
"""


def _shown(connection: duckdb.DuckDBPyConnection, name: str, instances: str, settings: CurationSettings) -> pa.Table:
    """One row per series or study of the sample: its key, and of each attribute the last value that is there.

    By rule the last of those that most instances tell. Of those of TOLD_WITH the one that stands beside that of their
    lead.
    """
    grain, attributes = _grain(name), _attributes(name)
    listed = ", ".join(f'"{column}"' for column in [*grain, *_VERSION.split(", "), *attributes])
    rows = arrow(connection, f"SELECT {listed} FROM {instances} SEMI JOIN sample USING (study_key)")
    order = rows.select([*grain, *_VERSION.split(", ")]).combine_chunks()
    places = pc.sort_indices(order, [(column, "ascending") for column in order.column_names])
    keys = order.select(grain).take(places)
    changes = np.zeros(len(keys), dtype=bool)
    for column in grain:
        values = keys[column].combine_chunks()
        changes[1:] |= np.asarray(pc.not_equal(values[1:], values[:-1]))
    group = np.cumsum(changes)
    firsts = np.flatnonzero(np.r_[True, changes[1:]]) if len(keys) else np.zeros(0, dtype=np.int64)
    columns = {column: keys[column].take(pa.array(firsts)) for column in grain}
    for column in attributes:
        values = rows[column].combine_chunks().take(places)
        at = _lasts(values, group, len(firsts))
        if is_frequent(column, settings) and column not in TOLD_WITH:
            at = _most(column, values, group, at)
        if column in TOLD_WITH:
            told = rows[TOLD_WITH[column]].combine_chunks().take(places)
            leads = _lasts(told, group, len(firsts))
            if is_frequent(column, settings):
                leads = _most(TOLD_WITH[column], told, group, leads)
            at = [own if lead is None else lead for own, lead in zip(at, leads, strict=True)]
        columns[column] = values.take(pa.array(at, pa.int64()))
    return pa.table(columns)


def _most(column: str, values: pa.Array, group: npt.NDArray[np.int64], lasts: Sequence[int | None]) -> list[int | None]:
    """Where each group has the last of the values that it has most often, as they are compared; else its last one."""
    places: dict[int, dict[object, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, value in enumerate(values.to_pylist()):
        said = form(column, value)
        if said is not None:
            places[int(group[place])][said].append(place)
    found = [max(own.values(), key=lambda one: (len(one), one[-1]))[-1] if own else None
             for own in (places[number] for number in range(len(lasts)))]  # fmt: skip
    return [last if most is None else most for most, last in zip(found, lasts, strict=True)]


_SPACE = re.compile(r"^[\s\x85]+|[\s\x85]+$|[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]")
_NAMED = {a.keyword for a in ATTRIBUTES if a.vr == "PN"}
_TIMED = {a.keyword for a in ATTRIBUTES if a.vr == "TM"}


def form(column: str, value: Any) -> object:
    """What of a value counts when it is compared; None when that is nothing."""
    if isinstance(value, list):
        return tuple(filter(None, (form(column, one) for one in value))) or None
    if not isinstance(value, str):
        return value
    text = _SPACE.sub("", _SPACE.sub("", value))
    if column in _TIMED and "." in text:
        return text.rstrip("0").rstrip(".")
    if column in _NAMED:
        groups = ["^".join(_SPACE.sub("", part) for part in one.split("^")).rstrip("^") for one in text.split("=")]
        return next(filter(None, groups[:2]), None)
    return text or None


def _lasts(values: pa.Array, group: npt.NDArray[np.int64], groups: int) -> list[int | None]:
    """Where each group has its last value that is there; None when it has none."""
    there = np.flatnonzero(np.asarray(values.is_valid()))
    lasts = np.flatnonzero(np.r_[group[there][1:] != group[there][:-1], True]) if len(there) else there
    at: list[int | None] = [None] * groups
    for place in there[lasts].tolist():
        at[group[place]] = place
    return at


def _groups(name: str) -> NamedRule:
    def rule(context: CheckContext) -> CheckResult:
        return groups_equal_instances(name, context)

    return NamedRule(name, "equals_instances", f"Counts and attributes of each {name} = those of its instances", rule)


HIERARCHY_RULES: tuple[NamedRule, ...] = (
    NamedRule("instance", "is_newest", "Each instance = its newest version in flat_metadata", instances_are_newest),
    _groups("series"),
    _groups("study"),
)
"""Every rule of this module."""
