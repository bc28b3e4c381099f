"""Headers of single objects, read from the files of flat_metadata without holding many of them.

Belongs here: finding the row groups that hold some objects, and reading these alone. Does not belong here: what is done
with a header.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.lake.delta import Lake

_NAME = ["batch_id", "object_id"]


def headers(lake: Lake, objects: pa.Table) -> Iterator[pa.Table]:
    """The rows of flat_metadata of some objects (batch_id, object_id), in these columns and `header`.

    One row group is in memory at a time. Raises LakeError.
    """
    wanted = _names(objects)
    known = lake.extents("flat_metadata")
    held = known.within({"batch_id": objects["batch_id"].unique().to_pylist()})
    for path in known.paths[held].tolist():
        file = lake.files.open_parquet(f"flat_metadata/{path}")
        for group in range(file.num_row_groups):
            named = file.read_row_group(group, columns=_NAME)
            own = pc.is_in(_names(named), wanted)
            if pc.any(own).as_py():
                texts = file.read_row_group(group, columns=["header"])["header"]
                at = np.flatnonzero(np.asarray(own))
                yield named.select(_NAME).append_column("header", texts).take(at)


def _names(rows: pa.Table) -> pa.Array:
    """Batch and object as one text each."""
    texts = [rows[name].cast(pa.string()) for name in _NAME]
    return pc.binary_join_element_wise(*texts, "/").combine_chunks()
