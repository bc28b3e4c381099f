"""What counts as DICOM from its first bytes."""

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_assets.dicom.signature import begins_at, looks_like_dicom
from dicom_assets.landing.sniff import DICOM, kind_of
from dicom_assets_tests.dicom import raw
from dicom_assets_tests.dicom.referee import outcome, read
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


@pytest.mark.parametrize("before", [b"", bytes(16), bytes(64), bytes(256), b"x" + bytes(128), bytes(1_000)])
@pytest.mark.parametrize("syntax", [raw.EXPLICIT, raw.IMPLICIT, raw.BIG])
def test_a_prefix_at_another_place_counts_by_what_stands_behind_it(before, syntax):
    data = before + raw.dicom(syntax=syntax)[128:]
    assert begins_at(data[:4096]) == len(before) + 4
    assert kind_of(data[:4096], len(data)) == DICOM
    header = read(data)
    assert header.issues == ("META_MISSING",)
    assert header.columns["TransferSyntaxUID"] == syntax


@pytest.mark.parametrize("syntax", [raw.EXPLICIT, raw.BIG])
def test_a_data_set_may_begin_with_any_element_whose_vr_is_right(syntax):
    little = syntax != raw.BIG
    patient = raw.element(0x00100010, "PN", "A^B", little=little) + raw.element(0x00100020, "LO", "P1", little=little)
    assert looks_like_dicom(patient)
    assert not looks_like_dicom(patient.replace(b"PN", b"US", 1))


def test_a_command_set_in_front_counts():
    length = raw.element(0x00000000, "UL", b"\4\0\0\0", explicit=False)
    command = length + raw.element(0x00000100, "US", b"\1\0", explicit=False)
    assert looks_like_dicom(command + raw.data_set(explicit=False))


def test_four_letters_in_a_text_a_table_or_an_archive_make_no_dicom_of_it():
    table = b"PatientID,Dx\n" + (b"P1,a\n" * 40)[:115] + b"DICM,b\n"
    assert table[128:132] == b"DICM"
    assert kind_of(table, len(table)).kind == "clinical"
    prose = (b"this is a text about medical images and their files. " * 3)[:128] + b"DICM is a prefix\n"
    assert kind_of(prose, len(prose)).code == "NOT_DICOM"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.dcm", raw.dicom())
        archive.writestr("b.dcm", raw.dicom())
    assert kind_of(buffer.getvalue()[:4096], len(buffer.getvalue())).kind == "archive"


def test_damaged_dicom_behind_a_preamble_is_refused_aloud():
    for preamble in (bytes(128), b"II*\0" + bytes(124)):
        data = preamble + b"DICM" + b"\xff" * 400
        assert kind_of(data, len(data)) == DICOM
        assert outcome(data) == "UNPARSEABLE"


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
