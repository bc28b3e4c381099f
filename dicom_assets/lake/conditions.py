"""Conditions that users write about rows: one SQL expression, and nothing that reads, changes or remembers anything.

Belongs here: what such an expression may say, found in its syntax tree and by binding it to columns without a row; the
database that it is asked in. Does not belong here: whose rows it is asked of (`batch.house_rules`).

A condition is refused where its answer could be another one for the same rows (`now()`, `random()`), since a batch
that is run again must come to the same.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import duckdb
import pyarrow as pa

from dicom_assets.lake.database import close_off
from dicom_assets.lake.quoting import named

_BEFORE, _BEHIND = "SELECT (\n", "\n)"
_CLASSES = frozenset(
    ("CONSTANT", "COLUMN_REF", "FUNCTION", "OPERATOR", "COMPARISON", "CONJUNCTION", "CAST", "CASE", "BETWEEN", "LAMBDA",
     "COLLATE", "TYPE")
)  # fmt: skip
"""Expressions of which a condition may be made."""
_REFUSED = {
    "SUBQUERY": "a query within it; it is asked of its own rows alone",
    "WINDOW": 'a window function; aggregates are for level = "study" or "batch"',
    "STAR": "a star; name the columns",
    "PARAMETER": "a parameter",
}
_OF_NOW = frozenset(
    ("current_date", "current_time", "current_timestamp", "localtime", "localtimestamp", "current_user", "user",
     "session_user", "current_role", "current_catalog", "current_schema")
)  # fmt: skip
"""Words that look like columns and are none."""
_MACROS = re.compile(
    r"(list|array|map_contains|md5_number)_\w+|date_add|days_in_month|fdiv|fmod|if|json|nullif|split_part"
    r"|geomean|geometric_mean|wavg|weighted_avg"
)
"""Functions of DuckDB that are made of others, and give the same for the same values."""
_INNER = re.compile(r"json_(de)?serialize_\w+|.*log_message|version")
"""Functions that have nothing to do with values of rows."""


class ConditionError(ValueError):
    """A condition that cannot be asked; the message says why, without any value that stands in it."""


class Unasked(Exception):
    """A sound condition that these rows cannot be asked; the message holds no value of theirs."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that was found sound. columns: those that it names, as their table spells them."""

    sql: str
    columns: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Function:
    """kinds: scalar, aggregate, table, … is_settled: whether it gives the same for the same values."""

    kinds: frozenset[str]
    is_settled: bool


@dataclass(frozen=True)
class Grammar:
    """What conditions are held against: a database without a row, and the functions that it has."""

    connection: duckdb.DuckDBPyConnection
    columns: pa.Schema
    functions: Mapping[str, _Function]

    def condition(self, text: str, groups: Sequence[str] = ()) -> Condition:
        """A sound condition; groups: columns by which rows are grouped for its aggregates. Raises ConditionError."""
        tree = _tree(self.connection, text)
        _require_functions(tree, self.functions, bool(groups))
        columns = _require_columns(tree, self.columns.names)
        for node in _nodes(tree):
            if node["class"] not in _CLASSES:
                raise ConditionError(f"it has {_REFUSED.get(node['class'], 'a part that is no plain expression')}")
        self._require_kind(text, groups)
        return Condition(text, columns)

    def _require_kind(self, text: str, groups: Sequence[str]) -> None:
        grouped = f" GROUP BY {', '.join(map(named, groups))}" if groups else ""
        try:
            described = self.connection.execute(f"DESCRIBE SELECT (\n{text}\n) AS holds FROM offered{grouped}")
            kinds = [row[1] for row in described.fetchall()]
            self.connection.execute(f"SELECT (\n{text}\n) FROM offered{grouped}").fetchall()
        except duckdb.Error as error:
            raise ConditionError(_words(error)) from None
        if kinds != ["BOOLEAN"]:
            raise ConditionError(f"it is no condition: it gives {kinds[0]}, and not true or false")


@contextmanager
def grammar(columns: pa.Schema) -> Iterator[Grammar]:
    """What conditions over rows of some columns are held against."""
    with locked(duckdb.connect()) as connection:
        nothing = [pa.nulls(1, column.type) for column in columns]  # a row, so that constants are looked at too
        connection.register("offered", pa.table(nothing, names=columns.names))
        yield Grammar(connection, columns, _functions(connection))


@contextmanager
def locked(connection: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database that reads no file and no network, loads nothing and lets nobody change that; closed at the end."""
    with connection:
        close_off(connection)
        yield connection


def ask(connection: duckdb.DuckDBPyConnection, sql: str, seconds: float) -> list[tuple[Any, ...]]:
    """The rows of a query that holds a condition. Raises Unasked when it takes longer, or a value does not fit it."""
    ends = threading.Timer(seconds, connection.interrupt)
    ends.start()
    try:
        return connection.execute(sql).fetchall()
    except duckdb.InterruptException:
        raise Unasked(f"it takes longer than {seconds:g} seconds") from None
    except duckdb.Error as error:  # what DuckDB says of a row quotes it
        raise Unasked(
            f"it cannot be asked of every row ({type(error).__name__}): TRY_CAST gives NULL where a value is of "
            "another kind"
        ) from None
    finally:
        ends.cancel()


def _tree(connection: duckdb.DuckDBPyConnection, text: str) -> Any:
    """The syntax tree of one expression."""
    told = _serialized(connection, f"{_BEFORE}{text}{_BEHIND}")
    alone = _serialized(connection, f"SELECT {text}\n")  # what closes our parenthesis is no expression by itself
    for found, before in ((told, _BEFORE), (alone, "SELECT ")):
        if found.get("error"):
            raise ConditionError(_syntax(found, len(before), len(text)))
    statements = told["statements"]
    node = statements[0]["node"]
    others = ("where_clause", "group_expressions", "having", "qualify", "sample")
    is_plain = node.get("type") == "SELECT_NODE" and node["from_table"]["type"] == "EMPTY"
    if len(statements) != 1 or not is_plain or len(node["select_list"]) != 1 or any(node.get(one) for one in others):
        raise ConditionError("it is no single expression that is true or false of a row")
    return node["select_list"][0]


def _serialized(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    row = connection.execute("SELECT json_serialize_sql($1)", [sql]).fetchall()[0]
    found: dict[str, Any] = json.loads(row[0])
    return found


def _syntax(told: Mapping[str, Any], before: int, length: int) -> str:
    if "only select" in str(told.get("error_message")).lower():
        return "it is a statement, and not an expression that is true or false of a row"
    place = str(told.get("position") or "")
    at = int(place) - before + 1 if place.isdigit() else 0
    return "syntax error" + (f" at character {at}" if 0 < at <= length else " at its end" if at > length else "")


def _nodes(tree: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        for inner in tree.values():
            yield from _nodes(inner)
    elif isinstance(tree, list):
        for inner in tree:
            yield from _nodes(inner)


def _functions(connection: duckdb.DuckDBPyConnection) -> Mapping[str, _Function]:
    """DuckDB's functions: of which kinds each is, and whether it gives the same for the same values."""
    rows = connection.execute(
        "SELECT function_name, list(DISTINCT function_type), "
        "coalesce(bool_and(stability = 'CONSISTENT') FILTER (function_type IN ('scalar', 'aggregate', 'macro')), false)"
        " FROM duckdb_functions() GROUP BY 1"
    ).fetchall()
    return {name: _Function(frozenset(kinds), settled) for name, kinds, settled in rows}


_OPERATORS = re.compile(r"[^\w]+")


def _require_functions(tree: Any, known: Mapping[str, _Function], grouped: bool) -> None:
    for node in _nodes(tree):
        name = str(node.get("function_name") or "").lower()
        if not name or node["class"] == "WINDOW":
            continue
        found = known.get(name)
        if found is None and (name == "count_star" or _OPERATORS.fullmatch(name)):
            found = _Function(frozenset({"aggregate" if name == "count_star" else "scalar"}), True)
        if found is None:
            near = get_close_matches(name, [one for one in known if one[0].isalpha()], 3)
            raise ConditionError(f"there is no function {name}{_nearest(near)}")
        if not found.kinds & {"scalar", "aggregate", "macro"} or _INNER.fullmatch(name):
            raise ConditionError(f"function {name} is none of values: a condition reads no files, tables or settings")
        if "aggregate" in found.kinds and "scalar" not in found.kinds and not grouped:
            raise ConditionError(
                f'{name.removesuffix("_star")} looks at several rows, and level = "object" at one: give level = '
                '"study" or "batch"'
            )
        if not found.is_settled and not ("macro" in found.kinds and _MACROS.fullmatch(name)):
            raise ConditionError(_unsettled(name))


def _unsettled(name: str) -> str:
    return (
        f"{name} can give another answer for the same rows, and a batch that is run again must come to the same; "
        "ingested_at is when its objects were claimed"
    )


def _require_columns(tree: Any, columns: Sequence[str]) -> frozenset[str]:
    """The columns that a condition names."""
    offered = {name.lower(): name for name in columns}
    bound = {
        str(one["column_names"][0]).lower()
        for node in _nodes(tree)
        if node["class"] == "LAMBDA"
        for one in _nodes(node.get("lhs"))
        if one["class"] == "COLUMN_REF"
    }
    for node in _nodes(tree):  # `lambda x: …` names what it binds itself
        if node["class"] == "LAMBDA":
            bound |= {str(name).lower() for name in node.get("named_parameters") or ()}
    found = set()
    for node in _nodes(tree):
        if node["class"] != "COLUMN_REF":
            continue
        written = str(node["column_names"][0])
        name = written.lower()
        if name in offered:
            found.add(offered[name])
        elif name in _OF_NOW:
            raise ConditionError(_unsettled(name))
        elif name not in bound:
            near = [offered[one] for one in get_close_matches(name, list(offered), 3)]
            raise ConditionError(f"there is no column {written}{_nearest(near)}")
    return frozenset(found)


def _nearest(names: Sequence[str]) -> str:
    return f"; nearest: {', '.join(names)}" if names else ""


_QUOTED = re.compile(r"'[^']*'|\b\d[\d.]*\b")


def _words(error: duckdb.Error) -> str:
    """The first line of what DuckDB says of names and types, without the values that the condition compares with."""
    if not isinstance(error, duckdb.BinderException | duckdb.CatalogException):
        return f"a constant in it is not of the kind that is asked of it ({type(error).__name__})"
    return _QUOTED.sub("…", str(error).strip().split("\n", 1)[0])
