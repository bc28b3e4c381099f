"""Plots as SVG, drawn by the server: bars over time, stacked by kind, that need no script.

Belongs here: from counts to a drawing with axes, labels and words for those who do not see it. Does not belong here:
counting (`growth`), colours (`static/books.css`: each kind has a class, so that they suit light and dark).

Each plot is drawn twice, wide and narrow, with letters of the same size; the style sheet shows the one that fits. The
numbers stand in a table below it: nobody has to read them off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from dicom_assets.catalogue.growth import OTHERS, Course
from dicom_assets.printing import visible

LETTER = 12
"""Height of letters, in units of the drawing, which are pixels where it is shown in full size."""
_TOP, _BOTTOM, _RIGHT = 28, 46, 8
_DIGIT = 7.2
"""Width of a digit."""
_GAP = 0.22
"""Share of its place that a bar leaves free."""
_WIDEST = 64
"""Of a bar: one day alone is no wall."""
_BETWEEN = 1.5
"""Between two kinds in one bar."""

_OF_KIND = {
    "error": "severe",
    "warning": "moderate",
    "info": "faint",
    "ingested": "kind0",
    "quarantined": "moderate",
    "ignored": "faint",
    "deleted": "kind3",
    OTHERS: "faint",
}
"""Classes of kinds that look the same in every plot."""


@dataclass(frozen=True, slots=True)
class Size:
    """Of a drawing: its class in the style sheet, width and height."""

    name: str
    width: int
    height: int


SIZES = (Size("broad", 940, 300), Size("slim", 340, 260))


def kind_class(course: Course, kind: str) -> str:
    """The class of a kind in the style sheet, which gives it a colour in light and in dark."""
    return _OF_KIND.get(kind, f"kind{course.kinds.index(kind)}")


def stacked(course: Course, name: str, title: str, what: str) -> Markup:
    """A plot in both sizes.

    name: unique on its page, an identifier. title: what it is called. what: what is counted, in the plural.
    """
    return Markup("").join(_drawn(course, f"{name}-{size.name}", title, what, size) for size in SIZES)


def described(course: Course, what: str) -> str:
    """What a plot shows, in words: from when to when, how many, and where most are; empty for nothing."""
    totals = course.totals
    if not totals:
        return ""
    most = max(range(len(totals)), key=totals.__getitem__)
    return (
        f"{sum(totals):,} {what} from {course.periods[0]} to {course.periods[-1]}, by {course.unit}; most in "
        f"{course.periods[most]}: {totals[most]:,}."
    )


def _by_kind(course: Course) -> str:
    return ", ".join(f"{visible(kind)} {sum(course.counts[kind]):,}" for kind in course.kinds)


def _drawn(course: Course, name: str, title: str, what: str, size: Size) -> Markup:
    totals = course.totals
    ticks = scale(max(totals, default=0))
    left = 14 + _DIGIT * max(len(f"{tick:,}") for tick in ticks)
    across, up = size.width - left - _RIGHT, size.height - _TOP - _BOTTOM
    place = across / max(len(totals), 1)

    def y(value: float) -> float:
        return _TOP + up * (1 - value / ticks[-1])

    parts = [
        Markup(
            '<svg class="plot {}" viewBox="0 0 {} {}" role="img" aria-labelledby="{}-title {}-desc">'
            '<title id="{}-title">{}</title><desc id="{}-desc">{}</desc>'
        ).format(
            size.name,
            size.width,
            size.height,
            name,
            name,
            name,
            title,
            name,
            f"{described(course, what)} By kind: {_by_kind(course)}.",
        )
    ]
    parts.append(Markup('<text x="0" y="{}">{}</text>').format(LETTER, what))
    for tick in ticks:
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                _n(left), size.width - _RIGHT, _n(y(tick)), _n(y(tick))
            )
        )
        parts.append(
            Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(
                _n(left - 6), _n(y(tick) + LETTER / 3), f"{tick:,}"
            )
        )
    width = min(place * (1 - _GAP), _WIDEST)
    for at in range(len(totals)):
        parts.extend(_bar(course, at, left + place * (at + 0.5) - width / 2, width, y))
    parts.extend(_labels(course.periods, left, place, size))
    parts.append(
        Markup('<text class="unit" x="{}" y="{}" text-anchor="end">by {}</text></svg>').format(
            size.width - _RIGHT, size.height - 4, course.unit
        )
    )
    return Markup("").join(parts)


def _bar(course: Course, at: int, x: float, width: float, y: Callable[[float], float]) -> Iterator[Markup]:
    below = 0
    for kind in course.kinds:
        count = course.counts[kind][at]
        if not count:
            continue
        top, bottom = y(below + count), y(below)
        height = max(bottom - top - (_BETWEEN if below and bottom - top > 2 * _BETWEEN else 0), 1.0)
        yield Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"><title>{}: {} {}</title></rect>').format(
            kind_class(course, kind),
            _n(x),
            _n(top),
            _n(width),
            _n(height),
            course.periods[at],
            visible(kind),
            f"{count:,}",
        )
        below += count


def _labels(periods: Sequence[str], left: float, place: float, size: Size) -> Iterator[Markup]:
    """Names of periods below the axis, as many as do not touch each other."""
    widest = max((len(one) for one in periods), default=0) * _DIGIT + 10
    every = max(math.ceil(widest / place), 1)
    for at in range(0, len(periods), every):
        x = left + place * (at + 0.5)
        half = widest / 2
        x = min(max(x, half - 4), size.width - half + 4)
        yield Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(
            _n(x), size.height - _BOTTOM + 18, periods[at]
        )


def scale(most: int) -> list[int]:
    """The marks of an axis from 0 to at least `most`: at most 6 whole numbers, 1, 2 or 5 times a power of ten apart."""
    step = 1
    while most / step > 5:
        step = next(one for one in _steps() if one > step)
    return list(range(0, max(step * math.ceil(most / step), step) + 1, step))


def _steps() -> Iterator[int]:
    power = 1
    while True:
        yield from (power, 2 * power, 5 * power)
        power *= 10


def _n(value: float) -> str:
    """A coordinate, as short as it can be."""
    return f"{value:.1f}".removesuffix(".0")
