"""What the data say between them, by kind: the same lines counted for a report and listed one by one.

Belongs here: for each kind its table, and SQL for its lines. Does not belong here: whose lines they are and who may see
them (`source_report`), the pages (`report_pages`).

A line is one object, series or study with a value that lines are counted by. So a count and the list behind it cannot
differ. No line holds a value of an attribute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dicom_assets.schema.geometry_table import MEANINGS, Irregularity, Shortfall

BANDS = ((0, 0), (1, 20), (21, 40), (41, 60), (61, 100))
"""Scores of phi_risk, from and to."""

_LINE = "StudyInstanceUID, SeriesInstanceUID, NULL::VARCHAR AS SOPInstanceUID"
_SERIES = "concat_ws('/', StudyInstanceUID, SeriesInstanceUID)"


def band(bounds: tuple[int, int]) -> str:
    """What a band of scores is called."""
    return str(bounds[0]) if bounds[0] == bounds[1] else f"{bounds[0]}-{bounds[1]}"


@dataclass(frozen=True, slots=True)
class FindingKind:
    """One kind of finding.

    sql: its lines, with `value`, the UIDs, `detail` in words, and `unit`, what is counted once. {table}: what may be
    seen of its table, {of}: the same of the source alone; {study}: the studies of the source; {source}: its name. unit:
    what a unit is called.
    """

    name: str
    table: str
    title: str
    unit: str
    sql: str
    meanings: Mapping[str, str]


_CONFLICT = """
SELECT
    level || ' ' || attribute AS value, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID,
    value_count || ' values' AS detail, conflict_key AS unit
FROM (
    SELECT level, attribute, value_count, conflict_key, SeriesInstanceUID, SOPInstanceUID,
        unnest(study_keys) AS study_key
    FROM {table}
) AS told
JOIN {study} AS study USING (study_key)
"""

_DUPLICATE = """
SELECT
    kind AS value, StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID, group_id AS unit,
    CASE WHEN is_first THEN 'the first of ' || members
        WHEN len(differs_in) > 0 THEN 'differs from the first in ' || array_to_string(differs_in, ' ')
        ELSE 'equals the first in ' || compared END AS detail
FROM (SELECT *, count(*) OVER (PARTITION BY group_id) AS members FROM {table})
WHERE members > 1 AND source = {source}
"""

_IRREGULAR = f"""
SELECT
    unnest(irregularities) AS value, {_LINE}, {_SERIES} AS unit,
    concat_ws(', ', image_count || ' images', 'missing: ' || nullif(missing_slices, 0),
        'duplicated: ' || nullif(duplicated_images, 0), round(spacing, 3) || ' mm apart',
        round(largest_distance, 3) || ' mm at most') AS detail
FROM {{of}}
"""

_SHORTFALL = f"""
SELECT
    unnest(shortfalls) AS value, {_LINE}, {_SERIES} AS unit,
    concat_ws(', ', instance_count || ' instances', claimed_instances || ' claimed',
        claimed_images || ' images claimed', 'numbers missing: ' || nullif(instance_numbers_missing, 0)) AS detail
FROM {{of}}
"""

_CARRIED = """concat_ws('; ', 'score ' || score, nullif(array_to_string(direct, ' '), ''),
        CASE WHEN len(own_text) > 0 THEN 'text of the patient in ' || len(own_text) || ' places' END)"""
_BAND = " ".join(f"WHEN score <= {bounds[1]} THEN '{band(bounds)}'" for bounds in BANDS)

_RISK = f"SELECT CASE {_BAND} END AS value, {_LINE}, {_SERIES} AS unit, {_CARRIED} AS detail FROM {{of}}"

_CLAIM = f"""
SELECT
    CASE WHEN contradictions > 0 THEN 'contradicted' ELSE 'held' END AS value, {_LINE}, {_SERIES} AS unit,
    contradictions || ' of ' || claims || ' objects that claim it; ' || {_CARRIED} AS detail
FROM {{of}} WHERE claims > 0
"""

_BURNED_IN = f"""
SELECT burned_in AS value, {_LINE}, {_SERIES} AS unit, {_CARRIED} AS detail FROM {{of}} WHERE burned_in IS NOT NULL
"""

_TEXT = f"""
SELECT
    CASE WHEN len(own_text) > 0 THEN 'own' ELSE 'other' END AS value, {_LINE}, {_SERIES} AS unit,
    array_to_string(list_concat(own_text, other_text), ' ') AS detail
FROM {{of}} WHERE len(own_text) > 0 OR len(other_text) > 0
"""

KINDS: Mapping[str, FindingKind] = {
    one.name: one
    for one in (
        FindingKind("conflict", "conflict", "Conflicts", "conflict", _CONFLICT, {}),
        FindingKind(
            "duplicate",
            "duplicate",
            "Duplicates",
            "group",
            _DUPLICATE,
            {
                "bytes": "The same SOP Instance UID, header and size; the same bytes where both were read whole.",
                "pixels": "The same pixel data under several SOP Instance UIDs.",
                "header": "The same header but for private and volatile attributes.",
                "sop_instance": "One SOP Instance UID with several contents, of which one is shown.",
            },
        ),
        FindingKind(
            "irregular",
            "series_geometry",
            "Series of slices that are no regular volume",
            "series",
            _IRREGULAR,
            {str(code): MEANINGS[code] for code in Irregularity},
        ),
        FindingKind(
            "shortfall",
            "series_geometry",
            "Series that claim more than is there",
            "series",
            _SHORTFALL,
            {str(code): MEANINGS[code] for code in Shortfall},
        ),
        FindingKind("risk", "phi_risk", "Series by score of risk", "series", _RISK, {}),
        FindingKind(
            "claim",
            "phi_risk",
            "Series that claim Patient Identity Removed",
            "series",
            _CLAIM,
            {
                "contradicted": "Objects still carry an attribute that names the patient. A name that is the PatientID "
                "as well counts as a pseudonym.",
                "held": "No such attribute was seen.",
            },
        ),
        FindingKind(
            "burned_in",
            "phi_risk",
            "Annotation in the pixels",
            "series",
            _BURNED_IN,
            {
                "attribute": "Burned In Annotation is YES.",
                "likely": "It is not given, and SOP class, modality or image type often have some.",
            },
        ),
        FindingKind(
            "text",
            "phi_risk",
            "Text like a patient's",
            "series",
            _TEXT,
            {
                "own": "Text equals a part of name, identifier or date of birth of the series' own patient.",
                "other": "Text equals such a part of another patient of this lake.",
            },
        ),
    )
}
"""Every kind, by name."""

TABLES = tuple(dict.fromkeys(one.table for one in KINDS.values()))
"""The tables that findings come from."""
