"""Which volumes the slices of a series make: those that have slices in one place are told apart, before any is missing.

Belongs here: which attributes may tell volumes apart, and when one does. Does not belong here: what a volume is like
(`geometry`).

Slices are split only where several lie at one position. Each attribute of KEYS is tried in turn on the volumes that are
left with such positions; it splits a volume when fewer images then share a position, and what comes out are volumes
again: two that have at least half of its positions, or, where values are compared, nothing but volumes of three
positions. So an acquisition number that is another one for each slice splits nothing, nor does a slice that was sent
twice with two times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dicom_assets.curation.groups import Flags, Ints, coded, combined, first_of_each

LEAST_SLICES = 3
"""Positions that make a volume of its own, whatever the others have."""


@dataclass(frozen=True, slots=True)
class Key:
    """An attribute that may tell volumes apart. column: of the images.

    is_rank: not values are compared, which are others for each slice, but their order at each position: the earliest
    image of each position, then the second one.
    """

    name: str
    column: str
    is_rank: bool = False


KEYS: tuple[Key, ...] = (
    Key("stack", "stack"),
    Key("image type", "image_type"),
    Key("echo", "echo"),
    Key("segment", "segment"),
    Key("b-value", "b_value"),
    Key("gradient direction", "gradient"),
    Key("temporal position", "temporal_position"),
    Key("trigger time", "trigger", is_rank=True),
    Key("acquisition", "acquisition"),
    Key("acquisition time", "acquisition_time", is_rank=True),
    Key("content time", "content_time", is_rank=True),
    Key("instance number", "instance_number", is_rank=True),
)
"""What may tell volumes apart, in the order in which it is tried."""


@dataclass(frozen=True, slots=True)
class Split:
    """The volume of each image, from 0 on, and for each attribute that told some apart the images that it did."""

    volumes: Ints
    told: dict[str, Ints]


def split(images: pa.Table, stacks: Ints, positions: Ints) -> Split:
    """The volumes of some images.

    stacks: a label for each image, equal for those of one series and orientation. positions: a label for each place
    along the normal of a stack.
    """
    volumes, told = stacks, dict[str, Ints]()
    for key in KEYS:
        at = np.flatnonzero(_is_crowded(volumes, positions))
        if not len(at):
            break
        codes = coded(images[key.column].take(pa.array(at)))
        if (codes == codes[0]).all():
            continue
        parents = combined(volumes[at])
        if key.is_rank:
            codes = _ranks(combined(parents, positions[at]), codes)
        is_split = _makes_volumes(key, parents, positions[at], codes)[parents]
        if is_split.any():
            parts = np.zeros(len(volumes), dtype=np.int64)
            parts[at] = np.where(is_split, codes, 0)
            volumes = combined(volumes, parts)
            told[key.name] = at[is_split]
    return Split(volumes, told)


def _is_crowded(volumes: Ints, positions: Ints) -> Flags:
    """Which images lie in a volume that has several images at one position."""
    cells = combined(volumes, positions)
    counts = np.bincount(volumes) - np.bincount(
        volumes[first_of_each(cells)], minlength=int(volumes.max(initial=0)) + 1
    )
    crowded: Flags = counts[volumes] > 0
    return crowded


def _ranks(cells: Ints, codes: Ints) -> Ints:
    """The place of each code among those of its cell, from 0 on; equal ones share it."""
    pairs = combined(cells, codes)  # in the order of cells, then of codes
    of_pair = cells[first_of_each(pairs)]
    begins = np.r_[0, np.flatnonzero(of_pair[1:] != of_pair[:-1]) + 1]
    first_pair = begins[np.searchsorted(begins, np.arange(len(of_pair)), side="right") - 1]
    ranks: Ints = pairs - first_pair[pairs]
    return ranks


def _makes_volumes(key: Key, parents: Ints, positions: Ints, codes: Ints) -> Flags:
    """By volume, whether codes make volumes of it, see the module."""
    number = int(parents.max()) + 1
    places = combined(parents, positions)
    children = combined(parents, codes)
    cells = combined(children, positions)
    own = first_of_each(cells)
    size_of = np.bincount(parents[first_of_each(places)], minlength=number)
    size = np.bincount(children[own])
    parent = parents[first_of_each(children)]
    is_better = np.bincount(parents[own], minlength=number) > size_of
    half = np.bincount(parent[2 * size >= size_of[parent]], minlength=number)
    is_small = size < np.minimum(LEAST_SLICES, size_of[parent])
    has_small = np.bincount(parent[is_small], minlength=number) > 0
    makes: Flags = is_better & ((half >= 2) | (~has_small & (not key.is_rank)))
    return makes


def names_by_series(told: dict[str, Ints], series: Ints, number: int) -> Iterator[list[str]]:
    """For each series, the attributes that told its volumes apart. series: of each image."""
    names = [*told]
    has = [np.bincount(series[told[name]], minlength=number) > 0 for name in names]
    for one in range(number):
        yield [name for name, own in zip(names, has, strict=True) if own[one]]
