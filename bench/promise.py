"""What it costs that the promise holds: an ingest as it is, against one that syncs nothing and reads nothing again.

Belongs here: the share of durability, of the sample and of everything else that the checks read again from the source,
and the share of the checks in the time of all steps. Does not belong here: how quick an ingest is (`ingest`).

    python -m bench.promise [--files N] [--landing DIR] [--repeat K] [--json FILE]

Both are the same command on the same files in turn, so that a machine that gets slower slows both; processor time of
the command and its children counts, and the time by the clock beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.corpus import generate
from bench.ingest import steps

WITHOUT = """
[storage]
survive_power_cuts = false

[checks]
sample_objects = 0
refused_objects = 0
archives = 0
clinical_files = 0
"""


@dataclass(frozen=True)
class Cost:
    """Of one command: seconds by the clock, and of processors."""

    seconds: float
    cpu: float


def ingest(landing: Path, work: Path, config: str) -> Cost:
    """One ingest into a fresh lake with these settings."""
    for left in ("lake", "lake.dagster"):
        shutil.rmtree(work / left, ignore_errors=True)
    (work / "dicom-assets.toml").write_text(
        f"[claiming]\nquiet_seconds = 0\n[reading]\nworkers = 2\n{config}", encoding="utf-8"
    )
    environment = {**os.environ, "DICOM_ASSETS_CONFIG": str(work / "dicom-assets.toml")}
    environment.pop("DAGSTER_HOME", None)
    command = [str(Path(sys.executable).parent / "dicom-assets"), "ingest"]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    arguments = ["--landing", str(landing), "--lake", str(work / "lake")]
    subprocess.run([*command, *arguments], cwd=work, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(time.monotonic() - started, cpu)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=5_000)
    parser.add_argument("--landing", type=Path, help="a folder that bench.corpus has filled; otherwise made")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        landing = args.landing.absolute() if args.landing else work / "landing"
        if not args.landing:
            generate(landing, args.files)
        pairs = [(ingest(landing, work, WITHOUT), ingest(landing, work, "")) for _ in range(args.repeat)]
        files = sum(1 for path in landing.rglob("*") if path.is_file())
        split = steps(work / "lake.dagster")
    cpu = statistics.median(with_.cpu / without.cpu for without, with_ in pairs)
    clock = statistics.median(with_.seconds / without.seconds for without, with_ in pairs)
    checks = sum(seconds for name, seconds in split.items() if name.endswith(("_checks", "_gate")))
    report = {
        "files": files,
        "seconds": statistics.median(one.seconds for _, one in pairs),
        "cpu_seconds": statistics.median(one.cpu for _, one in pairs),
        "cpu_ratio": cpu,
        "clock_ratio": clock,
        "checks_share_of_steps": checks / sum(split.values()),
    }
    print(f"durability and what is read again, {files} mixed files, {args.repeat} pairs")
    print(f"  with both: {report['seconds']:.1f} s by the clock, {report['cpu_seconds']:.1f} s of processors")
    print(f"  times what it takes without: {clock:.2f} by the clock, {cpu:.2f} of processors")
    print(f"  all checks: {report['checks_share_of_steps']:.0%} of the time of all steps")
    if args.json:
        args.json.write_text(json.dumps(report, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
