"""States that several tests begin with: each is made once, and every test finds it as if it had made it.

Belongs here: a landing folder and its lake, kept and put back. Does not belong here: what the states are; each module
says so by functions of its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg

from dicom_assets_tests.support.lakes import settings_for
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import Stepped, leaves_out

Known = TypeVar("Known")


@dataclass
class States:
    """A place for one landing folder and one lake, and the states in which they have been.

    Names of objects hold the path that they were claimed at. So a state is put back where it was made, and a module
    has one place: of two states only the one that was begun last is there. judges: of its lakes; see `Stepped`. A
    state is what tests begin with: those that are about the flow itself ask every rule.
    """

    root: Path
    empty_lake: Path
    instance: dg.DagsterInstance
    judges: bool = False
    _known: dict[str, tuple[Path, Any]] = field(default_factory=dict)

    def begin(
        self, make: Callable[[Stepped, LandingFolder], Known], **sections: Any
    ) -> tuple[Stepped, LandingFolder, Known]:
        """The lake and the landing folder in a state, and what its function said of it.

        make: brings an empty folder and a new lake into the state; called once for each name and `sections`, which are
        those of the settings.
        """
        place = self.root / "place"
        name = f"{make.__qualname__} {sections} {leaves_out()}"
        shutil.rmtree(place, ignore_errors=True)
        landing = LandingFolder(place / "landing")
        graph = Stepped(settings_for(place / "lake", landing.root, **sections), self.instance, judges=self.judges)
        if name in self._known:
            kept, known = self._known[name]
            shutil.copytree(kept, place, symlinks=True)
            return graph, landing, known
        landing.root.mkdir(parents=True)
        shutil.copytree(self.empty_lake, place / "lake")
        known = make(graph, landing)
        graph.judges = self.judges
        kept = self.root / f"state{len(self._known)}"
        shutil.copytree(place, kept, symlinks=True)
        self._known[name] = (kept, known)
        return graph, landing, known
