"""Slices in space: which lie in planes of one direction, where along their normal, and what grid their volumes fill.

Belongs here: tolerances, distances, lines. Does not belong here: which reasons follow (`geometry`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dicom_assets.curation.groups import Flags, Floats, Groups, Ints, combined, first_of_each

SAME_POSITION = 1e-2
"""Millimetres along the normal below which slices lie at one position: what writers of decimal strings round to."""

SPACING_TOLERANCE = 1e-2
"""Share of the spacing by which distances may differ from it: the default of highdicom's `get_volume_positions`.

Never less than SAME_POSITION.
"""

SHEAR_TOLERANCE = 1e-3
"""By how much the cosine between normal and line of positions may lack one: the same function's default, 2.6°."""

ORIENTATION_TOLERANCE = 1e-3
"""By how much direction cosines of one direction may differ, and by how much a direction may lack length one or a
right angle: what three decimals give, 0.06 degrees. PS3.3 C.7.6.2.1.1 asks for unit vectors at right angles."""

_MOST_DIRECTIONS = 1_000
"""Directions of a series that are compared with a tolerance; beyond, equal ones alone are one."""


@dataclass(frozen=True, slots=True)
class Stacks:
    """Slices by series and direction.

    labels, places: of each slice its stack, and its position along the normal, from 0 on, in the order of stacks and
    positions. along, across: where each slice lies along the normal, and in the plane (two axes), mm. is_invalid: of
    each slice, whether its direction cosines cannot be. orientations, normals, series: of each stack.
    """

    labels: Ints
    places: Ints
    along: Floats
    across: Floats
    is_invalid: Flags
    orientations: Floats
    normals: Floats
    series: Ints

    def counts(self, number: int) -> Ints:
        """How many directions each series has."""
        return np.bincount(self.series, minlength=number).astype(np.int64)


def stacks_of(series: Ints, position: Floats, orientation: Floats) -> Stacks:
    """The stacks of slices. series: of each slice; position: n × 3, mm; orientation: n × 6 direction cosines."""
    labels = combined(series, _directions(series, orientation))
    order = np.lexsort([*orientation.T[::-1], labels])
    firsts = order[first_of_each(labels[order])]
    orientations = orientation[firsts]
    normals = np.cross(orientations[:, :3], orientations[:, 3:])
    normals /= np.linalg.norm(normals, axis=1)[:, None]
    rows = orientations[:, :3] / np.linalg.norm(orientations[:, :3], axis=1)[:, None]
    columns = np.cross(normals, rows)
    along = (position * normals[labels]).sum(axis=1)
    across = np.column_stack([(position * axis[labels]).sum(axis=1) for axis in (rows, columns)])
    order = np.lexsort((along, labels))
    is_new = np.zeros(len(order), dtype=bool)
    is_new[1:] = (labels[order][1:] != labels[order][:-1]) | (np.diff(along[order]) > SAME_POSITION)
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.cumsum(is_new)
    lengths = np.column_stack([np.linalg.norm(orientation[:, part], axis=1) for part in (slice(0, 3), slice(3, 6))])
    leaning = np.abs((orientation[:, :3] * orientation[:, 3:]).sum(axis=1))
    is_invalid = (np.abs(lengths - 1) > ORIENTATION_TOLERANCE).any(axis=1) | (leaning > ORIENTATION_TOLERANCE)
    return Stacks(labels, places, along, across, is_invalid, orientations, normals, series[firsts])


def _directions(series: Ints, orientation: Floats) -> Ints:
    """A label for the direction of each slice, within its series."""
    found = np.zeros(len(series), dtype=np.int64)
    if not len(series):
        return found
    groups = Groups(series, int(series.max()) + 1)
    spread = np.max([groups.greatest(one) - groups.least(one) for one in orientation.T], axis=0)
    for one in np.flatnonzero(np.nan_to_num(spread) > ORIENTATION_TOLERANCE).tolist():
        at = groups.rows(one)
        found[at] = _clusters(orientation[at])
    return found


def _clusters(orientation: Floats) -> Ints:
    """Directions that agree with the first of them, in the order of their values."""
    exact = combined(*orientation.T)
    values = orientation[first_of_each(exact)]
    if len(values) > _MOST_DIRECTIONS:
        return exact
    labels = np.full(len(values), -1, dtype=np.int64)
    while (left := labels < 0).any():
        first = values[left][0]
        labels[left & (np.abs(values - first).max(axis=1) <= ORIENTATION_TOLERANCE)] = labels.max() + 1
    return labels[exact]


@dataclass(frozen=True, slots=True)
class Grid:
    """Of each series: counts of positions, volumes, slices of the largest, of what is missing or twice; mm, degrees."""

    positions: Ints
    volumes: Ints
    slices: Ints
    duplicated: Ints
    missing: Ints
    spacing: Floats
    deviation: Floats
    largest: Floats
    first: Floats
    last: Floats
    misalignment: Floats
    shear_angle: Floats
    is_uneven: Flags
    is_scattered: Flags
    is_sheared: Flags
    volumes_differ: Flags


def grid_of(stacks: Stacks, volumes: Ints, series: Ints, number: int) -> Grid:
    """The grid that the volumes of each series fill. volumes, series: of each slice."""
    order = np.lexsort((stacks.across[:, 1], stacks.across[:, 0], stacks.along, volumes))
    cells = combined(volumes, stacks.places)
    one = order[first_of_each(cells[order])]  # one slice for each position of each volume, in the order of both
    along, across, volume, own = stacks.along[one], stacks.across[one], volumes[one], series[one]
    of_series = Groups(own, number)

    step = np.flatnonzero(volume[1:] == volume[:-1])
    distance, stepped = along[step + 1] - along[step], Groups(own[step], number)
    spacing = stepped.median(distance)
    tolerance = np.maximum(SAME_POSITION, SPACING_TOLERANCE * np.nan_to_num(spacing))
    typical, allowed = spacing[own[step]], tolerance[own[step]]
    whole = np.maximum(np.round(distance / typical), 1) if len(step) else distance
    is_gap = (whole > 1) & (np.abs(distance - whole * typical) <= allowed * whole)
    deviation = np.where(is_gap, 0.0, np.abs(distance - typical))

    lines = _lines(along, across, volume)
    of_volume = Groups(volume, len(lines.angle))
    volume_series = own[first_of_each(volume)]
    by_series = Groups(volume_series, number)
    misalignment = of_series.greatest(lines.residual)
    angle = by_series.greatest(lines.angle)
    is_one = stacks.counts(number) == 1  # positions along several normals have no common beginning
    first, last = (np.where(is_one, end, np.nan) for end in (of_series.least(along), of_series.greatest(along)))
    place_firsts = first_of_each(stacks.places)
    return Grid(
        positions=Groups(series[place_firsts], number).counts,
        volumes=by_series.counts,
        slices=np.nan_to_num(by_series.greatest(of_volume.counts.astype(float))).astype(np.int64),
        duplicated=Groups(series, number).counts - of_series.counts,
        missing=stepped.total(np.where(is_gap, whole - 1, 0).astype(np.int64)),
        spacing=spacing,
        deviation=stepped.greatest(deviation),
        largest=stepped.greatest(distance),
        first=first,
        last=last,
        misalignment=misalignment,
        shear_angle=angle,
        is_uneven=stepped.has(deviation > allowed),
        is_scattered=np.nan_to_num(misalignment) > tolerance,
        is_sheared=1 - np.cos(np.radians(np.nan_to_num(angle))) > SHEAR_TOLERANCE,
        volumes_differ=_differ(of_volume, along, stacks.labels[one], volume, tolerance, own, number),
    )


def _differ(
    of_volume: Groups, along: Floats, stack: Ints, volume: Ints, tolerance: Floats, own: Ints, number: int
) -> Flags:
    """Which series have volumes of one direction that differ in slices, beginning or end."""
    firsts = first_of_each(volume)
    stack_of, series_of = combined(stack[firsts]), own[firsts]
    by_stack = Groups(stack_of, int(stack_of.max(initial=-1)) + 1)
    series_of_stack = series_of[first_of_each(stack_of)]
    bounds = tolerance[series_of_stack]
    ends = (of_volume.least(along), of_volume.greatest(along))
    differ = by_stack.greatest(of_volume.counts.astype(float)) > by_stack.least(of_volume.counts.astype(float))
    for end in ends:
        differ |= by_stack.greatest(end) - by_stack.least(end) > bounds
    return Groups(series_of_stack, number).has(differ)


@dataclass(frozen=True, slots=True)
class _Lines:
    """angle: of the line of each volume to its normal, degrees. residual: of each position from its line, mm."""

    angle: Floats
    residual: Floats


def _lines(along: Floats, across: Floats, volume: Ints) -> _Lines:
    """The line that the positions of each volume lie on, found so that a few that lie beside it do not move it.

    Its slope is the median over pairs of positions that are half of the volume apart (as in the estimate of Theil and
    Sen): a long way, so that rounded decimals matter little. Arrays are in the order of volumes and positions.
    """
    number = int(volume.max(initial=-1)) + 1
    counts = np.bincount(volume, minlength=number)
    begin = np.cumsum(counts) - counts
    reach = np.where(counts == 3, 2, np.maximum(counts // 2, 1))[volume]
    near = np.flatnonzero(np.arange(len(along)) - begin[volume] + reach < counts[volume])
    far = near + reach[near]
    pairs = Groups(volume[near], number)
    depth = along - along[begin[volume]] if len(along) else along
    slopes, residuals = [], []
    for axis in across.T:
        rise = (axis[far] - axis[near]) / (along[far] - along[near])
        slope = np.nan_to_num(_median_near_zero(pairs, rise))
        beside = axis - slope[volume] * depth
        middle = Groups(volume, number).median(beside)
        slopes.append(slope)
        residuals.append(beside - middle[volume])
    return _Lines(np.degrees(np.arctan(np.hypot(*slopes))), np.hypot(*residuals))


def _median_near_zero(pairs: Groups, values: Floats) -> Floats:
    """The median of each group; of two in the middle the one that is nearer to zero."""
    low, high = pairs.median(values), -pairs.median(-values)
    return np.where(np.abs(low) <= np.abs(high), low, high)
