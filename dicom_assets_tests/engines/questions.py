"""What each engine is asked, once for all tests: every table of the lakes, every view, every query of the README.

Belongs here: the questions, and our own answers. Does not belong here: comparing them.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import dicom_assets
from dicom_assets.engines.holdings import holdings
from dicom_assets.engines.scripts import SCRIPTS
from dicom_assets.lake.query import arrow, existing, scan
from dicom_assets.schema.registry import TABLES
from dicom_assets.storage.azure import parse
from dicom_assets_tests.engines.arrow_rows import plain
from dicom_assets_tests.support.pages import ROOT, blocks

FROM = {
    "spark": "SELECT * FROM delta.`{}`",
    "duckdb": "FROM delta_scan('{}')",
    "clickhouse": "SELECT * FROM deltaLakeLocal('{}')",
}
"""By engine, a Delta table by its folder."""

VIEWS = (
    "clinical", "study_clinical", "flat_metadata_versions", "ingestion_error_states", "clinical_labs",
    "condition", "observation", "medication", "study_condition", "study_observation", "study_medication",
)  # fmt: skip
"""Views that `dicom_assets.connect` gives of the lake `changed`."""


def of_tables(engine: str, lakes: Mapping[str, Path]) -> dict[str, str]:
    """Every table of every lake, as `lake.table`."""
    return {f"{lake}.{name}": FROM[engine].format(folder / name) for lake, folder in lakes.items() for name in TABLES}


def script(engine: str, lake: Path, database: str) -> list[str]:
    """The statements that `dicom-assets engines` prints."""
    return [*SCRIPTS[engine](holdings(existing(str(lake))), database).statements]


def synapse_views(lake: Path) -> list[str]:
    """The views of Synapse's script that stand over its tables, each as one statement of Transact-SQL."""
    place = parse("az://contoso/imaging/lake")
    held = replace(holdings(existing(str(lake))), uri=place.url, place=place)
    return [
        one.removesuffix(";")
        for one in SCRIPTS["synapse"](held, "imaging").statements
        if one.startswith("CREATE OR ALTER VIEW") and "OPENROWSET" not in one
    ]


OURS_ALONE = "tag_drift"
"""The view that no script for other engines makes."""


def readme() -> dict[str, str]:
    """Every query of the README and of the demo that is not of our view alone, by its first line."""
    files = [path.read_text("utf-8").strip() for path in sorted((ROOT / "data/queries").glob("*.sql"))]
    found = {text.splitlines()[0]: text for text in files}
    for block in blocks("sql"):
        if block.page == "README.md":
            for statement in filter(str.strip, block.text.split(";")):
                found[statement.strip().splitlines()[0]] = statement.strip()
    for block in blocks("sh"):
        if block.page == "README.md":
            for command in block.commands:
                if command.startswith("dicom-assets sql") and " --lake az:" not in command:
                    query = shlex.split(command.partition(" < ")[0])[-1]
                    found |= {query: query} if query != "-" else {}
    return {name: query for name, query in found.items() if OURS_ALONE not in query}


def in_spark() -> dict[str, str]:
    """The same in Spark's SQL: as they are, or as `data/queries/spark` has them."""
    written = {}
    for path in sorted((ROOT / "data/queries/spark").glob("*.sql")):
        first, text = path.read_text("utf-8").split("\n", 1)
        written[first] = text
        written[re.sub("^-- ", "", first)] = text
    return {name: written.get(name, text) for name, text in readme().items()}


def our_tables(lakes: Mapping[str, Path]) -> dict[str, Any]:
    """Every table of every lake as the lake itself reads it."""
    found = {}
    for named, folder in lakes.items():
        lake = existing(str(folder))
        with lake.cursor() as connection:
            for name in TABLES:
                found[f"{named}.{name}"] = plain(arrow(connection, f"SELECT * FROM {scan(lake, name)}"))
    return found


def our_answers(lake: Path, queries: Mapping[str, str]) -> dict[str, Any]:
    """Answers of `dicom_assets.connect`."""
    with dicom_assets.connect(str(lake)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return {name: plain(arrow(connection, query)) for name, query in queries.items()}


def ordered(answer: dict[str, Any], *, without_null_lists: bool = False) -> list[str]:
    """The rows in one order. without_null_lists: a list that is NULL is an empty one, as ClickHouse has it."""
    lists = {name for name, kind in answer["types"].items() if kind.startswith("list")} if without_null_lists else ()
    rows = [{name: one or [] if name in lists else one for name, one in row.items()} for row in answer["rows"]]
    return sorted(json.dumps(row, sort_keys=True) for row in rows)
