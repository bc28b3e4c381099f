"""Rules that hold a batch against its claim: every object that was claimed is there, as it was listed.

Belongs here: comparisons with the manifest in the claim log, read as a file, and of rows with raw_files. Does not
belong here: what is inside archives (`archive_checks`).
"""

from __future__ import annotations

import io
from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dicom_assets.batch.checks.contract import CheckContext, CheckResult, NamedRule, compared
from dicom_assets.batch.organize import FOLDER as ORGANIZED
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import connect
from dicom_assets.landing.claims import MANIFEST, ClaimLog, UnknownBatch, with_defaults
from dicom_assets.landing.returns import ReturnLog

_PLACES = pa.schema([("object_id", pa.string()), ("uri", pa.string()), ("etag", pa.string())])


def returned_objects(lake: Lake, batch_id: str) -> Collection[str]:
    """object_ids that have left a batch after they were claimed; it has to account for the others alone."""
    rows = ReturnLog(lake.files).of_batch(batch_id)
    return frozenset(rows.filter(rows["waits"])["object_id"].to_pylist())


def claim_of(context: CheckContext) -> pa.Table:
    """The manifest as it stands in the claim log, without what has left the batch. Raises UnknownBatch."""
    batch_id = context.staging.batch_id
    for claim in (context.log or ClaimLog(context.lake.files)).claims():
        if claim.batch_id == batch_id:
            rows = pq.ParquetFile(io.BytesIO(context.lake.files.get(claim.path))).read()
            manifest = with_defaults(rows).cast(MANIFEST)
            left = pa.array(sorted(returned_objects(context.lake, batch_id)), pa.string())
            return manifest.filter(pc.invert(pc.is_in(manifest["object_id"], left)))
    raise UnknownBatch(f"Batch {batch_id} is not in the claim log.")


def _places(context: CheckContext) -> pa.Table:
    """Where mode `organize` has put objects of the batch, when it was run before."""
    path = f"{ORGANIZED}/plans/{context.staging.batch_id}/done/places.parquet"
    try:
        done = pq.ParquetFile(io.BytesIO(context.lake.files.get(path))).read(columns=["object_id", "at"]).to_pylist()
    except FileNotFoundError:
        return _PLACES.empty_table()
    moved = [
        {"object_id": row["object_id"], "uri": row["at"]["uri"], "etag": row["at"]["etag"]}
        for row in done
        if row["at"] is not None
    ]
    return pa.Table.from_pylist(moved, schema=_PLACES)


def raw_files_equal_claim(context: CheckContext) -> CheckResult:
    """Each object of the claim is in raw_files once, as it was listed; where it lies now, when it was moved since."""
    with connect(context.lake, ["raw_files"], within=context.staging.scope("raw_files")) as connection:
        connection.register("claim", claim_of(context))
        connection.register("places", _places(context))
        return compared(
            connection,
            "SELECT object_id, source, uri, etag, size, modified_at, claimed_at FROM claim",
            f"""
            SELECT
                raw.object_id,
                split_part(raw.source, '/', 1) AS source,
                CASE WHEN raw.uri = places.uri THEN claim.uri ELSE raw.uri END AS uri,
                CASE WHEN raw.etag = places.etag THEN claim.etag ELSE raw.etag END AS etag,
                raw.size, raw.modified_at, raw.claimed_at
            FROM raw_files AS raw
            LEFT JOIN places USING (object_id)
            LEFT JOIN claim USING (object_id)
            WHERE raw.batch_id = {context.batch} AND raw.container_id IS NULL
            """,
        )


def members_follow_containers(context: CheckContext) -> CheckResult:
    """Each member belongs to an object of the claim, and has its source, its time and the batch's."""
    shared = "source, modified_at, claimed_at"
    with connect(context.lake, ["raw_files"], within=context.staging.scope("raw_files")) as connection:
        connection.register("claim", claim_of(context))
        inside = f"FROM raw_files WHERE batch_id = {context.batch} AND container_id IS NOT NULL"
        return compared(
            connection,
            f"""
            SELECT inside.object_id, claim.source, claim.modified_at, claim.claimed_at
            FROM (SELECT object_id, container_id {inside}) AS inside
            LEFT JOIN claim ON claim.object_id = inside.container_id
            """,
            f"SELECT object_id, split_part(source, '/', 1) AS source, {shared.split(', ', 1)[1]} {inside}",
        )


def system_files_are_named_so(context: CheckContext) -> CheckResult:
    """What is left out as a system's file has a name of one: nothing else is told from a name."""
    tables = ["raw_files", "validated_batch"]
    with connect(context.lake, tables, within=context.staging.scope(*tables)) as connection:
        left_out = f"FROM validated_batch WHERE batch_id = {context.batch} AND code = 'SYSTEM_FILE'"
        return compared(
            connection,
            f"SELECT object_id {left_out}",
            rf"""
            SELECT object_id FROM raw_files SEMI JOIN (SELECT object_id {left_out}) AS left_out USING (object_id)
            WHERE regexp_matches(concat_ws('/', uri, member), '(^|[/!\\])(\.[^/]+|healthCheck|__MACOSX|Thumbs\.db)')
            """,
        )


def metadata_equals_claim(context: CheckContext) -> CheckResult:
    """Each file's row in flat_metadata says of the file what raw_files says; its time is that of the claim."""
    tables = ["flat_metadata", "raw_files"]
    said = "object_id, source, uri, member, size, ingested_at, version_at, sequence, operation"
    columns = {"flat_metadata": ["batch_id", *said.split(", ")]}
    with connect(context.lake, tables, within=context.staging.scope(*tables), columns=columns) as connection:
        return compared(
            connection,
            f"""
            SELECT
                raw.object_id, raw.source, raw.uri, raw.member, raw.size, raw.claimed_at AS ingested_at,
                coalesce(raw.modified_at, raw.claimed_at) AS version_at, 0 AS sequence, 'upsert' AS operation
            FROM raw_files AS raw
            JOIN (SELECT object_id FROM flat_metadata WHERE batch_id = {context.batch}) AS there USING (object_id)
            WHERE raw.batch_id = {context.batch} AND raw.kind <> 'change'
            """,
            f"""
            SELECT {said}
            FROM flat_metadata
            ANTI JOIN (
                SELECT object_id FROM raw_files WHERE batch_id = {context.batch} AND kind = 'change'
            ) AS changes USING (object_id)
            WHERE batch_id = {context.batch}
            """,
        )


CLAIM_RULES: tuple[NamedRule, ...] = (
    NamedRule("raw_files", "equals_claim", "Each object claimed is there as it was listed", raw_files_equal_claim),
    NamedRule("raw_files", "members_follow_containers", "Members belong to what was claimed",
              members_follow_containers),
    NamedRule("validated_batch", "system_files_are_named_so", "Files of a system by name", system_files_are_named_so),
    NamedRule("flat_metadata", "equals_claim", "Metadata names object, size and time of the claim",
              metadata_equals_claim),
)  # fmt: skip
"""Every rule of this module."""
