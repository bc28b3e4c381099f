"""Storage that fails for some files, as a network file system does.

Belongs here: faults of reading in this process. Does not belong here: what is made of them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def refusing(*paths: Path, error: int = errno.EACCES) -> Iterator[None]:
    """Files that cannot be opened."""
    wanted, kept = {os.fsencode(path) for path in paths}, os.open

    def refuse(path, *arguments, **options):
        if os.fsencode(path) in wanted:
            raise OSError(error, os.strerror(error), path)
        return kept(path, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", refuse)
        yield


@contextmanager
def breaking_off(path: Path, start: int, end: int | None = None) -> Iterator[None]:
    """A file of which some bytes cannot be read (EIO): from `start` on, or as far as `end`."""
    bad, kept = path.stat(), os.pread

    def break_off(descriptor, length, offset):
        if offset + length > start and (end is None or offset < end):
            found = os.fstat(descriptor)
            if (found.st_dev, found.st_ino) == (bad.st_dev, bad.st_ino):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        return kept(descriptor, length, offset)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pread", break_off)
        yield
