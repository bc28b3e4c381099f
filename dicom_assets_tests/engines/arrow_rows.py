"""Arrow tables as JSON, the same from every engine: types in one spelling, times in UTC.

Belongs here: what runs in the engines' own environment and in that of the tests. It imports Arrow alone.
"""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import pyarrow as pa


def plain(table: pa.Table) -> dict[str, Any]:
    """types: by column, in one spelling for the variants of one type. rows: as dictionaries of JSON's values."""
    return {
        "types": {field.name: spelled(field.type) for field in table.schema},
        "rows": [{name: _value(one) for name, one in row.items()} for row in table.to_pylist()],
    }


def spelled(kind: pa.DataType) -> str:
    """A type in words."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or str(kind).startswith("list_view"):
        return f"list<{spelled(kind.value_type)}>"
    if pa.types.is_timestamp(kind):
        return "timestamp"
    if str(kind) in ("large_string", "string_view"):
        return "string"
    return "date" if pa.types.is_date(kind) else str(kind)


def _value(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        if value.tzinfo is not None:
            value = value.astimezone(dt.UTC).replace(tzinfo=None)
        return value.isoformat(timespec="microseconds")
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list):
        return [_value(one) for one in value]
    return value
