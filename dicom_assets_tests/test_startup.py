"""How the command begins and ends: what it imports, leaving with the status."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def python(code: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("status", [0, 2])
def test_leaving_prints_what_was_said_and_keeps_the_status(status: int):
    done = python(f"from dicom_assets.cli.main import leave\nprint('said', end='')\nleave({status})")
    assert (done.returncode, done.stdout) == (status, "said")


@pytest.fixture(scope="module")
def imported() -> dict[str, list[str]]:
    """What there is when the modules of an ingest, then of the command and of reading processes were imported."""
    done = python(
        "import json, sys\n"
        "finders = list(sys.meta_path)\n"
        "import dicom_assets.defs.runner\n"
        "modules = sorted(sys.modules)\n"
        "import dicom_assets.cli.main, dicom_assets.reading.preload\n"
        "found = [type(one).__module__ for one in sys.meta_path if one not in finders]\n"
        "hidden = [name for name, module in sys.modules.items() if module is None]\n"
        "print(json.dumps({'modules': modules, 'finders': found, 'hidden': hidden}))\n"
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_ingest_from_a_folder_imports_neither_the_azure_sdk_nor_fsspec(imported: dict[str, list[str]]):
    assert "dicom_assets.defs.runner" in imported["modules"]
    assert not {"azure.core", "fsspec"} & set(imported["modules"])


def test_the_package_hides_no_module_and_replaces_no_finder(imported: dict[str, list[str]]):
    assert not [one for one in imported["finders"] if one.startswith("dicom_assets")]
    assert imported["hidden"] == []


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


def test_an_ingest_claims_and_begins_to_read_before_it_imports_dagster():
    done = python(
        "import sys, dicom_assets.cli.main, dicom_assets.cli.progress\n"
        "import dicom_assets.batch.first_delivery, dicom_assets.defs.state_folder\n"
        "assert not {'dagster', 'sqlalchemy'} & set(sys.modules)"
    )
    assert done.returncode == 0, done.stderr
