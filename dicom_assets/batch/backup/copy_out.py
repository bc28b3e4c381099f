"""Taking a backup of a lake in an order that makes it fit to be put back, whatever runs meanwhile.

Belongs here: which files, in which order. Does not belong here: where they go (`vault`), Dagster's state
(`sqlite_state`).

The order is that of a batch, backwards. `batches` is copied first, so that what it calls closed is whole in every table
that is copied after it; claims last but for what refers to them, so that no table has a batch that is not claimed. What
was claimed or published meanwhile is then claimed and not closed in the copy: after it is put back such a batch is run
again, which replaces its own rows. Files of a table never change and its log says which of them a version has, so each
table is one version, and a file that the last backup has is not read again.

Left out: locks, what is staged of batches that run again anyway, caches, what a power cut has torn.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from dicom_assets.batch.backup.manifest import File, Manifest
from dicom_assets.batch.backup.vault import NoBackup, Vault, side_by_side
from dicom_assets.batch.books import Status
from dicom_assets.batch.erasure.record import is_under_way
from dicom_assets.batch.organize import FOLDER as ORGANIZE
from dicom_assets.fhir.imaging_study import NDJSON
from dicom_assets.lake import database, file_keys, summaries, torn
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.form import release
from dicom_assets.lake.query import connect
from dicom_assets.lake.staging import FOLDER as STAGING
from dicom_assets.landing import claim_index, claims, looks, refusals, returns, uri_index
from dicom_assets.schema.registry import TABLES
from dicom_assets.settings import UserError
from dicom_assets.storage import locks

CACHES = (claim_index.FOLDER, uri_index.FOLDER, summaries.FOLDER, file_keys.FOLDER)
LEFT_OUT = frozenset((locks.FOLDER, database.FOLDER, torn.FOLDER, STAGING, *CACHES))
LAST = (claims.FOLDER, returns.FOLDER)
"""Folders that are copied when everything else is there, in this order."""
TRIES = 5
"""How often a table is begun anew whose files go while they are copied, as maintenance or an erasure makes them."""
_ENTRY = re.compile(r"/(\d{20})\.json$").search
_CHECKPOINT = re.compile(r"/(\d{20})\.checkpoint[^/]*\.parquet$").search

Say = Callable[[str], None]


class _Gone(Exception):
    """A file went while it was to be copied."""


class BackupRefused(UserError):
    """No backup can be taken now; the message says why. What was there stays as it was."""


def take(lake: Lake, vault: Vault, state: Iterable[File], say: Say = lambda _: None) -> Manifest:
    """Takes a backup. state: files of Dagster's state, which are in the vault already. Raises BackupRefused, LakeError.

    Dagster's state has to be copied before: a run that it knows has then been claimed in the copy of the claims.
    """
    _require_quiet(lake)
    erased = lake.files.names(refusals.FOLDER)
    copying = _Copying(lake, vault)
    tables: dict[str, int] = {}
    files: list[File] = list(state)
    kept_state = "sqlite" if files else "none"
    say("Copying tables.")
    first = "batches"
    for name in (first, *(one for one in TABLES if one != first)):
        tables[name], own = _table(lake, copying, name)
        files += own
        if name == first:
            unclosed, waiting = _unclosed(lake, tables[first])
    say("Copying claims and what else the lake holds.")
    folders = _folders(lake)
    for folder in (*(one for one in folders if one not in LAST), *(f"{STAGING}/{batch}" for batch in waiting), *LAST):
        files += copying.folder(folder)
    if is_under_way(lake.files) or lake.files.names(refusals.FOLDER) != erased:
        raise BackupRefused("Something was erased while the backup was taken, which it might still hold: take it anew.")
    now = datetime.now(UTC)
    manifest = Manifest(
        # in the order of time within a second too: the newest is told by it
        backup_id=f"{now:%Y%m%dT%H%M%SZ}-{now.microsecond:05x}{secrets.token_hex(2)[:3]}",
        made_at=now.isoformat(),
        made_by=f"dicom-assets {release()}",
        lake=lake.uri,
        lake_format=lake.form.number,
        tables=tables,
        claims=sum(file.path.startswith(f"{claims.FOLDER}/") for file in files),
        open=tuple(unclosed),
        state=kept_state,
        files=tuple(files),
    )
    vault.finish(manifest)
    return manifest


def _require_quiet(lake: Lake) -> None:
    if is_under_way(lake.files):
        raise BackupRefused("An erasure is under way: let `dicom-assets erase --resume` finish it, then back up.")
    if lake.form.left:
        raise BackupRefused("The lake is being upgraded: let `dicom-assets upgrade` finish, then back up.")


def _folders(lake: Lake) -> list[str]:
    """What lies in the lake besides tables: folders, and single files."""
    firsts = {path.split("/")[0] for path in lake.files.names("") if path.split("/")[0] not in TABLES}
    known = {looks.FOLDER, ORGANIZE, NDJSON.split("/")[0], *firsts}
    return sorted(known - LEFT_OUT)


def _table(lake: Lake, copying: _Copying, name: str) -> tuple[int, list[File]]:
    """The newest version of a table: its number, and its files with the log that leads to it."""
    for _ in range(TRIES):
        lake.open_anew(name)
        extents = lake.extents(name)
        try:
            data = copying.files([f"{name}/{path}" for path in extents.paths.tolist()], stays=True)
            return extents.version, data + copying.files(_log(lake, name, extents.version))
        except _Gone:
            continue  # merged or vacuumed meanwhile: the version after it has other files
    raise BackupRefused(f"Table {name} loses files faster than they are copied: wait until maintenance has ended.")


def _log(lake: Lake, name: str, version: int) -> list[str]:
    """The last checkpoint up to a version, and the entries from there on. Raises _Gone when they do not reach."""
    listed = lake.files.names(f"{name}/_delta_log")
    checkpoints = {path: int(found[1]) for path in listed if (found := _CHECKPOINT(path)) and int(found[1]) <= version}
    begin = max(checkpoints.values(), default=-1)
    entries = {int(found[1]): path for path in listed if (found := _ENTRY(path)) and int(found[1]) <= version}
    wanted = range(max(begin, 0), version + 1) if begin >= 0 else range(version + 1)
    if not all(number in entries for number in wanted if number > begin):
        raise _Gone
    chosen = [path for path, number in checkpoints.items() if number == begin]
    return [*chosen, *(entries[number] for number in wanted if number in entries)]


def _unclosed(lake: Lake, version: int) -> tuple[list[str], list[str]]:
    """Batches that are not closed in a version of the books; of these, those that wait for a person."""
    with connect(lake, ["batches"], at=version) as connection:
        rows = connection.execute(
            "SELECT batch_id, status FROM batches WHERE status <> 'closed' ORDER BY batch_id"
        ).fetchall()
    waits = (Status.PAUSED, Status.FAILED)
    return [batch for batch, _ in rows], [batch for batch, status in rows if status in waits]


class _Copying:
    """Files of one lake on their way into a vault."""

    def __init__(self, lake: Lake, vault: Vault) -> None:
        self._lake, self._vault = lake, vault
        self._before = _known(vault, lake.uri)
        self.read = 0

    def files(self, paths: list[str], *, stays: bool = False) -> list[File]:
        """Copies files. stays: they never change, so that a name is enough to know one. Raises _Gone."""
        return list(side_by_side(lambda path: self._one(path, stays), paths))

    def _one(self, path: str, stays: bool) -> File:
        known = self._before.get(path)
        if stays and known is not None and self._vault.holds(known):
            return known
        try:
            data = self._lake.files.get(path)
        except FileNotFoundError:
            raise _Gone from None
        return File(path, len(data), self._vault.put(data))

    def folder(self, folder: str) -> list[File]:
        """Copies what lies below a folder, or the file of this name; what goes meanwhile is not in it."""
        return [file for file in side_by_side(self._listed, list(self._paths(folder))) if file is not None]

    def _paths(self, folder: str) -> Iterator[tuple[str, int, str]]:
        yield from self._lake.files.listed(folder)
        if "/" not in folder and "." in folder and self._lake.files.exists(folder):
            yield folder, -1, ""

    def _listed(self, found: tuple[str, int, str]) -> File | None:
        path, size, mark = found
        known = self._before.get(path)
        if known is not None and mark and (known.size, known.mark) == (size, mark) and self._vault.holds(known):
            return known
        try:
            data = self._lake.files.get(path)
        except FileNotFoundError:
            return None
        file = File(path, len(data), self._vault.put(data))
        return replace(file, mark=mark) if len(data) == size else file


def _known(vault: Vault, uri: str) -> dict[str, File]:
    """Files of the last backup of the same lake, by path."""
    for backup in reversed(vault.ids()):
        try:
            manifest = vault.manifest(backup)
        except (NoBackup, ValueError):
            continue  # what cannot be read is no help, and verify tells of it
        if manifest.lake == uri:
            return {file.path: file for file in manifest.files}
    return {}
