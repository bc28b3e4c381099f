"""What is said between the objects of a study or series: geometry, risk, and where else the same objects are.

Belongs here: rows for panels, from the tables that say so. Does not belong here: what contradicts itself
(`disagreements`), how it is judged (`curation`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dicom_assets.catalogue.row_reading import Row, rows
from dicom_assets.curation import phi_risk
from dicom_assets.schema.geometry_table import MEANINGS
from dicom_assets.serve.newest import Rows
from dicom_assets.serve.served import Scope, Snapshot

TABLES = ("series_geometry", "phi_risk", "duplicate")
"""Tables that panels ask."""

MOST_PLACES = 50
"""Places of duplicates that are shown."""

PARTS = (
    ("direct identifiers", "score_direct", phi_risk.DIRECT_POINTS),
    ("other attributes of the basic profile", "score_indirect", phi_risk.INDIRECT_POINTS),
    ("text like a patient's", "score_text", phi_risk.OWN_TEXT_POINTS),
    ("private elements", "score_private", phi_risk.PRIVATE_POINTS),
    ("annotation in the pixels", "score_pixels", phi_risk.BURNED_IN_POINTS),
    ("a contradicted claim of de-identification", "score_claim", phi_risk.CLAIM_POINTS),
)
"""Parts of a score: words, column, most points (docs/curation.md)."""

_RISK = (
    *("SeriesInstanceUID", "source", "score", *(column for _, column, _ in PARTS), "direct", "indirect", "own_text"),
    *("other_text", "private_elements", "private_creators", "burned_in", "claims", "contradictions"),
)
_GEOMETRY = (
    *("SeriesInstanceUID", "source", "geometry_kind", "is_regular_volume", "irregularities", "shortfalls"),
    *("image_count", "plane", "plane_angle", "volume_count", "split_by", "slices_per_volume", "spacing"),
    *("spacing_deviation", "largest_distance", "missing_slices", "duplicated_images", "gantry_tilt", "instance_count"),
    *("claimed_instances", "claimed_images", "instance_numbers_missing"),
)


@dataclass(frozen=True)
class Place:
    """Where else objects are that are like some of a page.

    here: objects of the page that have such ones there. there: those of the place, without these. source, study,
    series: of the place, which may be the page's own.
    """

    kind: str
    source: str
    study: str | None
    series: str | None
    here: int
    there: int


@dataclass(frozen=True)
class Panels:
    """What the panels of a page show. geometry, risk: rows by SeriesInstanceUID, one for each source that holds it.

    total: how many places there are.
    """

    geometry: Mapping[str, Sequence[Row]]
    risk: Mapping[str, Sequence[Row]]
    places: Sequence[Place]
    total: int


def panels(snapshot: Snapshot, instances: Rows, study_keys: Sequence[str]) -> Panels:
    """Those of a study or series. Blocks.

    snapshot: with TABLES. instances: its rows of `instance`. study_keys: those that the caller may see.
    """
    places, total = _places(snapshot, instances)
    return Panels(
        _by_series(snapshot, "series_geometry", _GEOMETRY, study_keys),
        _by_series(snapshot, "phi_risk", _RISK, study_keys),
        places,
        total,
    )


def meaning(code: str) -> str:
    """What a kind of geometry, an irregularity or a shortfall says."""
    return next((text for known, text in MEANINGS.items() if known == code), "")


def _by_series(
    snapshot: Snapshot, table: str, columns: Sequence[str], study_keys: Sequence[str]
) -> dict[str, list[Row]]:
    if table not in snapshot.extents:
        return {}
    source = snapshot.scan(table, {"study_key": study_keys}, columns)
    with snapshot.cursor() as connection:
        found = rows(connection, f"SELECT * FROM {source} ORDER BY SeriesInstanceUID, source")
    by_series: dict[str, list[Row]] = {}
    for row in found:
        by_series.setdefault(row["SeriesInstanceUID"], []).append(row)
    return by_series


def _places(snapshot: Snapshot, instances: Rows) -> tuple[list[Place], int]:
    """Where objects are that are like these, as far as they may be seen, and how many such places there are."""
    if "duplicate" not in snapshot.extents:
        return [], 0
    visible = snapshot.scan("study", columns=["source", "StudyInstanceUID"])
    duplicates = snapshot.within(Scope()).scan("duplicate")
    with snapshot.cursor() as connection:
        found = rows(
            connection,
            _PLACES.format(duplicates=duplicates, own=instances.sql, visible=visible, most=MOST_PLACES),
            instances.parameters,
        )
    made = [
        Place(one["kind"], one["source"], one["StudyInstanceUID"], one["SeriesInstanceUID"], one["here"], one["there"])
        for one in found
    ]
    return made, found[0]["total"] if found else 0


_PLACES = """
-- one row per kind and place in which objects are that are like those of the page; pairs of objects are never made:
-- of blank images thousands may be in one group
WITH own AS MATERIALIZED (SELECT batch_id, object_id FROM {own}),
mine AS MATERIALIZED (
    SELECT kind, group_id, batch_id, object_id FROM {duplicates} SEMI JOIN own USING (batch_id, object_id)
),
alike AS (SELECT group_id, count(*) AS objects FROM mine GROUP BY group_id),
seen AS (
    SELECT one.kind, one.group_id, one.source, one.StudyInstanceUID, one.SeriesInstanceUID,
        mine.object_id IS NOT NULL AS is_own
    FROM {duplicates} AS one SEMI JOIN alike USING (group_id)
    SEMI JOIN {visible} AS study
        ON study.source = one.source AND study.StudyInstanceUID = one.StudyInstanceUID
    LEFT JOIN mine ON mine.group_id = one.group_id AND mine.batch_id = one.batch_id AND mine.object_id = one.object_id
),
place AS (
    SELECT kind, group_id, source, StudyInstanceUID, SeriesInstanceUID, count(*) FILTER (NOT is_own) AS others,
        count(*) FILTER (is_own) AS own
    FROM seen GROUP BY ALL
    HAVING others > 0 OR own > 1
)
SELECT kind, source, StudyInstanceUID, SeriesInstanceUID, sum(objects)::BIGINT AS here, sum(others)::BIGINT AS there,
    count(*) OVER () AS total
FROM place JOIN alike USING (group_id)
GROUP BY kind, source, StudyInstanceUID, SeriesInstanceUID
ORDER BY kind, here DESC, there DESC, source, StudyInstanceUID, SeriesInstanceUID LIMIT {most}
"""
