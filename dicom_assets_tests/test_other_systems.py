"""Systems without fcntl and resource: everything can be imported, a lake can be read, and writing says what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dicom_assets_tests.support.commands import clean_environment
from dicom_assets_tests.support.dicoms import dicom

BLOCKED = "import sys; sys.modules['fcntl'] = sys.modules['resource'] = None\n"
IMPORTS = """
import importlib, pkgutil
import dicom_assets
for module in pkgutil.walk_packages(dicom_assets.__path__, "dicom_assets."):
    if module.name != "dicom_assets.reading.dask_engine":  # an extra
        importlib.import_module(module.name)
"""
COMMAND = "from dicom_assets.cli.main import main; main()\n"


def without(code: str, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs Python as on a system that is not Unix, as far as these two modules go."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BLOCKED + code, *map(str, arguments)],
        cwd=cwd, env=clean_environment(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.mark.slow
def test_every_module_can_be_imported(tmp_path):
    done = without(IMPORTS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2_000:]


@pytest.mark.slow
def test_a_lake_is_read_and_writing_is_refused_with_a_sentence(stepped, landing, tmp_path):
    landing.put("1.dcm", dicom(1))
    stepped.ingest()
    lake = stepped.settings.lake
    read = without(COMMAND, "sql", "SELECT count(*) AS n FROM instance", "--lake", lake, "-f", "csv", cwd=tmp_path)
    assert (read.returncode, read.stdout) == (0, "n\n1\n"), read.stderr
    landing.put("2.dcm", dicom(2))
    written = without(COMMAND, "ingest", "--landing", landing.root, "--lake", lake, cwd=tmp_path)
    assert written.returncode == 2
    assert "Use WSL 2 or a container" in written.stderr
    assert "Traceback" not in written.stderr
