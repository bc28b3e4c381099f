"""Where backups lie: files by the digest of their bytes, each once, and a manifest for each backup.

    objects/{first two digits}/{SHA-256}      bytes
    backups/{backup_id}.json                  what was where (`manifest`)
    backups/{backup_id}.sha256                digest of that

Belongs here: putting, getting, looking whether all is there, clearing out what no manifest names. Does not belong here:
which files (`copy_out`, `copy_in`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from dicom_assets.batch.backup.manifest import File, Manifest, from_bytes, to_bytes
from dicom_assets.settings import UserError
from dicom_assets.storage.files import LakeFiles

OBJECTS, BACKUPS = "objects", "backups"
AT_ONCE = 8
"""Files that are copied or read side by side; a lake of large files needs memory for so many."""
_ID = re.compile(rf"^{BACKUPS}/([0-9TZ]+-[0-9a-f]+)\.json$").match

Given = TypeVar("Given")
Found = TypeVar("Found")


class NoBackup(UserError):
    """There is no such backup, or it cannot be used; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a backup. what: missing, short or changed."""

    backup_id: str
    path: str
    what: str


class Vault:
    """The backups in one folder or container."""

    def __init__(self, files: LakeFiles) -> None:
        """files: its root."""
        self._files = files
        self._held: dict[str, int] | None = None
        self._fresh: list[str] = []

    @property
    def uri(self) -> str:
        """Where it lies."""
        return self._files.uri

    def put(self, data: bytes) -> str:
        """Keeps bytes, unless they are kept already; their digest. Raises LakeError.

        They are on the disk when the manifest is written (`finish`).
        """
        digest = hashlib.sha256(data).hexdigest()
        if self._sizes().get(digest) != len(data):
            self._files.put(_path(digest), data, durable=False)
            self._sizes()[digest] = len(data)
            self._fresh.append(_path(digest))
        return digest

    def get(self, file: File) -> bytes:
        """Bytes that were kept. Raises NoBackup when they are missing or are not what they were."""
        try:
            data = self._files.get(_path(file.digest))
        except FileNotFoundError:
            raise NoBackup("A file of the backup is missing. Run `dicom-assets backup --verify`.") from None
        if hashlib.sha256(data).hexdigest() != file.digest:
            raise NoBackup("A file of the backup is not what it was. Run `dicom-assets backup --verify`.")
        return data

    def holds(self, file: File) -> bool:
        """Whether bytes of this digest and length are kept."""
        return self._sizes().get(file.digest) == file.size

    def _sizes(self) -> dict[str, int]:
        if self._held is None:
            self._held = {path.rsplit("/", 1)[1]: size for path, size, _ in self._files.listed(OBJECTS)}
        return self._held

    def finish(self, manifest: Manifest) -> None:
        """Makes a backup of what was kept: from here on it is one. Raises LakeError."""
        self._files.sync(self._fresh)
        self._fresh.clear()
        data = to_bytes(manifest)
        name = f"{BACKUPS}/{manifest.backup_id}"
        self._files.put(f"{name}.sha256", hashlib.sha256(data).hexdigest().encode())
        self._files.put(f"{name}.json", data)

    def ids(self) -> list[str]:
        """The backups, oldest first."""
        return sorted(found[1] for name in self._files.names(BACKUPS) if (found := _ID(name)))

    def manifest(self, backup_id: str | None = None) -> Manifest:
        """A backup, the newest one by default. Raises NoBackup."""
        known = self.ids()
        wanted = backup_id or (known[-1] if known else None)
        if wanted is None or wanted not in known:
            listed = ", ".join(known[-5:]) or "none"
            raise NoBackup(f"There is no backup{f' {backup_id}' if backup_id else ''} at {self.uri}. There: {listed}.")
        data = self._files.get(f"{BACKUPS}/{wanted}.json")
        try:
            told = self._files.get(f"{BACKUPS}/{wanted}.sha256").decode()
        except (FileNotFoundError, UnicodeDecodeError):
            told = ""
        if hashlib.sha256(data).hexdigest() != told:
            raise NoBackup(f"The manifest of backup {wanted} is not what it was. Use another: {', '.join(known)}.")
        try:
            return from_bytes(data)
        except (ValueError, KeyError, TypeError):
            raise NoBackup(f"Backup {wanted} is of another release, whose manifests this one does not read.") from None

    def faults(self, manifest: Manifest) -> list[Fault]:
        """What is missing or changed of one backup, each of its files read and digested. Raises LakeError."""

        def look(file: File) -> Fault | None:
            try:
                data = self._files.get(_path(file.digest))
            except FileNotFoundError:
                return Fault(manifest.backup_id, file.path, "missing")
            if len(data) != file.size:
                return Fault(manifest.backup_id, file.path, "short")
            changed = hashlib.sha256(data).hexdigest() != file.digest
            return Fault(manifest.backup_id, file.path, "changed") if changed else None

        return [fault for fault in side_by_side(look, manifest.files) if fault is not None]

    def keep_newest(self, number: int) -> int:
        """Deletes all backups but the newest ones, and bytes that none of these has; how many backups went.

        A backup whose manifest cannot be read keeps everything. Raises NoBackup, LakeError.
        """
        known = self.ids()
        gone, kept = known[:-number], known[-number:]
        named = {_path(file.digest) for one in kept for file in self.manifest(one).files}
        for one in gone:
            for ending in ("json", "sha256"):
                self._files.remove(f"{BACKUPS}/{one}.{ending}")
        for path in self._files.names(OBJECTS):
            if path not in named:
                self._files.remove(path)
        self._held = None
        return len(gone)


def side_by_side(call: Callable[[Given], Found], values: Sequence[Given]) -> Iterator[Found]:
    """The results of calls in their order, AT_ONCE of them at a time; the first error ends it."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for start in range(0, len(values), 16 * AT_ONCE):
            yield from pool.map(call, values[start : start + 16 * AT_ONCE])


def _path(digest: str) -> str:
    return f"{OBJECTS}/{digest[:2]}/{digest}"
