"""What comes from outside, on its way into SQL: values, names of columns, keys of JSON objects.

Belongs here: the one way for each. Nothing that a file, a user or a server has named reaches SQL otherwise. Does not
belong here: SQL.
"""

from __future__ import annotations

from collections.abc import Iterable


def quoted(text: str) -> str:
    """A text as a SQL literal; NUL, which no literal holds, is put in by its number."""
    parts = ["'" + part.replace("'", "''") + "'" for part in text.split("\0")]
    return parts[0] if len(parts) == 1 else f"({' || chr(0) || '.join(parts)})"


FEW_VALUES = 20
"""Values up to which a list of them is quicker for DuckDB, which then leaves row groups unread by it."""
_BETWEEN = "\x1f"


def one_of(values: Iterable[str]) -> str:
    """What stands in the parentheses of SQL's `IN (…)` for some values, in any number; NULL for none.

    Many values come as one literal: as literals of their own, five hundred take DuckDB three times as long to take in
    as it takes to look them up.
    """
    different = sorted(set(values))
    if len(different) <= FEW_VALUES or any(_BETWEEN in value or "\0" in value for value in different):
        return ", ".join(map(quoted, different)) or "NULL"
    return f"SELECT unnest(string_split({quoted(_BETWEEN.join(different))}, chr({ord(_BETWEEN)})))"


def named(name: str) -> str:
    """A name as an identifier of SQL. Raises ValueError for what none can be: an empty one, or one with NUL."""
    if not name or "\0" in name:
        raise ValueError("no identifier of SQL")
    return '"' + name.replace('"', '""') + '"'


def pointed(document: str, key: str) -> str:
    """SQL for the text under a key of a JSON object: by pointer (RFC 6901), which has no wildcards."""
    return f"({document} ->> {quoted('/' + key.replace('~', '~0').replace('/', '~1'))})"
