"""Many batches in a row by several processes at once, with maintenance in between and kills at random.

    python -m bench.soak [--batches N] [--workers N] [--seconds-between-kills S] [--folder DIR] [--seed N]

Batches are small, so that what is tested is the beginning, publishing and closing of batches and not the reading of
files: each process takes whatever batch nobody holds and brings it through all steps, without Dagster. In the end every
book has to close, each instance that arrived stands in the lake once, nothing is left in staging, and the last batches
take as long as the first.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.scale import write_delivery
from dicom_assets.batch.books import Status, all_books
from dicom_assets.batch.checks import RULES, CheckContext
from dicom_assets.batch.clinical import publish_clinical
from dicom_assets.batch.engine import InlineEngine
from dicom_assets.batch.publish import publish_flat, publish_hierarchy, publish_rows
from dicom_assets.batch.staging import Part
from dicom_assets.batch.work import BatchBusy, BatchWork, Work
from dicom_assets.lake.hierarchy import REBUILDS
from dicom_assets.lake.maintenance import maintain
from dicom_assets.lake.query import connect
from dicom_assets.lake.registry import TABLES
from dicom_assets.landing.claims import claim_new
from dicom_assets.settings import Settings

FILES_A_BATCH = 40
_LATER = ("cleanup",)


def settings_for(folder: Path) -> Settings:
    """Settings of the soak's lake."""
    return Settings.model_validate(
        {
            "lake": str(folder / "lake"),
            "sources": [{"name": "landing", "root": str(folder / "landing")}],
            "claiming": {"batch_objects": FILES_A_BATCH, "batches_per_tick": 100},
        }
    )


def publish(batch: BatchWork) -> None:
    """One batch through the steps of the job; AssertionError when a blocking rule does not hold."""
    lake, staging = batch.lake, batch.staging
    batch.begin("soak")
    batch.judge("soak")
    publish_flat(lake, staging)
    publish_clinical(lake, staging)
    for name in REBUILDS:
        publish_hierarchy(lake, staging, name)
    publish_rows(lake, staging, Part.ERRORS)
    context = CheckContext(lake, staging)
    for rule in RULES:
        if rule.blocking and rule.table not in _LATER:
            result = rule.rule(context)
            assert result.passed, (rule.table, rule.name, result)
    batch.close("soak")


def work_on(folder: Path, seed: int) -> None:
    """A worker: takes batches that nobody holds until all are closed; prints the seconds of each."""
    chance = random.Random(seed)
    settings = settings_for(folder)
    while True:
        with Work(settings) as work:
            left = work.unclosed()
        if not left:
            return
        for name in chance.sample(left, min(4, len(left))):
            with Work(settings, shared_engine=InlineEngine()) as work:
                try:
                    batch = work.batch(name, wait_seconds=0)
                except BatchBusy:
                    continue
                started = time.perf_counter()
                publish(batch)
                descriptors = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0
                print(f"{name} {time.perf_counter() - started:.3f} {descriptors}", flush=True)
                break


def start(folder: Path, seed: int, log: Path) -> subprocess.Popen[bytes]:
    """Starts a worker whose lines go to a file."""
    command = [sys.executable, "-W", "ignore", "-m", "bench.soak", "--folder", str(folder), "--work", str(seed)]
    with log.open("ab") as sink:
        return subprocess.Popen(command, stdout=sink)


def prepare(folder: Path, batches: int, chance: random.Random) -> int:
    """Writes what arrives: studies of which each batch brings a part. How many files."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "landing").mkdir(parents=True)
    write_delivery(folder / "whole", 100_000, 1)
    files = sorted((folder / "whole").rglob("*.dcm"))[: batches * FILES_A_BATCH]
    chance.shuffle(files)
    for number, file in enumerate(files):
        target = folder / "landing" / f"{number // FILES_A_BATCH:05d}" / file.name
        target.parent.mkdir(exist_ok=True)
        file.rename(target)
    shutil.rmtree(folder / "whole")
    (folder / "landing" / "notes.txt").write_text(
        "No DICOM, so that there is an error to account for.", encoding="utf-8"
    )
    os.utime(folder / "landing" / "notes.txt", (0, 0))
    return len(files)


def main() -> None:
    """Runs the soak; exit 1 when anything does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--batches", type=int, default=125)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds-between-kills", type=float, default=8.0)
    parser.add_argument("--folder", type=Path, default=Path("build/soak"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=int)
    options = parser.parse_args()
    folder = options.folder.absolute()
    if options.work is not None:
        work_on(folder, options.work)
        return
    chance = random.Random(options.seed)
    files = prepare(folder, options.batches, chance)
    settings = settings_for(folder)
    with Work(settings) as work:
        while claim_new(work.stores()[0], work.log, settings.claiming).more:
            pass
        claimed = len(work.log.claims())
    log, started, kills, maintained = folder / "log.txt", time.monotonic(), 0, 0
    workers = [start(folder, number, log) for number in range(options.workers)]
    while any(worker.poll() is None for worker in workers):
        time.sleep(chance.uniform(0.2, 2 * options.seconds_between_kills))
        victim = chance.randrange(len(workers))
        if workers[victim].poll() is None and chance.random() < 0.7:
            workers[victim].send_signal(signal.SIGKILL)
            workers[victim].wait()
            kills += 1
            workers[victim] = start(folder, options.workers + kills, log)
        elif workers[victim].poll() is None:
            with Work(settings) as work:
                maintain(work.lake, chance.choice(list(TABLES)), retention_hours=1)
            maintained += 1
    for worker in workers:
        worker.wait()
    sys.exit(report(folder, files, claimed, kills, maintained, time.monotonic() - started))


def report(folder: Path, files: int, claimed: int, kills: int, maintained: int, seconds: float) -> int:
    """Prints what came of it; 1 when anything does not hold."""
    settings = settings_for(folder)
    with Work(settings) as work:
        books = all_books(work.lake)
        with connect(work.lake) as connection:
            (rows, distinct), = connection.execute(
                "SELECT count(*), count(DISTINCT SOPInstanceUID) FROM instance"
            ).fetchall()  # fmt: skip
            ((counted,),) = connection.execute("SELECT sum(instance_count)::BIGINT FROM study").fetchall()
        staged = len(work.lake.files.names("_staging"))
        data = {name: len(work.lake.table(name).file_uris()) for name in ("flat_metadata", "instance", "study")}
    lines = [line.split() for line in (folder / "log.txt").read_text(encoding="utf-8").splitlines()]
    taken = [float(line[1]) for line in lines]
    quarter = max(1, len(taken) // 4)
    first, last = statistics.median(taken[:quarter]), statistics.median(taken[-quarter:])
    holds = {
        "every book closed": len(books) == claimed
        and all(one.status == Status.CLOSED and one.balance == 0 for one in books),
        "every instance once": (rows, distinct, counted) == (files, files, files),
        "nothing left in staging": staged == 0,
        "no more open files": int(lines[-1][2]) <= int(lines[0][2]) + 4,
    }
    print(f"{claimed} batches, {files} files, {kills} kills, {maintained} runs of maintenance, {seconds:.0f} s")
    print(f"seconds a batch: first quarter {first:.2f}, last quarter {last:.2f}, ratio {last / first:.2f}")
    print(f"files of the newest versions: {data}; open files: {lines[0][2]} at first, {lines[-1][2]} at last")
    for name, held in holds.items():
        print(f"{'ok   ' if held else 'FAILS'} {name}")
    return 0 if all(holds.values()) else 1


if __name__ == "__main__":
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    main()
