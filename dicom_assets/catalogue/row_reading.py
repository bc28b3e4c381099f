"""Rows as pages take them: mappings by column, times with their zone.

Belongs here: from a query to rows. Does not belong here: queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb

Row = dict[str, Any]


def rows(connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
    """The rows of a query. Times come through Arrow, since DuckDB itself needs a package for their zones."""
    found: list[Row] = connection.sql(sql, params=[*parameters] or None).to_arrow_table().to_pylist()
    return found
