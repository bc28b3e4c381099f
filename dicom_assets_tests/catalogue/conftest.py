"""The lakes that the tests of this folder look at, each made once."""

from __future__ import annotations

import pytest

from dicom_assets_tests.catalogue.kept_books import Kept, kept_books
from dicom_assets_tests.catalogue.shown_lake import Shown, shown_lake
from dicom_assets_tests.catalogue.wrong_lake import wrong_lake


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """Nothing may be changed in it."""
    return shown_lake(tmp_path_factory.mktemp("shown"))


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Nothing may be changed in it."""
    return kept_books(tmp_path_factory.mktemp("books"))


@pytest.fixture(scope="session")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """Nothing may be changed in it."""
    return wrong_lake(tmp_path_factory.mktemp("wrong"))
