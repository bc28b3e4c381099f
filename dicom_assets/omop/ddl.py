"""The DDL of the imaging extension for PostgreSQL, made from the registry, and CSV that it loads.

Belongs here: CREATE TABLE image_occurrence with its NOT NULLs and keys, minimal parents for a database that has none,
and the rows in a form that COPY takes. Does not belong here: the rows themselves.
"""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc

from dicom_assets.schema.registry import IMAGE_OCCURRENCE

_TYPES = {"int32": "integer", "date32[day]": "date"}
_UIDS = ("image_study_UID", "image_series_UID")
_PARENTS = {
    "person_id": ("person", "person_id"),
    "procedure_occurrence_id": ("procedure_occurrence", "procedure_occurrence_id"),
    "visit_occurrence_id": ("visit_occurrence", "visit_occurrence_id"),
    "anatomic_site_concept_id": ("concept", "concept_id"),
    "modality_concept_id": ("concept", "concept_id"),
}
"""Foreign keys of image_occurrence."""


def image_occurrence_ddl() -> str:
    """CREATE TABLE image_occurrence: `integer`, `date`, `varchar(250)` for UIDs, `text` for varchar(max)."""
    lines = []
    for column in IMAGE_OCCURRENCE.columns:
        kind = "varchar(250)" if column.name in _UIDS else _TYPES.get(str(column.type), "text")
        key = " PRIMARY KEY" if column.name in IMAGE_OCCURRENCE.key else ""
        null = "" if column.nullable else " NOT NULL"
        parent = _PARENTS.get(column.name)
        references = f" REFERENCES {parent[0]} ({parent[1]})" if parent else ""
        lines.append(f"    {column.name} {kind}{null}{key}{references}")
    return "CREATE TABLE image_occurrence (\n" + ",\n".join(lines) + "\n);\n"


def parents_ddl() -> str:
    """The smallest tables that image_occurrence can refer to, for a database that is not an OMOP CDM yet."""
    parents = sorted(set(_PARENTS.values()))
    return "".join(f"CREATE TABLE {table} (\n    {column} integer PRIMARY KEY\n);\n" for table, column in parents)


def parent_ids(rows: pa.Table) -> dict[str, list[int]]:
    """For each parent table, the ids that rows of image_occurrence refer to."""
    found: dict[str, set[int]] = {}
    for column, (table, _) in _PARENTS.items():
        found.setdefault(table, set()).update(v for v in rows[column].to_pylist() if v is not None)
    return {table: sorted(ids) for table, ids in sorted(found.items())}


def copy_csv(rows: pa.Table) -> bytes:
    """Rows as CSV with a header line, for `COPY image_occurrence FROM STDIN (FORMAT csv, HEADER)`.

    NULL is an empty field without quotes, as COPY wants it; texts are quoted.
    """
    sink = io.BytesIO()
    pc.write_csv(rows.select(IMAGE_OCCURRENCE.schema.names), sink, pc.WriteOptions(quoting_style="needed"))
    return sink.getvalue()


def export(rows: pa.Table, folder: Path) -> list[Path]:
    """Writes parents.sql, image_occurrence.sql and image_occurrence.csv into a folder. Raises OSError.

    parents.sql makes the smallest parents with the ids that the rows refer to, for a database that has none.
    """
    inserts = "".join(
        f"INSERT INTO {table} VALUES {', '.join(f'({one})' for one in ids)};\n"
        for table, ids in parent_ids(rows).items()
        if ids
    )
    written = {
        "parents.sql": (parents_ddl() + inserts).encode(),
        "image_occurrence.sql": image_occurrence_ddl().encode(),
        "image_occurrence.csv": copy_csv(rows),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in written.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in written]
