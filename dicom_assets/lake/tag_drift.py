"""The view tag_drift: what has changed in the headers of a device with its software, or from month to month.

Belongs here: its SQL. Does not belong here: counting headers (`dicom_assets.curation`).

Two sides are compared: the last two of the software versions of a device, by when their first objects were claimed; and
the last two months, in UTC, in which objects of a device with one software were claimed. Versions are compared where
objects name both model and software: objects that name no model are of any device. How values are spread is
compared without knowing any: by the shares of occurrences that fall on each of 16 parts of the hashes of values, for
elements with few different ones.
"""

from __future__ import annotations

SHARE = 0.1
"""Share of objects by which an element is there, or empty, more or less often."""
SIGMAS = 3
"""Standard errors of a difference of two shares that chance hardly makes."""
LENGTH = 1.5
"""Factor between two mean lengths."""
FEW = 32
"""Different values up to which their spread is compared."""
SPREAD = 0.25
"""Half the sum of differences between two spreads (total variation distance), 0 to 1."""
OCCURRENCES = 50
"""Occurrences on each side from which spread and length are compared."""

_DEVICE = "source, Manufacturer, ManufacturerModelName, Modality"
_SHARES = ", ".join(f"sum(value_shares[{at}])::BIGINT" for at in range(1, 17))


def _significant(one: str, other: str, of_one: str, of_other: str) -> str:
    """SQL for two shares that differ: by SHARE, and by more than chance makes of so few."""
    pooled = f"(({one} * {of_one} + {other} * {of_other}) / ({of_one} + {of_other}))"
    error = f"sqrt({pooled} * (1 - {pooled}) * (1.0 / {of_one} + 1.0 / {of_other}))"
    return f"abs({one} - {other}) >= {SHARE} AND abs({one} - {other}) > {SIGMAS} * {error}"


_SAME = " AND ".join(f"part.{one} IS NOT DISTINCT FROM pair.{one}" for one in _DEVICE.split(", "))


# DuckDB plans this for longer than it reads parts, by what is written: so the parts stand in it twice alone, and both
# sides of all pairs are counted together.
TAG_DRIFT = f"""
-- one row per element that appeared, vanished or changed between the last two software versions of a device, or months
WITH part AS (
    SELECT *, strftime(claimed_at, '%Y-%m') AS month FROM tag_profile_part WHERE profile_key <> ''
),
side AS (
    SELECT axis, {_DEVICE}, CASE axis WHEN 'month' THEN SoftwareVersions END AS of_software,
        CASE axis WHEN 'month' THEN month ELSE SoftwareVersions END AS name,
        min(claimed_at) AS begins, sum(objects)::BIGINT AS objects
    FROM (
        SELECT DISTINCT unnest(['software', 'month']) AS axis, profile_key, batch_id, {_DEVICE}, SoftwareVersions,
            month, claimed_at, objects
        FROM part
    )
    WHERE axis = 'month' OR (ManufacturerModelName IS NOT NULL AND SoftwareVersions IS NOT NULL)
    GROUP BY ALL
),
pair AS (
    SELECT * EXCLUDE (begins) RENAME (name AS after, objects AS objects_after),
        lead(name) OVER newest AS before, lead(objects) OVER newest AS objects_before
    FROM side
    WINDOW newest AS (PARTITION BY axis, {_DEVICE}, of_software ORDER BY begins DESC, name DESC)
    QUALIFY row_number() OVER newest = 1 AND objects_before IS NOT NULL
),
told AS (
    SELECT axis, {", ".join(f"pair.{one}" for one in _DEVICE.split(", "))}, of_software, before, after, objects_before,
        objects_after, path, CASE axis WHEN 'month' THEN month ELSE SoftwareVersions END AS name,
        any_value(keyword) AS keyword, any_value(private_creator) AS private_creator,
        list_sort(list_distinct(flatten(list(vr)))) AS vr, sum(present)::BIGINT AS present,
        sum(occurrences)::BIGINT AS occurrences, sum(empty)::BIGINT AS empty, sum(length_sum) AS length_sum,
        len(list_distinct(flatten(list(value_marks) FILTER (value_marks IS NOT NULL)))) AS different,
        [{_SHARES}] AS shares
    FROM part JOIN pair ON {_SAME} AND (axis = 'software' OR part.SoftwareVersions IS NOT DISTINCT FROM of_software)
    WHERE name IN (before, after)
    GROUP BY ALL
),
pivoted AS (
    SELECT axis, {_DEVICE}, of_software, before, after, objects_before, objects_after, path,
        any_value(keyword) AS keyword, any_value(private_creator) AS private_creator,
        any_value(told) FILTER (name = before) AS old, any_value(told) FILTER (name = after) AS new
    FROM told GROUP BY ALL
),
compared AS (
    SELECT * EXCLUDE (old, new),
        coalesce(old.present, 0) / objects_before AS present_before,
        coalesce(new.present, 0) / objects_after AS present_after,
        old.empty / nullif(old.occurrences, 0) AS empty_before, new.empty / nullif(new.occurrences, 0) AS empty_after,
        old.vr AS vr_before, new.vr AS vr_after,
        old.length_sum / nullif(old.occurrences - old.empty, 0) AS length_before,
        new.length_sum / nullif(new.occurrences - new.empty, 0) AS length_after,
        old.occurrences AS many_before, new.occurrences AS many_after,
        old.different AS different_before, new.different AS different_after,
        list_sum(list_transform(list_zip(old.shares, new.shares), lambda pair: abs(
            pair[1] / nullif(list_sum(old.shares), 0) - pair[2] / nullif(list_sum(new.shares), 0)))) / 2 AS spread
    FROM pivoted
),
judged AS (
    SELECT *,
        CASE
            WHEN vr_before IS NULL THEN 'appeared'
            WHEN vr_after IS NULL THEN 'vanished'
            WHEN vr_before <> vr_after THEN 'other VR'
            WHEN {_significant("present_before", "present_after", "objects_before", "objects_after")}
                THEN 'other presence'
            WHEN {_significant("empty_before", "empty_after", "many_before", "many_after")} THEN 'other emptiness'
            WHEN least(many_before, many_after) < {OCCURRENCES} THEN NULL
            WHEN greatest(length_before, length_after) > {LENGTH} * least(length_before, length_after)
                THEN 'other length'
            WHEN greatest(different_before, different_after) <= {FEW} AND spread >= {SPREAD} THEN 'other values'
        END AS change
    FROM compared
)
SELECT axis, {_DEVICE}, of_software AS SoftwareVersions, before, after, change, path, keyword, private_creator,
    objects_before, objects_after, round(present_before, 4) AS present_before, round(present_after, 4) AS present_after,
    round(empty_before, 4) AS empty_before, round(empty_after, 4) AS empty_after, vr_before, vr_after,
    round(length_before, 2) AS length_before, round(length_after, 2) AS length_after, different_before, different_after,
    round(spread, 4) AS values_differ
FROM judged WHERE change IS NOT NULL
"""
"""SQL for the view, from tag_profile_part."""
