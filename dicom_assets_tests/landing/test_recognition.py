"""What first bytes leave open: told by what is configured, and further into the object; nothing clinical is ignored."""

from __future__ import annotations

import struct
import zipfile
from io import BytesIO

import pytest

from dicom_assets.clinical.chunks import ClinicalUnreadable
from dicom_assets.clinical.records import read_records
from dicom_assets.landing.archives import members
from dicom_assets.landing.recognition import look_closer
from dicom_assets.landing.sniff import Form, Sniffed, kind_of
from dicom_assets.schema.codes import CODES, Kind, Outcome
from dicom_assets.settings import ArchiveLimits, ClinicalSettings, DatasetSettings, FhirSettings
from dicom_assets.storage.byte_ranges import BytesSource
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.landings import zipped
from dicom_assets_tests.support.workbooks import parts, workbook

TABLE = [["PatientID", "Dx"], ["P1", "a"]]
LABS = DatasetSettings(name="labs", files=("labs/**",), patient_id_column="Fallnummer")
CONFIGURED = ClinicalSettings(patient_id_columns=("Пациент",), datasets=(LABS,))


def look(data: bytes, name: str = "a", clinical: ClinicalSettings = ClinicalSettings()) -> Sniffed:  # noqa: B008
    found = kind_of(data[:4_096], len(data))
    return look_closer(found, BytesSource(data), (name,), clinical)


@pytest.mark.parametrize(
    "text",
    ["Fallnummer,x\n1,2\n", "a title\nx;Fallnummer\n2;1\n", "Fallnummer\n1\n", "sep=|\nFallnummer|x\n", "Fallnummer,x"],
)
def test_a_text_whose_header_names_a_configured_column_is_clinical(text: str) -> None:
    assert look(text.encode(), clinical=CONFIGURED).kind is Kind.CLINICAL
    assert look(text.encode("utf-16"), clinical=CONFIGURED).kind is Kind.CLINICAL


@pytest.mark.parametrize("encoding", ["utf-8", "cp1251", "koi8_r", "utf-16-be"])
def test_so_it_is_with_a_name_in_other_letters(encoding: str) -> None:
    data = "Выгрузка\nx;Пациент\n2;1\n".encode(encoding)
    assert look(data, clinical=CONFIGURED).kind is Kind.CLINICAL


def test_a_title_longer_than_the_first_look_hides_no_table() -> None:
    data = b"a title of a report\n" * 20 + b"x" * 5_000 + b"\nPatientID,Dx\nP1,a\n"
    assert look(data).kind is Kind.CLINICAL


@pytest.mark.parametrize(
    "data", [b"only prose here", b"\x89PNG\r\n\x1a\n\0\0", b'{"a": 1}', b"PK not quite", b"%PDF-1.4\n"]
)
def test_what_lies_where_a_data_set_has_its_files_is_never_ignored(data: bytes) -> None:
    assert CODES[look(data, "elsewhere/a", CONFIGURED).code or ""].outcome is Outcome.IGNORED
    found = look(data, "labs/a", CONFIGURED)
    assert found.kind is Kind.CLINICAL
    if found.code is not None:
        assert (found.code, found.detail) == (
            "CLINICAL_UNREADABLE",
            f"It lies where the files of a data set lie. {CODES['DOCUMENT'].meaning}",
        )
        return
    try:
        chunks = list(read_records(BytesSource(data), CONFIGURED, FhirSettings(), LABS))
    except ClinicalUnreadable as error:
        assert error.code == "CLINICAL_UNREADABLE"
    else:
        assert not any(len(chunk.records) for chunk in chunks)
        assert any(chunk.errors for chunk in chunks)


def test_dicom_and_archives_stay_what_they_are_where_a_data_set_has_its_files() -> None:
    assert look(dicom(), "labs/a", CONFIGURED).kind is Kind.DICOM
    assert look(zipped({"a.dcm": dicom()}), "labs/a.zip", CONFIGURED).form is Form.ZIP


def ordered(names: list[str], found: dict[str, bytes]) -> bytes:
    sink = BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name in names:
            archive.writestr(name, found[name])
    return sink.getvalue()


@pytest.mark.parametrize("last", ["[Content_Types].xml", "_rels/.rels", "xl/workbook.xml"])
def test_a_workbook_is_told_by_its_parts_in_any_order(last: str) -> None:
    found = parts(TABLE)
    names = [name for name in found if name != last] + [last]
    assert look(ordered(names, found)).form is Form.WORKBOOK
    assert look(ordered(names[::-1], found)).form is Form.WORKBOOK


def test_a_zip_of_dicom_stays_one_even_with_parts_of_a_workbook_beside() -> None:
    assert look(zipped({"xl/a.dcm": dicom(), "b": b"x"})).form is Form.ZIP
    assert look(zipped({**parts(TABLE), "images/1.dcm": dicom()})).form is Form.ZIP
    assert look(zipped({"[Content_Types].xml": b"<x/>", "a.dcm": dicom()})).form is Form.ZIP


def test_other_office_documents_are_called_what_they_are() -> None:
    kinds = "[Content_Types].xml"
    assert look(zipped({kinds: b"<x/>", "word/document.xml": b"<x/>"})).code == "DOCUMENT"
    assert look(zipped({kinds: b"<x/>", "xl/workbook.bin": b"x"})).code == "SPREADSHEET_UNSUPPORTED"
    for name, code in (("spreadsheet", "SPREADSHEET_UNSUPPORTED"), ("text", "DOCUMENT")):
        sink = BytesIO()
        with zipfile.ZipFile(sink, "w") as archive:
            archive.writestr("mimetype", f"application/vnd.oasis.opendocument.{name}")
        assert look(sink.getvalue()).code == code


def compound(*streams: str, sector: int = 0) -> bytes:
    """A compound file whose directory has these streams."""
    head = bytearray(512)
    head[:8] = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
    struct.pack_into("<H", head, 30, 9)
    struct.pack_into("<I", head, 48, sector)
    entries = b"".join(name.encode("utf-16-le").ljust(128, b"\0") for name in ("Root Entry", *streams))
    return bytes(head) + bytes(512 * sector) + entries


def test_compound_files_are_told_by_their_streams() -> None:
    assert look(compound("Workbook")).code == "SPREADSHEET_UNSUPPORTED"
    assert look(compound("x", "Book", sector=20)).code == "SPREADSHEET_UNSUPPORTED"
    assert look(compound("EncryptionInfo", "EncryptedPackage")).code == "SPREADSHEET_UNSUPPORTED"
    assert look(compound("WordDocument")).code == "DOCUMENT"
    assert look(compound()[:100]).code == "DOCUMENT"


@pytest.mark.parametrize("size", [10, 100, 600])
def test_a_workbook_that_is_cut_is_no_zip_that_opens(size: int) -> None:
    assert look(workbook(TABLE)[:size]).form is Form.ZIP


def test_members_are_looked_at_with_the_same_eyes() -> None:
    late = b'{"id":"b","data":"' + b"A" * 6_000 + b'","resourceType":"Binary"}'
    archive = zipped({
        "book.xlsx": workbook(TABLE), "late.json": late, "own.csv": b"a title\nFallnummer,x\n1,2\n",
        "note.txt": b"prose", "inner.zip": zipped({"book": workbook(TABLE), "own": b"sep=;\nFallnummer;x\n1;2\n"}),
    })  # fmt: skip

    def listed(path: str) -> dict[str, tuple[Kind, str | None]]:
        found = members(BytesSource(archive), ArchiveLimits(), CONFIGURED, path)
        return {one.name: (one.kind, one.code) for one in found}

    clinical = (Kind.CLINICAL, None)
    expected = {
        "book.xlsx": clinical, "late.json": clinical, "own.csv": clinical, "note.txt": (Kind.OTHER, "NOT_DICOM"),
        "inner.zip": (Kind.ARCHIVE, "ARCHIVE_EXPANDED"), "inner.zip!book": clinical, "inner.zip!own": clinical,
    }  # fmt: skip
    assert listed("a.zip") == expected
    assert listed("labs/a.zip") == {**expected, "note.txt": clinical}
