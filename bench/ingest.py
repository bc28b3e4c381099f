"""The whole ingest, from a folder to closed books, against the obvious script on the same number of processes.

Belongs here: the baseline (pydicom, pandas, write_deltalake over a process pool), the split by step, peak memory.
Does not belong here: the corpus, the reader alone.

    python -m bench.ingest [--files N] [--landing DIR] [--repeat K] [--workers W] [--memory] [--json FILE]

Both sides run as commands of their own, one after the other and again, so that imports and starts count for both. A
landing folder is made once and stays; without one it is made for the run, among temporary files.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

import dicom_assets
from bench.corpus import generate

NAIVE = """
import sys, time, warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
import pandas as pd
import pydicom
from deltalake import write_deltalake
from dicom_assets.schema.attributes import ATTRIBUTES

KEYWORDS = [a.keyword for a in ATTRIBUTES]

def read(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        row = {k: None if (v := ds.get(k)) is None else str(v) for k in KEYWORDS}
        row["path"], row["header"] = str(path), ds.to_json()
    return row

if __name__ == "__main__":
    landing, lake, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
    started = time.monotonic()
    paths = sorted(p for p in Path(landing).rglob("*") if p.is_file())
    with ProcessPoolExecutor(workers) as pool:
        rows = list(pool.map(read, paths, chunksize=50))
    write_deltalake(lake, pd.DataFrame(rows).astype("string"), mode="append")
    print(time.monotonic() - started)
"""

INSIDE = """
import sys, time
import dicom_assets.defs.instance, dicom_assets.defs.runner, dicom_assets.cli.progress
from dicom_assets.cli.ingest import ingest_now
from dicom_assets.settings import load

settings = load(sys.argv[1], sys.argv[2])
started = time.monotonic()
assert ingest_now(settings).closed
print(time.monotonic() - started)
"""
"""The same as the command in a process that has imported everything, as it is in one that goes on running."""


@dataclass(frozen=True)
class Measurement:
    """What a command took.

    seconds: from start to end. inside: as it printed itself, 0 when it did not. peak: bytes of memory of it and its
    children at most, pages that several of them share counted once.
    """

    seconds: float
    inside: float
    peak: int


def proportional(process: psutil.Process) -> int:
    """Bytes of memory of a process, of pages that others share its part (Pss of Linux); resident ones elsewhere."""
    told = Path(f"/proc/{process.pid}/smaps_rollup")
    if not told.parent.parent.exists():
        return int(process.memory_info().rss)
    (line,) = (line for line in told.read_text(encoding="ascii").splitlines() if line.startswith("Pss:"))
    return int(line.split()[1]) * 1024


def timed(command: list[str], environment: dict[str, str], folder: Path) -> Measurement:
    """Runs a command. Its last line may say how long what it does has taken, without what it imports."""
    peak, ended = 0, threading.Event()
    started = time.monotonic()
    process = subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def watch() -> None:
        nonlocal peak
        root, resident = psutil.Process(process.pid), 0.0
        while not ended.wait(0.2):
            try:
                every = [root, *root.children(recursive=True)]
                held = sum(one.memory_info().rss for one in every)
                if held > 1.02 * resident:  # walking through all pages holds a process up
                    resident = held
                    peak = max(peak, sum(map(proportional, every)))
            except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                continue  # it ended while it was looked at

    watcher = threading.Thread(target=watch)
    watcher.start()
    printed, errors = process.communicate()
    seconds = time.monotonic() - started
    ended.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{command[0]} failed: {errors.decode()[-2000:]}")
    last = printed.decode().strip().rsplit("\n", 1)[-1]
    return Measurement(seconds, float(last) if last.replace(".", "", 1).isdigit() else 0.0, peak)


def ingest(landing: Path, work: Path, workers: int, *, inside: bool = False) -> tuple[Measurement, dict[str, float]]:
    """One `dicom-assets ingest` into a new lake, and the seconds of its steps.

    inside: by a process that imports everything before it begins.
    """
    for name in ("lake", "lake.dagster"):
        shutil.rmtree(work / name, ignore_errors=True)
    config = work / "dicom-assets.toml"
    config.write_text(f"[claiming]\nquiet_seconds = 0\n[reading]\nworkers = {workers}\n", encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if k != "DAGSTER_HOME"} | {"DICOM_ASSETS_CONFIG": str(config)}
    command = [sys.executable, "-c", "from dicom_assets.cli.main import main; main()", "ingest"]
    command += ["--landing", str(landing), "--lake", str(work / "lake")]
    if inside:
        command = [sys.executable, "-W", "ignore", "-c", INSIDE, str(landing), str(work / "lake")]
    return timed(command, environment, work), steps(work / "lake.dagster")  # Dagster's state is new too


def steps(home: Path) -> dict[str, float]:
    """Seconds by step of the runs in a Dagster home, longest first."""
    import dagster as dg

    os.environ["DAGSTER_HOME"] = str(home)
    taken: dict[str, float] = {}
    with dg.DagsterInstance.get() as instance:
        for run in instance.get_runs():
            for step in instance.get_run_step_stats(run.run_id):
                if step.start_time and step.end_time:
                    taken[step.step_key] = taken.get(step.step_key, 0.0) + step.end_time - step.start_time
    return dict(sorted(taken.items(), key=lambda item: -item[1]))


def naive(landing: Path, work: Path, workers: int) -> Measurement:
    """One run of the baseline."""
    shutil.rmtree(work / "naive", ignore_errors=True)
    script = work / "naive.py"
    script.write_text(NAIVE, encoding="utf-8")
    return timed([sys.executable, str(script), str(landing), str(work / "naive"), str(workers)], dict(os.environ), work)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=5_000)
    parser.add_argument("--landing", type=Path, help="folder of the files; made where it is not there")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--memory", action="store_true", help="also ten times the files, ours only, for peak memory")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    # As pip does with what it installs; a clone that may not write bytecode would be compiled at each start.
    compileall.compile_dir(Path(dicom_assets.__file__).parent, quiet=1)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        landing = (args.landing or work / "landing").absolute()
        if not landing.exists():
            generate(landing, args.files)
        ours, inside, theirs, split = [], [], [], {}
        for _ in range(args.repeat):
            taken, split = ingest(landing, work, args.workers)
            ours.append(taken)
            inside.append(ingest(landing, work, args.workers, inside=True)[0].inside)
            theirs.append(naive(landing, work, args.workers))
        report: dict[str, Any] = {
            "files": args.files,
            "workers": args.workers,
            "ours_seconds": statistics.median(one.seconds for one in ours),
            "naive_seconds": statistics.median(one.seconds for one in theirs),
            "ours_inside_seconds": statistics.median(inside),
            "naive_inside_seconds": statistics.median(one.inside for one in theirs),
            "peak_bytes": max(one.peak for one in ours),
            "steps_seconds": {name: round(seconds, 3) for name, seconds in split.items()},
        }
        report["ratio"] = report["naive_seconds"] / report["ours_seconds"]
        report["ratio_inside"] = report["naive_inside_seconds"] / report["ours_inside_seconds"]
        if args.memory:
            larger = work / "landing-10x"
            generate(larger, 10 * args.files)
            report["peak_bytes_10x"] = ingest(larger, work, args.workers)[0].peak
            report["memory_growth"] = report["peak_bytes_10x"] / report["peak_bytes"] - 1
    print(f"whole ingest, {args.files} mixed files, {args.workers} processes; commands, and without what they import")
    for name, kind in (("naive pydicom + pandas + write_deltalake", "naive"), ("dicom-assets ingest", "ours")):
        print(f"  {name:40} {report[f'{kind}_seconds']:8.1f} s {report[f'{kind}_inside_seconds']:8.1f} s")
    print(f"  {'times as fast':40} {report['ratio']:8.1f}   {report['ratio_inside']:8.1f}")
    print(f"  peak memory, all processes               {report['peak_bytes'] / 2**20:8.0f} MiB")
    if args.memory:
        print(f"  the same with {10 * args.files} files                {report['peak_bytes_10x'] / 2**20:8.0f} MiB"
              f"   {report['memory_growth']:+.0%}")  # fmt: skip
    made = report["steps_seconds"]
    assets = {name: seconds for name, seconds in made.items() if not name.endswith(("_checks", "_gate"))}
    checks = sum(made.values()) - sum(assets.values())
    print("  seconds by step: " + ", ".join(f"{name} {seconds:.2f}" for name, seconds in assets.items()))
    print(f"  seconds in checks: {checks:.2f}")
    if args.json:
        args.json.write_text(json.dumps(report, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
