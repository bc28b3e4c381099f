"""What counts as DICOM from its first bytes."""

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_assets.dicom.sniff import looks_like_dicom
from dicom_assets_tests.dicom import raw
from dicom_assets_tests.dicom.samples import pydicom_files


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", "b" * 100)
    return buffer.getvalue()


@pytest.mark.parametrize("syntax", [raw.EXPLICIT, raw.IMPLICIT, raw.BIG])
def test_a_data_set_without_preamble_counts_in_every_encoding(syntax):
    assert looks_like_dicom(raw.data_set(explicit=syntax != raw.IMPLICIT, little=syntax != raw.BIG))


def test_file_meta_information_without_preamble_counts():
    assert looks_like_dicom(raw.dicom()[132:])


def test_the_preamble_alone_counts():
    assert looks_like_dicom(bytes(128) + b"DICM")


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"DICM",
        b"PatientID,Name\n1,A\n",
        b"this is a text file, named as if it were DICOM\n" * 20,
        zipped(),
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"\x08\x00" * 2048,
        bytes(4096),
        b"\xff\xd8\xff\xe0" + bytes(100),
        b'{"resourceType": "Patient"}\n',
    ],
)
def test_other_files_do_not_count(head):
    assert not looks_like_dicom(head)


@given(st.text(min_size=1))
def test_text_never_counts(text):
    assert not looks_like_dicom(text.encode())


def test_every_part_10_file_of_pydicom_counts():
    heads = {path: path.read_bytes()[:4096] for path in pydicom_files()}
    with_prefix = {path.name for path, head in heads.items() if head[128:132] == b"DICM"}
    counted = {path.name for path, head in heads.items() if looks_like_dicom(head)}
    assert with_prefix <= counted
    assert counted - with_prefix == {"ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm", "rtstruct.dcm"}
