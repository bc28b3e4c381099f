"""Mutated files: no crash, no hang, nothing but a header or a code; and what tier 1 takes is what pydicom says."""

import json
import random
import time

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_assets.dicom.header import Header, Memo
from dicom_assets.settings import ReadingLimits
from dicom_assets_tests.dicom.referee import DIFFERS, by_pydicom_tier, differences, outcome
from dicom_assets_tests.dicom.samples import generated, pydicom_files

LIMITS = ReadingLimits(max_header_bytes=1 << 20, max_inflated_bytes=1 << 22)
SEEDS = [data for path in pydicom_files() if len(data := path.read_bytes()) < 60_000]
SEEDS += [data[:40_000] for kind, data in generated(1) if kind not in ("rtstruct", "xa 50 MB", "us multi-frame")]
MARKS = [
    b"\xff" * 4,
    b"\xfe\xff\x00\xe0",
    b"\xfe\xff\x0d\xe0",
    b"\xfe\xff\xdd\xe0",
    b"UN\0\0",
    b"SQ\0\0",
    b"\\",
    b"\x1b$B",
]
MEMO = Memo()


def mutated(data, rng):
    """`data` with one to six small faults among its first bytes, where the header is."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        at = rng.randrange(min(len(found), 6_000) or 1)
        match rng.randrange(6):
            case 0:
                found[at : at + 1] = rng.randbytes(1)
            case 1:
                del found[at : at + rng.choice((1, 2, 4, 8))]
            case 2:
                found[at:at] = rng.randbytes(rng.choice((1, 2, 8)))
            case 3:
                found[at:] = b""
            case 4:
                mark = rng.choice(MARKS)
                found[at : at + len(mark)] = mark
            case _:
                other = rng.randrange(min(len(found), 6_000) or 1)
                found[at:at] = found[other : other + rng.choice((8, 40))]
    return bytes(found)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(range(len(SEEDS))), st.integers(0, 2**32))
def test_mutated_files(seed, faults):
    data = mutated(SEEDS[seed], random.Random(faults))
    started = time.monotonic()
    found = outcome(data, MEMO, LIMITS)
    assert time.monotonic() - started < 5
    assert found == outcome(data, None, LIMITS)
    if isinstance(found, Header) and not found.media_directory:
        json.loads(found.json)
        if found.tier == 1 and not DIFFERS & set(found.issues):
            assert not differences(data, found)


def test_mutated_files_are_the_same_in_both_tiers(monkeypatch):
    rng = random.Random(20260105)
    compared = 0
    for _ in range(300):
        data = mutated(rng.choice(SEEDS), rng)
        found = outcome(data, MEMO, LIMITS)
        if isinstance(found, Header) and found.tier == 1 and not found.media_directory:
            other = by_pydicom_tier(data, monkeypatch, LIMITS)
            assert (found.json, found.columns, found.issues) == (other.json, other.columns, other.issues)
            compared += 1
    assert compared > 30
