"""The order of images in space (PS3.3 C.7.6.2).

Belongs here: sorting by position along the normal. Does not belong here: reading rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

_SAME_DIRECTION = 0.999
"""Cosine of the angle between two normals, from which on positions along them are compared."""

_SAME_PLACE = 2
"""Decimals of a millimetre: images that differ by less lie at one place."""

DIRECTIONS_MOST = 64
"""Directions of one series that are told apart; what lies in further ones comes by number."""

Row = Mapping[str, Any]
Vector = tuple[float, float, float]


def in_order(rows: Sequence[Row], is_shown: Callable[[Row], bool] = lambda row: True) -> list[tuple[Row, float | None]]:
    """Rows of `instance` with their position along the normal in mm, None where it is not told.

    Images of one direction come by position, and at one place by InstanceNumber, so that phases lie side by side.
    Directions follow each other by the lowest InstanceNumber, such as the three of a scout. What has no position comes
    behind, by InstanceNumber; last of all, what is not shown.
    """
    groups: list[tuple[Vector, list[tuple[float, Row]]]] = []
    others: list[Row] = []
    for row in sorted(rows, key=_number):
        normal, at = _normal(row), row["ImagePositionPatient"]
        if normal is None or not _is_full(at, 3) or not is_shown(row):
            others.append(row)
            continue
        group = next((one for one in groups if _dot(one[0], normal) > _SAME_DIRECTION), None)
        if group is None and len(groups) == DIRECTIONS_MOST:
            others.append(row)
            continue
        if group is None:
            group = (normal, [])
            groups.append(group)
        group[1].append((round(_dot(group[0], at), _SAME_PLACE), row))
    found: list[tuple[Row, float | None]] = []
    for _, members in groups:
        members.sort(key=lambda one: one[0])  # stable: by number where the place is the same
        found += [(row, place) for place, row in members]
    found += [(row, None) for row in sorted(others, key=lambda row: not is_shown(row))]
    return found


def _number(row: Row) -> tuple[bool, int, str]:
    number = row["InstanceNumber"]
    return number is None, number or 0, row["SOPInstanceUID"]


def _normal(row: Row) -> Vector | None:
    if not _is_full(row["ImageOrientationPatient"], 6):
        return None
    a, b, c, d, e, f = row["ImageOrientationPatient"]
    normal = (b * f - c * e, c * d - a * f, a * e - b * d)
    length = _dot(normal, normal) ** 0.5
    return None if length < 1e-6 else (normal[0] / length, normal[1] / length, normal[2] / length)


def _is_full(values: Sequence[float | None] | None, count: int) -> bool:
    return values is not None and len(values) == count and all(one is not None and abs(one) < 1e9 for one in values)


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
