"""The data contract of a lake, in the Open Data Contract Standard (ODCS 3.1): tables, columns, keys, what always holds.

Belongs here: what the registry says, in the words of the standard. Does not belong here: the registry, and the checks
that hold it while a lake is made (`batch.checks`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from dicom_assets.engines.dialects import Dialect
from dicom_assets.engines.holdings import Holdings
from dicom_assets.lake.form import FORMAT
from dicom_assets.lake.table_form import COMMENT, described, normal_type
from dicom_assets.schema.registry import TABLES
from dicom_assets.schema.table import Table

_SQL = Dialect()
_TYPES: Mapping[str, tuple[str, str]] = {
    "string": ("string", "string"),
    "int64": ("integer", "long"),
    "int32": ("integer", "integer"),
    "double": ("number", "double"),
    "bool": ("boolean", "boolean"),
    "date32[day]": ("date", "date"),
    "timestamp[us, tz=UTC]": ("timestamp", "timestamp"),
}
"""By type of the registry, the logical type of ODCS and the primitive type of the Delta protocol."""

_CLOSED = "SELECT count(*) FROM batches WHERE status = 'closed' AND seen <> ingested + quarantined + ignored + deleted"


def of_release() -> Holdings:
    """What a new lake of this release holds, at a place that is still to be named."""
    tables = {name: described(table.columns) for name, table in TABLES.items()}
    return Holdings("az://ACCOUNT/CONTAINER/PATH", None, tables, {})


def contract(held: Holdings) -> str:
    """The contract as YAML."""
    return "".join(f"{line}\n" for line in _yaml(_contract(held)))


def _contract(held: Holdings) -> dict[str, Any]:
    on_azure = "://" in held.uri
    server = {"server": "lake", "type": "azure" if on_azure else "local"}
    server |= {("location" if on_azure else "path"): f"{held.uri}/{{model}}", "format": "delta"}
    return {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "dicom-assets-lake",
        "name": "dicom-assets lake",
        "version": f"{FORMAT}.0.0",
        "status": "active",
        "description": {
            "purpose": "Medical-imaging metadata and clinical records that come with it; all that arrives is told.",
            "usage": "Delta tables of reader version 1, for any engine. DICOM attributes keep their keyword as name.",
            "limitations": "Tables hold data of patients. dicom-assets alone writes them. Columns and tables come, "
            "and a column's type never changes: a reader names the columns that it needs.",
        },
        "servers": [server],
        "schema": [_table(TABLES[name], schema) for name, schema in held.tables.items()],
    }


def _table(table: Table, schema: pa.Schema) -> dict[str, Any]:
    return {
        "name": table.name,
        "physicalName": table.name,
        "physicalType": "table",
        "description": table.description,
        "dataGranularityDescription": f"One row: {table.grain}.",
        "properties": [_property(table, field) for field in schema],
        "quality": [*_quality(table)],
    }


def _property(table: Table, field: pa.Field) -> dict[str, Any]:
    kind = normal_type(field.type)
    found: dict[str, Any] = {"name": field.name}
    if kind.startswith("list<"):
        logical, physical = _TYPES[kind.removeprefix("list<").removesuffix(">")]
        found |= {"logicalType": "array", "physicalType": f"array<{physical}>", "items": {"logicalType": logical}}
    else:
        logical, physical = _TYPES[kind]
        found |= {"logicalType": logical, "physicalType": physical}
    found["required"] = not field.nullable
    if field.name in table.key:
        found |= {"primaryKey": True, "primaryKeyPosition": table.key.index(field.name) + 1}
    comment = (field.metadata or {}).get(COMMENT.encode(), b"").decode()
    return found | ({"description": comment} if comment else {})


def _quality(table: Table) -> Iterator[dict[str, Any]]:
    key = _SQL.listed(table.key)
    yield {
        "type": "sql",
        "description": f"Unique: {', '.join(table.key)}",
        "query": f"SELECT count(*) FROM (SELECT {key} FROM {table.name} GROUP BY {key} HAVING count(*) > 1) AS twice",
        "mustBe": 0,
    }
    if table.name == "batches":
        yield {"type": "sql", "description": "Books of closed batches balance", "query": _CLOSED, "mustBe": 0}


def _yaml(value: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """A mapping as YAML; texts as JSON writes them, which YAML reads (YAML 1.2, 7.3.1)."""
    for key, one in value.items():
        if isinstance(one, Mapping):
            yield f"{indent}{key}:"
            yield from _yaml(one, f"{indent}  ")
        elif isinstance(one, Sequence) and not isinstance(one, str):
            yield f"{indent}{key}:"
            for item in one:
                first, *rest = _yaml(item, f"{indent}    ")
                yield f"{indent}  - {first.strip()}"
                yield from rest
        else:
            yield f"{indent}{key}: {json.dumps(one, ensure_ascii=False)}"
