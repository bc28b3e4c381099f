"""What is remembered between objects: bounded, and never wrong."""

import pytest

from dicom_assets.dicom import memo as memory
from dicom_assets.dicom.charset import DEFAULT
from dicom_assets.dicom.memo import Entry, Memo
from dicom_assets.dicom.vocabulary import Vocabulary
from dicom_assets_tests.dicom.raw import dicom, element
from dicom_assets_tests.dicom.referee import read


def entry(tag, depends=0):
    return (tag, b"raw%x" % tag, Entry(b'"%08X":{}' % tag, {hex(tag): 1}, depends, None))


def test_neighbours_that_stay_become_a_run():
    memo = Memo()
    context = memo.context(True, True, DEFAULT)
    for _ in range(2):
        memo.learn(context, [entry(1), entry(2), None, entry(4)])
    (run,) = context.runs[1]
    assert (run.raw, run.last, run.columns) == (b"raw1raw2", 2, {"0x1": 1, "0x2": 1})
    assert set(context.runs) == {1}


def test_what_changes_from_object_to_object_stands_in_no_run():
    memo = Memo()
    context = memo.context(True, True, DEFAULT)
    for number in range(4):
        changing = (2, b"number %d" % (number % 2), entry(2)[2])
        memo.learn(context, [entry(1), changing, entry(3), entry(4)])
    assert {tag: [run.raw for run in runs] for tag, runs in context.runs.items()} == {3: [b"raw3raw4"]}


@pytest.mark.parametrize(("creator_first", "expected"), [(True, b"raw1raw2"), (False, None)])
def test_a_run_holds_what_its_elements_depend_on(creator_first, expected):
    memo = Memo()
    context = memo.context(True, True, DEFAULT)
    trail = [entry(1), entry(2, depends=1)] if creator_first else [entry(2, depends=1), entry(3)]
    for _ in range(2):
        memo.learn(context, trail)
    assert [run.raw for runs in context.runs.values() for run in runs] == ([expected] if expected else [])


def test_runs_are_really_used(monkeypatch):
    memo = Memo()
    files = [dicom(element(0x00200013, "IS", str(number))) for number in range(10)]
    for data in files[:5]:
        read(data, memo)
    context = memo.context(True, True, DEFAULT)
    assert context.runs
    monkeypatch.setattr(context, "top", {})  # without single elements, only runs are left
    read(files[5], memo)
    assert len(context.top) <= 3


def test_memory_forgets_before_it_grows(monkeypatch):
    monkeypatch.setattr(memory, "_MAX_HELD", 20_000)
    memo = Memo()
    for number in range(300):
        read(dicom(element(0x00324000, "LT", f"comment {number} " * 5)), memo)
    assert len(memo.context(True, True, DEFAULT).top) < 100


def test_character_sets_without_end_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(memory, "_MAX_CONTEXTS", 8)
    memo = Memo()
    for number in range(100):
        memo.context(True, True, (f"codec {number}",))
    assert len(memo._contexts) <= 8


def test_tags_without_end_do_not_fill_the_vocabulary(monkeypatch):
    monkeypatch.setattr("dicom_assets.dicom.vocabulary._MOST", 100)
    vocabulary = Vocabulary(explicit=False, little=True)
    for number in range(1_000):
        assert vocabulary[number.to_bytes(4, "little")].tag == (number & 0xFFFF) << 16 | number >> 16
    assert len(vocabulary) <= 100
