"""The SQL of the hierarchy: instance from flat_metadata, series from instance, study from series and instance.

Each statement rebuilds the studies in the table `touched` from *all* their rows, so the result does not depend on the
order in which batches arrive. Belongs here: which row wins and what is counted. Does not belong here: publishing, which
rule the settings name (`choice`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dicom_assets.lake.choice import DEFAULT, Choice, frequent
from dicom_assets.lake.corrected_objects import OBJECT_COLUMNS, applied
from dicom_assets.lake.significance import significant
from dicom_assets.lake.subjects import patients_named
from dicom_assets.schema.attributes import TOLD_WITH
from dicom_assets.schema.correction_tables import CORRECTED_BY, RECEIVED
from dicom_assets.schema.registry import FLAT_METADATA, INSTANCE, SERIES, STUDY, TABLES, Table

NEWEST = "version_at, sequence, object_id"
"""The total order of versions at different places: the last one wins."""

_AGE = "{'at': version_at, 'number': sequence, 'name': object_id}"

OVERTAKEN = """last.source = flat.source AND last.uri = flat.uri AND last.member IS NOT DISTINCT FROM flat.member
    AND (last.claimed_at > flat.ingested_at OR (flat.operation = 'delete' AND last.claimed_at = flat.ingested_at))
    AND flat.version_text IS NULL"""
"""Where a row `last` of overwritten is a later claim of the place of a row `flat` of flat_metadata.

Times of claims are an order: each is later than those of all claims before it. A change of a service has no place of
its own: its versions have the service's order. A delete of what is gone at its place says nothing beyond that it is
gone there: it takes no part, so that the same instance at another place stays.
"""


def _list(names: Sequence[str], prefix: str = "") -> str:
    return ",\n    ".join(f'{prefix}"{name}"' for name in names)


_LATEST = ", ".join(f"{column} DESC" for column in NEWEST.split(", "))


def _current_sql(studies: str, columns: Sequence[str]) -> str:
    """WITH terms for the current versions of some studies, as they were received. columns: what else they have."""
    grain = ["source", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]
    placed = list(dict.fromkeys([*columns, "operation", *grain, *NEWEST.split(", "), "ingested_at"]))
    return f"""
WITH placed AS (
    SELECT {_list(placed, "flat.")}, last.place_key IS NOT NULL AS is_overwritten
    FROM flat_metadata AS flat
    SEMI JOIN {studies} USING (study_key)
    LEFT JOIN overwritten AS last ON {OVERTAKEN}
),
versions AS (
    SELECT
        {_list(columns)}, operation, is_overwritten,
        row_number() OVER (instance ORDER BY is_overwritten, {_LATEST}, ingested_at DESC) AS age,
        min(ingested_at) OVER (instance) AS first_seen_at,
        max(ingested_at) OVER (instance) AS updated_at
    FROM placed
    WINDOW instance AS (PARTITION BY {", ".join(grain)})
),
current_rows AS (SELECT * FROM versions WHERE age = 1 AND operation = 'upsert' AND NOT is_overwritten)"""


_COPIED = [c.name for c in INSTANCE.columns if c.name in FLAT_METADATA]
_UNCORRECTED = [CORRECTED_BY, *RECEIVED]


def _instance_sql() -> str:
    """One row per current SOP instance of the touched studies."""
    nothing = ",\n    ".join(
        f"NULL::{'VARCHAR[]' if name == CORRECTED_BY else 'VARCHAR'} AS {name}" for name in _UNCORRECTED
    )
    return f"""
-- one row per (source, study, series, SOP instance): its newest version, unless that deletes it; what was overwritten
-- takes no part
{_current_sql("touched", ["batch_id", "object_id"])}
SELECT
    {_list([c.name for c in INSTANCE.columns])}
FROM (
    SELECT
    {_list(_COPIED, "flat.")},
    current_rows.first_seen_at,
    current_rows.updated_at,
    {nothing}
    FROM flat_metadata AS flat
    JOIN current_rows USING (batch_id, object_id)
    SEMI JOIN touched USING (study_key)
)
"""


def _corrected_instance_sql() -> str:
    """The same where corrections are applied: first what is current as it was received, then what it really is.

    So a change that deletes an instance deletes it wherever it was moved, and what was moved meets what is there.
    """
    keys = list(dict.fromkeys([*OBJECT_COLUMNS, *NEWEST.split(", ")]))
    same = "PARTITION BY source, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID"
    true = ["study_key", *RECEIVED.values()]
    return f"""
-- one row per (source, study, series, SOP instance), corrected: the newest of the current versions
{_current_sql("origins", keys)},
corrected AS ({applied("current_rows")}),
newest AS (
    SELECT
        * EXCLUDE (first_seen_at, updated_at),
        min(first_seen_at) OVER instance AS first_seen_at,
        max(updated_at) OVER instance AS updated_at
    FROM corrected
    SEMI JOIN touched USING (study_key)
    WINDOW instance AS ({same})
    QUALIFY row_number() OVER ({same} ORDER BY {_LATEST}) = 1
)
SELECT
    {_list([c.name for c in INSTANCE.columns])}
FROM (
    SELECT
    {_list([name for name in _COPIED if name not in true], "flat.")},
    {_list([*true, "first_seen_at", "updated_at", *_UNCORRECTED], "newest.")}
    FROM flat_metadata AS flat
    JOIN newest USING (batch_id, object_id)
    SEMI JOIN origins ON origins.study_key = flat.study_key
)
"""


def _chosen(table: Table, already: set[str]) -> list[str]:
    """The DICOM columns that a level chooses a value of, in their order."""
    return [column.name for column in table.columns if column.name not in already]


def _newest(names: Sequence[str]) -> str:
    """For each column, the newest value that is not NULL: arg_max passes NULLs over.

    A column of TOLD_WITH comes from the object that tells its lead, NULL or not: a time beside another object's date,
    or a code in another one's scheme, is what nobody has said.
    """
    return ",\n    ".join(f'{_newest_of(n)} AS "{n}"' for n in names)


def _newest_of(name: str) -> str:
    newest, lead = f'arg_max("{name}", newest)', TOLD_WITH.get(name)
    if lead is None:
        return newest
    beside = f"""(arg_max({{'value': "{name}"}}, newest) FILTER ("{lead}" IS NOT NULL)).value"""
    return f'CASE WHEN count("{lead}") = 0 THEN {newest} ELSE {beside} END'


def _with_frequent(rows: str, names: Sequence[str], grain: Sequence[str], instances: str, choice: Choice) -> str:
    """SQL for rows that have the newest values, with those that most instances tell where the rule asks for these.

    Of values that equally many tell the newest counts, and of equal ones its newest form; columns of TOLD_WITH come
    from the object that tells it. Instances are put in order once, not for each column.
    """
    sql, replaced, listed = rows, [], ", ".join(grain)
    wanted = frequent(names, choice)
    if not wanted:
        return f"SELECT * FROM {sql}"
    for number, name in enumerate(wanted):
        own = [name, *(one for one in names if TOLD_WITH.get(one) == name)]
        told = ", ".join(f"'{one}': \"{one}\"" for one in own)
        sql += f"""
LEFT JOIN (
    SELECT {listed}, arg_max(told, {{'objects': objects, 'newest': newest}}) AS told{number}
    FROM (
        SELECT
            {listed}, {significant(name)} AS said, count(*) AS objects,
            arg_max({{{told}}}, newest) AS told, max(newest) AS newest
        FROM in_order
        WHERE "{name}" IS NOT NULL AND said IS NOT NULL
        GROUP BY {listed}, said
    )
    GROUP BY {listed}
) USING ({listed})"""
        replaced += [f'if(told{number} IS NULL, "{one}", told{number}[\'{one}\']) AS "{one}"' for one in own]
    in_order = f"SELECT {listed}, {_list(names)}, newest FROM {_ranked(instances)}"
    return f"WITH in_order AS MATERIALIZED ({in_order})\nSELECT * REPLACE ({', '.join(replaced)}) FROM {sql}"


def _ranked(instances: str) -> str:
    """Instances with their place in the order of versions.

    Comparing this integer for each column takes a third of the time that comparing what it stands for takes.
    """
    return f"(SELECT *, row_number() OVER (ORDER BY {NEWEST}) AS newest FROM {instances})"


_TOUCHED = "(SELECT * FROM instance SEMI JOIN touched USING (study_key))"


_NAMED_BY = f"nullif(list_sort(list_distinct(flatten(list({CORRECTED_BY})))), []) AS {CORRECTED_BY}"
"""The corrections of some instances together; NULL where there are none."""

_COUNTED = {"instance_count", "series_count", "patient_count", "size", "first_seen_at", "updated_at", "version_at"}
_COUNTED.add(CORRECTED_BY)


def _series_sql(choice: Choice) -> str:
    """One row per series of the touched studies."""
    grain = ["source", "StudyInstanceUID", "SeriesInstanceUID"]
    names = _chosen(SERIES, {*grain, "study_key", "object_id", *_COUNTED})
    rows = f"""(
SELECT
    {_list(grain)},
    any_value(study_key) AS study_key,
    arg_max(object_id, newest) AS object_id,
    max(version_at) AS version_at,
    count(*) AS instance_count,
    sum(size)::BIGINT AS size,
    min(first_seen_at) AS first_seen_at,
    max(updated_at) AS updated_at,
    {_NAMED_BY},
    {_newest(names)}
FROM {_ranked(_TOUCHED)}
GROUP BY ALL
)"""
    return f"""
-- one row per (source, study, series)
SELECT {_list([c.name for c in SERIES.columns])} FROM ({_with_frequent(rows, names, grain, _TOUCHED, choice)})
"""


_NAMED = ("PatientID", "IssuerOfPatientID")


def _described(instances: str, choice: Choice) -> str:
    """What instances say of their study, one row each: whose it is and its modalities follow from all of them."""
    grain = ["source", "StudyInstanceUID"]
    names = _chosen(STUDY, {*grain, "study_key", "object_id", "ModalitiesInStudy", *_NAMED, *_COUNTED})
    rows = f"""(
    SELECT
        {_list(grain)},
        any_value(study_key) AS study_key,
        arg_max(object_id, newest) AS object_id,
        max(version_at) AS version_at,
        list_sort(list(DISTINCT Modality) FILTER (Modality IS NOT NULL)) AS "ModalitiesInStudy",
        {_newest(names)}
    FROM {_ranked(instances)}
    GROUP BY ALL
)"""
    named = patients_named(instances, ", ".join(grain), _AGE, [name for name in _NAMED if choice.is_frequent(name)])
    return f"""
SELECT *
FROM ({_with_frequent(rows, names, grain, instances, choice)})
JOIN ({named}) USING (source, StudyInstanceUID)
"""


def _study_sql(choice: Choice) -> str:
    """One row per touched study."""
    return f"""
-- one row per (source, study)
WITH counted AS (
    SELECT
        source, StudyInstanceUID,
        count(*) AS series_count,
        sum(instance_count)::BIGINT AS instance_count,
        sum(size)::BIGINT AS size,
        min(first_seen_at) AS first_seen_at,
        max(updated_at) AS updated_at,
        {_NAMED_BY}
    FROM series
    SEMI JOIN touched USING (study_key)
    GROUP BY ALL
)
SELECT {_list([c.name for c in STUDY.columns])}
FROM ({_described(_TOUCHED, choice)})
JOIN counted USING (source, StudyInstanceUID)
"""


def gone_sql(choice: Choice = DEFAULT) -> str:
    """SQL for rows of `study`, with source_file, of the studies in the table `gone` that have no instance any more.

    They are described as the instances that they had describe them.
    """
    order = ", ".join(f"{column} DESC" for column in NEWEST.split(", "))
    return f"""
-- one row per (source, study) of which no instance is left
WITH told AS (SELECT * EXCLUDE (header) FROM flat_metadata SEMI JOIN gone USING (study_key)),
last_known AS (
    SELECT * FROM told
    WHERE operation = 'upsert'
    QUALIFY row_number() OVER (
        PARTITION BY source, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID ORDER BY {order}
    ) = 1
),
seen AS (
    SELECT
        source, StudyInstanceUID, 0 AS series_count, 0 AS instance_count, 0 AS size,
        min(ingested_at) AS first_seen_at, max(ingested_at) AS updated_at, NULL::VARCHAR[] AS {CORRECTED_BY}
    FROM told
    GROUP BY ALL
)
SELECT {_list([c.name for c in STUDY.columns])}, source_file
FROM ({_described("last_known", choice)})
JOIN seen USING (source, StudyInstanceUID)
JOIN (
    SELECT source, StudyInstanceUID, object_id, any_value(concat_ws('!', uri, member)) AS source_file
    FROM last_known
    GROUP BY ALL
) USING (source, StudyInstanceUID, object_id)
"""


INSTANCE_SQL = _instance_sql()
CORRECTED_INSTANCE_SQL = _corrected_instance_sql()
"""In place of INSTANCE_SQL in a lake that has corrections; the table `origins` has the touched studies, and those of
which objects are moved to them."""
REBUILDS: Mapping[str, tuple[str, ...]] = {
    "instance": ("flat_metadata",),
    "series": ("instance",),
    "study": ("series", "instance"),
}
"""For each table of the hierarchy the tables that it is made from; instance looks at overwritten too."""


def rebuild_sql(name: str, choice: Choice = DEFAULT) -> str:
    """SQL that makes a table of the hierarchy anew for the studies in the table `touched`."""
    if name == INSTANCE.name:
        return INSTANCE_SQL
    return _series_sql(choice) if name == SERIES.name else _study_sql(choice)


def needed(name: str, promoted: Sequence[str] = ()) -> list[str]:
    """The columns of instance that series or study are made from. promoted: those that are promoted in the lake."""
    besides = {"study_key", "size", "Modality", *NEWEST.split(", ")}
    return [c.name for c in INSTANCE.columns if c.name in TABLES[name] or c.name in besides] + [*promoted]


def told_by_instances(name: str, columns: Sequence[str], instances: str) -> str:
    """SQL for what series or studies take of some columns from their instances: the newest that any of them gives.

    One row per source and UIDs of the level, whatever the rule of the settings: promoted columns are filled without it.
    instances: SQL that stands for them.
    """
    newest = ", ".join(f'{_newest_of(column)} AS "{column}"' for column in columns)
    return f"SELECT {', '.join(GRAIN[name])}, {newest} FROM {_ranked(instances)} GROUP BY ALL"


GRAIN = {
    "instance": ("batch_id", "object_id"),
    "series": ("source", "StudyInstanceUID", "SeriesInstanceUID"),
    "study": ("source", "StudyInstanceUID"),
}
"""By table of the hierarchy, what names the rows that its promoted columns come from."""


def with_promoted(name: str, sql: str, columns: Sequence[str], studies: str = "touched") -> str:
    """The SQL of a rebuild, with columns that are promoted in the lake beside those of the registry.

    studies: the table of the studies in which instances stand in flat_metadata.
    """
    if not columns:
        return sql
    if name == "instance":
        listed = _list([*GRAIN[name], *columns])
        more = f"SELECT {listed} FROM flat_metadata SEMI JOIN {studies} USING (study_key)"
    else:
        more = told_by_instances(name, columns, _TOUCHED)
    return f"SELECT * FROM ({sql}\n) JOIN ({more}) USING ({', '.join(GRAIN[name])})"
