"""Dagster's state where it lies in SQLite files: copied as SQLite copies its own, while others write.

Belongs here: databases of some folders, out and in. Does not belong here: which folders those are (`defs.instance`), a
state in PostgreSQL, which pg_dump copies.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from dicom_assets.batch.backup.manifest import STATE, File, Manifest
from dicom_assets.batch.backup.vault import Vault
from dicom_assets.settings import UserError

_SECONDS = 60.0


class StateUnreadable(UserError):
    """A database of Dagster's cannot be copied. The message names no run."""


def copy_out(home: Path, folders: Iterable[Path], vault: Vault) -> list[File]:
    """Puts every database below some folders of Dagster's home into a vault. Raises StateUnreadable, LakeError."""
    return [
        File(f"{STATE}/{path.relative_to(home).as_posix()}", len(data), vault.put(data))
        for path in databases(folders)
        for data in (_copy(path),)
    ]


def databases(folders: Iterable[Path]) -> Iterator[Path]:
    """The SQLite databases below some folders."""
    for folder in folders:
        yield from sorted(path for path in folder.rglob("*.db") if path.is_file())


def _copy(path: Path) -> bytes:
    """The bytes of a database as of one moment, with what stands in its write-ahead log."""
    with tempfile.TemporaryDirectory(prefix="dicom-assets-") as folder:
        target = Path(folder) / "copy.db"
        try:
            with (
                closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_SECONDS)) as source,
                closing(sqlite3.connect(target)) as copy,
            ):
                source.backup(copy)
                copy.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.Error as error:
            raise StateUnreadable(
                f"A database of Dagster's state cannot be copied ({type(error).__name__}). Is it a database, and may "
                "this user read it?"
            ) from None
        return target.read_bytes()


def copy_in(home: Path, vault: Vault, manifest: Manifest, *, over: bool = False) -> int:
    """Puts the databases of a backup into Dagster's home; how many. Raises StateUnreadable where there are some."""
    wanted = [file for file in manifest.files if file.path.startswith(f"{STATE}/")]
    there = [file for file in wanted if (home / file.path.removeprefix(f"{STATE}/")).exists()]
    if there and not over:
        raise StateUnreadable(
            "Dagster has a state here already, which was left as it is: the lake does not need the old one. Give "
            "--over to replace it."
        )
    for file in wanted:
        target = home / file.path.removeprefix(f"{STATE}/")
        target.parent.mkdir(parents=True, exist_ok=True)
        for ending in ("-wal", "-shm", "-journal"):
            Path(f"{target}{ending}").unlink(missing_ok=True)
        target.write_bytes(vault.get(file))
    return len(wanted)
