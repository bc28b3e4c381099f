"""What tests of the tables that follow closed batches share: bringing them up to date, and making them from nothing."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from dicom_assets.curation.following import follow
from dicom_assets.curation.parity import every_series_is_judged, profiles_hold_every_object
from dicom_assets.lake.delta import Lake
from dicom_assets_tests.support.lakes import contents

NAMES = ("tag_profile_part", "tag_profile", "phi_risk")


def followed(lake: Lake) -> dict[str, list[dict[str, Any]]]:
    """What the tables hold when they are up to date; both rules hold."""
    done = follow(lake)
    for rule in (profiles_hold_every_object, every_series_is_judged):
        found = rule(lake, done.versions)
        assert found.passed, (rule.__name__, found)
    return contents(lake, NAMES)


def computed(lake: Lake) -> dict[str, list[dict[str, Any]]]:
    """What the tables of a copy of a lake hold that are made from nothing."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(lake.uri, f"{folder}/lake"))
        for name in NAMES:
            shutil.rmtree(copy / name)
        return followed(Lake(str(copy)))
