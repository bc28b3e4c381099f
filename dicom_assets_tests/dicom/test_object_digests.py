"""Digests of objects that are read whole: of all bytes, and of pixel data as they are stored."""

from __future__ import annotations

import hashlib
import io
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit

from dicom_assets.dicom import object_digests
from dicom_assets.dicom.header import read_header
from dicom_assets.dicom.object_digests import ObjectDigests
from dicom_assets.settings import ReadingLimits
from dicom_assets.storage.byte_ranges import BytesSource
from dicom_assets_tests.support.dicoms import dicom

WHOLE = ReadingLimits(pixel_digest=True)


def read(data: bytes) -> ObjectDigests:
    found = read_header(BytesSource(data), WHOLE).digests
    assert found is not None
    return found


def blake(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def native(pixels: bytes, columns: int = 2, rows: int = 2, **more: object) -> bytes:
    return dicom(1, 1, 1, Rows=rows, Columns=columns, BitsAllocated=8, SamplesPerPixel=1, PixelData=pixels, **more)


def fragments(*parts: bytes, table: bytes = b"", end: bool = True) -> bytes:
    """An object with encapsulated pixel data of these fragments."""
    items = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(part)) + part for part in (table, *parts))
    data = dcmread(io.BytesIO(dicom(1, 1, 1, Rows=2, Columns=2, BitsAllocated=8, SamplesPerPixel=1)))
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    data.PixelData = encapsulate([b"\0\0"])
    data["PixelData"].VR = "OB"
    sink = io.BytesIO()
    data.save_as(sink)
    raw = sink.getvalue()
    return (
        raw[: raw.index(b"\xe0\x7f\x10\0OB")]
        + b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff"
        + items
        + (struct.pack("<HHI", 0xFFFE, 0xE0DD, 0) if end else b"")
    )


@pytest.fixture(autouse=True, params=[7, 1 << 20], ids=["blocks of 7 bytes", "one block"])
def _blocks(request, monkeypatch):
    monkeypatch.setattr(object_digests, "BLOCK", request.param)


def test_all_bytes_have_the_digest_that_sha256sum_prints():
    data = native(b"abcd")
    assert read(data).bytes_digest == hashlib.sha256(data).hexdigest()


def test_the_byte_that_makes_a_native_value_even_is_no_pixel():
    assert read(native(b"abcdef", columns=3)).pixel_digest == blake(b"abcdef")
    assert read(native(b"abc\0", columns=3, rows=1)).pixel_digest == blake(b"abc")
    assert read(native(b"abcdzz")).pixel_digest == blake(b"abcdzz")


def test_the_header_is_no_matter_for_the_pixels():
    assert read(native(b"abcd")).pixel_digest == read(native(b"abcd", PatientComments="x" * 999)).pixel_digest


@given(st.binary(min_size=2, max_size=60), st.lists(st.integers(1, 59), max_size=4), st.booleans())
def test_of_encapsulated_ones_the_content_counts_however_it_is_cut(stream, cuts, has_table):
    stream = stream.replace(b"\xff", b"\xfe") + b"\xff\xd9"  # one mark: where another one stood, zeros would be padding
    stream += b"\0" * (len(stream) % 2)
    edges = sorted({0, len(stream), *(cut // 2 * 2 for cut in cuts if cut // 2 * 2 < len(stream))})
    parts = [stream[a:b] for a, b in pairwise(edges)]
    data = fragments(*parts, table=struct.pack("<I", 0) if has_table else b"")
    assert read(data).pixel_digest == blake(stream.rstrip(b"\0"))


def test_zeros_behind_a_codestream_are_padding_and_others_are_not():
    whole = read(fragments(b"\xff\xd8ab\xff\xd9")).pixel_digest
    assert read(fragments(b"\xff\xd8ab\xff\xd9\0\0")).pixel_digest == whole
    assert read(fragments(b"\xff\xd8ab\0\0")).pixel_digest != read(fragments(b"\xff\xd8ab")).pixel_digest


@pytest.mark.parametrize(
    "data",
    [
        dicom(1, 1, 1), native(b"ab"), native(b"abcd")[:-2], fragments(b"\xff\xd8ab\xff\xd9", end=False)[:-2],
        fragments(), native(b""),
    ],
    ids=["no pixels", "too few", "cut off", "fragments cut off", "no fragment", "empty"],
)  # fmt: skip
def test_what_is_not_there_or_cut_off_has_none(data):
    assert read(data).pixel_digest is None
    assert read(data).bytes_digest == hashlib.sha256(data).hexdigest()


def test_of_a_deflated_data_set_the_inflated_pixels_count():
    data = dcmread(io.BytesIO(native(b"abcd")))
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    sink = io.BytesIO()
    data.save_as(sink)
    assert read(sink.getvalue()).pixel_digest == blake(b"abcd")


class _Counting(BytesSource):
    """Bytes that note how many were asked for at once."""

    most = 0

    def read(self, offset: int, length: int) -> bytes:
        data = super().read(offset, length)
        self.most = max(self.most, len(data))
        return data


def test_no_more_than_a_block_is_in_memory_and_nothing_is_read_unless_asked_for(monkeypatch):
    monkeypatch.setattr(object_digests, "BLOCK", 10_000)
    data = native(bytes(600_000), columns=2_000, rows=300)
    source = _Counting(data)
    read_header(source, ReadingLimits(pixel_digest=True, first_read_bytes=4_096))
    assert source.most == object_digests.BLOCK
    source = _Counting(data)
    assert read_header(source, ReadingLimits(first_read_bytes=4_096)).digests is None
    assert source.most <= 4_096
