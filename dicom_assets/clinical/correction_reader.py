"""Tables of corrections and patient links: their columns, how one is known by them, and its rows.

Belongs here: what a row must say. Does not belong here: where such tables are believed (`landing.recognition`), which
rows are in force (`dicom_assets.batch.corrections`), how a text table is written (`delimited`, `dialect`).

A table is one of corrections when it has the columns of FORM, compared as other columns are, without regard to case,
space, `_` and `-`; others beside COLUMNS are passed over. No value stands in the detail of an error.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

import pyarrow as pa

from dicom_assets.clinical.chunks import ClinicalChunk, ClinicalUnreadable, RecordError
from dicom_assets.clinical.delimited import Frame, delimited_frames
from dicom_assets.clinical.dialect import detect, plain_name
from dicom_assets.schema import keys
from dicom_assets.schema.correction_tables import Scope
from dicom_assets.schema.registry import CORRECTION
from dicom_assets.settings import ClinicalSettings
from dicom_assets.storage.byte_file import ByteFile
from dicom_assets.storage.byte_ranges import ByteSource

UNREADABLE = "CORRECTIONS_UNREADABLE"

FORM = ("scope", "key", "corrected_by", "corrected_at")
"""Columns that every table of corrections has, and by which it is known."""

COLUMNS = (
    *("scope", "source", "key", "key_issuer", "PatientID", "IssuerOfPatientID", "AccessionNumber"),
    *("StudyInstanceUID", "corrected_by", "corrected_at", "reason"),
)
"""Every column that is read."""

_MARK = "corrected_by"
"""The column by which the header of a text table is found."""

_TOLD = tuple(name for name in CORRECTION.schema.names if name not in
              {"batch_id", "object_id", "source", "place_key", "claimed_at", "state"})  # fmt: skip
RECORDS = pa.schema([CORRECTION.schema.field(name) for name in _TOLD])
"""Columns of the rows of a chunk."""

_TARGETS = ("PatientID", "IssuerOfPatientID", "AccessionNumber", "StudyInstanceUID")
_PERSONS = (Scope.PATIENT, Scope.PATIENT_LINK)
_UID = re.compile(r"[0-9.]{1,64}")
_SPACE = " \t\r\n\0\u00a0"


def header_of(head: bytes, whole: bool, encoding: str | None = None) -> tuple[str, ...]:
    """The names of the columns of a text table that begins with `head`, if one of them is a correction's; else none."""
    found = detect(head, whole, encoding=encoding, known=(_MARK,), doubtful=True)
    return () if found is None else found.header


def parquet_header(source: ByteSource) -> tuple[str, ...]:
    """The names of the columns of a Parquet file, from its footer; none when it cannot be read.

    Storage errors come as they are.
    """
    import pyarrow.parquet as pq  # few processes meet a Parquet file

    raw = ByteFile(source)
    try:
        return tuple(pq.read_schema(io.BufferedReader(raw, 65_536)).names)
    except (pa.ArrowException, OSError, UnicodeError):
        if raw.failure is not None:
            raise raw.failure from None
        return ()


def lacking(names: Sequence[str]) -> list[str]:
    """The columns of FORM that are not among these names."""
    there = {plain_name(name) for name in names}
    return [name for name in FORM if plain_name(name) not in there]


def read_corrections(source: ByteSource, settings: ClinicalSettings) -> Iterator[ClinicalChunk]:
    """The rows of a table of corrections, CSV or Parquet, in chunks; schema RECORDS.

    settings: the encoding of text tables. Raises ClinicalUnreadable when the file as a whole is refused; storage errors
    as they come.
    """
    from dicom_assets.clinical.parquet import MAGIC, parquet_frames  # slow to import, as its reader is

    own = settings.model_copy(update={"patient_id_columns": (_MARK,)})
    is_parquet = source.read(0, len(MAGIC)) == MAGIC
    try:
        for frame in parquet_frames(source) if is_parquet else delimited_frames(source, own):
            missing = lacking(frame.names)
            if missing:
                raise ClinicalUnreadable(UNREADABLE, f"It lacks the column {', '.join(missing)}.")
            yield _chunk(frame)
    except ClinicalUnreadable as error:
        raise ClinicalUnreadable(UNREADABLE, error.detail) from None


def _chunk(frame: Frame) -> ClinicalChunk:
    places = {plain_name(name): place for place, name in reversed([*enumerate(frame.names)])}
    of = {name: places.get(plain_name(name)) for name in COLUMNS}
    rows: list[dict[str, object]] = []
    errors = list(frame.errors)
    for number, fields in zip(frame.numbers, frame.rows, strict=True):
        said = {name: None if at is None else ((fields[at] or "").strip(_SPACE) or None) for name, at in of.items()}
        try:
            rows.append(_row(said) | {"record": number})
        except ValueError as error:
            errors.append(RecordError(number, str(error)))
    errors.sort(key=lambda fault: fault.record)
    return ClinicalChunk(pa.Table.from_pylist(rows, schema=RECORDS), tuple(errors))


def _row(said: Mapping[str, str | None]) -> dict[str, object]:
    """A row of RECORDS, without its number. Raises ValueError with a sentence that holds none of its values."""
    for name in FORM:
        if said[name] is None:
            raise ValueError(f"Its {name} is empty.")
    scope = _scope(said)
    _fitting(scope, said)
    at = _moment(said["corrected_at"] or "")
    told: dict[str, str | None] = {
        "scope": str(scope),
        "object_source": said["source"],
        **{name: said[name] for name in ("key", "key_issuer", *_TARGETS, "corrected_by")},
    }
    key = keys.correction_key(*told.values(), at.isoformat())
    return {**told, "correction_key": key, "corrected_at": at, "reason": said["reason"]}


def _scope(said: Mapping[str, str | None]) -> Scope:
    word = plain_name(said["scope"] or "")
    for scope in Scope:
        if plain_name(scope) == word:
            return scope
    raise ValueError(f"Its scope is none of {', '.join(Scope)}.")


def _fitting(scope: Scope, said: Mapping[str, str | None]) -> None:
    """Raises ValueError where what is said does not fit the scope."""
    given = [name for name in _TARGETS if said[name] is not None]
    if not given:
        raise ValueError(f"It corrects nothing: {', '.join(_TARGETS)} are empty.")
    if said["key_issuer"] is not None and scope not in _PERSONS:
        raise ValueError(f"It has a key_issuer, which is for {' and '.join(_PERSONS)} alone.")
    if scope in _PERSONS and {"AccessionNumber", "StudyInstanceUID"} & {*given}:
        raise ValueError(f"A {scope} cannot say an AccessionNumber or StudyInstanceUID.")
    if said["StudyInstanceUID"] is not None and not _UID.fullmatch(said["StudyInstanceUID"]):
        raise ValueError("Its StudyInstanceUID is no UID.")
    if scope is Scope.PATIENT_LINK:
        if said["PatientID"] is None:
            raise ValueError("A patient_link needs the PatientID that survives.")
        if said["source"] is not None:
            raise ValueError("A patient_link is about a person in every source; its source must be empty.")
        if said["PatientID"] == said["key"] and said["IssuerOfPatientID"] in (None, said["key_issuer"]):
            raise ValueError("It links an identifier to itself.")


def _moment(written: str) -> datetime:
    try:
        at = datetime.fromisoformat(written)
    except ValueError:
        raise ValueError("Its corrected_at is no date or time in ISO 8601 form.") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
