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
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path

FAILURES = Path("build/fuzz")
CORPORA = Path("build/fuzz-corpora")
"""By fuzzer the inputs that reached something new; the next run begins with them."""
_HANGS_AFTER = 60  # seconds
_MOST_MEMORY = 2_048  # MiB
_EVERY_WAY = (0.15, 0.35)
"""Shares of guided inputs that are made afresh, and up to there: that are changed by libFuzzer, which knows what bytes
were compared with. All others are mutated by the fuzzer's own hand."""

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


def instrumented(module: str, without: Collection[str] = ()) -> AbstractContextManager[object]:
    """Where a fuzzer imports the code whose branches guide the search, and all that is imported late otherwise.

    module: the name of the fuzzer's module; nothing is instrumented unless it is the command that runs. without:
    modules whose branches are many and say little.
    """
    if module != "__main__" or not _is_guided(sys.argv):
        return nullcontext()
    import atheris

    found: AbstractContextManager[object] = atheris.instrument_imports(include=["dicom_assets"], exclude=list(without))
    return found


def _is_guided(arguments: Collection[str]) -> bool:
    return find_spec("atheris") is not None and not {"--blind", "-h", "--help"} & set(arguments)


def run(
    description: str,
    judge: Judge,
    made: Make,
    mutated: Mutate,
    *,
    seeds: Collection[bytes],
    most: int = 8_192,
    outcomes: Counter[str] | None = None,
) -> None:
    """The command of a fuzzer: --seconds, --seed, --blind; ends the process, with 1 or more when something failed.

    seeds: where the guided search begins. most: bytes of an input. outcomes: what the judge counts, printed behind a
    blind search.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--blind", action="store_true", help="without coverage, also where atheris is there")
    args = parser.parse_args()
    if not _is_guided(sys.argv):
        sys.exit(1 if blindly(kept(judge), made, args.seconds, args.seed, outcomes) else 0)
    options = [f"-max_total_time={int(args.seconds)}", f"-seed={args.seed}", f"-max_len={most}"]
    _guided(judge, made, mutated, _corpus(seeds), options)


def _corpus(seeds: Collection[bytes]) -> Path:
    """The folder with the seeds, and with what former runs of this fuzzer added to them."""
    corpus = CORPORA / Path(sys.argv[0]).stem
    corpus.mkdir(parents=True, exist_ok=True)
    for data in seeds:
        (corpus / _digest(data)).write_bytes(data)
    return corpus


def _guided(judge: Judge, made: Make, mutated: Mutate, corpus: Path, options: list[str]) -> None:
    """Searches by coverage; ends the process at the first failure, whose input is kept as crash-, timeout- or oom-."""
    import atheris

    afresh, by_libfuzzer = _EVERY_WAY

    def mutate(data: bytes, longest: int, number: int) -> bytes:
        rng = random.Random(number)
        way = rng.random()
        if way < afresh or not data:
            return made(rng)[:longest]
        if way < by_libfuzzer:
            changed: bytes = atheris.Mutate(data, longest)
            return changed
        return mutated(data, rng)[:longest]

    FAILURES.mkdir(parents=True, exist_ok=True)
    options = [
        *options,
        f"-artifact_prefix={FAILURES}/",
        f"-timeout={_HANGS_AFTER}",
        f"-report_slow_units={_HANGS_AFTER}",  # of the wall's clock: on a busy machine these are no findings
        f"-rss_limit_mb={_MOST_MEMORY}",
        "-print_final_stats=1",
        str(corpus),
    ]
    atheris.Setup([sys.argv[0], *options], judge, custom_mutator=mutate)
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
