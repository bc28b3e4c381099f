"""A lake of two batches, made once; each test gets a copy to break."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dicom_assets.batch.context import RunContext
from dicom_assets.batch.verification.verify import Verified, _look, verify
from dicom_assets.defs import mending
from dicom_assets.defs.mending import open_again
from dicom_assets.lake.delta import Lake
from dicom_assets.settings import Settings
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import Graph, contents, settings_for
from dicom_assets_tests.support.landings import LandingFolder, put_mixed
from dicom_assets_tests.support.steps import step_through, without_graph

PATIENT = '{"resourceType":"Patient","id":"p1","identifier":[{"value":"P0001"}]}\n'
REPORT = (
    '{"resourceType":"DiagnosticReport","id":"r1","status":"final","code":{"text":"CT"},'
    '"subject":{"reference":"Patient/p1"}}\n'
)


@dataclass(frozen=True)
class Broken:
    """A copy of the lake that a test breaks. batches: oldest first. expected: what an untouched lake holds."""

    settings: Settings
    batches: tuple[str, ...]
    expected: dict[str, list[dict[str, Any]]]

    @property
    def root(self) -> Path:
        return Path(self.settings.lake)

    @property
    def lake(self) -> Lake:
        """The lake, opened without setting anything right."""
        return Lake(self.settings.lake, make=False)

    def verify(self, *batches: str) -> Verified:
        """What is found."""
        return verify(self.lake, self.settings, batches)

    def looked(self) -> Verified:
        """What one look finds: `verify` looks again at what differs, which a lake that nobody uses does not need."""
        return _look(self.lake, self.settings, (), lambda _: None)

    def mend(self, found: Verified | None = None) -> Verified:
        """What `verify --fix` leaves; batches go through their steps without Dagster. found: what differs, if known."""
        open_again(self.settings)
        with (
            RunContext(self.settings, shared_engine=InlineEngine()) as work,
            work.claiming(1),
            pytest.MonkeyPatch.context() as patch,
            dg.DagsterInstance.ephemeral() as instance,
        ):
            without_graph(patch, mending)
            return mending.mend(work, instance, found=found)

    def contents(self) -> dict[str, list[dict[str, Any]]]:
        """Every row of every table but for times and runs."""
        return contents(self.lake)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, ...]]:
    """The folder with landing zone and lake, and its batches."""
    folder = tmp_path_factory.mktemp("verified")
    landing = LandingFolder(folder / "landing")
    put_mixed(landing)
    landing.put("study2/series1/0001.dcm", dicom(2, 1, 1, Rows=4, Columns=4))
    landing.put("fhir/all.ndjson", PATIENT + REPORT)
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Graph(settings_for(folder / "lake", landing.root), instance)
        first = step_through(graph, judges=False)
        landing.put_series(1, 3, 2)
        landing.put("odd/more.txt", "nothing")
        second = step_through(graph, judges=False)
    return folder, (*first, *second)


@pytest.fixture(scope="session")
def expected(made: tuple[Path, tuple[str, ...]]) -> dict[str, list[dict[str, Any]]]:
    """What the untouched lake holds."""
    return contents(Lake(str(made[0] / "lake"), make=False))


Copy = Callable[[], Broken]


@pytest.fixture
def broken(
    made: tuple[Path, tuple[str, ...]], expected: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> Iterator[Broken]:
    """A copy to break."""
    folder, batches = made
    shutil.copytree(folder / "lake", tmp_path / "lake")
    yield Broken(settings_for(tmp_path / "lake", folder / "landing"), batches, expected)
