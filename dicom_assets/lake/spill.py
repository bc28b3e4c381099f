"""Where DuckDB puts what does not fit into memory: patient data in clear, so never into whatever folder is current.

Belongs here: a private folder of each process, `{lake}/_tmp/{host}-{process}`, and its removal: at the end of the
process, or, when it was killed, by the next one that opens the lake. Where a lake lies on an object store, or is not to
be written by who reads it, it is a private one among the system's temporary files. Does not belong here: how much
memory DuckDB takes.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import tempfile
from functools import cache
from pathlib import Path

from dicom_assets.storage.files import LakeFiles

FOLDER = "_tmp"
_PRIVATE = 0o700


def spill_folder(files: LakeFiles) -> Path:
    """The folder of this process for a lake. DuckDB makes it when it is needed."""
    root = files.local_root
    return _elsewhere() if root is None else _own(root / FOLDER)


def clear_left_over(files: LakeFiles) -> None:
    """Removes what processes of this host that have ended left behind in a lake's folder."""
    root = files.local_root
    if root is None or not (root / FOLDER).is_dir():
        return
    for folder in (root / FOLDER).iterdir():
        host, _, process = folder.name.rpartition("-")
        if host == socket.gethostname() and process.isdigit() and not _runs(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


@cache
def _own(parent: Path) -> Path:
    try:
        parent.mkdir(mode=_PRIVATE, exist_ok=True)
        parent.chmod(_PRIVATE)
    except OSError:
        return _elsewhere()
    folder = parent / f"{socket.gethostname()}-{os.getpid()}"
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def _elsewhere() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="dicom-assets-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
