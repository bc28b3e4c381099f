"""What series say of how much belongs to them, beside what is there.

Belongs here: each claim and what it is compared with. Does not belong here: where images lie (`geometry`).

A claim is what an attribute says, and no more: images of one acquisition may stand in several series, and instance
numbers may have been given out with gaps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dicom_assets.curation.groups import Flags, Floats, Groups, Ints, coded, combined, first_of_each
from dicom_assets.schema.geometry_table import Shortfall

CLAIMING = (
    "series", "is_image", "is_multiframe", "NumberOfFrames", "NumberOfSeriesRelatedInstances", "InstanceNumber",
    "NumberOfTemporalPositions", "TemporalPositionIdentifier", "AcquisitionNumber", "ImagesInAcquisition",
)  # fmt: skip
"""Columns of instances that are looked at."""


def _numbers(rows: pa.Table, name: str) -> Floats:
    found: Floats = rows[name].cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return found


def claimed(instances: pa.Table, images: pa.Table, number: int) -> dict[str, Any]:
    """Claims and shortfalls of series 0 … number - 1: columns of `series_geometry`.

    instances: as `series_images.INSTANCES` gives them, in CLAIMING; images: their images.
    """
    series = instances["series"].to_numpy().astype(np.int64)
    groups = Groups(series, number)
    of_series = groups.greatest(_numbers(instances, "NumberOfSeriesRelatedInstances"))
    of_acquisitions, lacks_images = _acquisitions(instances, series, number)
    missing_numbers = _left_out(groups, _numbers(instances, "InstanceNumber"), coded(instances["InstanceNumber"]))
    temporal = groups.greatest(_numbers(instances, "NumberOfTemporalPositions"))
    told = groups.distinct(coded(instances["TemporalPositionIdentifier"]))
    shortfalls: dict[Shortfall, Flags] = {
        Shortfall.SERIES_CLAIMS_MORE: of_series > groups.counts,
        Shortfall.ACQUISITION_CLAIMS_MORE: lacks_images,
        Shortfall.TEMPORAL_POSITIONS_MISSING: (told > 0) & (temporal > told),
        Shortfall.STACK_POSITIONS_MISSING: _stacks_lack(images, number),
        Shortfall.FRAMES_MISSING: _frames_lack(instances, images, number),
        Shortfall.INSTANCE_NUMBERS_MISSING: missing_numbers > 0,
    }
    listed = [[str(name) for name, holds in shortfalls.items() if holds[one]] for one in range(number)]
    return {
        "shortfalls": pa.array(listed, pa.list_(pa.string())),
        "claimed_instances": _whole(of_series),
        "claimed_images": _whole(of_acquisitions),
        "instance_numbers_missing": _whole(missing_numbers),
    }


MOST = 2.0**53
"""What larger counts are told as: up to here a float is a whole number exactly."""


def _whole(values: Floats) -> pa.Array:
    return pa.array(np.minimum(values, MOST), pa.float64(), from_pandas=True).cast(pa.int64())


def _left_out(groups: Groups, values: Floats, codes: Ints) -> Floats:
    """How many whole numbers between the least and the greatest of a group it does not have."""
    missing = groups.greatest(values) - groups.least(values) + 1 - groups.distinct(codes)
    return np.maximum(missing, 0)  # floats of very large numbers may be equal


def _acquisitions(instances: pa.Table, series: Ints, number: int) -> tuple[Floats, Flags]:
    """Images in Acquisition summed over the acquisitions that tell it, and whether one of them has fewer."""
    is_image = np.asarray(instances["is_image"])
    own, rows = series[is_image], instances.filter(pa.array(is_image))
    acquisitions = combined(own, coded(rows["AcquisitionNumber"]))
    of_acquisition = Groups(acquisitions, int(acquisitions.max(initial=-1)) + 1)
    told = of_acquisition.greatest(_numbers(rows, "ImagesInAcquisition"))
    there = of_acquisition.total(_numbers(rows, "NumberOfFrames"))
    by_series = Groups(own[first_of_each(acquisitions)], number)
    is_told = by_series.has(np.isfinite(told))
    total = np.where(is_told, by_series.total(np.nan_to_num(told)), np.nan)
    return total, by_series.has(told > there)


def _stacks_lack(images: pa.Table, number: int) -> Flags:
    """Which series have a stack whose In-Stack Position Numbers, which begin with 1, are not all there."""
    rows = images.filter(pc.is_valid(images["stack_position"]))
    series = rows["series"].to_numpy().astype(np.int64)
    stacks = combined(series, coded(rows["stack"]))
    groups = Groups(stacks, int(stacks.max(initial=-1)) + 1)
    lacks = groups.greatest(_numbers(rows, "stack_position")) > groups.distinct(coded(rows["stack_position"]))
    return Groups(series[first_of_each(stacks)], number).has(lacks)


def _frames_lack(instances: pa.Table, images: pa.Table, number: int) -> Flags:
    """Which series say of their multi-frame objects that these have more frames than there are."""
    several = instances.filter(instances["is_multiframe"])
    expected = Groups(several["series"].to_numpy().astype(np.int64), number).total(_numbers(several, "NumberOfFrames"))
    described = images.filter(images["is_frame"])
    there = Groups(described["series"].to_numpy().astype(np.int64), number).total(described["frames"].to_numpy())
    lacks: Flags = expected > there
    return lacks
