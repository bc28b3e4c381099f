"""File Meta Information that repeats from object to object is read once, and never read wrongly."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_assets.dicom import prefaces
from dicom_assets.dicom.memo import Memo
from dicom_assets.dicom.prefaces import preface_of
from dicom_assets.dicom.rejections import NotDicom, Unreadable
from dicom_assets.dicom.syntax import read_preface
from dicom_assets_tests.dicom.raw import EXPLICIT, IMPLICIT, data_set, dicom, element, meta
from dicom_assets_tests.dicom.referee import read


def begin(*, instance="1.2.3.1\0", syntax=EXPLICIT, behind=b""):
    """A file with more elements of group 0002 behind those that the group's length counts."""
    return meta(syntax, instance) + behind + data_set(explicit=syntax == EXPLICIT)


def said(data, memo):
    try:
        return preface_of(data, len(data), memo)
    except (NotDicom, Unreadable, IndexError) as error:
        return repr(error)


def after(data):
    """What is remembered behind two of these."""
    memo = Memo()
    said(data, memo)
    said(data, memo)
    return memo


VENDOR = element(0x00020100, "UI", "1.2.9\0") + element(0x00020102, "OB", bytes(range(200)))
STARTS = [
    begin(),
    begin(instance="1.2.3.2\0"),
    begin(instance="1.2.3.234\0"),
    begin(instance=""),
    begin(syntax=IMPLICIT),
    begin(syntax=IMPLICIT, instance="1.2.3.4\0"),
    begin(behind=VENDOR),
    begin(behind=VENDOR, instance="1.2.4.1\0"),
    begin(behind=element(0x00020003, "UI", "1.2.3.9\0")),
    begin(behind=element(0x00020100, "ZZ", "1234")),
    begin(behind=element(0x00020100, "ZZ", "1234"), instance="1.2.3.5\0"),
    begin()[:-6],
    begin()[:140],
    b"\1" * 128 + begin()[128:],
    begin()[132:],
    data_set(),
]


@pytest.mark.parametrize("first", STARTS, ids=map(str, range(len(STARTS))))
def test_what_was_read_before_changes_nothing(first):
    for second in STARTS:
        memo = after(first)
        assert said(second, memo) == said(second, Memo())


@given(st.sampled_from(STARTS), st.sampled_from(STARTS), st.integers(0, 2**32), st.integers(0, 3))
def test_bytes_that_differ_anywhere_are_seen(first, second, seed, changes):
    rng, changed = random.Random(seed), bytearray(second)
    for _ in range(changes):
        changed[rng.randrange(len(changed))] = rng.choice((0, 2, 0x55, 0xFF))
    memo = after(first)
    assert said(bytes(changed), memo) == said(bytes(changed), Memo())


def test_an_element_of_the_group_behind_its_remembered_end_is_read():
    memo = after(begin())
    preface, _ = preface_of(begin(behind=VENDOR), 10_000, memo)
    assert [tag for tag, _, _ in preface.meta][-2:] == [0x00020100, 0x00020102]


def test_of_a_series_the_group_is_walked_over_twice(monkeypatch):
    walked = []
    monkeypatch.setattr(prefaces, "read_preface", lambda *args: walked.append(1) or read_preface(*args))
    memo = Memo()
    found = [preface_of(begin(instance=f"1.2.3.{number}"), 10_000, memo) for number in range(1_000, 1_020)]
    assert len(walked) == 2
    assert [preface.text(prefaces.MEDIA_SOP_INSTANCE) for preface, _ in found] == [
        f"1.2.3.{number}" for number in range(1_000, 1_020)
    ]
    assert b'"Value":["1.2.3.1019"]' in found[-1][1]


def test_another_instance_in_front_of_the_same_data_set_is_flagged():
    one = dicom()
    other = one.replace(meta(), meta(instance="1.2.3.2\0"))
    assert one != other
    memo = after(one)
    assert "SOP_INSTANCE_UID_MISMATCH" not in read(one, memo).issues
    assert "SOP_INSTANCE_UID_MISMATCH" in read(other, memo).issues


def test_where_a_window_ends_right_behind_the_group_more_is_asked_for():
    whole = begin()
    memo = after(whole)
    preface, _ = preface_of(whole, len(whole), memo)
    with pytest.raises(IndexError):
        preface_of(whole[: preface.start + 4], len(whole), memo)
