"""An object as a file: reads like any file, asks its source for no more than it may, and remembers why it failed."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_assets.storage.byte_file import ByteFile, OutOfBounds
from dicom_assets.storage.byte_ranges import BytesSource, FileSource

STEPS = st.lists(
    st.tuples(st.sampled_from(["read", "readinto", "set", "cur", "end"]), st.integers(-5, 40)), max_size=20
)


@given(st.binary(max_size=60), st.integers(0, 30), STEPS)
def test_it_reads_and_seeks_as_a_file_in_memory_does(data, block, steps):
    ours, theirs = ByteFile(BytesSource(data), block=block), io.BytesIO(data)
    for what, number in steps:
        if what == "read":
            assert ours.read(number) == theirs.read(number)
        elif what == "readinto":
            mine, other = bytearray(abs(number)), bytearray(abs(number))
            assert (ours.readinto(mine), mine) == (theirs.readinto(other), other)
        else:
            whence = {"set": io.SEEK_SET, "cur": io.SEEK_CUR, "end": io.SEEK_END}[what]
            place = abs(number) if what == "set" else number
            assert ours.seek(place, whence) == theirs.seek(place, whence)
        assert ours.tell() == theirs.tell()


class Counting(BytesSource):
    """Bytes that note which ranges are asked for."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.asked: list[tuple[int, int]] = []

    def read(self, offset: int, length: int) -> bytes:
        self.asked.append((offset, length))
        return super().read(offset, length)


def test_small_reads_side_by_side_become_one_range():
    source = Counting(bytes(1_000))
    file = ByteFile(source, block=400)
    assert sum(len(file.read(10)) for _ in range(40)) == 400
    assert source.asked == [(0, 400)]


def test_no_more_is_asked_of_the_source_than_it_may_give():
    source = Counting(bytes(1_000))
    file = ByteFile(source, most=500)
    assert len(file.read(500)) == 500
    with pytest.raises(OutOfBounds):
        file.read(1)
    assert source.asked == [(0, 500)]


def test_the_error_of_the_storage_is_kept_for_who_reads_through_a_library():
    class Failing(BytesSource):
        def read(self, offset: int, length: int) -> bytes:
            raise OSError("gone")

    file = ByteFile(Failing(b"x"))
    with pytest.raises(OSError, match="gone"):
        file.read()
    assert str(file.failure) == "gone"


def test_an_open_file_is_a_source():
    source = FileSource(io.BytesIO(b"0123456789"))
    assert (source.size, source.read(8, 5), source.read(2, 3)) == (10, b"89", b"234")
