"""What an object is, told from its first bytes, never from its name.

Belongs here: kinds and the reason code that a kind settles at once; names that mark files of a system. Does not
belong here: reading (`dicom`, `clinical`), opening archives (`archives`).
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from enum import StrEnum

from dicom_assets.clinical.dialect import looks_like_table
from dicom_assets.clinical.framing import looks_like_fhir
from dicom_assets.dicom.signature import begins_at, looks_like_dicom
from dicom_assets.landing.change_windows import looks_like_change_page
from dicom_assets.schema.codes import Kind
from dicom_assets.settings import ClinicalSettings


class Form(StrEnum):
    """The form of the bytes."""

    DICOM = "dicom"
    ZIP = "zip"
    PACKED = "packed"
    CHANGES = "changes"
    PARQUET = "parquet"
    WORKBOOK = "workbook"
    COMPOUND = "compound"
    MESSAGE = "message"
    DOCUMENT = "document"
    DELIMITED = "delimited"
    FHIR = "fhir"
    EMPTY = "empty"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Sniffed:
    """What an object is. code: its reason code where that is settled without reading on; detail: more than it says."""

    kind: Kind
    form: Form
    code: str | None = None
    detail: str | None = None


DICOM = Sniffed(Kind.DICOM, Form.DICOM)
ZIP = Sniffed(Kind.ARCHIVE, Form.ZIP)
PACKED = Sniffed(Kind.ARCHIVE, Form.PACKED, "CONTAINER_UNSUPPORTED")
COMPRESSED = Sniffed(Kind.ARCHIVE, Form.PACKED, "COMPRESSED_FILE_UNSUPPORTED")
CHANGES = Sniffed(Kind.ARCHIVE, Form.CHANGES)
PARQUET = Sniffed(Kind.CLINICAL, Form.PARQUET)
DELIMITED = Sniffed(Kind.CLINICAL, Form.DELIMITED)
FHIR = Sniffed(Kind.CLINICAL, Form.FHIR)
COMPOUND = Sniffed(Kind.OTHER, Form.COMPOUND, "DOCUMENT")
SPREADSHEET = Sniffed(Kind.CLINICAL, Form.COMPOUND, "SPREADSHEET_UNSUPPORTED")
MESSAGE = Sniffed(Kind.CLINICAL, Form.MESSAGE, "HL7_UNSUPPORTED")
DOCUMENT = Sniffed(Kind.OTHER, Form.DOCUMENT, "DOCUMENT")
EMPTY = Sniffed(Kind.OTHER, Form.EMPTY, "EMPTY_FILE")
UNKNOWN = Sniffed(Kind.OTHER, Form.UNKNOWN, "NOT_DICOM")

_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08PK\x03\x04", b"PK00PK\x03\x04")
"""First member, end of an empty archive, and the two marks of archives made to be split (APPNOTE 4.3, 8.5)."""

_PROGRAM = (b"MZ", b"\x7fELF", b"#!", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")

_PACKED = re.compile(
    rb"\x1f\x8b\x08"  # gzip (RFC 1952)
    rb"|7z\xbc\xaf\x27\x1c"
    rb"|Rar!\x1a\x07[\x00\x01]"
    rb"|\xfd7zXZ\x00"
    rb"|BZh[1-9](?:1AY&SY|\x17rE8P\x90)"  # bzip2 with and without content
    rb"|\x28\xb5\x2f\xfd"  # zstd (RFC 8878)
    rb"|MSCF\0\0\0\0"
)
_ONE_FILE = re.compile(rb"\x1f\x8b\x08|BZh|\xfd7zXZ\0|\x28\xb5\x2f\xfd")
"""Formats that compress one file, be it an archive or not."""

_COMPOUND = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""Compound files (MS-CFB 2.2), which the older forms of Office are."""
_OLD_SHEET = re.compile(rb"\x09[\x00\x02\x04]\x04\x00|\x09\x08[\x08\x10]\x00\x00[\x05\x06]")
"""Sheets of Excel 2 to 5 by themselves (MS-XLS 2.4.21)."""
_MARKED_SHEET = (b'progid="Excel.Sheet"', b"urn:schemas-microsoft-com:office:excel")
_MESSAGE = re.compile(rb"\s*(?:MSH|FHS|BHS)([^\w\s])(?:[^\w\s]){3,5}\1")
"""First segment of a message, a file or a batch of HL7 version 2 (2.5.1, 2.10.1.1), behind MLLP's start block too."""
_MARKED_MESSAGE = re.compile(rb"xmlns(?::\w+)?\s*=\s*[\"'](?:http://hl7\.org/fhir|urn:hl7-org:v[23])")
_DOCUMENT = re.compile(rb"\s*(?:%!PS|\{\\rtf)|.{0,1019}%PDF-", re.DOTALL)

_LOOK = 4096  # bytes in which DICOM without a proper preamble must begin
_TAR = slice(257, 262)
_PARQUET_LEAST = 12  # bytes: magic at both ends, length of the footer

_KNOWN_COLUMNS = ClinicalSettings().patient_id_columns
"""Usual names of the patient id column; a first line with one of them is that of a clinical table."""

SYSTEM_PARTS = frozenset(("healthCheck", "__MACOSX", ".DS_Store", "Thumbs.db"))


def kind_of(head: bytes, size: int) -> Sniffed:
    """What an object of `size` bytes is whose first bytes are `head`; 4 KiB tell most, more help wide tables.

    What looks like DICOM is DICOM, even when its preamble makes it something else besides (PS3.10 7.1).
    """
    if size == 0:
        return EMPTY
    if looks_like_dicom(head[:_LOOK]):
        return DICOM
    if head.startswith(_ZIP):
        return ZIP
    if looks_like_change_page(head):
        return CHANGES
    if _PACKED.match(head) or head[_TAR] == b"ustar":
        return UNKNOWN if _is_packed_nifti(head) else COMPRESSED if _is_one_file(head) else PACKED
    if head.startswith(b"PAR1") and size >= _PARQUET_LEAST:
        return PARQUET
    if looks_like_fhir(head):
        return FHIR
    document = _document(head)
    if document is not None:
        return document
    if looks_like_table(head, len(head) >= size, _KNOWN_COLUMNS):
        return DELIMITED
    return UNKNOWN if begins_at(head[:_LOOK]) is None else DICOM


def may_end_as_zip(head: bytes, found: Sniffed) -> bool:
    """Whether what `kind_of` found leaves room for a ZIP file behind other bytes, which its end must tell.

    So it is with what is nothing else. DICOM stays DICOM whatever stands behind it; but behind a few bytes and a
    member's header, the DICOM is that member.
    """
    if found.form is Form.DICOM:
        member = head.find(_ZIP[0], 0, _LOOK)
        return 0 <= member < (begins_at(head[:_LOOK]) or 0) and not looks_like_dicom(head[:_LOOK])
    return found.form in (Form.UNKNOWN, Form.DOCUMENT)


def is_program(head: bytes) -> bool:
    """Whether an object begins as a program of Windows, Linux or macOS does, or as a script: it may unpack itself."""
    return head.startswith(_PROGRAM)


def _document(head: bytes) -> Sniffed | None:
    """What a file of another kind is that is known by name, and not read."""
    if head.startswith(_COMPOUND):
        return COMPOUND
    if _OLD_SHEET.match(head):
        return SPREADSHEET
    if _MESSAGE.match(head.removeprefix(b"\xef\xbb\xbf").removeprefix(b"\x0b")):
        return MESSAGE
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        if any(mark in head for mark in _MARKED_SHEET):
            return SPREADSHEET
        if _MARKED_MESSAGE.search(head):
            return MESSAGE
    return DOCUMENT if _DOCUMENT.match(head) else None


def _is_one_file(head: bytes) -> bool:
    """Whether this is one compressed file that is not seen to be an archive (tar)."""
    if not _ONE_FILE.match(head):
        return False
    try:
        return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(head, 512)[_TAR] != b"ustar"
    except zlib.error:
        return True


def _is_packed_nifti(head: bytes) -> bool:
    """Whether these are the first bytes of a NIfTI image in gzip: one image, no container that could hold DICOM."""
    try:
        first = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(head, 348)
    except zlib.error:
        return False
    return first[344:348] in (b"n+1\0", b"ni1\0") or first[4:8] in (b"n+2\0", b"ni2\0")


def is_system_file(path_below_root: str) -> bool:
    """Whether a path below a source's root, or a member's name, is a system's: hidden, __MACOSX and the like."""
    parts = path_below_root.split("/")
    return not SYSTEM_PARTS.isdisjoint(parts) or any(part.startswith(".") and part != "." for part in parts)
