"""A closer look at what its first bytes leave open: with what is configured, and further into the object.

Belongs here: JSON that names its resource type far behind its beginning, tables by configured columns and places,
workbooks among ZIP files, sheets among compound files. Does not belong here: what the first bytes tell (`sniff`).

Each costs a read more, so only what may be clinical is asked, and nothing that is DICOM.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import replace

from dicom_assets.clinical.alphabets import ENCODINGS
from dicom_assets.clinical.correction_reader import header_of, lacking, parquet_header
from dicom_assets.clinical.dialect import is_text, looks_like_table
from dicom_assets.clinical.framing import holds_fhir, looks_like_json
from dicom_assets.landing.globs import pattern_regex
from dicom_assets.landing.sniff import DELIMITED, DOCUMENT, FHIR, SPREADSHEET, Form, Sniffed
from dicom_assets.landing.zipdirectory import Directory
from dicom_assets.landing.zipend import ArchiveError
from dicom_assets.schema.codes import CODES, Kind, Outcome
from dicom_assets.settings import ClinicalSettings
from dicom_assets.storage.byte_ranges import ByteSource

HEAD_BYTES = 65_536
_FIRST_BYTES = 4_096
WORKBOOK = Sniffed(Kind.CLINICAL, Form.WORKBOOK)
CORRECTIONS = Sniffed(Kind.CORRECTION, Form.DELIMITED)
UNEXPECTED = Sniffed(Kind.CORRECTION, Form.DELIMITED, "CORRECTIONS_NOT_EXPECTED")
_LACKS = "It lacks the column {}."

_PACKAGE = ("[content_types].xml", "_rels/", "docprops/", "customxml/", "docmetadata/", "xl/", "word/", "ppt/")
"""How the names of parts of Office documents begin (ECMA-376 part 2)."""
_PARTS = (".xml", ".rels", ".bin", ".vml", ".png", ".jpg", ".jpeg", ".gif", ".emf", ".wmf", ".json", ".txt", "/")
_OPEN_DOCUMENT = b"mimetypeapplication/vnd.oasis.opendocument."
_MOST_PARTS = 2_000
_SECTOR_SHIFT = struct.Struct("<H")
_FIRST_SECTOR = struct.Struct("<I")


def look_closer(
    found: Sniffed,
    source: ByteSource,
    names: Sequence[str],
    clinical: ClinicalSettings,
    corrections: Sequence[str] = (),
) -> Sniffed:
    """What an object is that was found to be something by its first bytes.

    names: its path below the source's root, and its name in its archive. What lies where a data set says that its files
    lie, or names a configured column, is clinical, and never ignored. corrections: patterns of the files that tables of
    corrections are believed in; a table there that is none, and one that is elsewhere, is refused. Raises what `source`
    raises.
    """
    if found.form is Form.ZIP:
        found = _package(source) or found
        return _refused_workbook(found) if match(corrections, names) else found
    correction = _correction(found, source, clinical, is_believed=match(corrections, names))
    if correction is not None:
        return correction
    if found.form is Form.COMPOUND and found.code == DOCUMENT.code:
        found = _compound(source)
    if found.form is Form.UNKNOWN:
        found = _text(source, clinical) or found
    if found.code is None or CODES[found.code].outcome is not Outcome.IGNORED or not is_of_dataset(clinical, names):
        return found
    if found.form is Form.UNKNOWN:
        return DELIMITED
    detail = f"It lies where the files of a data set lie. {CODES[found.code].meaning}"
    return replace(found, kind=Kind.CLINICAL, code="CLINICAL_UNREADABLE", detail=detail)


def _correction(found: Sniffed, source: ByteSource, clinical: ClinicalSettings, *, is_believed: bool) -> Sniffed | None:
    """What a table is that is one of corrections, or lies where nothing but these are believed; None for others."""
    if found.form is Form.PARQUET:
        columns = parquet_header(source)
    elif found.form in (Form.DELIMITED, Form.UNKNOWN):
        head = source.read(0, _FIRST_BYTES)
        if found.form is Form.UNKNOWN and not is_text(head):
            return None
        columns = header_of(head, len(head) >= source.size, clinical.encoding)
    else:
        return None
    missing = lacking(columns)
    if not missing:
        return replace(CORRECTIONS if is_believed else UNEXPECTED, form=found.form)
    if not is_believed:
        return None
    return replace(found, kind=Kind.CORRECTION, code="CORRECTIONS_UNREADABLE", detail=_LACKS.format(", ".join(missing)))


def _refused_workbook(found: Sniffed) -> Sniffed:
    if found.form is not Form.WORKBOOK:
        return found
    detail = "It is a workbook. Save the sheet as CSV, and deliver that."
    return replace(found, kind=Kind.CORRECTION, code="CORRECTIONS_UNREADABLE", detail=detail)


def is_of_dataset(clinical: ClinicalSettings, names: Sequence[str]) -> bool:
    """Whether a configured data set says that an object of one of these names is one of its files."""
    return any(match(one.files, names) for one in clinical.datasets)


def match(patterns: Iterable[str], names: Sequence[str | None]) -> bool:
    """Whether one of the patterns matches one of the names."""
    regexes = [pattern_regex(pattern) for pattern in patterns]
    return any(name is not None and re.fullmatch(regex, name) for regex in regexes for name in names)


def known_columns(clinical: ClinicalSettings) -> tuple[str, ...]:
    """Names of the columns of patients, the usual ones and those of data sets."""
    return (*clinical.patient_id_columns, *(one.patient_id_column for one in clinical.datasets))


def _text(source: ByteSource, clinical: ClinicalSettings) -> Sniffed | None:
    head = source.read(0, _FIRST_BYTES)
    if is_text(head):  # of other objects nothing more is read than was already
        head = source.read(0, HEAD_BYTES)
    if looks_like_json(head):
        return FHIR if holds_fhir(source) else None
    known, whole = known_columns(clinical), len(head) >= source.size
    encodings: list[str | None] = [None, clinical.encoding, *(one.encoding for one in clinical.datasets)]
    if not "".join(known).isascii():
        encodings += ENCODINGS
    tried = dict.fromkeys(encodings)
    return DELIMITED if any(looks_like_table(head, whole, known, encoding) for encoding in tried) else None


def _package(source: ByteSource) -> Sniffed | None:
    """What a ZIP file is that is an Office document; None for any other, and for one that holds other files as well."""
    head = source.read(0, 128)
    if _OPEN_DOCUMENT in head:
        return SPREADSHEET if _OPEN_DOCUMENT + b"spreadsheet" in head else DOCUMENT
    if not head[30:].lower().startswith(tuple(name.encode() for name in _PACKAGE)):
        return None
    try:
        return package_of(Directory(source))
    except ArchiveError:
        return None


def package_of(directory: Directory) -> Sniffed | None:
    """What an archive is whose members are the parts of an Office document, and nothing else. Raises ArchiveError."""
    names = set()
    for number, entry in enumerate(directory):
        name = entry.name.replace("\\", "/").lower().removeprefix("/")
        if number >= _MOST_PARTS or not (name.startswith(_PACKAGE) or name.endswith(_PARTS)):
            return None
        names.add(name)
    if "[content_types].xml" not in names:
        return None
    if "xl/workbook.xml" in names:
        return WORKBOOK
    if "xl/workbook.bin" in names:
        return SPREADSHEET
    return DOCUMENT if names & {"word/document.xml", "ppt/presentation.xml"} else None


def _compound(source: ByteSource) -> Sniffed:
    """A compound file by the names of its streams (MS-CFB 2.6): a workbook, or what a password hides."""
    head = source.read(0, 512)
    if len(head) < 512:
        return DOCUMENT
    size = 1 << min(_SECTOR_SHIFT.unpack_from(head, 30)[0], 12)
    entries = source.read((_FIRST_SECTOR.unpack_from(head, 48)[0] + 1) * size, 8 * size)
    written = (entries[at : at + 64].decode("utf-16-le", "replace") for at in range(0, len(entries), 128))
    names = {name.partition("\0")[0] for name in written}
    return SPREADSHEET if names & {"Workbook", "Book", "EncryptedPackage"} else DOCUMENT
