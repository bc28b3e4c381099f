"""The migration of lakes that have no geometry: the columns that it needs, filled from headers, then its rows.

Belongs here: what lakes of earlier releases lack for `series_geometry`. Does not belong here: which lakes need it
(`lake.form`), making the rows (`series_geometry`).

Killed at any moment it goes on: a file of flat_metadata that was filled lacks nothing any more, and the last study that
was made is noted.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
from pydicom.datadict import tag_for_keyword

from dicom_assets.batch.context import RunContext
from dicom_assets.batch.publish import publish_hierarchy
from dicom_assets.batch.series_geometry import publish_geometry
from dicom_assets.curation.series_images import IS_IMAGE
from dicom_assets.dicom.from_header import values_of
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import scan
from dicom_assets.lake.rewrite import rewrite_files
from dicom_assets.lake.staging import SCHEMAS, Part, Staging
from dicom_assets.lake.tables import NoSuchVersion
from dicom_assets.schema.promoted import promoted

COLUMNS = (
    "TemporalPositionIdentifier",
    "NumberOfTemporalPositions",
    "TriggerTime",
    "DiffusionBValue",
    "DiffusionGradientOrientation",
    "ImagesInAcquisition",
)
"""Columns of flat_metadata and instance that came with series_geometry."""

PROGRESS = "_upgrade/geometry"
"""The last study_key whose geometry was made, while the migration is under way."""

INSTANCES_AT_ONCE = 20_000

_LACKS = " OR ".join(
    f"""(contains(header, '"{tag_for_keyword(name):08X}":') AND "{name}" IS NULL)""" for name in COLUMNS
)


def find(lake: Lake) -> int:
    """How many series with images have no row in series_geometry."""
    grain = "source, StudyInstanceUID, SeriesInstanceUID"
    try:
        there = scan(lake, "series_geometry")
    except NoSuchVersion:
        there = scan(lake, "series_geometry", paths=[])
    with lake.cursor() as connection:
        ((count,),) = connection.execute(
            f"SELECT count(*) FROM (SELECT DISTINCT {grain} FROM {scan(lake, 'instance')} WHERE {IS_IMAGE}) "
            f"ANTI JOIN {there} USING ({grain})"
        ).fetchall()
    return int(count)


def make(work: RunContext, tell: Callable[[int, int], None]) -> None:
    """Fills the columns of what is there, then makes instances that have values in them, and geometry, again."""
    lake, files = work.lake, work.lake.files
    _fill(lake)
    done = files.get(PROGRESS).decode() if files.exists(PROGRESS) else ""
    has_values = " OR ".join(f'bool_or("{name}" IS NOT NULL)' for name in COLUMNS)
    with lake.cursor() as connection:
        sizes = connection.execute(
            f"SELECT study_key, count(*), {has_values} FROM {scan(lake, 'flat_metadata')} GROUP BY 1 ORDER BY 1"
        ).fetchall()
    group: list[tuple[str, bool]] = []
    rows = 0
    for number, (key, size, is_filled) in enumerate(sizes, start=1):
        if key > done:
            group.append((key, is_filled))
            rows += size
        if group and (rows >= INSTANCES_AT_ONCE or number == len(sizes)):
            tell(number - len(group), len(sizes))
            _publish(work, group)
            files.put(PROGRESS, group[-1][0].encode())
            group, rows = [], 0
    files.remove(PROGRESS)


def _publish(work: RunContext, studies: list[tuple[str, bool]]) -> None:
    """studies: their keys, and whether columns of theirs were filled."""
    for name, keys in (("instance", [key for key, is_filled in studies if is_filled]), ("", [k for k, _ in studies])):
        staging = Staging(work.lake.files, f"geometry-{keys[0]}" if keys else "geometry")
        try:
            staging.stage(Part.TOUCHED, pa.table({"study_key": keys}, schema=SCHEMAS[Part.TOUCHED]))
            if name:
                publish_hierarchy(work.lake, staging, name)
            else:
                publish_geometry(work.lake, staging)
        finally:
            staging.remove()


def _fill(lake: Lake) -> None:
    """Writes the files of flat_metadata anew whose headers have what their columns lack; one file at a time."""
    with lake.cursor() as connection:
        source = scan(lake, "flat_metadata", filename=True)
        found = connection.execute(
            f"SELECT DISTINCT parse_filename(filename) FROM {source} WHERE {_LACKS} ORDER BY 1"
        ).fetchall()
    by_name = {str(path).rsplit("/", 1)[-1]: str(path) for path in lake.extents("flat_metadata").paths}
    for (name,) in found:
        with lake.committing("flat_metadata"):
            rewrite_files(lake, "flat_metadata", [by_name[name]], filled, data_change=True)


def filled(rows: pa.Table) -> pa.Table:
    """Rows of flat_metadata with the values that their headers have for COLUMNS."""
    columns = [promoted(name) for name in COLUMNS]
    for column, values in zip(columns, values_of(rows["header"], columns), strict=True):
        at = rows.schema.get_field_index(column.name)
        rows = rows.set_column(at, rows.schema.field(at), values)
    return rows
