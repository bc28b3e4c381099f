"""The SQL of the hierarchy: instance from flat_metadata, series from instance, study from series and instance.

Each statement rebuilds the studies in the table `touched` from *all* their rows, so the result does not depend on the
order in which batches arrive. Belongs here: which row wins and what is counted. Does not belong here: publishing.
"""

from __future__ import annotations

from dicom_assets.lake.attributes import Level
from dicom_assets.lake.registry import FLAT_METADATA, INSTANCE, SERIES, STUDY, Table

NEWEST = "version_at, sequence, object_id"
"""The total order of versions at different places: the last one wins."""

OVERTAKEN = """last.source = flat.source AND last.uri = flat.uri AND last.member IS NOT DISTINCT FROM flat.member
    AND last.claimed_at > flat.ingested_at AND flat.version_text IS NULL"""
"""Where a row `last` of overwritten is a later claim of the place of a row `flat` of flat_metadata.

Times of claims are an order: each is later than those of all claims before it. A change of a service has no place of
its own: its versions have the service's order.
"""


def _list(names: list[str], prefix: str = "") -> str:
    return ",\n    ".join(f'{prefix}"{name}"' for name in names)


def _instance_sql() -> str:
    """One row per current SOP instance of the touched studies."""
    copied = [c.name for c in INSTANCE.columns if c.name in FLAT_METADATA]
    order = ", ".join(f"{column} DESC" for column in NEWEST.split(", "))
    return f"""
-- one row per (source, study, series, SOP instance): its newest version, unless that deletes it; what was overwritten
-- takes no part
WITH placed AS (
    SELECT flat.*, last.place_key IS NOT NULL AS is_overwritten
    FROM flat_metadata AS flat
    SEMI JOIN touched USING (study_key)
    LEFT JOIN overwritten AS last ON {OVERTAKEN}
),
versions AS (
    SELECT
        batch_id, object_id, operation, is_overwritten,
        row_number() OVER (instance ORDER BY is_overwritten, {order}) AS age,
        min(ingested_at) OVER (instance) AS first_seen_at,
        max(ingested_at) OVER (instance) AS updated_at
    FROM placed
    WINDOW instance AS (PARTITION BY source, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID)
),
current_rows AS (SELECT * FROM versions WHERE age = 1 AND operation = 'upsert' AND NOT is_overwritten)
SELECT
    {_list([c.name for c in INSTANCE.columns])}
FROM (
    SELECT
    {_list(copied, "flat.")},
    current_rows.first_seen_at,
    current_rows.updated_at
    FROM flat_metadata AS flat
    JOIN current_rows USING (batch_id, object_id)
    SEMI JOIN touched USING (study_key)
)
"""


def _newest(table: Table, levels: set[Level], already: set[str]) -> str:
    """For each DICOM column of a level, the newest value that is not NULL: arg_max passes NULLs over."""
    names = [c.name for c in table.columns if c.name not in already]
    return ",\n    ".join(f'arg_max("{n}", newest) AS "{n}"' for n in names)


_RANKED = f"""(
    -- one row per instance of the touched studies, with its place in the order of versions: comparing this integer for
    -- each column takes a third of the time that comparing what it stands for takes
    SELECT *, row_number() OVER (ORDER BY {NEWEST}) AS newest
    FROM instance
    SEMI JOIN touched USING (study_key)
)"""


_COUNTED = {"instance_count", "series_count", "patient_count", "size", "first_seen_at", "updated_at", "version_at"}


def _series_sql() -> str:
    """One row per series of the touched studies."""
    grain = ["source", "StudyInstanceUID", "SeriesInstanceUID"]
    already = {*grain, "study_key", "object_id", *_COUNTED}
    return f"""
-- one row per (source, study, series)
SELECT {_list([c.name for c in SERIES.columns])} FROM (
SELECT
    {_list(grain)},
    any_value(study_key) AS study_key,
    arg_max(object_id, newest) AS object_id,
    max(version_at) AS version_at,
    count(*) AS instance_count,
    sum(size)::BIGINT AS size,
    min(first_seen_at) AS first_seen_at,
    max(updated_at) AS updated_at,
    {_newest(SERIES, {Level.STUDY, Level.SERIES}, already)}
FROM {_RANKED}
GROUP BY ALL
)
"""


def _study_sql() -> str:
    """One row per touched study."""
    grain = ["source", "StudyInstanceUID"]
    already = {*grain, "study_key", "object_id", "ModalitiesInStudy", *_COUNTED}
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
        list_sort(list_distinct(list(Modality) FILTER (Modality IS NOT NULL))) AS "ModalitiesInStudy"
    FROM series
    SEMI JOIN touched USING (study_key)
    GROUP BY ALL
),
described AS (
    SELECT
        {_list(grain)},
        any_value(study_key) AS study_key,
        arg_max(object_id, newest) AS object_id,
        max(version_at) AS version_at,
        count(DISTINCT (coalesce(trim(PatientID), ''), coalesce(trim(IssuerOfPatientID), ''))) AS patient_count,
        {_newest(STUDY, {Level.STUDY}, already)}
    FROM {_RANKED}
    GROUP BY ALL
)
SELECT {_list([c.name for c in STUDY.columns])}
FROM described
JOIN counted USING (source, StudyInstanceUID)
"""


INSTANCE_SQL = _instance_sql()
SERIES_SQL = _series_sql()
STUDY_SQL = _study_sql()

REBUILDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "instance": (INSTANCE_SQL, ("flat_metadata",)),
    "series": (SERIES_SQL, ("instance",)),
    "study": (STUDY_SQL, ("series", "instance")),
}
"""For each table of the hierarchy: its SQL, and the tables that it is made from; instance looks at overwritten too."""
