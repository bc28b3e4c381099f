"""How the command begins and ends: what it imports, leaving with the status."""

from __future__ import annotations

import subprocess
import sys

import pytest


def python(code: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("status", [0, 1, 2])
def test_leaving_prints_what_was_said_and_keeps_the_status(status: int):
    done = python(f"from dicom_assets.cli.main import leave\nprint('said', end='')\nleave({status})")
    assert (done.returncode, done.stdout) == (status, "said")


def test_an_ingest_from_a_folder_imports_neither_the_azure_sdk_nor_fsspec():
    done = python(
        "import sys\nimport dicom_assets.defs.runner\nassert not {'azure.core', 'fsspec'} & set(sys.modules)\n"
    )
    assert done.returncode == 0, done.stderr


def test_the_package_hides_no_module_and_replaces_no_finder():
    done = python(
        "import sys\n"
        "finders = list(sys.meta_path)\n"
        "import dicom_assets.defs.runner, dicom_assets.cli.main, dicom_assets.reading.preload\n"
        "ours = [one for one in sys.meta_path if one not in finders]\n"
        "assert not [one for one in ours if type(one).__module__.startswith('dicom_assets')], ours\n"
        "assert None not in sys.modules.values()\n"
    )
    assert done.returncode == 0, done.stderr


def test_what_is_there_is_not_looked_at_again_for_cycles_and_what_comes_later_is():
    done = python(
        "import gc\n"
        "from dicom_assets.collector import held_back, keep_what_is_there\n"
        "with held_back():\n"
        "    assert not gc.isenabled()\n"
        "keep_what_is_there()\n"
        "assert gc.isenabled() and gc.get_freeze_count() and gc.get_threshold()[0] > 700\n"
    )
    assert done.returncode == 0, done.stderr
