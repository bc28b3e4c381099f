"""What conflicts, duplicates and geometry cost a batch, beside everything else that it costs, in lakes of some sizes.

    python -m bench.curation [--sizes N …] [--folder DIR] [--rounds N] [--each | --command] [--profile FILE]
                             [--json FILE]

Belongs here: batches of 5,000 files of two kinds through every step and rule of a run, without Dagster, read by two
processes: `new` are CT images of studies that the lake does not have, each with a conflict, `known` are 40 new studies
and 10 that the lake holds, all of whose 1,000 objects come with another header. Does not belong here: the lakes
(`scale_lake`), the whole of an ingest (`scale`).

Each round takes two batches of a kind, in turn which comes first: one with all that belongs to `conflict`, `duplicate`
and `series_geometry`, and one without: without their steps, rules and indexes, and without merging their tables.
Processor time is that of this process and of those that read for it (`used_seconds`). `--each` lists what each step and
each rule takes, in this process, with and without them; `of the other steps` is what the three take of what all others
do, in the same batch, which a busy machine tells best. Reading makes the digest of what stays of a header, which is for
`duplicate` alone, in both: what it takes is measured by itself, and counted as if the batches without the three did
without it. A lake is worked on by a copy, and the first round is not counted.

`--command` takes each batch by `dicom-assets ingest` in a process of its own, from its start to its end: what a user
waits for, with Dagster, and all that has to be imported. A share of that is smaller: say both.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pyarrow.parquet as pq

from bench.corpus import files_of
from bench.curation_less import OWN, used_seconds, without_curation
from bench.scale import lake_folder, write_delivery
from bench.scale_lake import PER_BATCH, SOURCE, make
from dicom_assets.batch.checks.contract import judge
from dicom_assets.batch.checks.rules import ALL_RULES, judged
from dicom_assets.batch.context import OpenBatch, RunContext
from dicom_assets.batch.steps import Run, each_table
from dicom_assets.dicom.memo import Memo
from dicom_assets.dicom.stable import elements, stable_digest
from dicom_assets.landing.claims import claim_new
from dicom_assets.settings import Settings

SIZES = (10_000, 1_000_000)
KINDS = ("new", "known")
Spent = defaultdict[str, float]
"""Seconds of processor time by step, and by table and rule."""


def write_batch(kind: str, folder: Path, size: int, number: int) -> None:
    """Writes the files of one batch."""
    if kind == "known":
        write_delivery(folder, size, number)
        return
    for place, (series, file) in enumerate(files_of("ct explicit", PER_BATCH, first_series=number * 60)):
        target = folder / str(series.number)
        target.mkdir(parents=True, exist_ok=True)
        with (target / f"{place:05d}.dcm").open("wb") as out:
            out.write(file.content)
            out.truncate(len(file.content) + file.hole)


def come_to_rest(folder: Path) -> None:
    """Makes files a minute older: the command leaves younger ones to a batch of their own."""
    then = time.time() - 60
    for file in folder.rglob("*.dcm"):
        os.utime(file, (then, then))


def take(batch: OpenBatch, spent: Spent, *, whole: bool = True) -> None:
    """Takes a batch through its steps and all rules; spent: seconds of processor time by step and rule."""

    def timed(name: str, began: float) -> float:
        now = time.process_time()
        spent[name] += now - began
        return now

    began = time.process_time()
    for name, make_table in each_table():
        if not whole and name in OWN:
            continue
        with batch.lake.look_once():
            make_table(batch, Run("bench"))
        began = timed(name, began)
        context = judged(batch)
        for rule in ALL_RULES:
            if rule.table == name:
                result = judge(context, rule.rule)
                assert not (rule.blocking and result.stops), f"{rule.table}.{rule.name} does not hold"
                began = timed(f"{rule.table}.{rule.name}", began)


def ingest(lake: Path, landing: Path, spent: Spent, *, whole: bool, profile: cProfile.Profile | None) -> float:
    """Claims a folder and takes its batch through all; seconds of processor time."""
    sources, claiming = [{"name": SOURCE, "root": str(landing)}], {"quiet_seconds": 0}
    settings = Settings.model_validate({"lake": str(lake), "sources": sources, "claiming": claiming})
    with ExitStack() as stack:
        if not whole:
            stack.enter_context(without_curation())
        before = used_seconds()
        if profile is not None:
            profile.enable()
        with RunContext(settings) as work:
            claims = [one for store in work.stores() for one in claim_new(store, work.log, settings.claiming).claims]
            (claim,) = claims
            take(work.batch(claim.batch_id), spent, whole=whole)
        if profile is not None:
            profile.disable()
    return used_seconds() - before


def run_command(lake: Path, landing: Path, *, whole: bool) -> float:
    """Takes a folder by the command; seconds of processor time."""
    way = "with" if whole else "without"
    told = ["ingest", "--landing", str(landing), "--lake", str(lake)]
    command = [sys.executable, "-W", "ignore", "-m", "bench.curation_less", way, *told]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return float(done.stdout.splitlines()[-1])


def digest_seconds(lake: Path) -> float:
    """Processor time of the digests of what stays of the headers of a batch (`stable_digest`)."""
    file = next((lake / "flat_metadata").glob("*.parquet"))
    headers = pq.read_table(file, columns=["header"])["header"].slice(0, PER_BATCH).to_pylist()
    parts, memo = [list(elements(header.encode()[1:-1])) for header in headers], Memo()
    began = time.process_time()
    for part in parts:
        stable_digest(part, memo)
    return (time.process_time() - began) * PER_BATCH / len(headers)


def measure(
    lake: Path, size: int, kind: str, rounds: int, profile: cProfile.Profile | None, *, command: bool
) -> tuple[dict[bool, list[float]], dict[bool, list[Spent]]]:
    """Seconds of batches with and without the three, and what each step took in these."""
    found: dict[bool, list[float]] = {True: [], False: []}
    steps: dict[bool, list[Spent]] = {True: [], False: []}
    number = int(time.time()) % 100_000 * 4
    for turn in range(rounds + 1):
        for whole in (True, False) if turn % 2 else (False, True):
            number += 1
            landing = lake.parent / "landing"
            shutil.rmtree(landing, ignore_errors=True)
            write_batch(kind, landing, size, number)
            come_to_rest(landing)
            spent: Spent = defaultdict(float)
            digests = 0.0 if whole else digest_seconds(lake)
            own = profile if whole and turn else None
            if command:
                seconds = run_command(lake, landing, whole=whole)
            else:
                seconds = ingest(lake, landing, spent, whole=whole, profile=own)
            seconds -= digests
            shutil.rmtree(landing, ignore_errors=True)
            print(f"{size} {kind} {'with' if whole else 'without'} {seconds:.2f}", file=sys.stderr, flush=True)
            if turn:
                found[whole].append(seconds)
                steps[whole].append(spent)
    return found, steps


def report(kind: str, size: int, whole: Sequence[float], bare: Sequence[float], steps: Sequence[Spent]) -> str:
    """A line of the table that is printed."""
    shares = [one / other - 1 for one, other in zip(whole, bare, strict=True)]
    told = (
        f"| {kind} | {size:,} | {statistics.median(whole):.2f} | {statistics.median(bare):.2f} "
        f"| {statistics.median(shares):.0%} ({min(shares):.0%} to {max(shares):.0%})"
    )
    if not all(steps):  # the command does not tell
        return told + " |" * (2 + len(OWN))
    own = {
        name: statistics.median(sum(v for k, v in one.items() if k.split(".")[0] == name) for one in steps)
        for name in OWN
    }
    listed = " | ".join(f"{own[name]:.2f}" for name in OWN)
    parts = [sum(v for k, v in one.items() if k.split(".")[0] in OWN) / sum(one.values()) for one in steps]
    beside = statistics.median(part / (1 - part) for part in parts)
    return f"{told} | {beside:.0%} | {listed} |"


def main() -> None:
    """Makes the lakes that are missing, measures, prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--kinds", choices=KINDS, nargs="+", default=list(KINDS))
    parser.add_argument("--folder", type=Path, default=Path("build/scale"))
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--each", action="store_true")
    parser.add_argument("--command", action="store_true")
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    profile = cProfile.Profile(time.process_time) if options.profile else None
    lines, raw = [], {}
    for size in options.sizes:
        whole_lake = lake_folder(options.folder, size)
        if not whole_lake.exists():
            make(str(whole_lake.absolute()), size // PER_BATCH * PER_BATCH)
        for kind in options.kinds:
            work = options.folder / "curation"
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(whole_lake, work / "lake")
            found, steps = measure(
                (work / "lake").absolute(), size, kind, options.rounds, profile, command=options.command
            )
            shutil.rmtree(work)
            lines.append(report(kind, size, found[True], found[False], steps[True]))
            raw[f"{kind} {size}"] = {"with": found[True], "without": found[False], "steps": steps[True]}
            if options.each:
                for name in steps[True][0]:
                    both = (statistics.median(one[name] for one in steps[whole]) for whole in (True, False))
                    print("{:8.3f} {:8.3f} {}".format(*both, name))
    print("| batch | instances | with, s | without, s | more | of the other steps | " + " | ".join(OWN) + " |")
    print("|---" * (6 + len(OWN)) + "|")
    print("\n".join(lines))
    if profile is not None:
        profile.dump_stats(options.profile)
    if options.json:
        options.json.write_text(json.dumps(raw, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
