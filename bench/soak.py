"""Many batches in a row by two runs at once, with maintenance in between and kills at random.

    python -m bench.soak [--batches N] [--workers N] [--batches-between-kills N] [--folder DIR] [--check FILE]

Batches are small, so that what is tested is the beginning, publishing and closing of batches and not the reading of
files: each brings some new studies, parts of studies that others have begun, now and then a zip, a clinical table or
something that is no DICOM. This process hands them out as Dagster's run launcher would; each worker runs the job
`ingest_batch`, all of its steps. Kills (SIGKILL) hit every worker but the first, which shows what a process gathers
that lives as long as the soak. In the end every book has to close, each instance that arrived stands in the lake once,
nothing is left in staging, of processes or of temporary files, and the last batches cost what the first ones did. With
`--check`, a judge that is given `--landing` and `--lake` has its say as well.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import random
import shutil
import statistics
import subprocess
import sys
import threading
import time
import zipfile
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench.scale import write_instance
from dicom_assets.schema.registry import TABLES
from dicom_assets.settings import Settings

FILES_A_BATCH = 30
NEW_STUDIES = 3
PER_STUDY, PER_SERIES = 9, 3
LATER_SHARE, LATER_BATCHES = 0.35, 20
"""Instances of a study that come with one of so many later batches instead of with the first one."""

MAINTAIN_EVERY = 25
SETTLED = 10
"""Batches after which a process has opened what it keeps open: Dagster's event logs of the newest runs."""

TRIES = 3
MARK = "DICOM_ASSETS_SOAK"
"""Environment variable by which the processes of a soak are told from others."""

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def settings_for(folder: Path) -> Settings:
    """Settings of the soak's lake."""
    return Settings.model_validate(
        {
            "lake": str(folder / "lake"),
            "sources": [{"name": "landing", "root": str(folder / "landing")}],
            "claiming": {"batch_objects": FILES_A_BATCH, "batches_per_tick": 100},
            "reading": {"workers": 1},
            "maintenance": {"retention_hours": 1},
        }
    )


def prepare(folder: Path, batches: int, chance: random.Random) -> int:
    """Writes what arrives, one folder a batch; how many instances there are."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("tmp", "dagster"):
        (folder / name).mkdir(parents=True)
    (folder / "dagster" / "dagster.yaml").write_text("telemetry:\n  enabled: false\n", encoding="utf-8")
    arriving: list[list[tuple[int, int]]] = [[] for _ in range(batches)]
    for batch in range(batches):
        for study in range(batch * NEW_STUDIES, (batch + 1) * NEW_STUDIES):
            for instance in range(study * PER_STUDY, (study + 1) * PER_STUDY):
                later = chance.randint(1, LATER_BATCHES) if chance.random() < LATER_SHARE else 0
                arriving[min(batch + later, batches - 1)].append((study, instance))
    instances = 0
    for batch, wanted in enumerate(arriving):
        landing = folder / "landing" / f"{batch:05d}"
        landing.mkdir(parents=True)
        # The last folders take what is left over, and become several batches.
        for study, instance in wanted:
            write_instance(landing / f"{instance}.dcm", study, instance, PER_SERIES)
        instances += len(wanted)
        _besides(landing, batch)
        for path in landing.iterdir():
            os.utime(path, (0, 0))
    return instances


def _besides(landing: Path, batch: int) -> None:
    """Now and then a zip, a clinical table, or something that is no DICOM."""
    files = sorted(landing.glob("*.dcm"))
    if batch % 5 == 1:
        with zipfile.ZipFile(landing / "some.zip", "w") as archive:
            for file in files[:4]:
                archive.write(file, file.name)
                file.unlink()
    if batch % 7 == 2:
        lines = [f"P{study // 3:08d},{batch},positive" for study in range(batch, batch + 5)]
        (landing / "results.csv").write_text("\n".join(["PatientID,Visit,Result", *lines]) + "\n", encoding="utf-8")
    if batch % 6 == 3:
        (landing / "notes.txt").write_text("No DICOM, so that there is something to ignore.", encoding="utf-8")
    if batch % 8 == 4:
        (landing / "broken.dcm").write_bytes(files[-1].read_bytes()[:200])


def own_processes(folder: Path) -> list[psutil.Process]:
    """The processes that this soak has started, directly or not, and that still run."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == str(folder):
                found.append(process)
        except psutil.Error:
            continue
    return found


# ---- the worker's side -----------------------------------------------------------------------------------------------


def _cpu(process: psutil.Process) -> float:
    total = 0.0
    for one in [process, *process.children(recursive=True)]:
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def work_on(folder: Path) -> None:
    """A worker: runs each batch that it is given by a line, and answers with a line of JSON."""
    from dicom_assets.defs.graph import build_defs
    from dicom_assets.defs.instance import open_instance
    from dicom_assets.reading.engine import ProcessEngine

    settings = settings_for(folder)
    instance = open_instance(settings)
    me = psutil.Process()
    with ProcessEngine(settings.reading) as readers:
        job = build_defs(settings, engine=readers).resolve_job_def("ingest_batch")
        for number, line in enumerate(sys.stdin):
            batch = line.strip()
            started, cpu = time.perf_counter(), _cpu(me)
            result = job.execute_in_process(
                partition_key=batch, instance=instance, raise_on_error=False, run_config=_QUIET
            )
            failed = [event.step_key for event in result.all_events if event.is_step_failure]
            answer = {
                "batch": batch,
                "number": number,
                "failed": failed or ([] if result.success else ["run"]),
                "seconds": time.perf_counter() - started,
                "cpu": _cpu(me) - cpu,
                "descriptors": me.num_fds(),
                "children": len(me.children(recursive=True)),
                "threads": me.num_threads(),
                "memory": me.memory_info().rss,
            }
            print("=" + json.dumps(answer), flush=True)


def maintain_once(folder: Path) -> None:
    """The job `maintain_lake`, once."""
    from dicom_assets.defs.graph import build_defs
    from dicom_assets.defs.instance import open_instance

    settings = settings_for(folder)
    job = build_defs(settings).resolve_job_def("maintain_lake")
    result = job.execute_in_process(instance=open_instance(settings), raise_on_error=False, run_config=_QUIET)
    sys.exit(0 if result.success else 1)


# ---- the side that hands out batches ---------------------------------------------------------------------------------


def start(folder: Path, *what: str) -> subprocess.Popen[str]:
    """Starts a process of the soak; what it says goes to a pipe, complaints to a file."""
    command = [sys.executable, "-W", "ignore", "-m", "bench.soak", "--folder", str(folder), *what]
    environment = {
        **os.environ, MARK: str(folder), "TMPDIR": str(folder / "tmp"), "DAGSTER_HOME": str(folder / "dagster")
    }  # fmt: skip
    with (folder / "stderr.txt").open("ab") as complaints:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, text=True, env=environment
        )


class Worker:
    """One place for a run: a process that is replaced when it is killed."""

    def __init__(self, folder: Path, number: int, said: queue.Queue[tuple[Worker, int, dict[str, Any] | None]]) -> None:
        """Starts its process. said: takes (worker, life, answer), and None for an answer when the process has ended."""
        self.number, self.batch, self.life = number, "", 0
        self._folder, self._said = folder, said
        self._start()

    def _start(self) -> None:
        self.process = start(self._folder, "--work")
        threading.Thread(target=self._listen, args=(self.process, self.life), daemon=True).start()

    def _listen(self, process: subprocess.Popen[str], life: int) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("="):
                self._said.put((self, life, json.loads(line[1:])))
        self._said.put((self, life, None))

    def give(self, batch: str) -> None:
        """Hands it a batch."""
        assert self.process.stdin is not None
        self.batch = batch
        print(batch, file=self.process.stdin, flush=True)

    def kill(self) -> str:
        """SIGKILL in the middle of whatever it does; which batch it had. A new process takes its place."""
        self.process.kill()
        self.process.wait()
        lost, self.batch = self.batch, ""
        self.life += 1
        self._start()
        return lost

    def end(self) -> None:
        """Lets it end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@dataclass
class Soak:
    """What has happened so far."""

    folder: Path
    chance: random.Random
    left: deque[str]
    between_kills: int
    answers: list[dict[str, Any]] = field(default_factory=list)
    tries: dict[str, int] = field(default_factory=dict)
    kills: int = 0
    lost: int = 0
    maintained: list[int] = field(default_factory=list)

    def run(self, count: int) -> None:
        """Hands out all batches; ends when each has ended."""
        said: queue.Queue[tuple[Worker, int, dict[str, Any] | None]] = queue.Queue()
        workers = [Worker(self.folder, number, said) for number in range(count)]
        maintenance: subprocess.Popen[str] | None = None
        until_kill, kill_at = self._next_kill(), float("inf")
        while True:
            for worker in workers:
                if not worker.batch and self.left:
                    worker.give(self.left.popleft())
            if not any(worker.batch for worker in workers):
                break
            try:
                worker, life, answer = said.get(timeout=min(1.0, max(0.0, kill_at - time.monotonic())))
            except queue.Empty:
                worker, life, answer = workers[0], -1, None
            if life == worker.life:
                if answer is None:
                    raise SystemExit(f"A worker has ended by itself; see {self.folder / 'stderr.txt'}.")
                self._ended(worker, answer)
                until_kill -= 1
                if until_kill == 0 and count > 1:
                    kill_at = time.monotonic() + self.chance.uniform(0, 1.5 * answer["seconds"])
                if len(self.answers) % MAINTAIN_EVERY == 0 and (maintenance is None or maintenance.poll() is not None):
                    maintenance = self._maintain(maintenance)
            if time.monotonic() >= kill_at:
                batch = workers[self.chance.randrange(1, count)].kill()
                self.kills += 1
                if batch:
                    self.lost += 1
                    self.left.appendleft(batch)
                until_kill, kill_at = self._next_kill(), float("inf")
        self.maintained += [] if maintenance is None else [maintenance.wait()]
        for worker in workers:
            worker.end()

    def _next_kill(self) -> int:
        return self.chance.randint(1, 2 * self.between_kills - 1)

    def _ended(self, worker: Worker, answer: dict[str, Any]) -> None:
        worker.batch = ""
        self.answers.append({**answer, "worker": worker.number})
        with (self.folder / "answers.jsonl").open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(self.answers[-1]) + "\n")
        if answer["failed"]:
            self.tries[answer["batch"]] = self.tries.get(answer["batch"], 0) + 1
            if self.tries[answer["batch"]] < TRIES:
                self.left.append(answer["batch"])

    def _maintain(self, before: subprocess.Popen[str] | None) -> subprocess.Popen[str]:
        if before is not None:
            self.maintained.append(before.wait())
        return start(self.folder, "--maintain")


def main() -> None:
    """Runs the soak; exit 1 when anything does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batches-between-kills", type=int, default=6)
    parser.add_argument("--folder", type=Path, default=Path("build/soak"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--check", type=Path, default=os.environ.get("DICOM_ASSETS_CHECK_LAKE"))
    parser.add_argument("--work", action="store_true")
    parser.add_argument("--maintain", action="store_true")
    options = parser.parse_args()
    folder = options.folder.absolute()
    if options.work:
        work_on(folder)
        return
    if options.maintain:
        maintain_once(folder)
        return
    chance = random.Random(options.seed)
    instances = prepare(folder, options.batches, chance)
    claimed = claim(folder)
    soak = Soak(folder, chance, deque(claimed), options.batches_between_kills)
    started = time.monotonic()
    soak.run(options.workers)
    print(f"{len(claimed)} batches, {instances} instances, {time.monotonic() - started:.0f} s")
    sys.exit(report(soak, len(claimed), instances, options.check))


def claim(folder: Path) -> list[str]:
    """Claims everything and makes the batches known to Dagster; their ids."""
    from dicom_assets.batch.context import RunContext
    from dicom_assets.defs.instance import open_instance
    from dicom_assets.defs.jobs import claim_everywhere, register

    os.environ["DAGSTER_HOME"] = str(folder / "dagster")
    settings = settings_for(folder)
    with RunContext(settings) as work:
        while any(one.more for one in claim_everywhere(work)):
            pass
        batches = work.unclosed()
    with open_instance(settings) as instance:
        register(instance, batches)
    return batches


def _quarters(answers: list[dict[str, Any]], what: str) -> tuple[float, float]:
    """Medians of the first and the last quarter."""
    values = [answer[what] for answer in answers]
    quarter = max(1, len(values) // 4)
    return statistics.median(values[:quarter]), statistics.median(values[-quarter:])


def report(soak: Soak, claimed: int, instances: int, judge: Path | None) -> int:
    """Prints what came of it; 1 when anything does not hold."""
    from dicom_assets.batch.books import Status, all_books
    from dicom_assets.batch.context import RunContext
    from dicom_assets.lake.query import connect

    folder = soak.folder
    with RunContext(settings_for(folder)) as work:
        books = all_books(work.lake)
        with connect(work.lake) as connection:
            ((rows, distinct),) = connection.execute(
                "SELECT count(*), count(DISTINCT SOPInstanceUID) FROM instance"
            ).fetchall()
            ((counted,),) = connection.execute("SELECT sum(instance_count)::BIGINT FROM study").fetchall()
        staged = len(work.lake.files.names("_staging"))
        locks = len(work.lake.files.names("_locks"))
        data = {name: len(work.lake.table(name).file_uris()) for name in ("flat_metadata", "instance", "study")}
    warm = [answer for answer in soak.answers if answer["number"] and not answer["failed"]]
    lasting = [answer for answer in warm if answer["worker"] == 0]
    # a process that is killed leaves the folder in which its forkserver listens, as `multiprocessing` makes it
    temporary = sorted(path.name for path in (folder / "tmp").iterdir() if not path.name.startswith("pymp-"))
    running = own_processes(folder)
    state = sum(path.stat().st_size for path in (folder / "dagster").rglob("*") if path.is_file())
    failed = sorted({step for answer in soak.answers for step in answer["failed"]})
    cpu, clock = _quarters(warm, "cpu"), _quarters(warm, "seconds")
    first, last = lasting[min(SETTLED, len(lasting) - 1)], lasting[-1]
    print(
        f"{soak.kills} kills, {soak.lost} in the middle of a batch; {len(soak.maintained)} runs of maintenance; "
        f"{len(failed)} steps failed {failed}"
    )
    for name, (start_, end) in (("processor seconds", cpu), ("seconds by the clock", clock)):
        print(f"{name} a batch: first quarter {start_:.2f}, last quarter {end:.2f}, ratio {end / start_:.2f}")
    for name in ("descriptors", "children", "threads", "memory"):
        print(f"{name} of the process that lasted {last['number'] + 1} batches: {first[name]:,} then {last[name]:,}")
    print(
        f"files of the newest versions: {data}; locks {locks}; Dagster's state {state / claimed / 1e3:.0f} kB a batch"
    )
    holds = {
        "every book closed": len(books) == claimed
        and all(one.status == Status.CLOSED and one.balance == 0 for one in books),
        "every instance once": (rows, distinct, counted) == (instances, instances, instances),
        "no run failed by itself": not failed,
        "maintenance succeeded": not any(soak.maintained),
        "nothing left in staging": staged == 0,
        "no locks piled up": locks <= len(TABLES),
        "no temporary files left": not temporary,
        "no processes left": not running,
        "no more open files": last["descriptors"] <= first["descriptors"] + 4,
        "no more children": last["children"] <= first["children"],
        "a batch costs at most 1.5 times as much at the end": cpu[1] <= 1.5 * cpu[0],
    }
    for name, held in holds.items():
        print(f"{'ok   ' if held else 'FAILS'} {name}")
    if judge is not None:
        command = [sys.executable, str(judge), "--landing", str(folder / "landing"), "--lake", str(folder / "lake")]
        judged = subprocess.run(command, capture_output=True, text=True, check=False)
        print(judged.stdout + judged.stderr, end="")
        holds["the judge agrees"] = judged.returncode == 0
    return 0 if all(holds.values()) else 1


if __name__ == "__main__":
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    main()
