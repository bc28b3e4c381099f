"""Headers of single objects, read from the files of flat_metadata without holding many of them.

Belongs here: finding the row groups that hold some objects, and reading these alone. Does not belong here: what is done
with a header.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dicom_assets.lake.delta import Lake

_NAME = ["batch_id", "object_id"]


def headers(lake: Lake, objects: pa.Table) -> Iterator[pa.Table]:
    """The rows of flat_metadata of some objects (batch_id, object_id), in these columns and `header`.

    One row group is in memory at a time. Raises LakeError.
    """
    wanted = _names(objects)
    known = lake.extents("flat_metadata")
    batches = sorted(objects["batch_id"].unique().to_pylist())
    held = known.within({"batch_id": batches})
    for path in known.paths[held].tolist():
        file = lake.files.open_parquet(f"flat_metadata/{path}")
        for group in _groups(file, batches):
            named = file.read_row_group(group, columns=_NAME)
            own = pc.is_in(_names(named), wanted)
            if pc.any(own).as_py():
                texts = file.read_row_group(group, columns=["header"])["header"]
                at = np.flatnonzero(np.asarray(own))
                yield named.select(_NAME).append_column("header", texts).take(at)


def _groups(file: pq.ParquetFile, batches: Collection[str]) -> Iterator[int]:
    """The row groups that may hold rows of some batches."""
    schema = file.metadata.schema
    column = next(at for at in range(len(schema)) if schema.column(at).path == "batch_id")
    for group in range(file.num_row_groups):
        told = file.metadata.row_group(group).column(column).statistics
        if told is None or not told.has_min_max or any(told.min <= one <= told.max for one in batches):
            yield group


def _names(rows: pa.Table) -> pa.Array:
    """Batch and object as one text each."""
    texts = [rows[name].cast(pa.string()) for name in _NAME]
    return pc.binary_join_element_wise(*texts, "/").combine_chunks()
