"""What is staged of a batch that a person has dismissed: each of its objects as quarantined, without looking at it.

Belongs here: the staged rows. Does not belong here: who may dismiss what (`decisions`), publishing: what the batch had
brought into the tables is replaced by nothing, as by any run (`publish`).

Nothing is read, so a source that is away or not configured any more keeps no batch from being dismissed. The members of
archives are those that raw_files has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime

import pyarrow as pa

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import arrow, connect
from dicom_assets.lake.staging import SCHEMAS, Part, Staging
from dicom_assets.schema.codes import CODES, Kind

CODE = "DISMISSED"


def stage_places(lake: Lake, staging: Staging, manifest: pa.Table) -> int:
    """Stages raw_files: the objects of the manifest, and the members that raw_files has of them; how many.

    manifest: what is the batch's own. Raises LakeError.
    """
    with connect(lake, ["raw_files"], within=staging.scope("raw_files")) as connection:
        published = arrow(connection, "SELECT * FROM raw_files").to_pylist()
    claimed = {row["object_id"]: row for row in manifest.to_pylist()}
    own = [row for row in published if (row["container_id"] or row["object_id"]) in claimed]
    known = {row["object_id"] for row in own}
    own += [{**row, "kind": str(Kind.OTHER)} for name, row in claimed.items() if name not in known]
    rows = [{**row, "verdict": CODE} for row in own]
    staging.stage(Part.RAW, pa.Table.from_pylist(rows, schema=SCHEMAS[Part.RAW]))
    return len(rows)


def stage_refusals(lake: Lake, staging: Staging, run_id: str) -> Mapping[str, int]:
    """Stages a ledger in which each object is quarantined, and why; objects by outcome. Raises StagingMissing."""
    with connect(lake, ["validated_batch"], within=staging.scope("validated_batch")) as connection:
        before = arrow(connection, "SELECT object_id, outcome, code FROM validated_batch").to_pylist()
    found = {row["object_id"]: row["code"] or row["outcome"] for row in before if row["code"] != CODE}
    code = CODES[CODE]
    now = datetime.now(UTC)
    ledger, errors = [], []
    for row in staging.read_whole(Part.RAW, ["object_id", "uri", "member", "kind"]).to_pylist():
        shared = {"batch_id": staging.batch_id, "object_id": row["object_id"], "code": CODE}
        ledger.append({**shared, "outcome": str(code.outcome), "kind": row["kind"], "judged_at": now})
        was = found.get(row["object_id"])
        errors.append({
            **shared,
            "stage": "read",
            "record": 0,
            "severity": str(code.severity),
            "detail": f"{code.meaning} Before that it was: {was}." if was else code.meaning,
            "uri": row["uri"],
            "member": row["member"],
            "occurred_at": now,
            "run_id": run_id,
        })  # fmt: skip
    staging.stage(Part.LEDGER, pa.Table.from_pylist(ledger, schema=SCHEMAS[Part.LEDGER]))
    staging.stage(Part.ERRORS, pa.Table.from_pylist(errors, schema=SCHEMAS[Part.ERRORS]))
    for part in (Part.FLAT, Part.CLINICAL, Part.CORRECTION):
        staging.stage(part, SCHEMAS[part].empty_table())
    return Counter(row["outcome"] for row in ledger)
