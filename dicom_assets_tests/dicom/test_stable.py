"""The digest of what stays when an image is sent again: equal where that alone differs, and only there."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from dicom_assets.dicom.header import Header, Memo, read_header
from dicom_assets.dicom.stable import VOLATILE, stable_digest_of
from dicom_assets.settings import ReadingLimits
from dicom_assets.storage.byte_ranges import BytesSource
from dicom_assets_tests.support.dicoms import dicom, uid

TIMED = {"ContentTime": "101112", "Rows": 2, "Columns": 2, "BitsAllocated": 8, "SamplesPerPixel": 1,
         "PixelData": b"abcd"}  # fmt: skip


def read(data: bytes, memo: Memo | None = None) -> Header:
    return read_header(BytesSource(data), ReadingLimits(), memo)


def digest(**attributes: object) -> str | None:
    return read(dicom(1, 1, 1, **TIMED | attributes)).stable_digest


ONE = digest()

TEXTS = {"LO", "SH", "PN", "LT", "ST", "UT", "AE", "CS"}
NAMED = sorted({word for line in VOLATILE for word in line.keywords.split()})


@pytest.mark.parametrize("line", VOLATILE, ids=lambda line: line.reason)
def test_each_line_of_the_table_says_where_it_comes_from_and_is_left_out(line):
    from pydicom.datadict import dictionary_VR

    assert line.source.startswith("PS3.")
    said: dict[str, object] = {}
    for keyword in line.keywords.split():
        vr = dictionary_VR(keyword)
        if vr in TEXTS:
            said[keyword] = "X"
        elif vr == "UI" and keyword not in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            said[keyword] = uid(9)
        elif vr == "SQ":
            said[keyword] = [Dataset()]
        elif vr == "DA":
            said[keyword] = "20200101"
    assert digest(**said) == ONE


@pytest.mark.parametrize(
    "attributes",
    [
        {"InstanceNumber": 2}, {"ContentTime": "101113"}, {"SeriesDescription": "other"}, {"PixelData": b"abcdef"},
        {"ImagePositionPatient": [0, 0, 1]}, {"StudyDate": "20240201"}, {"Exposure": 3},
        {"ReferencedImageSequence": [Dataset()]},
    ],
    ids=lambda one: next(iter(one)),
)  # fmt: skip
def test_what_the_device_said_of_the_image_counts(attributes):
    assert digest(**attributes) != ONE


def test_an_object_that_does_not_say_which_image_it_is_has_none():
    assert read(dicom(1, 1, 1)).stable_digest is None
    assert read(dicom(1, 1, 1, StudyTime="1011")).stable_digest is not None
    assert read(dicom(1, 1, 1, InstanceNumber=None, StudyTime="1011")).stable_digest is None
    assert read(dicom(1, 1, 1, InstanceNumber=None, AcquisitionTime="1011")).stable_digest is not None


def private(depth: int, value: str) -> bytes:
    """An object with a private element in an item, or in the data set itself."""
    dataset = dcmread(io.BytesIO(dicom(1, 1, 1, **TIMED)))
    inner = dataset
    for _ in range(depth):
        item = Dataset()
        inner.ReferencedImageSequence = [item]
        item.ReferencedSOPClassUID = uid(7)
        inner = item
    inner.private_block(0x0011, "ACME", create=True).add_new(1, "LO", value)
    sink = io.BytesIO()
    dataset.save_as(sink)
    return sink.getvalue()


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_private_elements_are_left_out_at_every_depth(depth):
    assert read(private(depth, "a")).stable_digest == read(private(depth, "b")).stable_digest
    assert (read(private(depth, "a")).stable_digest == ONE) == (depth == 0)


def test_transfer_syntax_and_where_values_lie_are_no_matter():
    dataset = dcmread(io.BytesIO(dicom(1, 1, 1, **TIMED, PatientComments="x" * 300, ROIDescription="y" * 300)))
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.PatientComments = "x"
    sink = io.BytesIO()
    dataset.save_as(sink, implicit_vr=True, little_endian=True)
    assert read(sink.getvalue()).stable_digest == digest(ROIDescription="y" * 300)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.booleans())
def test_it_is_the_same_whatever_was_read_before_and_of_the_header_alone(numbers, with_items):
    memo = Memo()
    for number in numbers:
        item = Dataset()
        item.ReferencedSOPInstanceUID = uid(number)
        more = {"ReferencedImageSequence": [item]} if with_items else {}
        data = dicom(number, 1, number % 2, **TIMED | {"WindowCenter": "40"}, **more)
        found = read(data, memo)
        assert found.stable_digest == read(data).stable_digest == stable_digest_of(found.json)
