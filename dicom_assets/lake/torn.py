"""What a power cut may leave of a table's log in a folder: entries and checkpoints that are empty or cut.

Belongs here: finding them, and setting them aside so that the table opens again. Does not belong here: what went with
them, which `batch.verification` finds by comparing the tables (a mark in the lake says that this is to be done).

An empty entry is the bad one: delta-rs reads it as a commit of nothing, so what was committed is missing without a
word. Each of our entries says how many actions it has, so that one that was cut between two of them is found as well.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dicom_assets.storage.files import LakeError, LakeFiles

FOLDER = "_torn"
MARK = f"{FOLDER}/unverified"
"""Says that entries were set aside, and that nobody has compared the tables since."""

ACTIONS = "actions"
"""Name, in the information of a commit, of the number of its actions."""

_ENTRY = re.compile(r"^(\d{20})\.json$")
_CHECKPOINT = re.compile(r"^(\d{20})\.checkpoint.*\.parquet$")
_HINT = "_last_checkpoint"


class TornLog(LakeError):
    """The log of a table has entries, or a checkpoint, that a power cut has torn."""


def log_of(files: LakeFiles, name: str) -> Path | None:
    """The folder of a table's log; None on an object store, which tears nothing, and where there is no table."""
    root = files.local_root
    folder = None if root is None else root / name / "_delta_log"
    return folder if folder is not None and folder.is_dir() else None


def torn_entries(log: Path) -> list[int]:
    """Versions behind the last checkpoint whose entries are empty or cut, in their order. Raises OSError."""
    return [version for version in _since_checkpoint(log) if not _is_whole(log / _name(version))]


def _since_checkpoint(log: Path) -> Iterator[int]:
    """Versions that have an entry, from the last checkpoint on. Nothing is listed where a hint names that."""
    version = _hinted(log / _HINT)
    if version is None:
        entries, checkpoints = _versions(log)
        version = max(checkpoints, default=-1)
        yield from (entry for entry in entries if entry > version)
        return
    while (log / _name(version + 1)).exists():
        version += 1
        yield version


def torn_checkpoints(log: Path) -> list[Path]:
    """Checkpoints that are newer than the newest that can be read, and the hint that leads to one. Raises OSError."""
    _, checkpoints = _versions(log)
    torn: list[Path] = []
    newest = None
    for version, path in sorted(checkpoints.items(), reverse=True):
        if _opens(path):
            newest = version
            break
        torn.append(path)
    hint = log / _HINT
    if hint.exists() and _hinted(hint) != newest and (torn or _hinted(hint) not in checkpoints):
        torn.append(hint)
    return torn


def require_whole(files: LakeFiles, name: str) -> None:
    """Raises TornLog when entries of a table's log are torn."""
    log = log_of(files, name)
    torn = torn_entries(log) if log is not None else []
    if torn:
        raise TornLog(
            f"Table {name}: version {torn[0]} of its log was torn, as by a power cut. Run `dicom-assets ingest`, which "
            "sets it aside and runs again what it held."
        )


def mend(files: LakeFiles, name: str) -> list[int]:
    """Sets aside what is torn of a table's log, for whoever holds the right to commit to it; the versions.

    A torn entry is replaced by one that does nothing, so that versions keep their numbers. What it held is missing from
    then on: the mark says so. A torn checkpoint only saved reading the entries before it. Raises LakeError, TornLog
    when these are gone.
    """
    log = log_of(files, name)
    if log is None:
        return []
    try:
        _without_checkpoints(files, name, log)
        torn = torn_entries(log)
        if torn:
            files.put(MARK, b"")
        for version in torn:
            files.put(_aside(name, _name(version)), (log / _name(version)).read_bytes())
            if version == 0:
                (log / _name(version)).unlink()  # the table is made anew
            else:
                files.put(f"{name}/_delta_log/{_name(version)}", _nothing(version))
    except OSError as error:
        raise LakeError(f"Table {name}: its log cannot be mended: {type(error).__name__}.") from None
    return torn


def _without_checkpoints(files: LakeFiles, name: str, log: Path) -> None:
    torn = torn_checkpoints(log)
    if not torn:
        return
    entries, checkpoints = _versions(log)
    since = max((version for version in checkpoints if checkpoints[version] not in torn), default=-1)
    if entries and [v for v in entries if v > since] != [*range(since + 1, entries[-1] + 1)]:
        raise TornLog(
            f"Table {name}: the checkpoint of its log is torn, and entries before it are gone. Run "
            "`dicom-assets verify --fix`, which makes the table anew from what was claimed."
        )
    for path in torn:
        files.put(_aside(name, path.name), path.read_bytes())
        path.unlink()


def needs_verifying(files: LakeFiles) -> bool:
    """Whether entries were set aside and nobody has compared the tables since. Raises LakeError."""
    return files.exists(MARK)


def verified(files: LakeFiles) -> None:
    """Takes the mark away. Raises LakeError."""
    files.remove(MARK)


def set_table_aside(files: LakeFiles, name: str) -> None:
    """Moves a table that cannot be opened out of the way, for whoever holds the right to commit to it.

    Raises LakeError.
    """
    root = files.local_root
    if root is None:
        raise LakeError(f"Table {name} cannot be opened, and lies on an object store: bring back an earlier version.")
    files.put(MARK, b"")
    target = root / _aside(name, "table")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        (root / name).rename(target)
    except OSError as error:
        raise LakeError(f"Table {name} cannot be moved aside: {error.strerror}.") from None


def set_file_aside(files: LakeFiles, path: str) -> None:
    """Moves a torn file of the lake out of the way. Raises LakeError."""
    folder, _, name = path.rpartition("/")
    files.put(_aside(folder.lstrip("_"), name), files.get(path))
    files.remove(path)


def _aside(name: str, what: str) -> str:
    return f"{FOLDER}/{name}/{what}.{uuid.uuid4().hex[:8]}"


def _name(version: int) -> str:
    return f"{version:020d}.json"


def _versions(log: Path) -> tuple[list[int], dict[int, Path]]:
    """Versions that have an entry, and checkpoints by version, in their order."""
    names = sorted(path.name for path in log.iterdir())
    entries = [int(match[1]) for match in map(_ENTRY.match, names) if match]
    return entries, {int(match[1]): log / match[0] for match in map(_CHECKPOINT.match, names) if match}


def _opens(checkpoint: Path) -> bool:
    try:
        pq.read_metadata(checkpoint)
    except (pa.ArrowException, OSError):
        return False
    return True


def _hinted(hint: Path) -> int | None:
    """The version whose checkpoint a hint names; None where there is no hint that can be read."""
    try:
        return int(json.loads(hint.read_bytes())["version"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _is_whole(entry: Path) -> bool:
    lines = [line for line in entry.read_bytes().split(b"\n") if line.strip()]
    if not lines:
        return False
    try:
        json.loads(lines[-1])
        told = next(_told(lines), None)
    except ValueError:
        return False
    return told is None or len(lines) - 1 >= told


def _told(lines: list[bytes]) -> Iterator[int]:
    """How many actions an entry says that it has."""
    for line in lines:
        if line.startswith(b'{"commitInfo"'):
            told = json.loads(line)["commitInfo"].get(ACTIONS)
            if told is not None:
                yield int(told)


def _nothing(version: int) -> bytes:
    """An entry that changes nothing."""
    information = {"timestamp": int(time.time() * 1000), "operation": "SET ASIDE", ACTIONS: "0", "version": version}
    return json.dumps({"commitInfo": information}).encode()
