"""The form of a lake: the number of what its folders and tables look like, in `{lake}/_lake.json`.

Belongs here: writing the number into a new lake, and refusing a lake of another one. Does not belong here: the form
itself (`registry`, `delta`), and bringing a lake from one form to the next.
"""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version

from dicom_assets.schema.registry import TABLES
from dicom_assets.storage.files import LakeError, LakeFiles

FORMAT = 2
"""What this release reads and writes. 1: lakes without a number, made before there was one."""

FILE = "_lake.json"


class OtherFormat(LakeError):
    """The lake has another form than this release reads; nothing was written into it."""


def require(files: LakeFiles, *, make: bool) -> None:
    """Raises OtherFormat for a lake of another form, LakeError for one whose number cannot be read.

    make: a place that holds no lake yet gets the number of this release.
    """
    found = _read(files)
    held = _held(files) if found is None else []
    if found is None and not held:
        if not make:
            return  # whoever asks for a table is told that there is none
        write(files)
        found = _read(files)  # of two that make a lake at the same time, one was first
    elif found is None:
        found = _read(files)  # somebody else was just making it
    if found is None and not {"_claims", "batches"} & {*held}:
        raise OtherFormat(
            f"The lake already holds a Delta table '{held[0]}' that this project did not make. Nothing was changed. "
            "Give an empty folder."
        )
    _compare(found)


def write(files: LakeFiles, *, again: bool = False) -> None:
    """Writes the number of this release, unless there is one; again: in place of one that is torn. Raises LakeError."""
    told = {"format": FORMAT, "made_by": f"dicom-assets {_release()}"}
    files.put(FILE, json.dumps(told).encode() + b"\n", create=not again)


def is_torn(files: LakeFiles) -> bool:
    """Whether the file with the number is there and cannot be read. Raises LakeError."""
    return _read(files) == 0


def _compare(found: int | None) -> None:
    if found == 0:
        raise LakeError(
            f"The file {FILE} of the lake, which tells its format, is damaged. If this release made the lake, run "
            "`dicom-assets verify --fix`, which writes it anew."
        )
    if found != FORMAT:
        raise OtherFormat(
            f"The lake has format {found or '1 (no number: the release before made it)'}; this release needs format "
            f"{FORMAT}. Nothing was changed. Use the release that made it, or give an empty folder and ingest again."
        )


def _read(files: LakeFiles) -> int | None:
    """The number; None where there is none, 0 where it cannot be read."""
    try:
        return int(json.loads(files.get(FILE))["format"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return 0


def _held(files: LakeFiles) -> list[str]:
    """What a place holds of a lake: claims, tables."""
    root = files.local_root
    folders = {"_claims": "_claims"} | {table: f"{table}/_delta_log" for table in TABLES}
    if root is not None:
        return [name for name, folder in folders.items() if (root / folder).exists()]
    return [name for name, folder in folders.items() if any(files.names(folder))]


def _release() -> str:
    try:
        return version("dicom-assets")
    except PackageNotFoundError:
        return "of no release"
