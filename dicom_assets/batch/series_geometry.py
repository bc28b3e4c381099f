"""The table of geometry: that of the series that a batch touches, from all their current instances.

Belongs here: which series, how many at a time, and the commit. Does not belong here: what their geometry is
(`curation.geometry`, `curation.claims_of_series`).

A study is made again whole, so nothing depends on the order in which batches came. Headers are read of multi-frame
objects alone; everything else stands in columns of `instance`.
"""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.batch.publish import touched_studies
from dicom_assets.curation import series_images
from dicom_assets.curation.claims_of_series import CLAIMING, claimed
from dicom_assets.curation.geometry import measured
from dicom_assets.curation.study_instances import open_instances
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.headers import with_headers
from dicom_assets.lake.query import arrow, few, readable
from dicom_assets.lake.staging import Staging
from dicom_assets.reading.memory import give_back
from dicom_assets.schema.registry import SERIES_GEOMETRY

IMAGES_AT_ONCE = 50_000
"""Images that are measured together, unless one series has more: 90 MB."""

IMAGES_READ = 200_000
"""Images that are read together, unless one series has more: 60 MB. Each reading goes through the files that have them,
and sets up a statement that DuckDB needs 0.1 s for."""

_SERIES = """
-- one row per series with images of the touched studies, with how many images it says that it has
SELECT
    source, study_key, StudyInstanceUID, SeriesInstanceUID, count(*) AS instance_count,
    max(updated_at) AS updated_at, bool_or(is_multiframe) AS is_multiframe, sum(NumberOfFrames)::BIGINT AS size
FROM every
GROUP BY ALL
HAVING bool_or(is_image)
"""

_INSTANCES = """
CREATE OR REPLACE TEMP VIEW instances AS
SELECT part.series, own.* FROM every AS own
JOIN (SELECT series, study_key, SeriesInstanceUID FROM part) AS part USING (study_key, SeriesInstanceUID)
"""


def publish_geometry(lake: Lake, staging: Staging) -> int:
    """Rebuilds the touched studies of series_geometry from all their instances; how many rows they now have.

    Reading and commit happen under the table's lock, as those of the hierarchy do. Raises LakeError, StagingMissing.
    """
    keys = touched_studies(staging)["study_key"].to_pylist()
    if not keys:
        return 0
    give_back(lake)
    with lake.committing(SERIES_GEOMETRY.name):
        with open_instances(lake, staging, keys) as connection:
            made = [SERIES_GEOMETRY.schema.empty_table(), *_made(lake, connection)]
        rows = pa.concat_tables(made)
        lake.replace(SERIES_GEOMETRY.name, keys, rows)
    give_back(lake)
    return len(rows)


def _made(lake: Lake, connection: duckdb.DuckDBPyConnection) -> Iterator[pa.Table]:
    """The rows of the series of the studies in `instance`, for some of them after the other."""
    connection.execute(f"CREATE TEMP TABLE every AS {series_images.INSTANCES}")
    all_series = few(connection, _SERIES).sort_by(
        [(name, "ascending") for name in ("source", "study_key", "SeriesInstanceUID")]
    )
    numbered = all_series.append_column("series", pa.array(range(len(all_series)), pa.int64()))
    for read in _parts(numbered, IMAGES_READ):
        connection.register("part", read)
        connection.execute(_INSTANCES)
        instances = arrow(connection, f"SELECT {', '.join(CLAIMING)} FROM instances")
        found = [series_images.single_frames(connection)]
        if any(read["is_multiframe"].to_pylist()):
            found.append(_frames(lake, arrow(connection, "FROM instances WHERE is_image AND is_multiframe")))
        give_back(lake)
        images = pa.concat_tables(found, promote_options="permissive")
        for series in _parts(read, IMAGES_AT_ONCE):
            yield _rows(_of(series, instances), _of(series, images), series)


def _parts(series: pa.Table, most: int) -> Iterator[pa.Table]:
    """Some series, one part after the other: as many as begin within `most` images."""
    size = np.asarray(series["size"])
    part_of = (np.cumsum(size) - size) // most
    yield from (series.filter(pa.array(part_of == part)) for part in np.unique(part_of))


def _of(series: pa.Table, rows: pa.Table) -> pa.Table:
    """The rows of series that follow one another, by their place among them instead of their number."""
    first = series["series"][0].as_py()
    place = pc.subtract(rows["series"], first)
    own = rows.set_column(rows.schema.get_field_index("series"), "series", place)
    return own.filter(pc.and_(pc.greater_equal(place, 0), pc.less(place, len(series))))


def _rows(instances: pa.Table, images: pa.Table, series: pa.Table) -> pa.Table:
    made = {
        **_columns(measured(images, len(series))),
        **claimed(instances, images, len(series)),
        **_columns(series),
    }
    return pa.table([made[name] for name in SERIES_GEOMETRY.schema.names], names=SERIES_GEOMETRY.schema.names).cast(
        SERIES_GEOMETRY.schema
    )


def _columns(table: pa.Table) -> dict[str, pa.ChunkedArray]:
    return dict(zip(table.column_names, table.columns, strict=True))


def _frames(lake: Lake, instances: pa.Table) -> pa.Table:
    """The frames of multi-frame instances, from their headers, which lie with the batches that brought them."""
    with lake.cursor() as connection, readable("flat_metadata"):
        connection.register("multiframe", with_headers(lake, instances))
        return series_images.multi_frames(connection)
