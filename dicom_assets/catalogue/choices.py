"""Values that a field of the search offers: what studies and series of this lake have.

Belongs here: the values, kept as long as the tables stay as they are. Does not belong here: the search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dicom_assets.serve.kept import Kept
from dicom_assets.serve.served import ServedLake, Snapshot

MOST = 200
"""Values of a field, the most frequent ones."""

_WEIGHT, _KEPT = 10_000, 1_000_000


@dataclass(frozen=True)
class Choices:
    """By field, the values."""

    modalities: Sequence[str] = ()
    bodies: Sequence[str] = ()
    scanners: Sequence[str] = ()


class ChoicesKept:
    """What is kept of choices, by versions of the tables and by scope."""

    def __init__(self) -> None:
        """Keeps nothing yet."""
        self.kept: Kept[Choices] = Kept(_KEPT)


def choices(served: ServedLake, snapshot: Snapshot) -> Choices:
    """The values that somebody may choose from. Blocks."""
    kept = served.part(ChoicesKept).kept
    key = (snapshot.extents["study"].version, snapshot.extents["series"].version, snapshot.scope)
    found = kept.get(key)
    if found is None:
        found = _choices(snapshot)
        kept.keep(key, found, _WEIGHT)
    return found


def _choices(snapshot: Snapshot) -> Choices:
    studies = snapshot.scan("study", columns=["ModalitiesInStudy"])
    series = snapshot.scan("series", columns=["BodyPartExamined", "Manufacturer", "ManufacturerModelName"])
    with snapshot.cursor() as connection:

        def most(sql: str) -> list[str]:
            found = connection.execute(
                f"SELECT value FROM ({sql}) WHERE value <> '' GROUP BY value ORDER BY count(*) DESC, value LIMIT {MOST}"
            ).fetchall()
            return sorted(value for (value,) in found)

        return Choices(
            most(f"SELECT unnest(ModalitiesInStudy) AS value FROM {studies}"),
            most(f"SELECT BodyPartExamined AS value FROM {series}"),
            most(f"SELECT concat_ws(' ', Manufacturer, ManufacturerModelName) AS value FROM {series}"),
        )
