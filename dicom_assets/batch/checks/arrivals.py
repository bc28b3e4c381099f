"""What arrived at the places of some objects, from the rows of raw_files: what the rules judge overwriting by.

Belongs here: SQL of its own for which version of an instance counts. Does not belong here: the SQL that makes the
hierarchy (`lake.hierarchy`), the rules (`checks`, `version_checks`).

The table overwritten says only in which batches to look. That an object came to a place is taken from its own row in
raw_files; where that was moved since (mode organize), from the place that overwritten has for this very object. What
was not there as it was claimed, by the ledger, never came there: a newer version that was there may be claimed already.
Of a batch without any row in raw_files, which the lake has lost and which is to be run again, overwritten is believed.
"""

from __future__ import annotations

from collections.abc import Sequence

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.extents import Within
from dicom_assets.lake.overwritten import scope_of
from dicom_assets.lake.query import connect, quoted, scan, where
from dicom_assets.schema.codes import NOT_ARRIVED
from dicom_assets.schema.registry import OVERWRITTEN, RAW_FILES, VALIDATED_BATCH

_PLACE = "source, uri, member"

VERSIONS = """
-- one row per instance of the touched studies: whether it is there, and which batches have a part in that
SELECT
    study_key, source, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID,
    coalesce(bool_or(counts), false) AND max(version) FILTER (counts)
        IS NOT DISTINCT FROM max(version) FILTER (counts AND operation = 'upsert') AS is_there,
    list_distinct(list_concat(list(batch_id), list(coalesce(last_batch, batch_id)))) AS batches
FROM (SELECT *, (version_at, sequence, object_id) AS version, takes_part AS counts FROM {versions})
GROUP BY ALL
"""
"""versions: see `placed`."""


PLACED = """study_key, source, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID, batch_id, object_id, uri, member,
    version_at, version_text, sequence, operation, ingested_at"""
"""The columns of flat_metadata that are looked at for VERSIONS where nothing is corrected."""


def placed(flat: str, arrived: str) -> str:
    """SQL for rows of flat_metadata with the batch that came to their place last, and whether they take part.

    flat: rows of flat_metadata. arrived: see `arrivals`.
    """
    return f"""(
        SELECT
            flat.*, last.batch_id AS last_batch,
            last.batch_id IS NULL OR last.claimed_at < flat.ingested_at OR flat.version_text IS NOT NULL
                OR (last.claimed_at = flat.ingested_at AND flat.operation = 'upsert') AS takes_part
        FROM {flat} AS flat
        LEFT JOIN {arrived} AS last ON last.source = flat.source AND last.uri = flat.uri
            AND coalesce(last.member, '') = coalesce(flat.member, '')
    )"""


def arrivals(lake: Lake, flat: Within, studies: Sequence[str], among: str = "") -> str:
    """SQL for the last object that came to each place (source, uri, member): its batch_id and claimed_at.

    among: a relation that has every uri that is asked for, so that rows of others are not put together.

    flat: what to open of flat_metadata to see some studies whole. Of the batches that could have overwritten something
    there only those are looked through that hold rows of these studies or that overwritten names.
    """
    named: list[tuple[str, str]] = []
    scope = scope_of(lake, studies, flat)
    if list(scope[OVERWRITTEN.name]["place_key"]):
        with connect(lake, [OVERWRITTEN.name], within=scope) as connection:
            named = connection.execute(f"SELECT batch_id, object_id FROM {OVERWRITTEN.name}").fetchall()
    batches = {*flat["batch_id"], *(batch for batch, _ in named)}
    if len(batches) < 2:
        return f"(SELECT NULL::VARCHAR AS batch_id, NULL::TIMESTAMPTZ AS claimed_at, {_nothing()} WHERE false)"
    within = {"batch_id": batches}
    codes = ", ".join(quoted(code) for code in sorted(NOT_ARRIVED))
    own = f"SEMI JOIN {among} USING (uri)" if among and not named else ""
    raw = f"""(
        SELECT * FROM (SELECT * FROM {scan(lake, RAW_FILES.name, within=within)}{where(within)}) {own}
        ANTI JOIN (
            SELECT batch_id, object_id FROM (
                SELECT * FROM {scan(lake, VALIDATED_BATCH.name, within=within)}{where(within)}
            ) WHERE code IN ({codes})
        ) USING (batch_id, object_id)
    )"""
    moved = ""
    if named:
        places = scope[OVERWRITTEN.name]
        entered = f"(SELECT * FROM {scan(lake, OVERWRITTEN.name, within=places)}{where(places)})"
        moved = f"""
            UNION ALL SELECT own.source, own.uri, own.member, raw.batch_id, raw.claimed_at
            FROM {raw} AS raw JOIN {entered} AS own USING (batch_id, object_id)
            UNION ALL SELECT {_PLACE}, batch_id, claimed_at FROM {entered}
            ANTI JOIN {scan(lake, RAW_FILES.name, within=within)} USING (batch_id)
        """
    return f"""(
        SELECT {_PLACE}, arg_max(batch_id, claimed_at) AS batch_id, max(claimed_at) AS claimed_at
        FROM (SELECT {_PLACE}, batch_id, claimed_at FROM {raw} WHERE kind <> 'change' {moved})
        GROUP BY ALL
    )"""


def _nothing() -> str:
    return ", ".join(f"NULL::VARCHAR AS {name}" for name in _PLACE.split(", "))
