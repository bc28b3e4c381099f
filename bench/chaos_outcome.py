"""What must hold of the lake of a chaos run: it balances, and equals the lake of one fresh ingest of the same files.

Belongs here: the tables of both lakes, read without the project's own code, and each thing that must hold. Does not
belong here: what happened before (`chaos`, `chaos_zone`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.chaos_zone import Version, Zone

COMPARED = ("instance", "series", "study", "clinical", "imaging_study", "image_occurrence")
LEFT_OUT = {
    "batch_id", "first_seen_at", "updated_at", "ingested_at", "published_at", "image_occurrence_id", "person_id",
    "procedure_occurrence_id", "visit_occurrence_id", "created_at", "modified_at",
}  # fmt: skip
"""Columns that tell when and by which batch; ids that are given out in order of arrival."""

UNREAD = ("OBJECT_GONE", "CHANGED_DURING_READ")
"""Outcomes of an object of which nothing was read, since it was not there any more as it was claimed."""


@dataclass
class Tables:
    """The tables of one lake, read without the project's own code."""

    root: Path

    def rows(self, name: str, columns: str = "*") -> list[dict[str, Any]]:
        """All rows of a table."""
        import duckdb
        from deltalake import DeltaTable

        uris = DeltaTable(str(self.root / name)).file_uris()
        if not uris:
            return []
        listed = ", ".join("'" + uri.replace("'", "''") + "'" for uri in uris)
        with duckdb.connect() as connection:
            found = connection.execute(f"SELECT {columns} FROM read_parquet([{listed}], union_by_name=true)")
            names = [column[0] for column in found.description or []]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def claims(self) -> list[dict[str, Any]]:
        """Every object of every claim, oldest claim first."""
        import pyarrow.parquet as pq

        return [
            row
            for path in sorted((self.root / "_claims").glob("*.parquet"))
            for row in pq.read_table(path, columns=["batch_id", "object_id", "uri", "etag"]).to_pylist()
        ]


def expected_folder(zone: Zone, lake: Tables, root: Path) -> Iterator[tuple[str, Version]]:
    """Paths that are gone and whose last claimed version was read in time, with that version."""
    ledger: dict[str, set[str | None]] = {}
    for row in lake.rows("validated_batch", "object_id, code"):
        ledger.setdefault(row["object_id"], set()).add(row["code"])
    last = {row["uri"]: row for row in lake.claims()}
    for path, versions in sorted(zone.log.items()):
        claim = last.get((root / path).as_uri())
        if path in zone.there or claim is None:
            continue
        if ledger.get(claim["object_id"], set()) - set(UNREAD):
            yield path, next(version for version in versions if version.etag == claim["etag"])


def compared(name: str, chaos: Tables, fresh: Tables) -> str:
    """In which columns a table differs between both lakes; empty when in none."""
    wanted, got = (_canonical(lake.rows(name)) for lake in (fresh, chaos))
    if wanted == got:
        return ""
    extra, missing = len(set(got) - set(wanted)), len(set(wanted) - set(got))
    columns: set[str] = set()
    if len(wanted) == len(got):
        for one, other in zip(wanted, got, strict=True):
            left, right = json.loads(one), json.loads(other)
            columns |= {column for column in left if left[column] != right.get(column)}
    counts = f"{len(got)} rows instead of {len(wanted)}, {extra} too many, {missing} missing"
    return f"{counts}, columns {sorted(columns)[:8]}"


def _canonical(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(_timeless(row), default=str, sort_keys=True) for row in rows)


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what tells when it was made; a resource of FHIR says so in `meta`."""
    kept = {name: value for name, value in row.items() if name not in LEFT_OUT}
    if "resource" in kept:
        kept["resource"] = {name: value for name, value in json.loads(kept["resource"]).items() if name != "meta"}
    return kept


def judge(zone: Zone, folder: Path, fresh_root: Path) -> dict[str, str]:
    """What must hold, each with what is wrong; empty where it holds."""
    lake, fresh = Tables(folder / "lake"), Tables(fresh_root)
    root = folder / "landing"
    claims, ledger = lake.claims(), lake.rows("validated_batch", "batch_id, object_id, outcome, code")
    books = lake.rows("batches")
    open_ = [row["batch_id"] for row in books if row["status"] != "closed"]
    off = [row["batch_id"] for row in books
           if row["seen"] != row["ingested"] + row["quarantined"] + row["ignored"] + row["deleted"]]  # fmt: skip
    last = {row["uri"]: row["etag"] for row in claims}
    unclaimed = [path for path, version in zone.there.items() if last.get((root / path).as_uri()) != version.etag]
    judged = {row["object_id"] for row in ledger}
    lost = {row["object_id"] for row in claims} - judged
    times: dict[str, int] = {}
    for row in lake.rows("flat_metadata", "object_id"):
        times[row["object_id"]] = times.get(row["object_id"], 0) + 1
    kept = {row["object_id"] for row in lake.rows("validated_batch")
            if row["outcome"] == "ingested" and row["kind"] == "dicom"}  # fmt: skip
    blamed = [row["code"] for row in ledger if row["code"] in ("PARSER_CRASH", "PARSER_TIMEOUT", "READ_FAILED")]
    staged = [path for path in (folder / "lake" / "_staging").rglob("*") if path.is_file()]
    found = {
        "every batch is closed": f"{len(open_)} are not" if open_ else "",
        "every book balances": f"{len(off)} do not" if off else "",
        "what lies in the landing zone is claimed as it is": f"{len(unclaimed)} are not" if unclaimed else "",
        "every object that was claimed is judged": f"{len(lost)} are not" if lost else "",
        "every version that was read stands once in flat_metadata": ""
        if times == dict.fromkeys(kept, 1)
        else f"{len(times.keys() ^ kept)} differ, {sum(n > 1 for n in times.values())} stand more than once",
        "no sound object is blamed": f"{len(blamed)} are: {sorted(set(blamed))}" if blamed else "",
        "nothing is left in staging": f"{len(staged)} files are" if staged else "",
    }
    for name in COMPARED:
        found[f"{name} is that of a fresh ingest"] = compared(name, lake, fresh)
    return found
