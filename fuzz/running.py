"""Runs a judge over made input, until time is up: guided by coverage where atheris is there, blindly otherwise.

Belongs here: the command line of a fuzzer, keeping what fails. Does not belong here: what is judged.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection
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
            (FAILURES / _digest(data)).write_bytes(data)
            raise

    return judging


def run(
    description: str,
    judge: Judge,
    made: Make,
    mutated: Mutate,
    *,
    most: int = 8_192,
    seeds: Collection[bytes] = (),
    outcomes: Counter[str] | None = None,
) -> None:
    """The command of a fuzzer: --seconds, --seed, --blind; ends the process, with 1 when something failed.

    most: bytes of an input. seeds: where the guided search begins. outcomes: what the judge counts, printed in the end.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--blind", action="store_true", help="without coverage, also where atheris is there")
    args = parser.parse_args()
    if atheris is None or args.blind:
        sys.exit(1 if blindly(kept(judge), made, args.seconds, args.seed, outcomes) else 0)

    def mutate(data: bytes, longest: int, number: int) -> bytes:
        rng = random.Random(number)
        return (made(rng) if rng.random() < 0.2 or not data else mutated(data, rng))[:longest]

    options = [f"-max_total_time={int(args.seconds)}", f"-seed={args.seed}", f"-max_len={most}", "-print_final_stats=1"]
    if seeds:
        corpus = FAILURES.with_name("fuzz-seeds") / Path(sys.argv[0]).stem
        corpus.mkdir(parents=True, exist_ok=True)
        for data in seeds:
            (corpus / _digest(data)).write_bytes(data)
        options.append(str(corpus))
    atheris.Setup([sys.argv[0], *options], kept(judge), custom_mutator=mutate)
    atheris.Fuzz()


def blindly(judge: Judge, made: Make, seconds: float, seed: int, outcomes: Counter[str] | None = None) -> int:
    """Judges made input until time is up; how many failed."""
    rng, judged, failed = random.Random(seed), 0, 0
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        judged += 1
        try:
            judge(made(rng))
        except Exception as error:  # noqa: BLE001 - a failure is counted and kept, and the run goes on
            failed += 1
            print(f"FAILED: {type(error).__name__} {error if isinstance(error, AssertionError) else ''}", flush=True)
    print(f"{judged} inputs, {failed} failed")
    for name, count in (outcomes or Counter()).most_common():
        print(f"{count:8} {name}")
    return failed


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()
