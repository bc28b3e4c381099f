"""What is remembered between objects: bounded, and never wrong."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_assets.dicom import memo as memory
from dicom_assets.dicom.charset import DEFAULT
from dicom_assets.dicom.header import read_header
from dicom_assets.dicom.memo import Entry, Memo
from dicom_assets.dicom.vocabulary import Vocabulary
from dicom_assets_tests.dicom.raw import dicom, element
from dicom_assets_tests.dicom.referee import LIMITS, read


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


class Counted:
    """Bytes that know how many of them were read, and how often."""

    def __init__(self, data):
        self.data, self.size, self.reads = data, len(data), []

    def read(self, offset, length):
        found = self.data[offset : offset + length]
        self.reads.append(len(found))
        return found


def object_of(comments, blob=0, tail=0, text="x"):
    """An object with a header of as many kilobytes, a bulk value, an element behind it, and pixel data."""
    elements = [element(0x00091000 + n, "LT", text * 1000) for n in range(comments)]
    elements += [element(0x00291010, "OB", bytes(blob)), element(0x00324000, "LT", "behind")] if blob else []
    return dicom(*elements, element(0x7FE00010, "OW", bytes(tail)))


def test_of_small_headers_in_a_row_little_is_read():
    memo = Memo()
    for _ in range(30):
        source = Counted(object_of(2, blob=300_000, tail=200_000))
        read_header(source, LIMITS, memo)
    assert sum(source.reads) < 20_000
    assert len(source.reads) <= 3


def test_a_header_longer_than_those_before_is_read_whole_and_the_next_one_at_once():
    memo = Memo()
    for _ in range(30):
        read(object_of(1, tail=200_000), memo)
    large = object_of(40, tail=200_000)
    assert read(large, memo) == read(large)
    source = Counted(large)
    read_header(source, LIMITS, memo)
    assert len(source.reads) == 1


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 90), st.sampled_from([0, 65, 9_000, 90_000]), st.sampled_from("xy")), max_size=9)
)
def test_how_much_is_read_at_once_changes_nothing(shapes):
    memo = Memo()
    for comments, blob, text in shapes:
        data = object_of(comments, blob, 100_000, text)
        assert read(data, memo) == read(data)
