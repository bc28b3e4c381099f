"""What the logs of Delta tables say, read as text and Parquet and not by the library that wrote them.

Belongs here: protocol, comments, and what a reader has to be able to do. Does not belong here: rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from dicom_assets.schema.registry import TABLES


def actions(table: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every action of every entry and checkpoint that a table's log still has, in their order (Delta protocol)."""
    for file in sorted((table / "_delta_log").iterdir()):
        if file.suffix == ".json":
            for line in file.read_text(encoding="utf-8").splitlines():
                yield from json.loads(line).items()
        elif file.name.endswith(".checkpoint.parquet"):
            for row in pq.read_table(file).to_pylist():
                yield from ((kind, said) for kind, said in row.items() if said is not None)


def metadata(table: Path) -> dict[str, Any]:
    """What the log says of the table last: name, description, columns."""
    return [said for kind, said in actions(table) if kind == "metaData"][-1]


def comments(table: Path) -> dict[str, str | None]:
    """By column, what the log says that it holds."""
    fields = json.loads(metadata(table)["schemaString"])["fields"]
    return {field["name"]: field["metadata"].get("comment") for field in fields}


def asked_of_readers(table: Path) -> set[str]:
    """What a reader must be able to do beyond the first version of the protocol; empty for every table of a lake."""
    found = set()
    for kind, said in actions(table):
        if kind == "protocol":
            versions = (said["minReaderVersion"], said["minWriterVersion"])
            found |= {f"protocol {versions}"} if versions > (1, 2) else set()
            found |= {str(feature) for name in ("readerFeatures", "writerFeatures") for feature in said.get(name) or ()}
        if kind in ("add", "remove"):
            found |= {"deletion vectors"} if said.get("deletionVector") else set()
            found |= {"partitions"} if said.get("partitionValues") else set()
        if kind == "metaData":
            settings = dict(said["configuration"] or {})
            found |= {name for name in settings if "columnMapping" in name or "DeletionVectors" in name}
            found |= {"column mapping"} if "delta.columnMapping" in said["schemaString"] else set()
            found |= {"another format"} if said["format"]["provider"] != "parquet" else set()
    return found


def assert_plain_and_described(lake: Path, promoted: dict[str, dict[str, str]] | None = None) -> None:
    """Every table of a lake asks for no more than the first protocol, and says what it and each column holds.

    promoted: by table, what columns beyond the registry's say.
    """
    for name, table in TABLES.items():
        own = {column.name: column.description for column in table.columns} | (promoted or {}).get(name, {})
        assert comments(lake / name) == own, name
        assert metadata(lake / name)["description"] == table.description, name
        assert asked_of_readers(lake / name) == set(), name
