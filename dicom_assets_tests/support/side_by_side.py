"""Cases side by side in one lake: each costs what it holds, not a lake and batches of its own.

A case is what arrives, turn by turn: files by name. In texts and names of attributes `@` stands for the name of the
case, so that ids are its own; objects get studies of their own from whoever writes the case. All first turns are one
batch, all second ones the next.

Belongs here: putting cases into a lake, and asking for the rows of one. Does not belong here: cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dicom_assets_tests.support.lakes import Graph
from dicom_assets_tests.support.landings import DAY, LandingFolder

Turn = Mapping[str, str | bytes]
"""What arrives together: contents by name."""


@dataclass(frozen=True)
class Cases:
    """The lake of all cases."""

    graph: Graph

    def arrive(self, landing: LandingFolder, cases: Mapping[str, Sequence[Turn]]) -> None:
        """Takes every turn, one after the other."""
        for turn in range(max(map(len, cases.values()))):
            self.take(landing, cases, turn)

    def take(self, landing: LandingFolder, cases: Mapping[str, Sequence[Turn]], turn: int) -> str:
        """One turn of every case, a minute after the one before; its batch, which must close.

        Every case has a folder of its name.
        """
        for case, turns in cases.items():
            for name, data in (turns[turn] if turn < len(turns) else {}).items():
                own = data.replace("@", f"{case}-") if isinstance(data, str) else data
                landing.put(f"{case}/{name}", own, age_seconds=DAY - 60 * turn)
        (batch,) = self.graph.ingest()
        books = self.graph.books(batch)
        assert books.status == "closed", books.reason
        return batch

    def rows(self, case: str, sql: str) -> list[tuple[Any, ...]]:
        """Rows of a query, in which `@` stands for the name of the case as well, without that in what they say."""
        return [
            tuple(value.replace(f"{case}-", "") if isinstance(value, str) else value for value in row.values())
            for row in self.graph.rows(sql.replace("@", f"{case}-"))
        ]
