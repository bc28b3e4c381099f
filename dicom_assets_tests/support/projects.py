"""A project folder as a clone has it, with a state of its own: for tests of Dagster's command line, daemon and UI.

Belongs here: making the folder and running Dagster in it. Does not belong here: what is asserted.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import dagster as dg

from dicom_assets.batch.books import Books, all_books
from dicom_assets.lake.delta import Lake
from dicom_assets_tests.support.commands import command, free_port, running, wait_for
from dicom_assets_tests.support.landings import LandingFolder

REPOSITORY = Path(__file__).parents[2]
COPIED = ("dagster.yaml", "workspace.yaml", ".env", "pyproject.toml")


@dataclass(frozen=True)
class Project:
    """A folder with the repository's configuration of Dagster, and `data/landing` and `data/lake` in it."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Project:
        """Copies the configuration into a new folder, and makes Dagster's databases there.

        Dagster stamps a new SQLite database twice when two programs open it first at the same time, and then opens it
        no more. `dagster dev` opens it before it starts anything; tests start daemon and commands side by side.
        """
        folder.mkdir(parents=True)
        for name in COPIED:
            shutil.copy(REPOSITORY / name, folder / name)
        (folder / "data" / "landing").mkdir(parents=True)
        made = cls(folder)
        with made.instance():
            return made

    @property
    def landing(self) -> LandingFolder:
        """Where objects arrive."""
        return LandingFolder(self.folder / "data" / "landing")

    @property
    def environment(self) -> dict[str, str]:
        """What `.env` says, for programs that do not read it."""
        return {"DAGSTER_HOME": str(self.folder)}

    def run(self, *arguments: str) -> CompletedProcess[str]:
        """Runs a program in the folder, as a user does."""
        return command(*arguments, cwd=self.folder, environment=self.environment)

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """The project's Dagster. Its paths are relative, so this process goes there meanwhile."""
        with contextlib.chdir(self.folder), dg.DagsterInstance.from_config(str(self.folder)) as instance:
            yield instance

    def books(self) -> list[Books]:
        """The books of every batch that started."""
        return all_books(Lake(str(self.folder / "data" / "lake")))

    def closed(self) -> set[str]:
        """Batches whose books are closed."""
        return {one.batch_id for one in self.books() if one.status == "closed"}

    @contextmanager
    def daemon(self) -> Iterator[Path]:
        """The daemon, running; yields its log."""
        log = self.folder / "daemon.log"
        with running("dagster-daemon", "run", cwd=self.folder, log=log, environment=self.environment):
            yield log

    @contextmanager
    def ui(self) -> Iterator[str]:
        """`dicom-assets ui`, as `make ui` runs it, on a free port; yields its address."""
        port = free_port()
        log = self.folder / "dev.log"
        with running("dicom-assets", "ui", "--port", str(port), cwd=self.folder, log=log):
            wait_for("the UI", lambda: "Serving dagster-webserver" in log.read_text(errors="replace"), log=log)
            yield f"http://127.0.0.1:{port}"
