"""Dagster's state as an ingest opens it: as quick as it is, it says what Dagster's own says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

OPENED = """
import os, sys
os.environ.pop("DAGSTER_HOME", None)
from dicom_assets.defs.instance import opened_instance
from dicom_assets.settings import load

with opened_instance(load(None, sys.argv[1])) as instance:
    assert not instance.has_dynamic_partition("batch", "one")
    instance.add_dynamic_partitions("batch", ["one"])
    assert instance.has_dynamic_partition("batch", "one")
    assert instance.has_dynamic_partition("batch", "one")
    assert not instance.has_dynamic_partition("batch", "two")
    assert not instance.has_dynamic_partition("other", "one")
    assert "dagster._daemon.controller" not in sys.modules
    from dagster._daemon import get_default_daemon_logger
    assert get_default_daemon_logger("x") is not None
"""


def test_a_partition_is_there_from_when_it_was_made_and_the_daemon_when_it_is_asked_for(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", OPENED, str(tmp_path / "lake")],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
