"""The form of a lake: the number of what its folders and tables look like, in `{lake}/_lake.json`.

Belongs here: writing the number into a new lake, into one of an earlier release whose tables were brought up to date,
and refusing a lake of a later one; which migrations a lake of an earlier form needs. Does not belong here: the form
itself (`registry`, `delta`), adding columns (`tables`), what a migration does (`batch.migrations`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from dicom_assets.schema.registry import TABLES
from dicom_assets.storage.files import LakeError, LakeFiles

FORMAT = 4
"""What this release writes. 1: lakes without a number, made before there was one. 2: a number, and who made it. 3: the
migrations that are left as well. 4: tables of what the data say between them."""

FILE = "_lake.json"

MIGRATIONS: dict[str, int] = {
    "places": 2,
    "resources": 2,
    "studies": 2,
    "conflicts": 2,
    "lines": 2,
    "geometry_rows": 4,
    "conflict_rows": 4,
    "duplicate_rows": 4,
}
"""What adding columns and tables does not do, in the order in which it is done, with the first format that has it."""


class OtherFormat(LakeError):
    """The lake has a form that this release does not read; nothing was written into it."""


class NeedsUpgrade(LakeError):
    """The lake is of an earlier release, and something is left to do before anything is added to it."""


@dataclass(frozen=True)
class Form:
    """What a lake says of itself. made_by: the release that wrote the number. left: migrations that are to be done."""

    number: int
    made_by: str
    left: tuple[str, ...] = ()


def require(files: LakeFiles, *, make: bool) -> Form:
    """What a lake says of its form. Raises OtherFormat for one of a later release, LakeError when it cannot be read.

    make: a place that holds no lake yet gets the number of this release.
    """
    found = read(files)
    held = _held(files) if found is None else []
    if found is None and not held:
        if not make:
            return _own()  # whoever asks for a table is told that there is none
        write(files)
        found = read(files)  # of two that make a lake at the same time, one was first
    elif found is None:
        found = read(files)  # somebody else was just making it
    if found is None and not {"_claims", "batches"} & {*held}:
        raise OtherFormat(
            f"The lake already holds a Delta table '{held[0]}' that this project did not make. Nothing was changed. "
            "Give an empty folder."
        )
    found = found or Form(1, "a release before formats had numbers", tuple(MIGRATIONS))
    if found.number > FORMAT:
        raise OtherFormat(
            f"The lake has format {found.number}, made by {found.made_by}; this is dicom-assets {release()}, which "
            f"reads formats up to {FORMAT}. Nothing was changed. Use {found.made_by}, or a later release."
        )
    return found


def enter(files: LakeFiles, found: Form) -> Form:
    """Writes the number of this release into a lake whose tables are up to date, with the migrations that are left."""
    entered = entering(found)
    if entered != found:
        _put(files, entered)
    return entered


def entering(found: Form) -> Form:
    """What a lake says of itself once its tables are up to date."""
    if found.number == FORMAT:
        return found
    left = tuple(name for name, since in MIGRATIONS.items() if found.number < since or name in found.left)
    return Form(FORMAT, f"dicom-assets {release()}", left)


def finish(files: LakeFiles, migration: str) -> Form:
    """Takes a migration that was done off the list. Raises LakeError."""
    found = read(files) or _own()
    done = Form(found.number, found.made_by, tuple(name for name in found.left if name != migration))
    _put(files, done)
    return done


def require_migrated(form: Form) -> None:
    """Raises NeedsUpgrade when migrations are left: what is added before they are done would not fit what is there."""
    if form.left:
        raise NeedsUpgrade(
            "The lake was made by an earlier release. Its tables have their new columns; what is left to do before "
            f"anything is added: {', '.join(form.left)}. Nothing else was done. Run `dicom-assets upgrade --plan`, "
            "then `dicom-assets upgrade`."
        )


def newer_columns(form: Form, table: str, unknown: Sequence[str]) -> OtherFormat:
    """What to raise when a table has columns that this release does not know."""
    return OtherFormat(
        f"Table {table} has {len(unknown)} columns that dicom-assets {release()} does not know "
        f"({', '.join(unknown[:5])}): a later release added them (the lake names {form.made_by}). Nothing was changed. "
        "Use that release, or a later one."
    )


def write(files: LakeFiles, *, again: bool = False) -> None:
    """Writes the number of this release, unless there is one; again: in place of one that is torn. Raises LakeError."""
    _put(files, _own(), create=not again)


def is_torn(files: LakeFiles) -> bool:
    """Whether the file with the number is there and cannot be read. Raises LakeError."""
    try:
        read(files)
    except OtherFormat:
        raise
    except LakeError:
        return True
    return False


def read(files: LakeFiles) -> Form | None:
    """What a lake says of its form; None where it says nothing. Raises LakeError when it cannot be read."""
    try:
        told = json.loads(files.get(FILE))
        return Form(int(told["format"]), str(told.get("made_by", "another release")), tuple(told.get("left", ())))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise LakeError(
            f"The file {FILE} of the lake, which tells its format, is damaged. If this release made the lake, run "
            "`dicom-assets verify --fix`, which writes it anew."
        ) from None


def release() -> str:
    """The version of this release."""
    try:
        return version("dicom-assets")
    except PackageNotFoundError:
        return "of no release"


def _own() -> Form:
    return Form(FORMAT, f"dicom-assets {release()}")


def _put(files: LakeFiles, form: Form, *, create: bool = False) -> None:
    told = {"format": form.number, "made_by": form.made_by} | ({"left": [*form.left]} if form.left else {})
    files.put(FILE, json.dumps(told).encode() + b"\n", create=create)


def _held(files: LakeFiles) -> list[str]:
    """What a place holds of a lake: claims, tables."""
    root = files.local_root
    folders = {"_claims": "_claims"} | {table: f"{table}/_delta_log" for table in TABLES}
    if root is not None:
        return [name for name, folder in folders.items() if (root / folder).exists()]
    return [name for name, folder in folders.items() if any(files.names(folder))]
