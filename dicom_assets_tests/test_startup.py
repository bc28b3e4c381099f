"""How processes begin and end: Arrow without pandas, cycles looked for again, leaving with the status."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def python(code: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)


def test_arrow_makes_arrays_without_pandas_which_can_be_imported_later():
    done = python(
        "import sys\n"
        "from dicom_assets.startup import arrow_without_pandas\n"
        "arrow_without_pandas()\n"
        "import pyarrow as pa\n"
        "assert pa.array([1, 2]).to_pylist() == [1, 2]\n"
        "assert 'pandas' not in sys.modules\n"
        "import pandas\n"
        "assert pandas.DataFrame({'a': [1]}).shape == (1, 1)\n"
    )
    assert done.returncode == 0, done.stderr


def test_a_package_that_is_only_looked_for_is_not_found_and_can_be_imported_later():
    done = python(
        "import sys\n"
        "from dicom_assets.startup import without\n"
        "with without('numpy', 'sys'):\n"
        "    import sys\n"  # it is there already
        "    try:\n"
        "        import numpy\n"
        "    except ImportError:\n"
        "        numpy = None\n"
        "assert numpy is None\n"
        "import numpy\n"
        "assert numpy.zeros(2).shape == (2,)\n"
    )
    assert done.returncode == 0, done.stderr


def test_a_package_is_run_later_when_something_of_its_own_is_asked_for(tmp_path: Path):
    package = tmp_path / "outer" / "heavy"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("")
    (package / "__init__.py").write_text("import sys\nfrom .light import small\nsys.heavy_was_run = True\nlarge = 2\n")
    (package / "light.py").write_text("small = 1\n")
    done = python(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from dicom_assets.startup import later\n"
        "import outer\n"
        "later('outer.heavy'); later('outer.nowhere'); later('httpx')\n"
        "from outer.heavy.light import small\n"
        "assert small == 1 and not hasattr(sys, 'heavy_was_run')\n"
        "from outer.heavy import large\n"
        "assert large == 2 and sys.heavy_was_run\n"
        "later('outer.heavy')\n"
        "import httpx\n"
        "assert httpx.URL('http://a.b').host == 'a.b' and not hasattr(outer.heavy, 'medium')\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads by /proc")
def test_numpy_starts_no_threads_in_a_process_without_matrices():
    done = python(
        "import os\n"
        "from dicom_assets.startup import without_matrices\n"
        "os.environ.pop('OPENBLAS_NUM_THREADS', None)\n"
        "without_matrices()\n"
        "import numpy\n"
        "assert len(os.listdir('/proc/self/task')) == 1\n"
    )
    assert done.returncode == 0, done.stderr


def test_cycles_are_looked_for_again_after_imports_even_when_one_fails():
    done = python(
        "import gc\n"
        "from dicom_assets.startup import without_collecting\n"
        "try:\n"
        "    with without_collecting():\n"
        "        assert not gc.isenabled()\n"
        "        import there_is_no_such_module\n"
        "except ImportError:\n"
        "    pass\n"
        "assert gc.isenabled()\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("status", [0, 1, 2])
def test_leaving_prints_what_was_said_and_keeps_the_status(status: int):
    done = python(f"from dicom_assets.startup import leave\nprint('said', end='')\nleave({status})")
    assert (done.returncode, done.stdout) == (status, "said")


def test_an_ingest_from_a_folder_imports_neither_the_azure_sdk_nor_fsspec():
    done = python(
        "import sys\nimport dicom_assets.defs.runner\nassert not {'azure.core', 'fsspec'} & set(sys.modules)\n"
    )
    assert done.returncode == 0, done.stderr
