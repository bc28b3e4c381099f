"""Runs a judge over made input, until time is up: guided by coverage where atheris is there, blindly otherwise.

Belongs here: the command line of a fuzzer, keeping what fails. Does not belong here: what is judged.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

try:
    import atheris
except ImportError:
    atheris = None

FAILURES = Path("build/fuzz")

Judge = Callable[[bytes], None]
Make = Callable[[random.Random], bytes]
Mutate = Callable[[bytes, random.Random], bytes]


def kept(judge: Judge) -> Judge:
    """The judge, which keeps what it fails at."""

    def judging(data: bytes) -> None:
        try:
            judge(data)
        except BaseException:
            FAILURES.mkdir(parents=True, exist_ok=True)
            (FAILURES / hashlib.blake2b(data, digest_size=8).hexdigest()).write_bytes(data)
            raise

    return judging


def run(description: str, judge: Judge, made: Make, mutated: Mutate) -> None:
    """The command of a fuzzer: --seconds, --seed, --blind; ends the process, with 1 when something failed."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--blind", action="store_true", help="without coverage, also where atheris is there")
    args = parser.parse_args()
    if atheris is None or args.blind:
        sys.exit(1 if _blindly(kept(judge), made, args.seconds, args.seed) else 0)

    def mutate(data: bytes, most: int, number: int) -> bytes:
        rng = random.Random(number)
        return (made(rng) if rng.random() < 0.2 or not data else mutated(data, rng))[:most]

    options = [f"-max_total_time={int(args.seconds)}", f"-seed={args.seed}", "-max_len=8192", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options], kept(judge), custom_mutator=mutate)
    atheris.Fuzz()


def _blindly(judge: Judge, made: Make, seconds: float, seed: int) -> int:
    """Judges made input until time is up; how many failed."""
    rng, judged, failed = random.Random(seed), 0, 0
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        judged += 1
        try:
            judge(made(rng))
        except Exception as error:  # noqa: BLE001 - a failure is counted and kept, and the run goes on
            failed += 1
            print(f"FAILED: {type(error).__name__}: {error}", flush=True)
    print(f"{judged} inputs, {failed} failed")
    return failed
