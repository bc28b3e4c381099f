"""Where tests find DICOM: pydicom's own odd files, generated ones, a shared corpus where there is one."""

import os
from pathlib import Path

import pydicom

from bench.corpus import KINDS, files_of

WHEEL = Path(pydicom.__file__).parent / "data"
"""Files that come with pydicom; nothing is downloaded."""


def pydicom_files():
    """Every DICOM file in pydicom's wheel, and what lies beside them."""
    return sorted(path for path in WHEEL.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"})


def test_file(name):
    """One of pydicom's test files by name."""
    return (WHEEL / "test_files" / name).read_bytes()


test_file.__test__ = False


def generated(instances=3, without=()):
    """(kind, bytes) of some files of each other kind of the benchmark corpus; native pixel data is all zeros."""
    for kind, (_, _, usual) in KINDS.items():
        if kind not in without:
            for _, file in files_of(kind, min(instances, usual)):
                yield kind, file.content + bytes(file.hole)


def shared():
    """The folder of shared material: DICOM_ASSETS_SHARED, or `shared` beside the repository; None where absent."""
    named = os.environ.get("DICOM_ASSETS_SHARED")
    folder = Path(named) if named else Path(__file__).resolve().parents[3] / "shared"
    return folder if folder.is_dir() else None
