"""Rules of the tables that follow closed batches: they hold what the lake holds, and what people should look at.

Belongs here: SQL that shares nothing with what makes the tables. Does not belong here: what Dagster is told of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import scan

HIGH_SCORE = 60
"""From here on a series is counted as one that people should look at."""


@dataclass(frozen=True)
class Finding:
    """Whether a rule holds. expected, actual: numbers of what it counts."""

    passed: bool
    expected: int
    actual: int
    counts: Mapping[str, int]


_PROFILES = """
WITH is_closed AS (SELECT batch_id FROM {batches} WHERE status = 'closed'),
devices AS (
    SELECT source, nullif(Manufacturer, '') AS maker, nullif(ManufacturerModelName, '') AS model,
        nullif(array_to_string(SoftwareVersions, '\\'), '') AS software, nullif(Modality, '') AS modality,
        count(*) AS objects
    FROM {instance} SEMI JOIN is_closed USING (batch_id) GROUP BY ALL
),
told AS (
    SELECT profile_key, source, Manufacturer AS maker, ManufacturerModelName AS model, SoftwareVersions AS software,
        Modality AS modality, max(objects) AS objects, max(present) FILTER (path = '00080018') AS named
    FROM {tag_profile} GROUP BY ALL
)
SELECT (SELECT coalesce(sum(objects), 0) FROM devices), (SELECT coalesce(sum(objects), 0) FROM told),
    (SELECT count(*) FROM devices FULL JOIN told ON devices.source = told.source
        AND devices.maker IS NOT DISTINCT FROM told.maker AND devices.model IS NOT DISTINCT FROM told.model
        AND devices.software IS NOT DISTINCT FROM told.software AND devices.modality IS NOT DISTINCT FROM told.modality
     WHERE devices.objects IS DISTINCT FROM told.objects),
    (SELECT count(*) FROM told WHERE named IS DISTINCT FROM objects)
"""
_SERIES = """
WITH wanted AS (
    SELECT source, StudyInstanceUID AS study, SeriesInstanceUID AS series, count(*) AS objects
    FROM {instance} WHERE batch_id IN (SELECT batch_id FROM {batches} WHERE status = 'closed') GROUP BY ALL
),
told AS (SELECT source, StudyInstanceUID AS study, SeriesInstanceUID AS series, objects FROM {phi_risk})
SELECT (SELECT count(*) FROM wanted), (SELECT count(*) FROM told),
    (SELECT count(*) FROM (FROM wanted EXCEPT ALL FROM told))
        + (SELECT count(*) FROM (FROM told EXCEPT ALL FROM wanted))
"""
_RISKS = """
SELECT count(*), count(*) FILTER (score >= {high}), count(*) FILTER (len(own_text) > 0),
    count(*) FILTER (len(other_text) > 0), count(*) FILTER (burned_in = 'attribute'),
    count(*) FILTER (contradictions > 0), count(*) FILTER (private_elements > 0)
FROM {phi_risk}
"""


def profiles_hold_every_object(lake: Lake, versions: Mapping[str, int]) -> Finding:
    """Objects by device are those of `instance`, as it was. Raises LakeError."""
    ((expected, actual, differing, nameless),) = _asked(lake, _PROFILES, versions, ["tag_profile"])
    counts = {"profiles_that_differ": differing, "profiles_with_headers_without_uid": nameless}
    return Finding(not differing, expected, actual, counts)


def every_series_is_judged(lake: Lake, versions: Mapping[str, int]) -> Finding:
    """Rows are the series of `instance`, as it was, with as many objects. Raises LakeError."""
    ((expected, actual, differing),) = _asked(lake, _SERIES, versions, ["phi_risk"])
    return Finding(not differing and expected == actual, expected, actual, {"rows_that_differ": differing})


def risks(lake: Lake) -> Finding:
    """Series that people should look at before anything of them leaves the house. Raises LakeError."""
    sql = _RISKS.replace("{high}", str(HIGH_SCORE))
    ((series, high, own, other, burned_in, claims, private),) = _asked(lake, sql, {}, ["phi_risk"])
    counts = {
        "series": series,
        f"score_of_{HIGH_SCORE}_and_more": high,
        "text_of_own_patient": own,
        "text_of_other_patient": other,
        "burned_in_annotation": burned_in,
        "claims_contradicted": claims,
        "private_elements": private,
    }
    return Finding(not (own or burned_in or claims), 0, own + burned_in + claims, counts)


def _asked(lake: Lake, sql: str, versions: Mapping[str, int], names: Sequence[str]) -> list[tuple[int, ...]]:
    tables = {name: scan(lake, name, version) for name, version in versions.items()}
    tables |= {name: scan(lake, name) for name in names}
    with lake.cursor() as connection:
        return [tuple(map(int, row)) for row in connection.execute(sql.format(**tables)).fetchall()]
