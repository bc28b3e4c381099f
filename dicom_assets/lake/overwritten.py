"""The last claim of each place that was claimed more than once: what came there before is not current any more.

Belongs here: entering such claims, and looking up those that concern some rows of flat_metadata. Does not belong here:
which claims came to a place before (`landing.uri_index`), what is current (`hierarchy`).

Of the claims of a place the last one stays, so the order in which batches enter theirs makes no difference. What was
found at a place has overwritten what was there, whatever becomes of it. Only what turns out not to have come there (a
batch is dismissed that had published it, or is run again when it is gone) is taken out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import duckdb
import pyarrow as pa

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.extents import Within
from dicom_assets.lake.query import arrow, connect, quoted
from dicom_assets.lake.quoting import one_of
from dicom_assets.schema import keys
from dicom_assets.schema.codes import NOT_ARRIVED
from dicom_assets.schema.registry import OVERWRITTEN

_LAST = """
-- one row per place: the last of the claims that are known and those that are new
SELECT * FROM (SELECT * FROM known UNION ALL SELECT * FROM fresh)
QUALIFY row_number() OVER (PARTITION BY place_key ORDER BY claimed_at DESC, batch_id DESC) = 1
EXCEPT
SELECT * FROM known
"""


def place_keys(rows: pa.Table) -> pa.Array:
    """The place_key of each row, from its source, uri and member."""
    columns = (rows[name].to_pylist() for name in ("source", "uri", "member"))
    return pa.array([keys.file_key(*row) for row in zip(*columns, strict=True)], pa.string())


def enter(lake: Lake, claims: pa.Table) -> int:
    """Enters claims of places that were claimed before; how many of them are the last one of their place.

    claims: rows of raw_files. Raises LakeError.
    """
    if not len(claims):
        return 0
    fresh = claims.append_column("place_key", place_keys(claims)).select(OVERWRITTEN.schema.names)
    within = {OVERWRITTEN.name: {"place_key": fresh["place_key"].to_pylist()}}
    with lake.committing(OVERWRITTEN.name):
        with connect(lake, [OVERWRITTEN.name], within=within) as connection:
            connection.execute(f"CREATE TEMP VIEW known AS FROM {OVERWRITTEN.name}")
            connection.register("fresh", fresh)
            rows = arrow(connection, _LAST).select(OVERWRITTEN.schema.names).cast(OVERWRITTEN.schema)
        if len(rows):
            lake.replace(OVERWRITTEN.name, rows["place_key"].to_pylist(), rows)
    return len(rows)


_BEFORE = f"""
-- one row per place whose entry is taken out and which two claims or more had come to before: the last of these
SELECT withdrawn.place_key, raw.source, raw.uri, raw.member, raw.batch_id, raw.object_id, raw.claimed_at
FROM raw_files AS raw
JOIN withdrawn ON withdrawn.source = raw.source AND withdrawn.uri = raw.uri
    AND withdrawn.member IS NOT DISTINCT FROM raw.member
ANTI JOIN (
    SELECT batch_id, object_id FROM validated_batch WHERE code IN ({one_of(sorted(NOT_ARRIVED))})
) AS absent ON absent.batch_id = raw.batch_id AND absent.object_id = raw.object_id
QUALIFY count(*) OVER (PARTITION BY withdrawn.place_key) > 1
    AND row_number() OVER (PARTITION BY withdrawn.place_key ORDER BY raw.claimed_at DESC, raw.batch_id DESC) = 1
"""


def withdraw(lake: Lake, absent: pa.Table, batches: Sequence[str]) -> int:
    """Takes claims out that have not come to their place after all; how many there were. Raises LakeError.

    absent: rows of raw_files. batches: those that had claimed something at these places before.
    """
    if not len(absent):
        return 0
    places = absent.append_column("place_key", place_keys(absent)).select(OVERWRITTEN.schema.names)
    within = {OVERWRITTEN.name: {"place_key": places["place_key"].to_pylist()}}
    with lake.committing(OVERWRITTEN.name):
        with connect(lake, [OVERWRITTEN.name], within=within) as connection:
            connection.register("places", places)
            own = arrow(connection, f"FROM {OVERWRITTEN.name} SEMI JOIN places USING (place_key, batch_id, object_id)")
        if not len(own):
            return 0
        tables = ("raw_files", "validated_batch")
        with connect(lake, tables, within={name: {"batch_id": batches} for name in tables}) as connection:
            connection.register("withdrawn", own)
            rows = arrow(connection, _BEFORE).select(OVERWRITTEN.schema.names).cast(OVERWRITTEN.schema)
        lake.replace(OVERWRITTEN.name, own["place_key"].to_pylist(), rows)
    return len(own)


def last_claims(lake: Lake, places: pa.Table) -> pa.Table:
    """The last claim of those of some places that were claimed more than once: place_key, object_id, batch_id.

    places: source, uri, member. Raises LakeError.
    """
    wanted = place_keys(places).to_pylist() if len(lake.extents(OVERWRITTEN.name)) else []
    with connect(lake, [OVERWRITTEN.name], within={OVERWRITTEN.name: {"place_key": wanted}}) as connection:
        return arrow(connection, f"SELECT place_key, object_id, batch_id FROM {OVERWRITTEN.name}")


def last_of_source(lake: Lake, source: str) -> pa.Table:
    """The last claim of each place of a source that was claimed more than once: uri, object_id, claimed_at.

    Members of archives have no places of their own here. Raises LakeError.
    """
    if not len(lake.extents(OVERWRITTEN.name)):
        return OVERWRITTEN.schema.empty_table().select(["uri", "object_id", "claimed_at"])
    with connect(lake, [OVERWRITTEN.name]) as connection:
        return arrow(
            connection,
            f"SELECT uri, object_id, claimed_at FROM {OVERWRITTEN.name} "
            f"WHERE source = {quoted(source)} AND member IS NULL",
        )


def scope_of(lake: Lake, studies: Sequence[str], flat: Within) -> Mapping[str, Within]:
    """What to open of overwritten to see what concerns the objects of some studies; for `query.connect`.

    flat: what to open of flat_metadata to see the studies whole.
    """
    if not len(lake.extents(OVERWRITTEN.name)):
        return {OVERWRITTEN.name: {"place_key": []}}
    with connect(lake, ["flat_metadata"], within={"flat_metadata": flat}) as connection:
        return {OVERWRITTEN.name: {"place_key": _places(connection, studies)}}


def _places(connection: duckdb.DuckDBPyConnection, studies: Sequence[str]) -> list[str]:
    connection.register("wanted", pa.table({"study_key": pa.array(studies, pa.string())}))
    rows = arrow(
        connection, "SELECT DISTINCT source, uri, member FROM flat_metadata SEMI JOIN wanted USING (study_key)"
    )
    found: list[str] = place_keys(rows).to_pylist()
    return found
