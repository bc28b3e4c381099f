"""The lake that the tests of this folder watch, made once."""

from __future__ import annotations

import pytest

from dicom_assets_tests.monitoring.watched import Watched, watched_lake


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """A lake with a closed, a paused and a claimed batch. Nothing may be changed in it."""
    return watched_lake(tmp_path_factory.mktemp("watched"))
