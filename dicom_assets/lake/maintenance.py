"""Keeping the tables quick: small files into larger ones, and old versions away.

Belongs here: compaction and vacuum of one table, safe beside running batches. Does not belong here: when it happens.
"""

from __future__ import annotations

from dataclasses import dataclass

from deltalake.exceptions import CommitFailedError, DeltaError

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.files import LakeError

TARGET_BYTES = 128 * 2**20


@dataclass(frozen=True, slots=True)
class Maintained:
    """What maintenance did to one table."""

    table: str
    files_before: int
    files_after: int
    files_deleted: int


def maintain(lake: Lake, name: str, retention_hours: int) -> Maintained:
    """Compacts a table and deletes files that no version within the retention names. Raises LakeError."""
    with lake.committing(name):
        table = lake.table(name)
        before = len(table.file_uris())
        try:
            table.optimize.compact(target_size=TARGET_BYTES)
            deleted = table.vacuum(
                retention_hours=retention_hours, dry_run=False, enforce_retention_duration=retention_hours >= 168
            )
        except (CommitFailedError, DeltaError, OSError) as error:
            raise LakeError(f"Table {name} cannot be maintained: {type(error).__name__}. Try again later.") from None
        return Maintained(name, before, len(lake.table(name).file_uris()), len(deleted))
