"""Fuzzes the header reader: no crash, no hang, equal with and without memory, and what tier 1 takes is pydicom's.

    python -m fuzz.reader [--seconds N] [--seed S] [--corpus DIR]

Guided by coverage where atheris is installed (`pip install atheris`), by blind mutation otherwise. What fails is
written to build/fuzz, under its digest, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

try:
    import atheris
except ImportError:
    atheris = None

with atheris.instrument_imports(include=["dicom_assets.dicom"]) if atheris else nullcontext():
    from dicom_assets.dicom.header import Header, Memo
from dicom_assets.settings import ReadingLimits
from dicom_assets_tests.dicom.referee import DIFFERS, differences, outcome
from fuzz.mutations import mutated, seeds

FAILURES = Path("build/fuzz")
_LIMITS = ReadingLimits(max_header_bytes=1 << 20, max_inflated_bytes=1 << 22)
_SLOW_SECONDS = 5.0


class Judge:
    """Judges one object after the other, with a memory that all of them share."""

    def __init__(self) -> None:
        """Nothing seen yet."""
        self.memo = Memo()
        self.outcomes: Counter[str] = Counter()

    def __call__(self, data: bytes) -> None:
        """Raises AssertionError, or whatever the reader should not have raised, and keeps the bytes."""
        try:
            self._judge(data)
        except BaseException:
            FAILURES.mkdir(parents=True, exist_ok=True)
            (FAILURES / hashlib.blake2b(data, digest_size=8).hexdigest()).write_bytes(data)
            raise

    def _judge(self, data: bytes) -> None:
        started = time.monotonic()
        found = outcome(data, self.memo, _LIMITS)
        assert time.monotonic() - started < _SLOW_SECONDS, "slow"
        assert found == outcome(data, None, _LIMITS), "memory changed what was read"
        if not isinstance(found, Header):
            self.outcomes[found] += 1
            return
        self.outcomes[found.fallback or f"tier {found.tier}"] += 1
        json.loads(found.json)
        if found.tier == 1 and not found.media_directory and not DIFFERS & set(found.issues):
            assert not differences(data, found), "pydicom reads it differently"


def blindly(seconds: float, seed: int) -> int:
    """Mutates seeds until time is up; how many objects failed."""
    judge, rng, files, failed = Judge(), random.Random(seed), seeds(), 0
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            judge(mutated(rng.choice(files), rng))
        except Exception as error:  # noqa: BLE001 - a failure is counted and kept, and the run goes on
            failed += 1
            print(f"FAILED: {type(error).__name__}", flush=True)
    print(f"{judge.outcomes.total()} objects, {failed} failed")
    for name, count in judge.outcomes.most_common():
        print(f"{count:8} {name}")
    return failed


def guided(seconds: float, seed: int, corpus: Path) -> None:
    """Lets atheris search for inputs that reach new code of the reader; ends the process."""
    corpus.mkdir(parents=True, exist_ok=True)
    for data in seeds():
        (corpus / hashlib.blake2b(data, digest_size=8).hexdigest()).write_bytes(data)
    judge = Judge()

    def mutate(data: bytes, most: int, number: int) -> bytes:
        return mutated(data, random.Random(number))[:most]

    arguments = [
        sys.argv[0],
        f"-max_total_time={int(seconds)}",
        f"-seed={seed}",
        "-max_len=65536",
        "-print_final_stats=1",
    ]
    atheris.Setup([*arguments, str(corpus)], judge, custom_mutator=mutate)
    atheris.Fuzz()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, default=Path("build/fuzz-corpus"))
    args = parser.parse_args()
    if atheris is None:
        sys.exit(1 if blindly(args.seconds, args.seed) else 0)
    guided(args.seconds, args.seed, args.corpus)


if __name__ == "__main__":
    main()
