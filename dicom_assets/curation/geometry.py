"""The geometry of series: from their images to orientation, positions, spacing, volumes, and what is irregular.

Belongs here: the numbers and the judgement, for many series at once, as numpy arrays. Does not belong here: where the
attributes of an image come from (`series_images`), which volumes there are (`volumes`), publishing
(`batch.series_geometry`).

Nothing depends on the order of the images: they are sorted by where they lie.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dicom_assets.curation.groups import Flags, Floats, Groups, Ints, coded, combined, first_of_each
from dicom_assets.curation.series_images import ORIENTATION, POSITION, SPACING
from dicom_assets.curation.stacks import Grid, Stacks, grid_of, stacks_of
from dicom_assets.curation.volumes import names_by_series, split
from dicom_assets.schema.geometry_table import GeometryKind, Irregularity, Plane

KINDS = (
    GeometryKind.SLICES,
    GeometryKind.LOCALIZER,
    GeometryKind.SECONDARY_CAPTURE,
    GeometryKind.MOSAIC,
    GeometryKind.NO_POSITION,
)
"""What an image is, by the number that `series_images` gives it."""

FARTHEST = 1e7
"""Millimetres from the origin at which nothing lies: such numbers are no position."""

LONGEST, SHORTEST = 10.0, 0.1
"""Direction cosines beyond the first, and directions with a normal shorter than the second, are no orientation."""

PIXEL_SPACING_TOLERANCE = 1e-3
"""Share of Pixel Spacing that it may differ by: what is written with four digits."""

OBLIQUE_COSINE = 0.8
"""Slices are oblique when no axis of the body is nearer to their normal than this cosine, 37 degrees.

The bound that D. A. Clunie's PixelMed toolkit uses for each of both directions (obliquityThresholdCosineValue).
"""
_PLANES = (Plane.SAGITTAL, Plane.CORONAL, Plane.AXIAL)


def _numbers(images: pa.Table, *names: str) -> Floats:
    """Columns as an array, one row for each image; NaN where there is none, and for what is not finite."""
    columns = [images[name].cast(pa.float64(), safe=False) for name in names]
    found = np.column_stack([column.to_numpy(zero_copy_only=False) for column in columns])
    found[~np.isfinite(found)] = np.nan
    return found


def measured(images: pa.Table, number: int) -> pa.Table:
    """The geometry of series 0 … number - 1 from their images, as `series_images` gives them, as the table has it."""
    series = images["series"].to_numpy().astype(np.int64)
    kinds = images["kind"].to_numpy().astype(np.int64)
    frames = images["frames"].to_numpy()
    position, orientation = _numbers(images, *POSITION), _numbers(images, *ORIENTATION)
    is_placed = (np.abs(position) < FARTHEST).all(axis=1) & (np.abs(orientation) < LONGEST).all(axis=1)
    orientation[~is_placed] = 0
    is_placed &= np.linalg.norm(np.cross(orientation[:, :3], orientation[:, 3:]), axis=1) > SHORTEST
    kinds[(kinds == 0) & ~is_placed] = KINDS.index(GeometryKind.NO_POSITION)
    of_kind = [Groups(series[kinds == kind], number).counts for kind in range(len(KINDS))]

    slices = np.flatnonzero(kinds == 0)
    rows, own = images.take(pa.array(slices)), series[slices]
    stacks = stacks_of(own, position[slices], orientation[slices])
    volumes = split(rows, stacks.labels, stacks.places)
    grid = grid_of(stacks, volumes.volumes, own, number)
    groups = Groups(own, number)
    in_plane, is_uniform = _in_plane(rows, groups)
    several_frames = groups.distinct(coded(rows["frame_of_reference"])) > 1

    others: Ints = np.sum(of_kind[1:4], axis=0)
    reasons: dict[Irregularity, Flags] = {
        Irregularity.POSITION_MISSING: of_kind[4] > 0,
        Irregularity.OTHER_IMAGES: others > 0,
        Irregularity.SEVERAL_FRAMES_OF_REFERENCE: several_frames,
        Irregularity.SEVERAL_ORIENTATIONS: stacks.counts(number) > 1,
        Irregularity.ORIENTATION_INVALID: groups.has(stacks.is_invalid),
        Irregularity.IN_PLANE_DIFFERS: ~is_uniform,
        Irregularity.DUPLICATED_POSITIONS: grid.duplicated > 0,
        Irregularity.MISSING_SLICES: grid.missing > 0,
        Irregularity.UNEVEN_SPACING: grid.is_uneven,
        Irregularity.NOT_ALIGNED: grid.is_scattered,
        Irregularity.SHEARED: grid.is_sheared,
        Irregularity.VOLUMES_DIFFER: grid.volumes_differ,
    }
    is_judged = grid.positions > 1
    listed = [
        [str(reason) for reason, holds in reasons.items() if judged and holds[one]]
        for one, judged in enumerate(is_judged.tolist())
    ]
    count = Groups(series, number).total(frames)
    return pa.table(
        {
            "geometry_kind": _kinds(of_kind, grid.positions),
            "is_regular_volume": [not why if judged else None for why, judged in zip(listed, is_judged, strict=True)],
            "irregularities": pa.array(listed, pa.list_(pa.string())),
            "image_count": count,
            "slice_count": groups.counts,
            **_directions(stacks, own, number),
            "volume_count": grid.volumes,
            "split_by": pa.array([*names_by_series(volumes.told, own, number)], pa.list_(pa.string())),
            **_distances(grid),
            "gantry_tilt": _or_null(_largest(_numbers(rows, "tilt")[:, 0], groups)),
            **in_plane,
        }
    )


def _or_null(values: npt.NDArray[Any], kind: pa.DataType | None = None) -> pa.Array:
    """Numbers as a column; NaN is NULL."""
    found = pa.array(values, pa.float64(), from_pandas=True)
    return found if kind is None else found.cast(kind)


def _vectors(values: Floats) -> pa.Array:
    """Rows of numbers as lists; NULL where a number is missing."""
    return pa.array([None if np.isnan(row).any() else row.tolist() for row in values], pa.list_(pa.float64()))


def _largest(values: Floats, groups: Groups) -> Floats:
    """The value of each group that is furthest from 0, with its sign."""
    low, high = groups.least(values), groups.greatest(values)
    return np.where(np.nan_to_num(-low) > np.nan_to_num(high), low, high)


def _kinds(of_kind: list[Ints], positions: Ints) -> list[str]:
    """What each series is: slices where it has some; otherwise the first kind that it has."""
    found = np.full(len(positions), str(GeometryKind.NO_POSITION), dtype=object)
    for kind in (GeometryKind.MOSAIC, GeometryKind.SECONDARY_CAPTURE, GeometryKind.LOCALIZER):
        found[of_kind[KINDS.index(kind)] > 0] = str(kind)
    found[positions == 1] = str(GeometryKind.SINGLE_SLICE)
    found[positions > 1] = str(GeometryKind.SLICES)
    kinds: list[str] = found.tolist()
    return kinds


def _directions(stacks: Stacks, own: Ints, number: int) -> dict[str, Any]:
    """Orientation of each series: that of the stack with most images, the first of these in the order of values."""
    sizes = np.bincount(stacks.labels, minlength=len(stacks.orientations))
    of_stack = own[first_of_each(stacks.labels)]
    order = np.lexsort((np.arange(len(sizes)), -sizes, of_stack))
    firsts = order[first_of_each(combined(of_stack[order]))]
    orientation = np.full((number, 6), np.nan)
    orientation[of_stack[firsts]] = stacks.orientations[firsts]
    normal = np.full((number, 3), np.nan)
    normal[of_stack[firsts]] = stacks.normals[firsts]
    nearest = np.abs(np.nan_to_num(normal))
    cosine = nearest.max(axis=1)
    planes = [
        None if not own_cosine else str(_PLANES[axis] if own_cosine >= OBLIQUE_COSINE else Plane.OBLIQUE)
        for axis, own_cosine in zip(nearest.argmax(axis=1).tolist(), cosine.tolist(), strict=True)
    ]
    angle = np.degrees(np.arccos(np.minimum(cosine, 1.0)))
    return {
        "orientation_count": stacks.counts(number),
        "orientation": _vectors(orientation),
        "plane": pa.array(planes, pa.string()),
        "plane_angle": _or_null(np.where(cosine > 0, angle, np.nan)),
    }


def _distances(grid: Grid) -> dict[str, Any]:
    return {
        "position_count": grid.positions,
        "slices_per_volume": grid.slices,
        "spacing": _or_null(grid.spacing),
        "spacing_deviation": _or_null(grid.deviation),
        "largest_distance": _or_null(grid.largest),
        "missing_slices": grid.missing,
        "duplicated_images": grid.duplicated,
        "first_position": _or_null(grid.first),
        "last_position": _or_null(grid.last),
        "misalignment": _or_null(grid.misalignment),
        "shear_angle": _or_null(grid.shear_angle),
    }


def _in_plane(rows: pa.Table, groups: Groups) -> tuple[dict[str, Any], Flags]:
    """Rows, Columns and Pixel Spacing of series in which all slices agree, and which do; what is missing agrees."""
    ends = {
        name: (groups.least(values), groups.greatest(values))
        for name in ("rows", "columns", *SPACING)
        for values in [_numbers(rows, name)[:, 0]]
    }
    agree = {
        name: ~(high - low > (PIXEL_SPACING_TOLERANCE * np.abs(high) if name in SPACING else 0))
        for name, (low, high) in ends.items()
    }
    spacing = np.column_stack([np.where(agree[name], ends[name][0], np.nan) for name in SPACING])
    size = {
        column: _or_null(np.where(agree[name], ends[name][0], np.nan), pa.int64())
        for column, name in (("Rows", "rows"), ("Columns", "columns"))
    }
    return {**size, "PixelSpacing": _vectors(spacing)}, np.logical_and.reduce([*agree.values()])
