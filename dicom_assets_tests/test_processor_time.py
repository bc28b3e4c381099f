"""A run of tests names those that are slow and do not say so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = """
import time
import pytest

def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass

@pytest.fixture(scope="module")
def shared():
    burn(0.2)

@pytest.fixture
def own():
    burn(0.2)

def test_dear(own): pass
def test_cheap(shared): pass
@pytest.mark.slow
def test_marked(own): pass
"""
CONFTEST = """
from dicom_assets_tests.support import processor_time

def pytest_configure(config):
    processor_time.BOUND_SECONDS = 0.1
    config.addinivalue_line("markers", "slow: takes long")
    config.pluginmanager.register(processor_time.ProcessorTime())
"""


def test_a_test_that_is_dear_and_not_marked_is_named_and_no_other(tmp_path: Path):
    """What a module makes once does not count, what a test makes for itself does."""
    (tmp_path / "test_these.py").write_text(TESTS)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    named = done.stdout.partition("and not marked slow")[2]
    assert [line.rpartition("::")[2] for line in named.splitlines() if "::" in line] == ["test_dear"]
