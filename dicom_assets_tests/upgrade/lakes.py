"""Lakes of earlier releases as tests use them: unpacked where they lay, and copies of them.

Belongs here: unpacking, settings, comparing. Does not belong here: making the fixtures (`make_lake`).
"""

from __future__ import annotations

import fcntl
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_assets.batch.context import RunContext
from dicom_assets.batch.upgrade import perform
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import arrow, connect
from dicom_assets.schema.registry import TABLES
from dicom_assets.settings import Settings, load
from dicom_assets_tests.upgrade.make_lake import FIXTURES, PLACE

VARYING = {
    *("batch_id", "claimed_at", "ingested_at", "judged_at", "occurred_at", "run_id", "first_seen_at", "updated_at"),
    *("started_at", "closed_at", "created_at", "modified_at", "step_seconds"),
}
"""Columns that say when something was done, or by which batch."""


@dataclass(frozen=True)
class EarlierLake:
    """Landing zone and lake of a fixture; the landing zone lies where the lake says."""

    place: Path

    @property
    def landing(self) -> Path:
        """Where objects lie."""
        return self.place / "landing"

    def copy(self, target: Path) -> Settings:
        """Copies the lake; the settings for the copy."""
        shutil.copytree(self.place / "lake", target)
        return self.settings(target)

    def settings(self, lake: Path) -> Settings:
        """The settings of the fixture, for another lake over its landing zone."""
        return load(None, str(lake), {"DICOM_ASSETS_CONFIG": str(self.place / "dicom-assets.toml")})


@contextmanager
def unpacked(name: str) -> Iterator[EarlierLake]:
    """Unpacks a fixture for one test process at a time: objects are named by where they lie."""
    place = Path(PLACE.format(name=name))
    with open(f"{place}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(place, ignore_errors=True)
        with tarfile.open(FIXTURES / f"{name}.tar.xz") as archive:
            archive.extractall(place, **({"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}))
        try:
            yield EarlierLake(place)
        finally:
            shutil.rmtree(place, ignore_errors=True)


def upgrade(settings: Settings) -> list[str]:
    """Brings a lake up to date; what it said."""
    said: list[str] = []
    with RunContext(settings, migrates=True) as work, work.claiming(0):
        perform(work, said.append)
    return said


def rows(lake: Lake, name: str) -> list[dict[str, Any]]:
    """Every row of a table but for columns of VARYING and times in resources, in one order."""
    with connect(lake, [name]) as connection:
        found = arrow(connection, f"FROM {name}").to_pylist()
    kept = [{key: value for key, value in row.items() if key not in VARYING} for row in found]
    for row in kept:
        if "resource" in row:
            row["resource"] = row["resource"].split('"identifier"', 1)[1]  # what stands before says when it was made
    return sorted(kept, key=repr)


def everything(lake: Lake) -> Mapping[str, list[dict[str, Any]]]:
    """The rows of every table."""
    return {name: rows(lake, name) for name in TABLES}
