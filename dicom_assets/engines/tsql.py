"""Transact-SQL over Delta tables where they lie: Synapse serverless SQL pools, and Fabric.

Belongs here: their scripts. Does not belong here: what the views say (`views`).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa

from dicom_assets.engines.dialects import TSQL
from dicom_assets.engines.holdings import Holdings
from dicom_assets.engines.statements import Script, remark
from dicom_assets.engines.views import shown_as, views
from dicom_assets.lake.quoting import quoted
from dicom_assets.lake.table_form import normal_type

T = TSQL()
COLLATION = "Latin1_General_100_BIN2_UTF8"
"""UTF-8, as the files are, and compared as the files' statistics are: only so are files left unread by a condition."""


def _name(table: str) -> str:
    return f"[dbo].{T.named(table)}"


def synapse_script(held: Holdings, database: str) -> Script:
    """For a serverless SQL pool. Raises UserError for a folder."""
    place = held.on_azure("Synapse")
    needs = f"""
Tables and views of the lake at {held.uri}, for a serverless SQL pool of Azure Synapse. Run it in master
(Synapse Studio, or sqlcmd -S WORKSPACE-ondemand.sql.azuresynapse.net -d master -G -i this file); batches end at
GO.

Needed first:
1. The workspace's managed identity has the role Storage Blob Data Reader on the container {place.container} of
the storage account {place.account}. It reads for everybody who may use the credential.
2. Whoever runs this has the role Synapse SQL Administrator of the workspace.

Texts are VARCHAR(MAX), and lists are their JSON text: OPENJSON takes them apart. Times are in UTC. Names of
columns are told apart by capitals, since the database's collation is binary.

For those who ask: CREATE USER [group] FROM EXTERNAL PROVIDER; GRANT SELECT ON SCHEMA::[dbo] TO [group]; GRANT
REFERENCES ON DATABASE SCOPED CREDENTIAL::[{database}_identity] TO [group];

Run it again when an attribute was promoted, or a dataset was configured: a view names its columns."""
    return Script(needs, [*_synapse(held, database)], ends="\nGO")


def _synapse(held: Holdings, database: str) -> Iterator[str]:
    named, identity, source = T.named(database), T.named(f"{database}_identity"), T.named(f"{database}_lake")
    yield f"IF DB_ID({quoted(database)}) IS NULL CREATE DATABASE {named} COLLATE {COLLATION};"
    yield f"USE {named};"
    yield (
        "-- A credential needs a master key; without a password the pool keeps one of its own.\n"
        "IF NOT EXISTS (SELECT * FROM sys.symmetric_keys WHERE name = '##MS_DatabaseMasterKey##') CREATE MASTER KEY;"
    )
    yield (
        f"IF NOT EXISTS (SELECT * FROM sys.database_scoped_credentials WHERE name = {quoted(f'{database}_identity')})\n"
        f"    CREATE DATABASE SCOPED CREDENTIAL {identity} WITH IDENTITY = 'Managed Identity';"
    )
    yield (
        f"IF NOT EXISTS (SELECT * FROM sys.external_data_sources WHERE name = {quoted(f'{database}_lake')})\n"
        f"    CREATE EXTERNAL DATA SOURCE {source}\n"
        f"    WITH (LOCATION = {quoted(held.https('Synapse'))}, CREDENTIAL = {identity});"
    )
    for table, schema in held.tables.items():
        columns = ",\n    ".join(f"{T.named(field.name)} {T.type(field.type)}" for field in schema)
        yield (
            f"CREATE OR ALTER VIEW {_name(shown_as(table))} AS\nSELECT *\nFROM OPENROWSET(BULK {quoted(f'{table}/')}, "
            f"DATA_SOURCE = {quoted(f'{database}_lake')}, FORMAT = 'DELTA')\nWITH (\n    {columns}\n) AS files;"
        )
    for view in views(held, T, _name):
        yield f"CREATE OR ALTER VIEW {_name(view.name)} AS\n{remark(view.description)}\n{view.sql};"


def fabric_script(held: Holdings, database: str) -> Script:
    """For a lakehouse of Microsoft Fabric: shortcuts by its REST API, views in its SQL endpoint. Raises UserError."""
    place = held.on_azure("Fabric")
    needs = f"""
Tables and views of the lake at {held.uri}, for a lakehouse of Microsoft Fabric. A script for bash; it needs the
Azure CLI, signed in (az login), and sqlcmd for the views.

Needed first:
1. A lakehouse {database} in a workspace where you are Contributor or more, made without schemas.
2. A connection of kind Azure Data Lake Storage Gen2 to https://{place.account}.dfs.core.windows.net (Manage
connections and gateways). Its identity, such as the workspace identity, has the role Storage Blob Data Reader
on the container {place.container}; the storage account has a hierarchical namespace.
3. The ids of the three, and the name of the SQL analytics endpoint, in the variables below.

Each table becomes a OneLake shortcut under Tables: nothing is copied. Spark in Fabric sees all columns. The SQL
analytics endpoint leaves out lists, and takes a while to see new tables: run the last part again then."""
    subpath = f"/{place.container}" + (f"/{place.path}" if place.path else "")
    lines = [
        "set -euo pipefail\n"
        ': "${WORKSPACE_ID:?the id of the workspace}" "${LAKEHOUSE_ID:?the id of the lakehouse}" '
        '"${CONNECTION_ID:?the id of the connection}"',
        "shortcut() {\n"
        "    az rest --method post --resource https://api.fabric.microsoft.com \\\n"
        '        --url "https://api.fabric.microsoft.com/v1/workspaces/$WORKSPACE_ID/items/$LAKEHOUSE_ID/shortcuts'
        '?shortcutConflictPolicy=CreateOrOverwrite" \\\n'
        '        --body "${1//CONNECTION_ID/$CONNECTION_ID}"\n'
        "}",
    ]
    for table in held.tables:
        target = {
            "location": f"https://{place.account}.dfs.core.windows.net",
            "subpath": f"{subpath}/{table}",
            "connectionId": "CONNECTION_ID",
        }
        body = {"path": "Tables", "name": shown_as(table), "target": {"adlsGen2": target}}
        lines.append(f"shortcut {shlex.quote(json.dumps(body))}")
    sql = "\nGO\n\n".join(
        f"CREATE OR ALTER VIEW {_name(view.name)} AS\n{remark(view.description)}\n{view.sql};"
        for view in views(_without_lists(held), T, _name)
    )
    lines.append(
        f"cat > {database}_views.sql <<'END_OF_VIEWS'\n{sql}\nGO\nEND_OF_VIEWS\n"
        "# SQL_ENDPOINT: the server that the lakehouse's SQL analytics endpoint shows under its settings.\n"
        f'if [ -n "${{SQL_ENDPOINT:-}}" ]; then sqlcmd -S "$SQL_ENDPOINT" -d {database} -G -i {database}_views.sql; fi'
    )
    return Script(needs, lines, comment="# ", ends="")


def _without_lists(held: Holdings) -> Holdings:
    """What Fabric's SQL endpoint sees of a lake: no columns of lists."""
    tables = {
        name: pa.schema([field for field in schema if not normal_type(field.type).startswith("list")])
        for name, schema in held.tables.items()
    }
    return replace(held, tables=tables)
