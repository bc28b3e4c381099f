"""Files of a lake in a folder that outlive a power cut: written whole, and on the disk before anything builds on them.

Belongs here: fsync of files and of the folders that name them. A file whose name is durable while its bytes are not is
what a power cut tears, so bytes come first. Does not belong here: which files matter (`files`, `delta`), object stores,
which keep what they have acknowledged.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

_AT_ONCE = 8
"""Files that are synced side by side: the disk writes its journal once for those that wait for it together."""

_numbers = count()


def sync(paths: Collection[Path]) -> None:
    """Returns when some files, and the folders that name them, are on the disk. Raises OSError."""
    _sync_all([*paths, *{path.parent for path in paths}])


def _sync_all(paths: Collection[Path]) -> None:
    if len(paths) < 2:
        for path in paths:
            _sync(path)
        return
    with ThreadPoolExecutor(min(_AT_ONCE, len(paths))) as pool:
        list(pool.map(_sync, paths))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(target: Path, data: bytes, *, create: bool = False, synced: bool = True) -> bool:
    """Writes a file whole or not at all; with create, False when it exists already. Raises OSError.

    What is written lies beside it first, under a name of the kind `name#1`, which no listing of a lake shows.
    """
    made = _make_folders(target.parent)
    beside = target.with_name(f"{target.name}#{os.getpid()}{next(_numbers):06d}")
    try:
        with beside.open("xb") as file:
            file.write(data)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        if create:
            try:
                os.link(beside, target)
            except FileExistsError:
                return False
            except OSError:  # a file system without hard links: the name is taken first, and filled at once
                try:
                    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                except FileExistsError:
                    return False
                beside.replace(target)
        else:
            beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    if synced:
        _sync_all([target.parent, *(folder.parent for folder in made)])
    return True


def _make_folders(folder: Path) -> list[Path]:
    """Makes a folder; the folders that were missing, itself first."""
    missing = []
    at = folder
    while not at.exists():
        missing.append(at)
        at = at.parent
    folder.mkdir(parents=True, exist_ok=True)
    return missing
