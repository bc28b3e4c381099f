"""What is counted of the elements of some headers: of each profile and path how often it is there, empty, how long.

Belongs here: the counting, and its rows. Does not belong here: which headers (`tag_profile`), cutting
(`element_paths`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydicom.datadict import keyword_for_tag

from dicom_assets.curation.element_paths import KnownElements, take_apart
from dicom_assets.curation.marks import Marker, smallest

SHARES = 16
"""Parts that values are spread over by the last bits of their marks."""
_MARKS_AT_ONCE = 4_096


@dataclass(slots=True)
class _Path:
    """Counts of one path of one profile."""

    tag: str
    creator: str | None
    vr: set[str] = field(default_factory=set)
    present: int = 0
    occurrences: int = 0
    empty: int = 0
    length_sum: int = 0
    length_min: int | None = None
    length_max: int | None = None
    marks: set[int] = field(default_factory=set)
    shares: list[int] = field(default_factory=lambda: [0] * SHARES)
    is_marked: bool = False


class TagCounts:
    """Counts of headers by profile: a key that names it."""

    def __init__(self, marker: Marker) -> None:
        """Has counted nothing."""
        self._marker = marker
        self.objects: dict[str, int] = {}
        self._paths: dict[str, dict[str, _Path]] = {}
        self._known = KnownElements()

    def add(self, profiles: Sequence[str], headers: Sequence[str]) -> None:
        """Counts headers, each of the profile that stands at its place. Raises ValueError for what is no header."""
        for profile, number in Counter(profiles).items():
            self.objects[profile] = self.objects.get(profile, 0) + number
        mark = self._marker.mark
        paths: dict[str, _Path] = {}
        before: str | None = None
        for profile, element, occurrences, objects in take_apart(profiles, headers, self._known):
            if profile is not before:
                before, paths = profile, self._paths.setdefault(profile, {})
            counted = paths.get(element.path)
            if counted is None:
                counted = paths[element.path] = _Path(element.tag, element.creator)
            if element.vr not in counted.vr:
                counted.vr.add(element.vr)
            counted.present += objects
            counted.occurrences += occurrences
            if element.is_empty:
                counted.empty += occurrences
                continue
            length = element.length
            counted.length_sum += length * occurrences
            if counted.length_min is None or counted.length_max is None:
                counted.length_min = counted.length_max = length
            elif length < counted.length_min:
                counted.length_min = length
            elif length > counted.length_max:
                counted.length_max = length
            if element.bulk is None and element.items is None:
                made = element.mark
                if made is None:
                    made = element.mark = mark(element.said.encode("utf-8", "surrogatepass"))
                counted.is_marked = True
                counted.shares[made % SHARES] += occurrences
                counted.marks.add(made)
                if len(counted.marks) > _MARKS_AT_ONCE:
                    counted.marks = set(smallest(counted.marks))

    def rows(self) -> list[dict[str, Any]]:
        """One row for each profile and path, by columns of tag_profile_part."""
        return [
            {
                "profile_key": profile,
                "path": path,
                "keyword": _keyword(one),
                "private_creator": one.creator,
                "vr": sorted(one.vr),
                "objects": self.objects[profile],
                "present": min(one.present, self.objects[profile]),  # a header may hold an element twice
                "occurrences": one.occurrences,
                "empty": one.empty,
                "length_sum": one.length_sum,
                "length_min": one.length_min,
                "length_max": one.length_max,
                "value_marks": smallest(one.marks) if one.is_marked else None,
                "value_shares": one.shares if one.is_marked else None,
            }
            for profile, paths in sorted(self._paths.items())
            for path, one in sorted(paths.items())
        ]


def _keyword(counted: _Path) -> str | None:
    return None if counted.creator is not None else keyword_for_tag(int(counted.tag, 16)) or None
