"""Rows of a level of the hierarchy, never two of one UID: where several sources hold it, the newest.

Belongs here: which row stands for a study, a series or an instance, over all sources that may be seen. Does not belong
here: which columns are wanted, what they match (`searching`).

Within one source the tables have one row each, so nothing is done about it where one source is seen. A study that
several hold has the union of their instances; what is counted is counted from them, everything else is the newest
row's, by (version_at, sequence, object_id), the order in which one version is newer than another, or, of studies and
series, the row of the source of highest rank where the settings rank them. UIDs are unique
within what the path to them names: a series within its study, an instance within its series.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dicom_assets.lake.extents import Within
from dicom_assets.schema.attributes import Level
from dicom_assets.schema.keys import study_key
from dicom_assets.serve.loaded_studies import ALL_MODALITIES
from dicom_assets.serve.served import Snapshot

UID_OF = {Level.STUDY: "StudyInstanceUID", Level.SERIES: "SeriesInstanceUID", Level.INSTANCE: "SOPInstanceUID"}
"""Column that names a row of a level within the one above."""

LEVELS = tuple(Level)

_ORDER = {Level.INSTANCE: "version_at DESC, sequence DESC, object_id DESC"}
"""Of what has no number of a version, such as studies and series, the order is `Snapshot.order`."""

_OF_VERSIONS = {
    Level.STUDY: ("version_at", "object_id", "ModalitiesInStudy"),
    Level.SERIES: ("version_at", "object_id"),
    Level.INSTANCE: ("version_at", "sequence", "object_id"),
}
"""Columns that tell which of several rows is the newest, or follow from all of them."""

_COUNTED = {
    Level.STUDY: {
        "series_count": "count(DISTINCT SeriesInstanceUID)",
        "instance_count": "count(*)",
        "size": "sum(size)::BIGINT",
        "first_seen_at": "min(first_seen_at)",
        "updated_at": "max(updated_at)",
        "ModalitiesInStudy": "list_sort(list(DISTINCT Modality) FILTER (Modality IS NOT NULL))",
    },
    Level.SERIES: {
        "instance_count": "count(*)",
        "size": "sum(size)::BIGINT",
        "first_seen_at": "min(first_seen_at)",
        "updated_at": "max(updated_at)",
    },
}
"""Columns that follow from the instances."""


@dataclass(frozen=True)
class Rows:
    """SQL for a FROM clause, in parentheses, and the values of its parameters (`?`) in their order.

    is_joined: with other tables, so that the rows have lost whatever order they had.
    """

    sql: str
    parameters: tuple[object, ...] = ()
    is_joined: bool = False


def path_to(level: Level) -> tuple[str, ...]:
    """The columns that name a row of a level, the study's UID first."""
    return tuple(UID_OF[one] for one in LEVELS[: LEVELS.index(level) + 1])


def newest(
    snapshot: Snapshot,
    level: Level | str,
    uids: Mapping[str, str] | Mapping[str, Sequence[str]] | Mapping[Level, Sequence[str]] | None = None,
    *,
    counted: bool = True,
    columns: Iterable[str] | None = None,
) -> Rows:
    """The rows of a table (study, series or instance) that may be seen, one for each UID.

    uids: which, by `study`, `series`, `instance`, one UID or several of each, such as `Call.uids` gives them; without
    a study every file of the table is looked at. counted: whether columns that follow from the instances of several
    sources are wanted; without them, only ModalitiesInStudy does. columns: those that are needed, None for all: rows
    have them, and perhaps others.

        rows = newest(snapshot, Level.INSTANCE, call.uids)
        with snapshot.cursor() as connection:
            connection.execute(f"SELECT object_id FROM {rows.sql} AS instance", rows.parameters).fetchall()
    """
    wanted = {Level(key): [one] if isinstance(one, str) else [*one] for key, one in (uids or {}).items()}
    level = Level(level)
    if level is Level.INSTANCE or len(snapshot.seen) < 2 or not counted:
        return _newest(snapshot, level, wanted, columns)
    rows = _newest(snapshot, level, wanted, None if columns is None else [*columns, *_COUNTED[level]])
    return _counted(snapshot, level, rows, wanted)


def keys_of(snapshot: Snapshot, studies: Sequence[str]) -> list[str]:
    """The study_keys that some studies have in the sources that may be seen."""
    return [study_key(source, uid) for uid in studies for source in snapshot.seen]


def _newest(
    snapshot: Snapshot, level: Level, wanted: Mapping[Level, Sequence[str]], given: Iterable[str] | None = None
) -> Rows:
    narrow = None if given is None else [*dict.fromkeys([*path_to(level), *_OF_VERSIONS[level], *given])]
    terms, parameters = ["true"], []
    for one, values in wanted.items():
        terms.append(f"{UID_OF[one]} IN (SELECT unnest(?))" if len(values) != 1 else f"{UID_OF[one]} = ?")
        parameters.append([*values] if len(values) != 1 else values[0])
    within: Within | None = {"study_key": keys_of(snapshot, wanted[Level.STUDY])} if Level.STUDY in wanted else None
    where = f"WHERE {' AND '.join(terms)}"
    if len(snapshot.seen) < 2:
        sql = f"SELECT * FROM {snapshot.scan(level, within, narrow)} {where}"
    elif level is Level.STUDY and (held := snapshot.newest_studies(narrow)) is not None:
        sql = f"SELECT * FROM {held} {where}"
    else:
        columns = f"* REPLACE ({ALL_MODALITIES} AS ModalitiesInStudy)" if level is Level.STUDY else "*"
        order = _ORDER.get(level, snapshot.order)
        sql = (
            f"SELECT {columns} FROM {snapshot.scan(level, within, narrow)} {where} "
            f"QUALIFY row_number() OVER (PARTITION BY {', '.join(path_to(level))} ORDER BY {order}) = 1"
        )
    return Rows(f"({sql})", tuple(parameters))


def _counted(snapshot: Snapshot, level: Level, rows: Rows, wanted: Mapping[Level, Sequence[str]]) -> Rows:
    """Rows with the columns that follow from the instances of all sources."""
    path = ", ".join(path_to(level))
    counted = _COUNTED[level]
    several = f"SELECT StudyInstanceUID FROM {snapshot.scan('study')} GROUP BY ALL HAVING count(*) > 1"
    above = {one: values for one, values in wanted.items() if LEVELS.index(one) <= LEVELS.index(level)}
    instances = _newest(snapshot, Level.INSTANCE, above, ("Modality", "size", "first_seen_at", "updated_at"))
    if Level.STUDY in wanted:
        of_several = instances.sql
    else:
        of_several = f"(SELECT * FROM {instances.sql} WHERE StudyInstanceUID IN ({several}))"
    aggregates = ", ".join(f"{sql} AS {name}" for name, sql in counted.items())
    replaced = ", ".join(f"coalesce(counted.{name}, own.{name}) AS {name}" for name in counted)
    return Rows(
        f"(SELECT own.* REPLACE ({replaced}) FROM {rows.sql} AS own "
        f"LEFT JOIN (SELECT {path}, {aggregates} FROM {of_several} GROUP BY {path}) AS counted USING ({path}))",
        (*rows.parameters, *instances.parameters),
        is_joined=True,
    )
