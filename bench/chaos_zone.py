"""What happens to the landing zone of a chaos run: files come, change, go and come back, and so does its file system.

Belongs here: the uploader with its log of every version, the mount. Does not belong here: the programs that work on the
lake meanwhile (`chaos`), what must hold in the end (`chaos_outcome`).
"""

from __future__ import annotations

import io
import os
import random
import subprocess
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.scale import write_instance

STUDIES, PER_STUDY, PER_SERIES = 12, 8, 4
FOLDERS = 6


@dataclass(frozen=True, slots=True)
class Version:
    """What one path held for a while."""

    data: bytes
    mtime_ns: int

    @property
    def etag(self) -> str:
        """As a listing of the folder names it."""
        return f"{self.mtime_ns:x}-{len(self.data):x}"


@dataclass
class Zone:
    """The landing zone: what the uploader does to it, and its log of every version."""

    folder: Path
    chance: random.Random
    log: dict[str, list[Version]] = field(default_factory=dict)
    there: dict[str, Version] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    clock: int = 0
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """Where files are written, whether the mount is there or not."""
        return self.folder / "store" / "landing"

    def step(self) -> None:
        """One thing that happens to the landing zone."""
        doings: dict[Callable[[], None], int] = {
            self._new_file: 40, self._overwrite: 12, self._delete: 8, self._come_back: 6, self._move_folder: 4,
            self._archive: 5, self._table: 6, self._slow_writer: 3,
        }  # fmt: skip
        (doing,) = self.chance.choices(list(doings), list(doings.values()))
        with self.lock:
            doing()
        self.counts[doing.__name__] = self.counts.get(doing.__name__, 0) + 1

    def _time(self) -> int:
        """A modification time of its own, old enough not to wait; now and then older than all before."""
        self.clock += 1
        age = self.chance.choice((3_600, 3_600, 3_600, 40 * 86_400))
        return (int(time.time()) - age) * 1_000_000_000 + self.clock * 1_000_000

    def put(self, path: str, version: Version) -> None:
        """Puts a version in place at once."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = self.folder / "store" / "writing"
        beside.write_bytes(version.data)
        os.utime(beside, ns=(version.mtime_ns, version.mtime_ns))
        beside.replace(target)
        self.there[path] = version
        self.log.setdefault(path, [])
        if version not in self.log[path]:
            self.log[path].append(version)

    def _instance(self) -> bytes:
        study = self.chance.randrange(STUDIES)
        number = study * PER_STUDY + self.chance.randrange(PER_STUDY)
        beside = self.folder / "store" / "instance"
        write_instance(beside, study, number, PER_SERIES)
        return beside.read_bytes()

    def _new_file(self) -> None:
        path = f"{self.chance.randrange(FOLDERS)}/{self.clock:06d}.dcm"
        self.put(path, Version(self._instance(), self._time()))

    def _pick(self, suffix: str = ".dcm") -> str | None:
        paths = [path for path in self.there if path.endswith(suffix)]
        return self.chance.choice(paths) if paths else None

    def _overwrite(self) -> None:
        path = self._pick()
        if path is not None:
            kinds = (self._instance, self._instance, self._instance, self._text, lambda: self._instance()[:200])
            self.put(path, Version(self.chance.choice(kinds)(), self._time()))

    def _text(self) -> bytes:
        return f"Nothing but words, {self.clock} of them.".encode()

    def _delete(self) -> None:
        path = self._pick(self.chance.choice((".dcm", ".dcm", ".csv")))
        if path is not None:
            (self.root / path).unlink()
            del self.there[path]

    def _come_back(self) -> None:
        gone = [path for path in self.log if path not in self.there]
        if gone:
            path = self.chance.choice(gone)
            self.put(path, self.log[path][-1])

    def _move_folder(self) -> None:
        """A folder is away for a moment, and comes back as it was."""
        name = str(self.chance.randrange(FOLDERS))
        away = self.folder / "store" / "away"
        if (self.root / name).is_dir():
            (self.root / name).rename(away)
            time.sleep(self.chance.uniform(0.2, 3))
            away.rename(self.root / name)

    def _archive(self) -> None:
        """A zip, now and then a newer one of the same members in its place."""
        path = self._pick(".zip") if self.chance.random() < 0.4 else None
        path = path or f"zips/{self.clock:06d}.zip"
        sink = io.BytesIO()
        method = self.chance.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED))
        with zipfile.ZipFile(sink, "w", method) as archive:
            for number in range(4):
                archive.writestr(f"{number}.dcm", self._instance())
        self.put(path, Version(sink.getvalue(), self._time()))

    def _table(self) -> None:
        path = self._pick(".csv") if self.chance.random() < 0.5 else None
        path = path or f"tables/{self.clock:06d}.csv"
        lines = [
            f"P{self.chance.randrange(STUDIES) // 3:08d},{self.clock},{n}" for n in range(self.chance.randint(1, 9))
        ]
        text = "\n".join(["PatientID,Visit,Result", *lines]) + "\n"
        self.put(path, Version(text.encode(), self._time()))

    def _slow_writer(self) -> None:
        """A file that grows for a while under its own name, as copies over a network do."""
        path = f"{self.chance.randrange(FOLDERS)}/slow-{self.clock:06d}.dcm"
        data, target = self._instance(), self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            file.write(data[: len(data) // 2])
            file.flush()
            time.sleep(0.4)
            file.write(data[len(data) // 2 :])
        self.put(path, Version(data, self._time()))


class Mount:
    """The file system of the landing zone, which goes away and comes back; a rename where mounting is not allowed."""

    def __init__(self, folder: Path) -> None:
        """Prepares it and mounts it."""
        self.store, self.point = folder / "store", folder / "landing"
        self.point.mkdir(parents=True)
        self.store.mkdir()
        self.is_real = _quiet("mount", "-t", "tmpfs", "-o", "size=256m", "none", str(self.store))
        (self.store / "landing").mkdir()
        if not self.is_real:
            self.point.rmdir()
        self.come()

    def come(self) -> None:
        """Makes it be there."""
        if self.is_real:
            if not os.path.ismount(self.point):
                _quiet("mount", "--bind", str(self.store / "landing"), str(self.point))
        elif not self.point.is_symlink():
            if self.point.exists():
                self.point.rmdir()
            self.point.symlink_to(self.store / "landing")

    def go(self) -> None:
        """Takes it away; the empty mountpoint stays."""
        if self.is_real:
            _quiet("umount", "-l", str(self.point))
        else:
            self.point.unlink()
            self.point.mkdir()

    def end(self) -> None:
        """Unmounts for good."""
        if self.is_real:
            unmount(self.point.parent)


def unmount(folder: Path) -> None:
    """Takes away what a run has mounted below its folder, one that was killed included, which cannot tidy up."""
    for name in ("landing", "store"):
        while os.path.ismount(folder / name) and _quiet("umount", "-l", str(folder / name)):
            pass


def _quiet(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
