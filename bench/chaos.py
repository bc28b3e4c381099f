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
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.chaos_outcome import Tables, expected_folder, judge
from bench.chaos_zone import Mount, Zone, unmount
from bench.soak import MARK, own_processes

REPOSITORY = Path(__file__).parents[1]
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


def main() -> None:
    """Runs it; exit 1 when anything does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "build" / "chaos")
    options = parser.parse_args()
    folder = options.folder.absolute()
    unmount(folder)
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
