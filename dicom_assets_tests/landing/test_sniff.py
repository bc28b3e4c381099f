"""What an object is, told from its first bytes."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from dicom_assets.landing.sniff import Form, is_system_file, kind_of
from dicom_assets.schema.codes import CODES, Kind, Outcome
from dicom_assets_tests.support.dicoms import dicom


def form(data: bytes, head: int = 4_096) -> Form:
    return kind_of(data[:head], len(data)).form


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", b"x")
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return buffer.getvalue()


def parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"PatientID": ["1"]}), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["CT_small.dcm", "no_meta_group_length.dcm", "rtplan.dcm", "DICOMDIR"])
def test_dicom_whatever_its_name(name: str) -> None:
    path = get_testdata_file(name, download=False)
    assert path is not None
    assert kind_of(Path(str(path)).read_bytes()[:4_096], 99_999).kind is Kind.DICOM


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"II*\0", b"\x1f\x8b\x08\0", b"PAR1"])
def test_dicom_even_when_its_preamble_makes_it_something_else_besides(start: bytes) -> None:
    assert form(start.ljust(128, b"\0") + dicom()[128:]) is Form.DICOM


def test_four_letters_at_their_place_make_no_dicom() -> None:
    assert form(b"PK\x03\x04" + b"\0" * 124 + b"DICM") is Form.ZIP


@pytest.mark.parametrize("data", [zipped(), b"PK\x05\x06" + b"\0" * 18, zipped()[:20]], ids=["whole", "empty", "cut"])
def test_zip_archives_whole_empty_or_cut(data: bytes) -> None:
    assert kind_of(data, len(data)).kind is Kind.ARCHIVE
    assert form(data) is Form.ZIP


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(tarred()),
        tarred(),
        b"7z\xbc\xaf\x27\x1c\0\4",
        b"Rar!\x1a\x07\x00",
        b"Rar!\x1a\x07\x01\x00",
        b"MSCF\0\0\0\0",
    ],
    ids=["tar in gzip", "tar", "7z", "rar4", "rar5", "cab"],  # of some, bytes tell the time
)
def test_other_archives_are_known_and_not_read(data: bytes) -> None:
    assert kind_of(data, len(data)).code == "CONTAINER_UNSUPPORTED"


@pytest.mark.parametrize(
    "data",
    [gzip.compress(b"x"), b"\xfd7zXZ\x00\x00", b"BZh91AY&SY", b"\x28\xb5\x2f\xfd\x04"],
    ids=["gzip", "xz", "bzip2", "zstd"],
)
def test_compressed_files_are_called_what_they_are(data: bytes) -> None:
    assert kind_of(data, len(data)).code == "COMPRESSED_FILE_UNSUPPORTED"


@pytest.mark.parametrize(
    "data",
    [
        b"MSH|^~\\&|LAB|H|||20240305||ORU^R01|1|P|2.5\rPID|1||P1\r",
        b"\x0bMSH|^~\\&|LAB\r",
        b"FHS|^~\\&|LAB\rBHS|^~\\&|LAB\r",
        b'<?xml version="1.0"?><Bundle xmlns="http://hl7.org/fhir"><id value="1"/></Bundle>',
        b'<ClinicalDocument xmlns="urn:hl7-org:v3"></ClinicalDocument>',
    ],
)
def test_hl7_in_other_forms_is_clinical_and_not_read(data: bytes) -> None:
    found = kind_of(data, len(data))
    assert (found.kind, found.code) == (Kind.CLINICAL, "HL7_UNSUPPORTED")


@pytest.mark.parametrize("data", [b"%PDF-1.4\n1,2\n3,4\n", b"\n\n%PDF-1.7\n", b"{\\rtf1 a, b}", b"%!PS-Adobe-3.0\n"])
def test_documents_are_called_documents(data: bytes) -> None:
    found = kind_of(data, len(data))
    assert (found.kind, found.code) == (Kind.OTHER, "DOCUMENT")


@pytest.mark.parametrize("header", [b"\0" * 344 + b"n+1\0", b"\x1c\x02\0\0n+2\0\r\n\x1a\n" + b"\0" * 400])
def test_an_image_in_gzip_is_no_archive(header: bytes) -> None:
    data = gzip.compress(header + bytes(100_000))
    assert kind_of(data[:4_096], len(data)).code == "NOT_DICOM"


def test_parquet_is_clinical() -> None:
    assert kind_of(parquet(), len(parquet())) == kind_of(parquet()[:4], 5_000)
    assert kind_of(parquet(), len(parquet())).kind is Kind.CLINICAL


def test_an_object_without_bytes_is_empty() -> None:
    assert kind_of(b"", 0).code == "EMPTY_FILE"


@pytest.mark.parametrize(
    "data",
    [
        b"PatientID,Age\n0001,17\n",
        b"\xef\xbb\xbfPatientID;Alter\r\n0001;17\r\n",
        "PatientID\tAge\n0001\t17\n".encode("utf-16"),
        "PatientID,Größe\n0001,17\n".encode("cp1252"),
        b"MRN|Sex|Note\n1|F|fine, thanks\n2|M|\n",
        b'"MRN","Note"\n"1","two\nlines, and commas"\n',
        b",PatientID,Age\n0,0001,17\n1,0002,18\n",
        b"PatientID,Age\n0001,17\n0002\n0003,1,2\n0004,5\n0005,5\n0006,5\n0007,5\n0008,5\n",
        b"PatientID,Date,Value\n1,2020-01-01,5.3\n\n\n2,2020-01-02,5.4",
        b"Dx,PatientID,Text\n1,2," + b"long text " * 2_000,
        b"Name,MRN\nDoe, 1\nRoe, 2\n",
        b"PatientID,Age\n",
        b"PatientID\n0001\n0002\n",
    ],
)
def test_text_tables_are_clinical(data: bytes) -> None:
    assert kind_of(data[:4_096], len(data)).kind is Kind.CLINICAL


def test_a_header_wider_than_the_first_bytes_is_one() -> None:
    data = b",".join(b"column_%d" % i for i in range(2_000)) + b"\n" + b"1," * 1_999 + b"1\n"
    assert form(data) is Form.DELIMITED


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "Dear Sir,\nthank you, and goodbye, for now.\nYours,\nX",
        "The first line has one comma, as lines do.\nThe second line has one, too.\nAnd so on, and so on.\n",
        "Subject Name:  X\nStudy ID:  1\n  Series:mr_0001, Slices:3, Organized:2018\n  Series:mr_2, Slices:3, O:2\n",
        "Image Type: ORIGINAL\\PRIMARY\nStudy Date: 20180918\nStudy Time: 114023\n",
        "one column\n1\n2\n",
        '{\n  "a": 1,\n  "b": 2,\n  "c": 3\n}\n',
        "<html><body>\na, b\nc, d\n</body></html>",
        "import os, sys\n\n\ndef f(a, b):\n    x = 1\n    return a, b\n",
        "2020-01-01 10:00:00,123 INFO started\n2020-01-01 10:00:01,456 INFO done\n",
        "Milk, two\nBread, one\nEggs, six\nFlour\nSugar, some\nSalt, little\nPepper, no\nTea\nOil, some\n",
        "| a | b |\n|---|---|\n| 1 | 2 |\n",
        "0 1000 1000\n0 0.5 0.5\n",
    ],
)
def test_other_text_is_not(text: str) -> None:
    found = kind_of(text.encode(), len(text.encode()))
    assert (found.kind, found.code) == (Kind.OTHER, "NOT_DICOM")


def test_bytes_with_commas_are_no_table() -> None:
    assert form(b"a,b\n1,\x00\x01\n") is Form.UNKNOWN


@given(st.binary(max_size=600), st.integers(0, 10_000))
def test_any_bytes_are_something_with_a_known_code(head: bytes, more: int) -> None:
    found = kind_of(head, len(head) + more)
    assert found.code is None or CODES[found.code].outcome in (Outcome.IGNORED, Outcome.QUARANTINED)
    assert (found.kind is Kind.OTHER) <= (found.code is not None)


@pytest.mark.parametrize("path", ["__MACOSX/a", "a/.DS_Store", "Thumbs.db", "healthCheck/x", ".git/config", "a/.x/b"])
def test_files_of_a_system(path: str) -> None:
    assert is_system_file(path)


@pytest.mark.parametrize("path", ["a/b.dcm", "DS_Store", "thumbs.db", "a.b/c", "./a", "healthChecks/a"])
def test_files_of_users(path: str) -> None:
    assert not is_system_file(path)


@pytest.mark.parametrize(
    "text",
    [
        '{"resourceType":"Patient","id":"1","active":true}\n{"resourceType":"Patient","id":"2","active":true}\n',
        '[\n {\n  "id": "1",\n  "resourceType": "Patient"\n }\n]',
        '\ufeff{"entry":[{"fullUrl":"urn:uuid:1","resource":{"resourceType":"Patient"}}],"resourceType":"Bundle"}',
    ],
)
def test_json_that_names_a_resource_type_is_fhir(text: str):
    data = text.encode()
    assert kind_of(data, len(data)).form == Form.FHIR
