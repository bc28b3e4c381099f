"""The last claim of each place that was claimed more than once: what came there before is not current any more.

Belongs here: entering such claims, and looking up those that concern some rows of flat_metadata. Does not belong here:
which claims came to a place before (`landing.uri_index`), what is current (`hierarchy`).

Of the claims of a place the last one stays, so the order in which batches enter theirs makes no difference. Nothing is
ever taken out: that a place was claimed again is true whatever becomes of the object that was found there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import duckdb
import pyarrow as pa

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.extents import Within
from dicom_assets.lake.query import arrow, connect, quoted
from dicom_assets.schema import keys
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
