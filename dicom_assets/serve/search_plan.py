"""A search over the tables: which rows match, in which order, and the columns that an answer needs.

Belongs here: SQL of searches. Does not belong here: reading parameters (`search_query`), one value's match
(`matching`), what an answer looks like (`answers`).

Attributes of a study match its row in `study`, those of a series its row in `series`, whatever level is searched: so
studies are found in the smallest table, and only the files with their rows are opened. Attributes that no table has are
taken from headers, typed as promoted columns are, and matched by the same SQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dicom_assets.lake.quoting import named
from dicom_assets.schema.attributes import Level
from dicom_assets.serve.attribute_names import Attribute
from dicom_assets.serve.matching import Condition, condition
from dicom_assets.serve.newest import LEVELS, UID_OF, Rows, newest, path_to
from dicom_assets.serve.search_headers import Headers, read_headers
from dicom_assets.serve.search_query import Match, Query
from dicom_assets.serve.served import Snapshot

_FEW = 1_000
"""Studies up to which they are looked up one by one instead of being joined."""

_ORDER = {
    Level.STUDY: ("StudyDate", '"StudyDate" DESC NULLS LAST'),
    Level.SERIES: ("SeriesNumber", '"SeriesNumber" NULLS LAST'),
    Level.INSTANCE: ("InstanceNumber", '"InstanceNumber" NULLS LAST'),
}
"""By level the column that rows are ordered by before their UIDs, and how."""

_COUNTS = ("series_count", "instance_count")

Path = tuple[str, ...]
"""The UIDs of a row, the study's first."""


@dataclass(frozen=True)
class Page:
    """The rows of an answer.

    paths: their UIDs, in order. more: whether there are others behind them. values: by level and UIDs, the columns.
    headers: what headers have of attributes that no table has.
    """

    paths: Sequence[Path]
    more: bool
    values: Mapping[Level, Mapping[Path, Mapping[str, Any]]]
    headers: Headers = field(default_factory=Headers)


def find(snapshot: Snapshot, query: Query, columns: Mapping[Level, Iterable[str]]) -> Page:
    """The rows that a search finds. columns: by level, those that the answer needs. Raises Refusal. Blocks."""
    query, conditions = _looked_up(snapshot, query, _by_level(query))
    lacking = [one for one in _attributes(query) if one.column is None]
    headers = read_headers(snapshot, query.level, query.uids, lacking) if lacking else Headers()
    wanted = list(dict.fromkeys([*path_to(query.level), *columns.get(query.level, ())]))
    by, order = _ORDER[query.level]
    own = _rows(snapshot, query.level, query.uids, conditions, [*wanted, by])
    terms, parameters = ["true"], list(own.parameters)
    for one in headers.conditions(query.matches, query.fuzzy):
        terms.append(f"({one.sql})")
        parameters += one.parameters
    order = "ORDER BY " + ", ".join([order, *map(named, path_to(query.level))])
    if query.level is Level.STUDY and snapshot.is_in_order and not lacking and not own.is_joined:
        order = ""  # the rows are in this order; DuckDB keeps it, and ends with the last one that is wanted
    beside = f"LEFT JOIN told USING ({', '.join(path_to(query.level))})" if lacking else ""
    with snapshot.cursor() as connection:
        if lacking:
            connection.register("told", headers.table)
        found = connection.execute(
            f"SELECT {', '.join(map(named, wanted))} FROM {own.sql} AS own {beside} WHERE {' AND '.join(terms)} "
            f"{order} LIMIT {query.limit + 1} OFFSET {query.offset}",
            parameters,
        ).fetchall()
    depth = len(path_to(query.level))
    rows = {row[:depth]: dict(zip(wanted, row, strict=True)) for row in found[: query.limit]}
    paths = [*rows]
    values = {query.level: rows if len(snapshot.seen) < 2 else _of(snapshot, query.level, paths, wanted)}
    for level in LEVELS[: depth - 1]:
        if columns.get(level):
            values[level] = _of(snapshot, level, paths, [*dict.fromkeys([*path_to(level), *columns[level]])])
    return Page(paths, len(found) > query.limit, values, headers)


def _attributes(query: Query) -> list[Attribute]:
    return [*(one.attribute for one in query.matches), *query.included]


def _by_level(query: Query) -> Mapping[Level, Sequence[Condition]]:
    """What the columns of each level must be."""
    found: dict[Level, list[Condition]] = {}
    for one in query.matches:
        if one.attribute.level is not None and (made := _condition(one, query.fuzzy)) is not None:
            found.setdefault(one.attribute.level, []).append(made)
    return found


def _condition(match: Match, fuzzy: bool) -> Condition | None:
    one = match.attribute
    column = one.column or ""
    made = condition(named(column), one.vr, match.texts, one.name, multiple=one.multiple, fuzzy=fuzzy)
    return replace(made, column=column, is_counted=column in _COUNTS) if made is not None else None


def _looked_up(
    snapshot: Snapshot, query: Query, conditions: Mapping[Level, Sequence[Condition]]
) -> tuple[Query, Mapping[Level, Sequence[Condition]]]:
    """A search with the studies that it can be limited to, found by what their own rows or those of series say."""
    for level in (Level.STUDY, Level.SERIES):
        is_above = LEVELS.index(level) < LEVELS.index(query.level)
        says = level in conditions or (level is Level.SERIES and level in query.uids)
        if Level.STUDY in query.uids or not is_above or not says:
            continue
        rows = _rows(snapshot, level, query.uids, {level: conditions.get(level, ())})
        with snapshot.cursor() as connection:
            sql = f"SELECT DISTINCT StudyInstanceUID FROM {rows.sql} LIMIT {_FEW + 1}"
            found = [uid for (uid,) in connection.execute(sql, rows.parameters).fetchall()]
        if len(found) <= _FEW:
            query = replace(query, uids={**query.uids, Level.STUDY: found})
            if level is Level.STUDY:
                conditions = {one: terms for one, terms in conditions.items() if one is not Level.STUDY}
    return query, conditions


def _rows(
    snapshot: Snapshot,
    level: Level,
    uids: Mapping[Level, Sequence[str]],
    conditions: Mapping[Level, Sequence[Condition]],
    columns: Sequence[str] = (),
) -> Rows:
    """The rows of a level that match what their own columns and those of the levels above must be.

    columns: that are needed of them, beside their UIDs.
    """
    looked_in = {one: uids[one] for one in LEVELS[: LEVELS.index(level) + 1] if one in uids}
    mine = conditions.get(level, ())
    needed = [*columns, *(one.column for one in mine)]
    own = newest(snapshot, level, looked_in, counted=any(one.is_counted for one in mine), columns=needed)
    terms, parameters = [], list(own.parameters)
    for one in mine:
        terms.append(f"({one.sql})")
        parameters += one.parameters
    for above in LEVELS[: LEVELS.index(level)]:
        if conditions.get(above):
            rows = _rows(snapshot, above, uids, {above: conditions[above]})
            path = ", ".join(path_to(above))
            terms.append(f"({path}) IN (SELECT {path if above is Level.STUDY else f'({path})'} FROM {rows.sql})")
            parameters += rows.parameters
    if not terms:
        return own
    return replace(
        own, sql=f"(SELECT * FROM {own.sql} AS own WHERE {' AND '.join(terms)})", parameters=tuple(parameters)
    )


def _of(snapshot: Snapshot, level: Level, paths: Sequence[Path], columns: Sequence[str]) -> dict[Path, dict[str, Any]]:
    """Columns of the rows of a level that some paths lead to or through."""
    depth = LEVELS.index(level) + 1
    wanted = {path[:depth] for path in paths}
    if not wanted:
        return {}
    uids = {one: sorted({path[at] for path in wanted}) for at, one in enumerate(LEVELS[:depth])}
    rows = newest(snapshot, level, uids, columns=columns)
    with snapshot.cursor() as connection:
        sql = f"SELECT {', '.join(map(named, columns))} FROM {rows.sql}"
        found = connection.execute(sql, rows.parameters).fetchall()
    made = [dict(zip(columns, row, strict=True)) for row in found]
    by_path = {tuple(one[UID_OF[at]] for at in LEVELS[:depth]): one for one in made}
    return {path: one for path, one in by_path.items() if path in wanted}
