"""The lake whose books the tests of this folder look at, made once."""

from __future__ import annotations

import pytest

from dicom_assets_tests.catalogue.kept_books import Kept, kept_books


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Nothing may be changed in it."""
    return kept_books(tmp_path_factory.mktemp("books"))
