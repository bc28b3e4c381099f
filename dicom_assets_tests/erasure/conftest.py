"""Fixtures of removals: a small lake, made once, and a copy of it for each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace

import dagster as dg
import pytest

from dicom_assets_tests.support.lakes import Graph, settings_for
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import Stepped


@pytest.fixture(scope="session")
def two_patients(tmp_path_factory) -> Iterator[Graph]:
    """A lake of two patients, with one batch."""
    root = tmp_path_factory.mktemp("small")
    landing = LandingFolder(root / "landing")
    landing.put_series(1, 1, 2)
    landing.put_series(2, 1, 1)
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Stepped(settings_for(root / "lake", landing.root), instance, judges=False)
        graph.ingest()
        yield graph


@pytest.fixture
def small(two_patients, tmp_path) -> Graph:
    """A copy of it."""
    shutil.copytree(two_patients.settings.lake, tmp_path / "lake")
    return replace(two_patients, settings=two_patients.settings.model_copy(update={"lake": str(tmp_path / "lake")}))
