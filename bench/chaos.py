"""Everything at once, for a while, and then the books: no order of events may change what the lake ends up with.

    python -m bench.chaos [--seconds N] [--seed N] [--folder DIR]

Two commands `dicom-assets ingest` run over and over, Dagster's daemon with its sensors beside them, and maintenance now
and then, on one landing zone and one lake. Files come, change (also to something with an older time, or to no DICOM at
all), go, and come back; folders move away and back; the file system of the landing zone goes away and comes back.
Parents and children are killed (SIGKILL) and stopped for a while (SIGSTOP).

The uploader keeps a log of every version that it ever wrote. In the end each path that is gone, and whose last version
was read in time, is put back as it was, and a fresh lake is made of that folder in one ingest. `instance`, `series`,
`study`, `clinical`, `imaging_study` and `image_occurrence` of both must be equal, column by column, but for times,
batches and the ids that OMOP gives out in order of arrival. In `flat_metadata` every version that a claim saw, and that
was read, stands once. The real mount needs root; without it the landing folder is a link that is replaced by an empty
folder.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench.scale import write_instance
from bench.soak import MARK, own_processes

REPOSITORY = Path(__file__).parents[1]
STUDIES, PER_STUDY, PER_SERIES = 12, 8, 4
FOLDERS = 6
SETTINGS = """
lake = "{folder}/lake"

[[sources]]
name = "landing"
root = "{folder}/landing"

[claiming]
batch_objects = 25
quiet_seconds = 1.0
again_seconds = [1.0, 2.0, 4.0]

[reading]
workers = 1
object_seconds = 6.0

[gate]
quarantined_share = 1.0
record_error_share = 1.0
none_ingested = 1000

[maintenance]
retention_hours = 1
"""
"""Pauses and limits short enough for a run of minutes; the gates are open, since what comes is odd on purpose."""

COMPARED = ("instance", "series", "study", "clinical", "imaging_study", "image_occurrence")
LEFT_OUT = {
    "batch_id", "first_seen_at", "updated_at", "ingested_at", "published_at", "image_occurrence_id", "person_id",
    "procedure_occurrence_id", "visit_occurrence_id", "created_at", "modified_at",
}  # fmt: skip
"""Columns that tell when and by which batch; ids that are given out in order of arrival."""

UNREAD = ("OBJECT_GONE", "CHANGED_DURING_READ")
"""Outcomes of an object of which nothing was read, since it was not there any more as it was claimed."""


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
            _quiet("umount", "-l", str(self.point))
            _quiet("umount", "-l", str(self.store))


def _quiet(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@dataclass
class Programs:
    """What works on the lake: two ingests, the daemon, maintenance; and what is done to them."""

    folder: Path
    chance: random.Random
    ended: threading.Event = field(default_factory=threading.Event)
    counts: dict[str, int] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    threads: list[threading.Thread] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """Of every program: its state is the project folder's."""
        project = self.folder / "project"
        return {
            **os.environ,
            MARK: str(self.folder),
            "DAGSTER_HOME": str(project),
            "DICOM_ASSETS_CONFIG": str(project / "dicom-assets.toml"),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH")))),
        }

    def start(self, *command: str, log: str) -> subprocess.Popen[bytes]:
        """Starts a program in a process group of its own."""
        program = Path(sys.executable).parent / command[0]
        with (self.folder / log).open("ab") as sink:
            return subprocess.Popen(
                [str(program), *command[1:]],
                cwd=self.folder / "project",
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def begin(self) -> None:
        """Starts everything."""
        for name in ("ingest-1", "ingest-2"):
            self._thread(lambda name=name: self._again(name, 0.5, "dicom-assets", "ingest"))
        self._thread(lambda: self._again("daemon", 2.0, "dagster-daemon", "run"))
        maintain = ["dagster", "job", "execute", "-m", "dicom_assets.definitions", "-j", "maintain_lake"]
        self._thread(lambda: self._again("maintenance", 20.0, *maintain))
        self._thread(self._harm)

    def _thread(self, target: Callable[[], None]) -> None:
        self.threads.append(threading.Thread(target=target, daemon=True))
        self.threads[-1].start()

    def _again(self, name: str, pause: float, *command: str) -> None:
        """Runs a command whenever it has ended."""
        while not self.ended.wait(pause):
            process = self.start(*command, log=f"{name}.txt")
            while process.poll() is None and not self.ended.wait(0.1):
                pass
            if process.poll() is None:
                _end_group(process)
            else:
                key = f"{name}: exit {process.returncode}"
                self.codes[key] = self.codes.get(key, 0) + 1

    def _harm(self) -> None:
        """Kills and stops processes, parents and children alike."""
        while not self.ended.wait(self.chance.uniform(0.5, 4)):
            processes = own_processes(self.folder)
            if not processes:
                continue
            victim = self.chance.choice(processes)
            with contextlib.suppress(psutil.Error):
                if self.chance.random() < 0.6:
                    victim.kill()
                    self._count("killed")
                else:
                    victim.suspend()
                    self._count("stopped")
                    self.ended.wait(self.chance.uniform(0.5, 8))
                    victim.resume()

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def end(self) -> None:
        """Ends everything, by process id."""
        self.ended.set()
        for thread in self.threads:
            thread.join(30)
        for process in own_processes(self.folder):
            with contextlib.suppress(psutil.Error):
                process.resume()
                process.kill()
        psutil.wait_procs(own_processes(self.folder), 10)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGCONT)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def make_project(folder: Path) -> None:
    """A project folder as a clone has it, with settings of its own."""
    project = folder / "project"
    project.mkdir(parents=True)
    for name in ("dagster.yaml", "workspace.yaml", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, project / name)
    (project / "dicom-assets.toml").write_text(SETTINGS.format(folder=folder), encoding="utf-8")


def ingest_until_closed(programs: Programs, rounds: int = 30) -> list[str]:
    """Ingests until nothing is open and nothing waits; the last words of rounds that did not end well."""
    said = []
    for number in range(rounds):
        process = programs.start("dicom-assets", "ingest", log="last.txt")
        code = process.wait(600)
        if code == 0 and number:
            return said
        if code:
            said.append((programs.folder / "last.txt").read_text(errors="replace").strip().rsplit("\n", 1)[-1])
        time.sleep(1)
    return [*said, "the ingest never came to its end"]


# ---- what must hold --------------------------------------------------------------------------------------------------


@dataclass
class Tables:
    """The tables of one lake, read without the project's own code."""

    root: Path

    def rows(self, name: str, columns: str = "*") -> list[dict[str, Any]]:
        """All rows of a table."""
        import duckdb
        from deltalake import DeltaTable

        uris = DeltaTable(str(self.root / name)).file_uris()
        if not uris:
            return []
        listed = ", ".join("'" + uri.replace("'", "''") + "'" for uri in uris)
        with duckdb.connect() as connection:
            found = connection.execute(f"SELECT {columns} FROM read_parquet([{listed}], union_by_name=true)")
            names = [column[0] for column in found.description or []]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def claims(self) -> list[dict[str, Any]]:
        """Every object of every claim, oldest claim first."""
        import pyarrow.parquet as pq

        return [
            row
            for path in sorted((self.root / "_claims").glob("*.parquet"))
            for row in pq.read_table(path, columns=["batch_id", "object_id", "uri", "etag"]).to_pylist()
        ]


def expected_folder(zone: Zone, lake: Tables, root: Path) -> Iterator[tuple[str, Version]]:
    """Paths that are gone and whose last claimed version was read in time, with that version."""
    ledger: dict[str, set[str | None]] = {}
    for row in lake.rows("validated_batch", "object_id, code"):
        ledger.setdefault(row["object_id"], set()).add(row["code"])
    last = {row["uri"]: row for row in lake.claims()}
    for path, versions in sorted(zone.log.items()):
        claim = last.get((root / path).as_uri())
        if path in zone.there or claim is None:
            continue
        if ledger.get(claim["object_id"], set()) - set(UNREAD):
            yield path, next(version for version in versions if version.etag == claim["etag"])


def compared(name: str, chaos: Tables, fresh: Tables) -> str:
    """In which columns a table differs between both lakes; empty when in none."""
    wanted, got = (_canonical(lake.rows(name)) for lake in (fresh, chaos))
    if wanted == got:
        return ""
    extra, missing = len(set(got) - set(wanted)), len(set(wanted) - set(got))
    columns: set[str] = set()
    if len(wanted) == len(got):
        for one, other in zip(wanted, got, strict=True):
            left, right = json.loads(one), json.loads(other)
            columns |= {column for column in left if left[column] != right.get(column)}
    counts = f"{len(got)} rows instead of {len(wanted)}, {extra} too many, {missing} missing"
    return f"{counts}, columns {sorted(columns)[:8]}"


def _canonical(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(_timeless(row), default=str, sort_keys=True) for row in rows)


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what tells when it was made; a resource of FHIR says so in `meta`."""
    kept = {name: value for name, value in row.items() if name not in LEFT_OUT}
    if "resource" in kept:
        kept["resource"] = {name: value for name, value in json.loads(kept["resource"]).items() if name != "meta"}
    return kept


def judge(zone: Zone, folder: Path, fresh_root: Path) -> dict[str, str]:
    """What must hold, each with what is wrong; empty where it holds."""
    lake, fresh = Tables(folder / "lake"), Tables(fresh_root)
    root = folder / "landing"
    claims, ledger = lake.claims(), lake.rows("validated_batch", "batch_id, object_id, outcome, code")
    books = lake.rows("batches")
    open_ = [row["batch_id"] for row in books if row["status"] != "closed"]
    off = [row["batch_id"] for row in books
           if row["seen"] != row["ingested"] + row["quarantined"] + row["ignored"] + row["deleted"]]  # fmt: skip
    last = {row["uri"]: row["etag"] for row in claims}
    unclaimed = [path for path, version in zone.there.items() if last.get((root / path).as_uri()) != version.etag]
    judged = {row["object_id"] for row in ledger}
    lost = {row["object_id"] for row in claims} - judged
    times: dict[str, int] = {}
    for row in lake.rows("flat_metadata", "object_id"):
        times[row["object_id"]] = times.get(row["object_id"], 0) + 1
    kept = {row["object_id"] for row in lake.rows("validated_batch")
            if row["outcome"] == "ingested" and row["kind"] == "dicom"}  # fmt: skip
    blamed = [row["code"] for row in ledger if row["code"] in ("PARSER_CRASH", "PARSER_TIMEOUT", "READ_FAILED")]
    staged = [path for path in (folder / "lake" / "_staging").rglob("*") if path.is_file()]
    found = {
        "every batch is closed": f"{len(open_)} are not" if open_ else "",
        "every book balances": f"{len(off)} do not" if off else "",
        "what lies in the landing zone is claimed as it is": f"{len(unclaimed)} are not" if unclaimed else "",
        "every object that was claimed is judged": f"{len(lost)} are not" if lost else "",
        "every version that was read stands once in flat_metadata": ""
        if times == dict.fromkeys(kept, 1)
        else f"{len(times.keys() ^ kept)} differ, {sum(n > 1 for n in times.values())} stand more than once",
        "no sound object is blamed": f"{len(blamed)} are: {sorted(set(blamed))}" if blamed else "",
        "nothing is left in staging": f"{len(staged)} files are" if staged else "",
    }
    for name in COMPARED:
        found[f"{name} is that of a fresh ingest"] = compared(name, lake, fresh)
    return found


def main() -> None:
    """Runs it; exit 1 when anything does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "build" / "chaos")
    options = parser.parse_args()
    folder = options.folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    make_project(folder)
    mount = Mount(folder)
    zone, programs = Zone(folder, random.Random(options.seed)), Programs(folder, random.Random(options.seed + 1))
    try:
        sys.exit(run(zone, programs, mount, options.seconds))
    finally:
        programs.end()
        mount.end()


def run(zone: Zone, programs: Programs, mount: Mount, seconds: float) -> int:
    """The chaos, then calm, then the comparison; 1 when anything does not hold."""
    folder, chance = zone.folder, random.Random(zone.chance.random())
    until, away_at = time.monotonic() + seconds, time.monotonic() + chance.uniform(8, 20)
    aways = 0
    for _ in range(30):
        zone.step()
    programs.begin()
    while time.monotonic() < until:
        zone.step()
        time.sleep(chance.uniform(0.02, 0.4))
        if time.monotonic() > away_at:
            mount.go()
            aways += 1
            time.sleep(chance.uniform(2, 8))
            mount.come()
            away_at = time.monotonic() + chance.uniform(8, 25)
    programs.end()
    print(f"{sum(zone.counts.values())} things happened: {zone.counts}; the file system went away {aways} times "
          f"({'mounts' if mount.is_real else 'renames'}); processes {programs.counts}; {programs.codes}")  # fmt: skip
    said = ingest_until_closed(programs)
    for words in said:
        print(f"a last ingest did not end well: {words}")
    lake = Tables(folder / "lake")
    gone = list(expected_folder(zone, lake, folder / "landing"))
    still_there = dict(zone.there)
    for path, version in gone:
        zone.put(path, version)
    programs.counts.clear()
    fresh = folder / "fresh"
    with (folder / "fresh.txt").open("wb") as sink:
        command = [str(Path(sys.executable).parent / "dicom-assets"), "ingest", "--lake", str(fresh)]
        environment = {**programs.environment, "DAGSTER_HOME": ""}
        environment.pop("DAGSTER_HOME")
        subprocess.run(command, cwd=folder, env=environment, stdout=sink, stderr=subprocess.STDOUT, check=True)
    for path, _ in gone:
        (zone.root / path).unlink()
    zone.there = still_there
    found = judge(zone, folder, fresh)
    print(f"{len(zone.there)} files there, {len(gone)} gone but read, {len(lake.claims())} claims")
    for name, wrong in found.items():
        print(f"{'FAILS' if wrong else 'ok   '} {name}{': ' + wrong if wrong else ''}")
    return 1 if any(found.values()) or (said and said[-1].startswith("the ingest never")) else 0


if __name__ == "__main__":
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    main()
