"""Fixtures of the spine: a landing folder, a lake's graph, and silence from Dagster."""

from __future__ import annotations

import gc
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import HealthCheck, settings

from dicom_assets.collector import keep_what_is_there
from dicom_assets_tests.support import lakes
from dicom_assets_tests.support.lakes import Graph, quiet_dagster, settings_for
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.processor_time import ProcessorTime
from dicom_assets_tests.support.states import States
from dicom_assets_tests.support.steps import Stepped, close_by_counts, no_further, without_graph

# No test is timed: how long an example takes says how busy the machine is.
settings.register_profile("suite", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
# What is submitted is judged by the same examples each time, so that CI fails for a change and not for its luck; other
# examples are for those who work on it, whose runs and fuzzers go on looking.
settings.register_profile("ci", settings.get_profile("suite"), derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


def pytest_configure(config: pytest.Config) -> None:
    """Has what each test costs measured; and no test meets the state of whoever runs them, which `make` names."""
    config.pluginmanager.register(ProcessorTime())
    os.environ.pop("DAGSTER_HOME", None)
    gc.disable()


def pytest_collection_finish() -> None:
    """From here on as in `ingest`: what importing and collecting have made stays, and is not looked through again."""
    keep_what_is_there()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules with the most slow tests come first, so that no process is left with a long one in the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow") is not None)
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session", autouse=True)
def _quiet() -> None:
    quiet_dagster()


@pytest.fixture(scope="session", autouse=True)
def _books() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        close_by_counts(patch)
        yield


@pytest.fixture(autouse=True)
def _dagster_home() -> Iterator[None]:
    """A command that runs in this process names its state in the environment; the next test begins without."""
    yield
    os.environ.pop("DAGSTER_HOME", None)


@pytest.fixture
def landing(tmp_path: Path) -> LandingFolder:
    """An empty landing folder."""
    root = tmp_path / "landing"
    root.mkdir()
    return LandingFolder(root)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """A Dagster instance in memory."""
    with dg.DagsterInstance.ephemeral() as one:
        yield one


@pytest.fixture(scope="session")
def empty_lake() -> Path:
    """A lake without rows, to be copied."""
    return lakes.empty_lake()


@pytest.fixture
def graph(tmp_path: Path, landing: LandingFolder, instance: dg.DagsterInstance, empty_lake: Path) -> Graph:
    """The graph over the landing folder and a new lake."""
    shutil.copytree(empty_lake, tmp_path / "lake")
    return Graph(settings_for(tmp_path / "lake", landing.root), instance)


@pytest.fixture
def stepped(graph: Graph) -> Stepped:
    """The same lake, whose batches go through the steps without Dagster: for what is not about the graph.

    A test that wants every blocking rule to hold sets `judges`: one of each kind of batch does, in its module.
    """
    return Stepped(graph.settings, graph.instance, judges=False)


@pytest.fixture
def as_far_as_hierarchy() -> Iterator[None]:
    """What is made from the hierarchy is left out of batches that are not judged: for tests that look at none of it."""
    with no_further():
        yield


@pytest.fixture
def without_dagster(monkeypatch: pytest.MonkeyPatch) -> None:
    """What commands run in this process goes through its steps: for tests of what they say, and of the tables."""
    from dicom_assets.defs import mending, runner

    for module in (runner, mending):
        without_graph(monkeypatch, module)


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Azurite, running, one for all modules of a session; environment variables that point to it are set."""
    from dicom_assets_tests.azure import azurite  # here: most tests need nothing of Azure's packages

    if azurite.executable() is None:
        pytest.skip(azurite.HOW)
    with azurite.azurite(tmp_path_factory.mktemp("azurite")) as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory, empty_lake: Path) -> Iterator[States]:
    """What tests of a module begin with, each state made once; its lakes go through the steps without Dagster."""
    root = tmp_path_factory.mktemp("states")
    with dg.DagsterInstance.ephemeral() as one:
        yield States(root, empty_lake, one)
    shutil.rmtree(root)
