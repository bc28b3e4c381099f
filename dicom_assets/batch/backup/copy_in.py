"""Putting a backup back: into a place that is empty, or is emptied for it.

Belongs here: the order of files, and that tables are what the backup says. Does not belong here: what is mended between
claims and tables then (`agreement`), Dagster's state (`sqlite_state`).

The log of `batches` comes last, by which a folder counts as a lake: what was broken off before is no lake, and is begun
anew. Each table's log is begun anew as well, so that it names no version whose files were not copied.
"""

from __future__ import annotations

from collections.abc import Callable

from dicom_assets.batch.backup.agreement import Agreement, agree
from dicom_assets.batch.backup.manifest import STATE, File, Manifest
from dicom_assets.batch.backup.vault import Vault, side_by_side
from dicom_assets.lake import form
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.history import forget
from dicom_assets.schema.registry import TABLES
from dicom_assets.settings import Settings, UserError
from dicom_assets.storage.files import LakeFiles

_BOOKS = "batches/_delta_log/"
Say = Callable[[str], None]


class RestoreRefused(UserError):
    """A backup cannot be put here; the message says why. Nothing was changed."""


def put_back(
    vault: Vault, manifest: Manifest, settings: Settings, *, over: bool = False, say: Say = lambda _: None
) -> Agreement:
    """Puts a backup into the lake's place, and mends what claims and tables do not agree on.

    over: what lies there is deleted before. Raises RestoreRefused, NoBackup when files of the backup are not what they
    were (nothing was deleted then), LakeError.
    """
    if manifest.lake_format > form.FORMAT:
        raise RestoreRefused(
            f"The backup was made by {manifest.made_by}, whose lakes this release does not read. Nothing was changed."
        )
    files = LakeFiles(settings.lake, synced=settings.storage.survive_power_cuts)
    there = files.every_name("")
    if there and not over:
        raise RestoreRefused(
            f"{settings.lake} is not empty ({len(there)} files). Give another --lake, or --over to delete what is "
            "there first. Nothing was changed."
        )
    wanted = [file for file in manifest.files if not file.path.startswith(f"{STATE}/")]
    if there:
        say("Looking at the backup before anything is deleted.")
        _require_whole(vault, manifest)
        for path in there:
            files.remove_whole(path)
    say(f"Copying {len(wanted)} files.")
    _copy(vault, files, [file for file in wanted if not file.path.startswith(_BOOKS)])
    _copy(vault, files, [file for file in wanted if file.path.startswith(_BOOKS)])
    lake = Lake(settings.lake, synced=settings.storage.survive_power_cuts)
    for name in TABLES:
        forget(lake, name)
    say("Comparing claims with tables.")
    return agree(lake)


def _require_whole(vault: Vault, manifest: Manifest) -> None:
    faults = vault.faults(manifest)
    if faults:
        raise RestoreRefused(
            f"Backup {manifest.backup_id} is not whole: {len(faults)} files are missing or changed. Nothing was "
            "changed."
        )


def _copy(vault: Vault, files: LakeFiles, wanted: list[File]) -> None:
    def one(file: File) -> str:
        files.put(file.path, vault.get(file), durable=False)
        return file.path

    files.sync(list(side_by_side(one, wanted)))
