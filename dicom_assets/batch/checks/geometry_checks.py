"""The rules of the table of geometry: parity with series, positions counted again in SQL, and a remark.

Belongs here: each rule's SQL, written independently of `curation`, which works on arrays. Does not belong here: what a
rule is and what happens when it does not hold (`contract`).

Positions are counted again for series of single-frame images in planes of one direction; frames of multi-frame objects
and series of several directions are counted, and no more. A study that another open batch touches too is compared by
the batch that closes last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from dicom_assets.batch.checks.contract import (
    SHOWN,
    CheckContext,
    CheckResult,
    NamedRule,
    compared,
    moving,
    studies_of,
    touched_rows,
    without,
)
from dicom_assets.curation.study_instances import open_instances
from dicom_assets.lake.query import few, scan, where
from dicom_assets.lake.studies import study_scope
from dicom_assets.schema.registry import SERIES_GEOMETRY

_GRAIN = "study_key, source, StudyInstanceUID, SeriesInstanceUID"
_LOOKED_AT = f"""{_GRAIN}, geometry_kind, is_regular_volume, irregularities, instance_count, image_count, slice_count,
    is_multiframe, position_count, spacing"""

_SAME, _NEAR = 0.01, 1e-6
"""Millimetres below which positions are one; millimetres by which two ways of computing may differ."""

_ACROSS = "[o[2] * o[6] - o[3] * o[5], o[3] * o[4] - o[1] * o[6], o[1] * o[5] - o[2] * o[4]]"
_LENGTH = "sqrt(n[1] ** 2 + n[2] ** 2 + n[3] ** 2)"


def _bounded(name: str, values: int, bound: str) -> str:
    """SQL that holds where a list has so many values, none of them missing or beyond a bound."""
    return " AND ".join([f"len({name}) = {values}", *(f"abs({name}[{at + 1}]) < {bound}" for at in range(values))])


_COUNTED = f"""
-- one row per series with images: its instances; where it has slices of one direction, how many, at how many positions,
-- how far apart
WITH slices AS (
    SELECT {_GRAIN}, ImagePositionPatient AS p, ImageOrientationPatient AS o
    FROM {{instances}}
    WHERE "Rows" IS NOT NULL AND "Columns" IS NOT NULL
        AND {_bounded("ImagePositionPatient", 3, "1e7")} AND {_bounded("ImageOrientationPatient", 6, "10")}
        AND NOT regexp_full_match(coalesce(SOPClassUID, ''), '1[.]2[.]840[.]10008[.]5[.]1[.]4[.]1[.]1[.]7([.][1-4])?')
        AND NOT coalesce(list_contains(ImageType[3:], 'LOCALIZER') OR list_contains(ImageType, 'MOSAIC'), false)
),
normals AS (SELECT {_GRAIN}, {_ACROSS} AS n FROM slices GROUP BY {_GRAIN}, o),
alone AS (SELECT {_GRAIN}, any_value(n) AS n FROM normals GROUP BY {_GRAIN} HAVING count(*) = 1),
placed AS (
    SELECT {_GRAIN}, (p[1] * n[1] + p[2] * n[2] + p[3] * n[3]) / {_LENGTH} AS d
    FROM slices JOIN alone USING ({_GRAIN})
    WHERE {_LENGTH} > 0.1
),
steps AS (SELECT *, d - lag(d) OVER (PARTITION BY {_GRAIN} ORDER BY d) AS step FROM placed)
SELECT * FROM (
    SELECT {_GRAIN}, count(*) AS instance_count
    FROM {{instances}} GROUP BY ALL HAVING bool_or("Rows" IS NOT NULL AND "Columns" IS NOT NULL)
) LEFT JOIN (
    SELECT
        {_GRAIN}, count(*) AS slice_count, count(*) FILTER (step > {_SAME}) + 1 AS position_count,
        quantile_disc(step, 0.5) FILTER (step > {_SAME}) AS distance
    FROM steps GROUP BY ALL
) USING ({_GRAIN})
"""


@contextmanager
def _looked_at(context: CheckContext) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with the rows of the touched studies as `geometry`, and with their instances `counted` again.

    Without the studies that other open batches touch.
    """
    unsettled = moving(context, studies_of(context))
    every = touched_rows(context, SERIES_GEOMETRY, _LOOKED_AT)
    studies = studies_of(context)

    def count(_: duckdb.DuckDBPyConnection, __: str) -> pa.Table:
        with open_instances(context.lake, context.staging, studies) as connection:
            return few(connection, _COUNTED.format(instances="instance"))

    scope = study_scope(context.lake, ["instance"], studies)["instance"]
    instances = f"(SELECT * FROM {scan(context.lake, 'instance', within=scope)}{where(scope)})"
    counted = context.answer(_COUNTED.format(instances=instances), count)
    with context.lake.cursor() as connection:
        for name, rows in (("geometry", every), ("counted", counted)):
            connection.register(name, without(rows, unsettled))
        yield connection


def geometry_equals_series(context: CheckContext) -> CheckResult:
    """Rows of series_geometry = series that have an image, with their instances counted."""
    if not studies_of(context):
        return CheckResult(True, 0, 0)
    with _looked_at(context) as connection:
        listed = f"SELECT {_GRAIN}, instance_count FROM"
        return compared(connection, f"{listed} counted", f"{listed} geometry", "study_key")


def positions_equal_instances(context: CheckContext) -> CheckResult:
    """Slices, positions and, where each position has one slice, their typical distance, counted again."""
    if not studies_of(context):
        return CheckResult(True, 0, 0)
    with _looked_at(context) as connection:
        told = f"SELECT {_GRAIN}, slice_count, position_count, spacing FROM geometry"
        again = f"""
            SELECT
                {_GRAIN}, counted.slice_count, counted.position_count,
                CASE
                    WHEN counted.slice_count > counted.position_count THEN geometry.spacing
                    WHEN abs(distance - geometry.spacing) < {_NEAR} THEN geometry.spacing
                    ELSE distance
                END AS spacing
            FROM geometry JOIN counted USING ({_GRAIN})
            WHERE NOT is_multiframe AND counted.slice_count > 0
        """
        there = (
            f"{told} SEMI JOIN (FROM counted WHERE slice_count > 0) AS placed USING ({_GRAIN}) WHERE NOT is_multiframe"
        )
        return compared(connection, again, there, "study_key")


def volumes_are_regular(context: CheckContext) -> CheckResult:
    """How many series of slices of the touched studies are no regular volume, and for which reasons."""
    rows = touched_rows(context, SERIES_GEOMETRY, _LOOKED_AT).to_pylist() if studies_of(context) else []
    irregular = [row for row in rows if row["is_regular_volume"] is False]
    reasons = Counter(reason for row in irregular for reason in row["irregularities"])
    told = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    names = sorted({row["study_key"] for row in irregular})[:SHOWN]
    return CheckResult(not irregular, 0, len(irregular), names, told)


GEOMETRY_RULES: tuple[NamedRule, ...] = (
    NamedRule("series_geometry", "equals_series", "Rows of geometry = series with images", geometry_equals_series),
    NamedRule("series_geometry", "positions_equal_instances", "Slices, positions and distances = those of instances",
              positions_equal_instances),
    NamedRule("series_geometry", "volumes_are_regular", "Series of slices that are no regular volume, by reason",
              volumes_are_regular, blocking=False),
)  # fmt: skip
"""Every rule of this module."""
