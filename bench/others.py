"""Readers that somebody would pick instead of ours, each in the fewest lines that read what is a column.

Belongs here: reading files with them, and which files they can read. Does not belong here: what is measured (`reader`).

    python -m bench.others NAME FILE…    says of each file whether this reader can read it: + or -

Each opens a file, reads up to the pixels and asks for every attribute that is a column; none makes the complete header
as JSON, which ours does. Values come as each library gives them. `dcmdump` gets many files in one command and prints
them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pydicom
from pydicom.datadict import tag_for_keyword

from dicom_assets.schema.attributes import ATTRIBUTES

KEYWORDS = [attribute.keyword for attribute in ATTRIBUTES]
_PIXELS = 0x7FE00010
_AT_ONCE = 200
_SECONDS = 120.0
_PROCESSES = 20

Reading = Callable[[Sequence[str]], None]


def with_pydicom(paths: Sequence[str]) -> None:
    """The same loop as `reader.naive`, without JSON."""
    for path in paths:
        read = pydicom.dcmread(path, stop_before_pixels=True)
        for keyword in KEYWORDS:
            read.get(keyword)


def with_fastdicom(paths: Sequence[str]) -> None:
    """fastdicom: dicom-rs for Python."""
    import fastdicom

    for path in paths:
        read = fastdicom.dcmread(path, stop_before_pixels=True)
        for keyword in KEYWORDS:
            read.get(keyword)


def with_dicomsdl(paths: Sequence[str]) -> None:
    """dicomsdl: C++, values on demand."""
    import dicomsdl

    for path in paths:
        read = dicomsdl.open_file(path, load_until=_PIXELS)
        for keyword in KEYWORDS:
            read[keyword]


def with_gdcm(paths: Sequence[str]) -> None:
    """GDCM's own binding; values as texts."""
    import gdcm

    pixels = gdcm.Tag(_PIXELS >> 16, _PIXELS & 0xFFFF)
    tags = [gdcm.Tag(tag >> 16, tag & 0xFFFF) for tag in map(tag_for_keyword, KEYWORDS) if tag is not None]
    for path in paths:
        reader = gdcm.Reader()
        reader.SetFileName(path)
        if not reader.ReadUpToTag(pixels):
            raise ValueError("GDCM cannot read a file")
        file = reader.GetFile()
        values = gdcm.StringFilter()
        values.SetFile(file)
        data = file.GetDataSet()
        for tag in tags:
            if data.FindDataElement(tag):
                values.ToString(tag)


def with_dcmdump(paths: Sequence[str]) -> None:
    """DCMTK's dcmdump, which prints every element before the pixels."""
    for first in range(0, len(paths), _AT_ONCE):
        command = ["dcmdump", "--quiet", "--stop-before-elem", "7fe0,0010", *paths[first : first + _AT_ONCE]]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)


READERS: dict[str, tuple[Reading, str]] = {
    "pydicom": (with_pydicom, "pydicom"),
    "fastdicom": (with_fastdicom, "fastdicom"),
    "dicomsdl": (with_dicomsdl, "dicomsdl"),
    "gdcm": (with_gdcm, "gdcm"),
    "dcmdump": (with_dcmdump, ""),
}
"""By name: the reading, and the module that it needs; dcmdump is a program."""


def missing(name: str) -> str | None:
    """Why a reader is not there, as a sentence; None when it is."""
    module = READERS[name][1]
    if module and importlib.util.find_spec(module) is None:
        return f"{name} is not installed: pip install -e '.[bench]' -c constraints.txt"
    if not module and shutil.which(name) is None:
        return f"{name} is not installed: apt-get install dcmtk"
    return None


def readable(name: str, paths: Sequence[str]) -> tuple[list[str], str | None]:
    """The files that a reader can read, tried in processes of their own, and how one ended when not as it should.

    A file at which a process ends is passed over, and another process goes on behind it.
    """
    found: list[str] = []
    ended = None
    left = list(paths)
    for _ in range(_PROCESSES):
        command = [sys.executable, "-m", "bench.others", name, *left]
        try:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return found, f"{name} did not end in {_SECONDS:.0f} s"
        told = [line for line in done.stdout.splitlines() if line[:1] in ("+", "-")]
        found += [path for path, line in zip(left, told, strict=False) if line[0] == "+"]
        if done.returncode == 0:
            break
        ended = f"{name} ended its process with {done.returncode} at a file"
        left = left[len(told) + 1 :]
        if not left:
            break
    return found, ended


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Nothing on stderr, that of C++ libraries included: they complain of each odd element."""
    with Path(os.devnull).open("wb") as nowhere:
        kept = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def main() -> None:
    """Says of each file, in one line, whether a reader can read it."""
    read = READERS[sys.argv[1]][0]
    for path in sys.argv[2:]:
        try:
            read([path])
        except Exception:  # noqa: BLE001 — whatever a library raises, it cannot read the file
            print("-", flush=True)
        else:
            print("+", flush=True)


if __name__ == "__main__":
    main()
