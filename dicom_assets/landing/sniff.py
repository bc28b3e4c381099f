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
from dicom_assets.dicom.sniff import begins_at, looks_like_dicom
from dicom_assets.lake.codes import Kind
from dicom_assets.landing.changes import looks_like_change_page
from dicom_assets.settings import ClinicalSettings


class Form(StrEnum):
    """The form of the bytes."""

    DICOM = "dicom"
    ZIP = "zip"
    PACKED = "packed"
    CHANGES = "changes"
    PARQUET = "parquet"
    DELIMITED = "delimited"
    FHIR = "fhir"
    EMPTY = "empty"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Sniffed:
    """What an object is. code: its reason code where that is settled without reading on."""

    kind: Kind
    form: Form
    code: str | None = None


DICOM = Sniffed(Kind.DICOM, Form.DICOM)
ZIP = Sniffed(Kind.ARCHIVE, Form.ZIP)
PACKED = Sniffed(Kind.ARCHIVE, Form.PACKED, "CONTAINER_UNSUPPORTED")
CHANGES = Sniffed(Kind.ARCHIVE, Form.CHANGES)
PARQUET = Sniffed(Kind.CLINICAL, Form.PARQUET)
DELIMITED = Sniffed(Kind.CLINICAL, Form.DELIMITED)
FHIR = Sniffed(Kind.CLINICAL, Form.FHIR)
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
        return UNKNOWN if _is_packed_nifti(head) else PACKED
    if head.startswith(b"PAR1") and size >= _PARQUET_LEAST:
        return PARQUET
    if looks_like_fhir(head):
        return FHIR
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
    return found.form is Form.UNKNOWN


def is_program(head: bytes) -> bool:
    """Whether an object begins as a program of Windows, Linux or macOS does, or as a script: it may unpack itself."""
    return head.startswith(_PROGRAM)


def _is_packed_nifti(head: bytes) -> bool:
    """Whether these are the first bytes of a NIfTI image in gzip: one image, no container that could hold DICOM."""
    try:
        first = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(head, 348)
    except zlib.error:
        return False
    return first[344:348] in (b"n+1\0", b"ni1\0") or first[4:8] in (b"n+2\0", b"ni2\0")


def is_system_file(path_below_root: str) -> bool:
    """Whether a path below a source's root, or a member's name, is a system's: hidden, __MACOSX and the like."""
    return any(part in SYSTEM_PARTS or (part.startswith(".") and part != ".") for part in path_below_root.split("/"))
