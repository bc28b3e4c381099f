"""DuckDB, wherever it runs: views over `delta_scan`.

Belongs here: its statements. Does not belong here: the DuckDB that the project itself asks (`lake.query`).
"""

from __future__ import annotations

from collections.abc import Iterator

from dicom_assets.engines.dialects import DuckDB
from dicom_assets.engines.holdings import Holdings
from dicom_assets.engines.statements import Script
from dicom_assets.engines.views import shown_as, views
from dicom_assets.schema.registry import TABLES

DUCKDB = DuckDB()


def duckdb_script(held: Holdings, database: str) -> Script:
    """For DuckDB with its extension `delta`. Raises UserError."""
    needs = f"""
Tables and views of the lake at {held.uri}, for DuckDB: duckdb some.duckdb < this file, or the statements one by
one.

Needed first: DuckDB 1.2 or newer, and its extension delta, which INSTALL downloads once. {_reach(held)}

delta_scan asks the table's log which files are the table. read_parquet over a folder would count rows of older
versions as well: a file stays there for a while after it was replaced."""
    return Script(needs, [*_statements(held, database)])


def _reach(held: Holdings) -> str:
    if held.place is None:
        return "It reads this folder."
    return (
        f"It reads the storage account {held.place.account} as whoever runs it, by az login or a managed identity, who "
        f"needs the role Storage Blob Data Reader on the container {held.place.container}."
    )


def _location(held: Holdings, table: str) -> str:
    if held.place is None:
        return f"{held.uri}/{table}"
    below = held.place.below(table)
    return f"abfss://{below.account}.dfs.core.windows.net/{below.container}/{below.path}"


def _statements(held: Holdings, database: str) -> Iterator[str]:
    def name(table: str) -> str:
        return f"{DUCKDB.named(database)}.{DUCKDB.named(table)}"

    yield "INSTALL delta"
    yield "LOAD delta"
    if held.place is not None:
        yield "INSTALL azure"
        yield "LOAD azure"
        yield (
            f"CREATE OR REPLACE SECRET {DUCKDB.named(f'{database}_lake')} (TYPE azure, PROVIDER credential_chain, "
            f"ACCOUNT_NAME {DUCKDB.literal(held.place.account)})"
        )
    yield f"CREATE SCHEMA IF NOT EXISTS {DUCKDB.named(database)}"
    for table in held.tables:
        view = name(shown_as(table))
        location = DUCKDB.literal(_location(held, table))
        yield f"CREATE OR REPLACE VIEW {view} AS FROM delta_scan({location})"
        yield f"COMMENT ON VIEW {view} IS {DUCKDB.literal(TABLES[table].description)}"
    for one in views(held, DUCKDB, name):
        yield f"CREATE OR REPLACE VIEW {name(one.name)} AS\n{one.sql}"
        yield f"COMMENT ON VIEW {name(one.name)} IS {DUCKDB.literal(one.description)}"
