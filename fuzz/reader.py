"""Fuzzes the header reader: no crash, no hang, equal with and without memory, and what tier 1 takes is pydicom's.

Each reference of a header leads to as many bytes as it says, and a frame is given or refused.

    python -m fuzz.reader [--seconds N] [--seed S]

Guided by coverage where atheris is installed, blind otherwise. What fails is kept in build/fuzz, and ends the process
with a status that is not 0.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from contextlib import suppress

from fuzz.running import instrumented, run

with instrumented(__name__):
    from dicom_assets.dicom.frames import FrameError, read_frame
    from dicom_assets.dicom.header import Header, Memo
    from dicom_assets.dicom.pixels import frame_count
    from dicom_assets.dicom.references import retrieve
    from dicom_assets.settings import ReadingLimits
from dicom_assets_tests.dicom.referee import DIFFERS, body_of, differences, outcome, references, row_of
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
        leads_somewhere(data, found)
        if found.tier == 1 and not found.media_directory and not DIFFERS & set(found.issues):
            assert not differences(data, found, in_front=True), "pydicom reads it differently"


def leads_somewhere(data: bytes, header: Header) -> None:
    """Follows every reference, and asks for the first frame and the one behind the last."""
    if header.media_directory:
        return
    body = body_of(data, _LIMITS)
    for uri in references(json.loads(header.json)):
        retrieve(body, uri)
    row = row_of(header)
    for number in (1, 2, (frame_count(row) or 1) + 1):
        with suppress(FrameError):
            read_frame(body, row, number)


def made(rng: random.Random) -> bytes:
    """A seed with faults."""
    return mutated(rng.choice(seeds()), rng)


if __name__ == "__main__":
    judge = Judge()
    run(__doc__ or "", judge, made, mutated, most=_MOST, seeds=seeds(_MOST), outcomes=judge.outcomes)
