"""Mutated files: no crash, no hang, nothing but a header or a code; and what tier 1 takes is what pydicom says."""

import json
import random
import time

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_assets.dicom.header import Header, Memo
from dicom_assets.settings import ReadingLimits
from dicom_assets_tests.dicom.raw import dicom, element
from dicom_assets_tests.dicom.referee import DIFFERS, by_second_tier, differences, outcome
from fuzz import charset
from fuzz.mutations import mutated, seeds
from fuzz.reader import leads_somewhere
from fuzz.running import blindly

LIMITS = ReadingLimits(max_header_bytes=1 << 20, max_inflated_bytes=1 << 22)
MEMO = Memo()


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.deferred(lambda: st.sampled_from(range(len(seeds())))), st.integers(0, 2**32))
def test_mutated_files(seed, faults):
    data = mutated(seeds()[seed], random.Random(faults))
    started = time.monotonic()
    found = outcome(data, MEMO, LIMITS)
    assert time.monotonic() - started < 5
    assert found == outcome(data, None, LIMITS)
    if isinstance(found, Header) and not found.media_directory:
        leads_somewhere(data, found)
        if found.tier == 1 and not DIFFERS & set(found.issues):
            assert not differences(data, found, in_front=True)


def test_an_element_with_a_tag_above_pixel_data_that_are_not_there_is_no_difference():
    data = dicom(element(0x00281050, "DS", "40"), element(0xFFFFFFFF, "OW", bytes(100)))
    found = outcome(data)
    assert found.tier == 1
    assert "FFFFFFFF" in json.loads(found.json)
    assert not differences(data, found, in_front=True)
    assert not differences(data, found)


def test_character_sets_hold_for_a_moment_of_fuzzing():
    assert blindly(charset.judge, charset.made, 1.0, 20260301) == 0


def test_ascii_in_a_character_set_that_python_knows_and_that_is_none_of_texts_is_sound():
    charset.judge(b"UC\0rot13^\0 =")


def test_mutated_files_are_the_same_in_both_tiers(monkeypatch):
    rng = random.Random(20260105)
    compared = 0
    for _ in range(300):
        data = mutated(rng.choice(seeds()), rng)
        found = outcome(data, MEMO, LIMITS)
        if isinstance(found, Header) and found.tier == 1 and not found.media_directory:
            other = by_second_tier(data, monkeypatch, LIMITS)
            assert (found.json, found.columns, found.issues) == (other.json, other.columns, other.issues)
            compared += 1
    assert compared > 30
