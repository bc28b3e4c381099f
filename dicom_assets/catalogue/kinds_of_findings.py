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


def band(bounds: tuple[int, int]) -> str:
    """What a band of scores is called."""
    return str(bounds[0]) if bounds[0] == bounds[1] else f"{bounds[0]}-{bounds[1]}"


@dataclass(frozen=True, slots=True)
class FindingTable:
    """A table that findings come from.

    rows: SQL for a FROM clause, the rows that have lines. {table}: what may be seen of the table, {of}: the same of the
    source alone; {study}: the studies of the source; {source}: its name. unit: SQL for what is counted once. units: SQL
    for how many of them some rows are. uids: SQL for the UIDs of an object, as far as its lines have them.
    """

    rows: str
    unit: str
    units: str
    uids: str


_UIDS = "StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID"
_OF_SERIES = FindingTable(
    "{of}",
    "concat_ws('/', StudyInstanceUID, SeriesInstanceUID)",
    "count(*)",  # a row is a series
    "StudyInstanceUID, SeriesInstanceUID, NULL::VARCHAR AS SOPInstanceUID",
)

TABLES: Mapping[str, FindingTable] = {
    "conflict": FindingTable(
        """(
            SELECT told.*, StudyInstanceUID FROM (
                SELECT level, attribute, value_count, conflict_key, SeriesInstanceUID, SOPInstanceUID,
                    unnest(study_keys) AS study_key
                FROM {table}
            ) AS told JOIN {study} AS study USING (study_key)
        )""",
        "conflict_key",
        "count(DISTINCT conflict_key)",
        _UIDS,
    ),
    "duplicate": FindingTable(
        """(
            SELECT *, count(*) OVER (PARTITION BY group_id) AS members FROM {table}
            QUALIFY members > 1 AND source = {source}
        )""",
        "group_id",
        "count(DISTINCT group_id)",
        _UIDS,
    ),
    "series_geometry": _OF_SERIES,
    "phi_risk": _OF_SERIES,
}
"""The tables that findings come from, by name."""


@dataclass(frozen=True, slots=True)
class FindingKind:
    """One kind of finding.

    values: SQL for the values, a list, that a row of its table has lines for. detail: SQL for what a line says of the
    row in words. unit: what a unit is called. meanings: of values.
    """

    name: str
    table: str
    title: str
    unit: str
    values: str
    detail: str
    meanings: Mapping[str, str]

    @property
    def lines(self) -> str:
        """SQL for its lines: `value`, the UIDs, `detail` in words, and `unit`; with the places of `FindingTable`."""
        of = TABLES[self.table]
        told = f"unnest({self.values}) AS value, {self.detail} AS detail, {of.unit} AS unit"
        return f"SELECT {told}, {of.uids} FROM {of.rows}"


def counts(table: str) -> str:
    """SQL for the lines of all kinds of a table by kind and value: `units`, `studies`, `lines`; most units first."""
    told = [
        f"list_transform({one.values}, lambda value: struct_pack(kind := '{one.name}', value := value))"
        for one in KINDS.values()
        if one.table == table
    ]
    return f"""
        SELECT one.kind AS kind, one.value AS value, {TABLES[table].units} AS units,
            count(DISTINCT StudyInstanceUID) AS studies, count(*) AS lines
        FROM (SELECT *, unnest(flatten([{", ".join(told)}])) AS one FROM {TABLES[table].rows})
        GROUP BY ALL ORDER BY units DESC, value
    """


_IRREGULAR = """concat_ws(', ', image_count || ' images', 'missing: ' || nullif(missing_slices, 0),
    'duplicated: ' || nullif(duplicated_images, 0), round(spacing, 3) || ' mm apart',
    round(largest_distance, 3) || ' mm at most')"""
_SHORTFALL = """concat_ws(', ', instance_count || ' instances', claimed_instances || ' claimed',
    claimed_images || ' images claimed', 'numbers missing: ' || nullif(instance_numbers_missing, 0))"""
_CARRIED = """concat_ws('; ', 'score ' || score, nullif(array_to_string(direct, ' '), ''),
    CASE WHEN len(own_text) > 0 THEN 'text of the patient in ' || len(own_text) || ' places' END)"""
_BAND = " ".join(f"WHEN score <= {bounds[1]} THEN '{band(bounds)}'" for bounds in BANDS)
_DUPLICATE = """CASE WHEN is_first THEN 'the first of ' || members
    WHEN len(differs_in) > 0 THEN 'differs from the first in ' || array_to_string(differs_in, ' ')
    ELSE 'equals the first in ' || compared END"""
_CLAIM = "CASE WHEN claims > 0 THEN [CASE WHEN contradictions > 0 THEN 'contradicted' ELSE 'held' END] END"
_TEXT = "CASE WHEN len(own_text) > 0 THEN ['own'] WHEN len(other_text) > 0 THEN ['other'] END"

KINDS: Mapping[str, FindingKind] = {
    one.name: one
    for one in (
        FindingKind(
            "conflict",
            "conflict",
            "Conflicts",
            "conflict",
            "[level || ' ' || attribute]",
            "value_count || ' values'",
            {},
        ),
        FindingKind(
            "duplicate",
            "duplicate",
            "Duplicates",
            "group",
            "[kind]",
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
            "irregularities",
            _IRREGULAR,
            {str(code): MEANINGS[code] for code in Irregularity},
        ),
        FindingKind(
            "shortfall",
            "series_geometry",
            "Series that claim more than is there",
            "series",
            "shortfalls",
            _SHORTFALL,
            {str(code): MEANINGS[code] for code in Shortfall},
        ),
        FindingKind("risk", "phi_risk", "Series by score of risk", "series", f"[CASE {_BAND} END]", _CARRIED, {}),
        FindingKind(
            "claim",
            "phi_risk",
            "Series that claim Patient Identity Removed",
            "series",
            _CLAIM,
            f"contradictions || ' of ' || claims || ' objects that claim it; ' || {_CARRIED}",
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
            "CASE WHEN burned_in IS NOT NULL THEN [burned_in] END",
            _CARRIED,
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
            "array_to_string(list_concat(own_text, other_text), ' ')",
            {
                "own": "Text equals a part of name, identifier or date of birth of the series' own patient.",
                "other": "Text equals such a part of another patient of this lake.",
            },
        ),
    )
}
"""Every kind, by name."""
