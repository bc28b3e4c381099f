"""The open lake for medical-imaging metadata, run by Dagster.

`dicom_assets.connect(lake)` hands over a DuckDB connection with the lake's tables as views.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

# Arrow reads this when it is first imported. Its own allocator keeps what was freed, see `reading.memory`.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

if TYPE_CHECKING:
    from datetime import datetime

    from duckdb import DuckDBPyConnection

__all__ = ["connect"]


def connect(lake: str | None = None, at: str | int | datetime | None = None) -> DuckDBPyConnection:
    """A DuckDB connection with every table of a lake as a view, for `connection.execute("...").df()` and the like.

    lake: folder or URL; by default the one that is configured (DICOM_ASSETS_LAKE, `dicom-assets.toml`). at: a time (ISO
    8601 text or datetime) or the number of a version; now by default. The tables stay as they are at the call: call
    again to see what came since. Files are read in place and nothing is copied; the connection is the caller's own, in
    memory. Raises LakeError when there is no lake, QueryError for a wrong `at`, SettingsError.
    """
    from dicom_assets.lake.query import connect as connected
    from dicom_assets.lake.query import existing, moment

    if lake is None:
        from dicom_assets.settings import load

        lake = load().lake
    connection = connected(existing(lake), at=moment(at) if isinstance(at, str) else at, alone=True)
    connection.execute("SET parquet_metadata_cache = true")  # footers are read once for all queries to come
    return connection
