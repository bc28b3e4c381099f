"""Fuzzes the header reader: no crash, no hang, equal with and without memory, and what tier 1 takes is pydicom's.

    python -m fuzz.reader [--seconds N] [--seed S]

Guided by coverage where atheris is installed, blind otherwise. What fails is kept in build/fuzz, and ends the process
with a status that is not 0.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter

from fuzz.running import instrumented, run

with instrumented(__name__):
    from dicom_assets.dicom.header import Header, Memo
    from dicom_assets.settings import ReadingLimits
from dicom_assets_tests.dicom.referee import DIFFERS, differences, outcome
from fuzz.mutations import mutated, seeds

_LIMITS = ReadingLimits(max_header_bytes=1 << 20, max_inflated_bytes=1 << 22)
_SLOW_SECONDS = 5.0
_MOST = 16_384  # bytes of an input of the guided search: most headers are shorter, and the more inputs the better


class Judge:
    """Judges one object after the other, with a memory that all of them share."""

    def __init__(self) -> None:
        """Nothing seen yet."""
        self.memo = Memo()
        self.outcomes: Counter[str] = Counter()

    def __call__(self, data: bytes) -> None:
        """Raises AssertionError, or whatever the reader should not have raised."""
        started = time.process_time()
        found = outcome(data, self.memo, _LIMITS)
        assert time.process_time() - started < _SLOW_SECONDS, "slow"
        assert found == outcome(data, None, _LIMITS), "memory changed what was read"
        if not isinstance(found, Header):
            self.outcomes[found] += 1
            return
        self.outcomes[found.fallback or f"tier {found.tier}"] += 1
        json.loads(found.json)
        if found.tier == 1 and not found.media_directory and not DIFFERS & set(found.issues):
            assert not differences(data, found), "pydicom reads it differently"


def made(rng: random.Random) -> bytes:
    """A seed with faults."""
    return mutated(rng.choice(seeds()), rng)


if __name__ == "__main__":
    judge = Judge()
    run(__doc__ or "", judge, made, mutated, most=_MOST, seeds=seeds(_MOST), outcomes=judge.outcomes)
