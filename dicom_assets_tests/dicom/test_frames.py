"""One frame is one ranged read: native, in single bits, encapsulated with a table, without one, with one that lies."""

import struct

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames

from dicom_assets.dicom.frames import FrameError, Lack, read_frame, walk_frames
from dicom_assets.dicom.header import Header
from dicom_assets.storage.byte_ranges import BytesSource
from dicom_assets_tests.dicom.raw import BIG, EXPLICIT, IMPLICIT, UNDEFINED, dicom, element, item
from dicom_assets_tests.dicom.referee import body_of, outcome, read, row_of
from dicom_assets_tests.dicom.samples import pydicom_files

JPEG = "1.2.840.10008.1.2.4.50"
END = b"\xfe\xff\xdd\xe0\0\0\0\0"


class Counted(BytesSource):
    """Bytes that count how often they are read from."""

    def __init__(self, data):
        super().__init__(data)
        self.reads = 0

    def read(self, offset, length):
        self.reads += 1
        return super().read(offset, length)


def image(frames, *, rows=2, columns=2, bits=16, syntax=EXPLICIT, pixels=b"", more=()):
    """An object with these pixel data."""
    options = {"explicit": syntax != IMPLICIT, "little": syntax != BIG}
    order = ">" if syntax == BIG else "<"
    numbers = {0x00280002: 1, 0x00280010: rows, 0x00280011: columns, 0x00280100: bits}
    heads = [element(tag, "US", struct.pack(order + "H", one), **options) for tag, one in numbers.items()]
    heads.append(element(0x00280008, "IS", str(frames), **options))
    return dicom(*heads, *more, pixels, syntax=syntax)


def encapsulated(frames, content, more=()):
    """An object with these items as its pixel data."""
    return image(frames, bits=8, syntax=JPEG, pixels=element(0x7FE00010, "OB", content, length=UNDEFINED), more=more)


def jpeg(number, size):
    """Something that ends as a codestream does."""
    return b"\xff\xd8" + bytes([number]) * size + b"\xff\xd9"


# Native


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
@pytest.mark.parametrize("bits", [1, 8, 16, 32])
def test_a_native_frame_is_its_slice_of_the_pixel_data_by_one_read(syntax, bits):
    rows, columns, frames = 3, 5, 7
    size = (rows * columns * bits * frames + 7) // 8
    values = np.random.default_rng(1).integers(0, 256, size + size % 2, dtype=np.uint8).tobytes()
    options = {"explicit": syntax != IMPLICIT, "little": syntax != BIG}
    pixels = element(0x7FE00010, "OB" if bits == 8 and syntax == EXPLICIT else "OW", values, **options)
    data = image(frames, rows=rows, columns=columns, bits=bits, syntax=syntax, pixels=pixels)
    header = read(data)
    assert (header.issues, header.pixels.frame_offsets) == ((), None)
    stream = np.unpackbits(np.frombuffer(values, np.uint8), bitorder="little")
    for number in range(1, frames + 1):
        wanted = stream[rows * columns * bits * (number - 1) :][: rows * columns * bits]
        source = Counted(data)
        assert read_frame(source, row_of(header), number) == np.packbits(wanted, bitorder="little").tobytes()
        assert source.reads == 1
    for number in (0, frames + 1):
        with pytest.raises(FrameError) as error:
            read_frame(BytesSource(data), row_of(header), number)
        assert error.value.lack is Lack.NO_SUCH_FRAME


def test_a_frame_behind_the_end_of_what_was_cut_off_is_refused_and_those_in_front_are_given():
    data = image(3, pixels=element(0x7FE00010, "OW", bytes(range(24))))[:-4]
    header = read(data)
    assert header.issues == ("TRUNCATED_PIXEL_DATA",)
    assert header.pixels.length == 20
    assert read_frame(BytesSource(data), row_of(header), 2) == bytes(range(8, 16))
    with pytest.raises(FrameError) as error:
        read_frame(BytesSource(data), row_of(header), 3)
    assert error.value.lack is Lack.CUT_OFF


def test_a_row_of_an_earlier_release_says_that_it_does_not_know_and_one_without_pixels_that_there_are_none():
    header = read(dicom())
    for row, lack in ((row_of(header), Lack.NO_PIXELS), (row_of(header) | {"header_form": None}, Lack.UNKNOWN)):
        with pytest.raises(FrameError) as error:
            read_frame(BytesSource(b""), row, 1)
        assert error.value.lack is lack


# Encapsulated


STREAMS = st.lists(
    st.binary(min_size=2, max_size=60).map(lambda raw: raw + b"\0" * (len(raw) % 2)), min_size=1, max_size=6
)


@settings(max_examples=60, deadline=None)
@given(STREAMS, st.integers(1, 3), st.booleans())
def test_encapsulated_frames_are_those_that_pydicom_gives(streams, fragments, table):
    fragments = min(fragments, *(len(stream) // 2 for stream in streams))  # of at least two bytes
    data = encapsulated(len(streams), encapsulate(streams, fragments_per_frame=fragments, has_bot=table) + END)
    ds = pydicom.dcmread(pydicom.filebase.DicomBytesIO(data))
    header = read(data)
    assert "OFFSET_TABLE_INVALID" not in header.issues
    assert header.pixels.length == len(ds.PixelData)
    row = row_of(header)
    known = bool(header.pixels.frame_offsets)
    assert known == (table or len(streams) == 1)
    if not known and fragments > 1:
        return  # nothing tells which fragments are which frame: these are no codestreams
    wanted = list(generate_frames(ds.PixelData, number_of_frames=len(streams)))
    for number, frame in enumerate(wanted, start=1):
        source = Counted(data)
        assert read_frame(source, row, number) == frame
        assert source.reads == 1 or not known


def test_the_extended_offset_table_tells_frames():
    streams = [jpeg(n, 3 + n) for n in range(5)]  # of odd length as well: padded in their items
    content, offsets, lengths = encapsulate_extended(streams)
    more = (element(0x7FE00001, "OV", offsets), element(0x7FE00002, "OV", lengths))
    data = encapsulated(5, content + END, more)
    header = read(data)
    assert header.issues == ()
    for number, stream in enumerate(streams, start=1):
        source = Counted(data)
        assert read_frame(source, row_of(header), number).rstrip(b"\0") == stream
        assert source.reads == 1


def test_without_a_table_frames_end_where_codestreams_do_and_what_was_found_can_be_kept():
    streams = [jpeg(n, 40) for n in range(3)]
    pieces = [part for s in streams for part in (s[:20], s[20:])]
    data = encapsulated(3, b"".join(map(item, (b"", *pieces))) + END)
    header = read(data)
    assert (header.issues, header.pixels.frame_offsets) == ((), ())
    frames = walk_frames(BytesSource(data), row_of(header))
    for number, stream in enumerate(streams, start=1):
        source = Counted(data)
        assert read_frame(source, row_of(header), number, frames) == stream
        assert source.reads == 1
        assert read_frame(BytesSource(data), row_of(header), number) == stream


def test_fragments_that_nothing_divides_are_no_frames():
    data = encapsulated(2, b"".join(map(item, (b"", b"ab", b"cd", b"ef"))) + END)
    with pytest.raises(FrameError) as error:
        read_frame(BytesSource(data), row_of(read(data)), 1)
    assert error.value.lack is Lack.UNDIVIDED


LIES = {
    "too few": [0, 52],
    "too many": [0, 52, 104, 156],
    "beyond the end": [0, 52, 100_000],
    "not at the first item": [8, 52, 104],
    "descending": [0, 104, 52],
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("extended", [False, True])
def test_an_offset_table_that_lies_is_told_and_frames_are_found_without_it(lie, extended):
    streams = [jpeg(n, 40) for n in range(3)]
    offsets = LIES[lie]
    table, more = b"", ()
    if extended:
        lengths = struct.pack(f"<{len(offsets)}Q", *[44] * len(offsets))
        places = struct.pack(f"<{len(offsets)}Q", *offsets)
        more = (element(0x7FE00001, "OV", places), element(0x7FE00002, "OV", lengths))
    else:
        table = struct.pack(f"<{len(offsets)}I", *offsets)
    data = encapsulated(3, b"".join(map(item, (table, *streams))) + END, more)
    header = read(data)
    assert header.issues == ("OFFSET_TABLE_INVALID",)
    assert header.pixels.frame_offsets == ()
    assert [read_frame(BytesSource(data), row_of(header), number) for number in (1, 2, 3)] == streams


def test_an_offset_table_whose_places_are_no_items_is_passed_over_when_a_frame_is_read():
    streams = [jpeg(n, 40) for n in range(3)]
    table = struct.pack("<3I", 0, 50, 104)
    data = encapsulated(3, b"".join(map(item, (table, *streams))) + END)
    header = read(data)
    assert [read_frame(BytesSource(data), row_of(header), number) for number in (1, 2, 3)] == streams


@pytest.mark.parametrize("cut", [4, 8, 30, 60])
def test_of_encapsulated_pixel_data_that_are_cut_off_the_whole_frames_are_given(cut):
    streams = [jpeg(n, 40) for n in range(3)]
    data = encapsulated(3, b"".join(map(item, (struct.pack("<3I", 0, 52, 104), *streams))) + END)[:-cut]
    header = read(data)
    assert header.issues == ("TRUNCATED_PIXEL_DATA",)
    assert read_frame(BytesSource(data), row_of(header), 1) == streams[0]
    if cut > 8:
        with pytest.raises(FrameError) as error:
            read_frame(BytesSource(data), row_of(header), 3)
        assert error.value.lack is Lack.CUT_OFF


def test_the_frames_of_pydicoms_files_are_pydicoms():
    compared = 0
    for path in pydicom_files():
        data = path.read_bytes()
        header = outcome(data)
        if not isinstance(header, Header) or header.pixels is None or "TRUNCATED_PIXEL_DATA" in header.issues:
            continue
        ds = pydicom.dcmread(path, force=True)
        if "PixelData" not in ds:
            continue
        if not str(frames := ds.get("NumberOfFrames") or 1).isdigit():
            continue
        frames = int(frames)
        if ds["PixelData"].is_undefined_length:
            wanted = list(generate_frames(ds.PixelData, number_of_frames=frames))
        elif (bits := ds.Rows * ds.Columns * ds.SamplesPerPixel * ds.BitsAllocated) % 8 == 0:
            if "422" in ds.PhotometricInterpretation:
                bits = bits * 2 // 3
            wanted = [ds.PixelData[n * bits // 8 :][: bits // 8] for n in range(frames)]
        else:
            continue
        body = body_of(data)
        numbers = range(1, frames + 1) if frames < 20 else (1, 2, frames)
        got = [read_frame(body, row_of(header), number) for number in numbers]
        assert got == [wanted[number - 1] for number in numbers], path.name
        compared += 1
    assert compared > 90
