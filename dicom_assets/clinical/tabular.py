"""Clinical tables, CSV and Parquet, read into records of text beside the patient they belong to.

Belongs here: reading one file into bounded chunks of records, with what is wrong in single records. Does not belong
here: how a text table is written (`dialect`), the formats (`delimited`, `parquet`), keys and tables of the lake.

Values stay what was written: no number, date or code is interpreted, leading zeros stay, an empty value is null. Only
the patient identifier and its issuer are stripped of surrounding space, since they are compared. Joining: a record
belongs to the patient whose PatientID and issuer equal its own, as text; where it has no PatientID (null here, never
an empty text) it belongs to nobody and joins nothing.

Records are counted from 1 behind the header; blank lines are not counted. A record with fewer fields than the header
is an error, because it cannot be told which field is missing; one with more is an error too, unless all that is too
much is empty. The other records of the file stay. A quote that never closes, though, makes all of what follows it
unsure, so the file as a whole is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import orjson
import pyarrow as pa

from dicom_assets.clinical.chunks import UNREADABLE, ClinicalChunk, ClinicalUnreadable, RecordError
from dicom_assets.clinical.dates import DateUnreadable, OrderUnknown, is_missing, moment_of
from dicom_assets.clinical.delimited import Frame, delimited_frames
from dicom_assets.clinical.dialect import plain_name
from dicom_assets.clinical.parquet import MAGIC, parquet_frames
from dicom_assets.schema.registry import CLINICAL
from dicom_assets.settings import ClinicalSettings, DatasetSettings
from dicom_assets.storage.byte_ranges import ByteSource

__all__ = ["RECORDS", "ClinicalChunk", "ClinicalUnreadable", "RecordError", "read_table"]

RECORDS = pa.schema(
    [
        CLINICAL.column(name).field
        for name in ("PatientID", "IssuerOfPatientID", "record", "record_type", "record_values")
    ]
)
"""Columns of the records of a chunk."""

RECORD_TYPE = "table"
"""Record type of a table that no configured dataset names."""


def read_table(
    source: ByteSource, settings: ClinicalSettings, dataset: DatasetSettings | None = None
) -> Iterator[ClinicalChunk]:
    """The records of a CSV or Parquet file, told apart by content, in chunks of at most 20,000.

    Schema RECORDS; with `effective_at` and `effective_text` for a dataset that has a date column, and `natural_key` for
    one with a key.
    Raises ClinicalUnreadable when the file as a whole is refused, which may show after some chunks: then those do not
    count either. Storage errors come as they are.
    """
    own = settings if dataset is None else _of_dataset(settings, dataset)
    is_parquet = source.read(0, len(MAGIC)) == MAGIC
    for frame in parquet_frames(source) if is_parquet else delimited_frames(source, own):
        yield _chunk(frame, own) if dataset is None else _dataset_chunk(frame, own, dataset)


def read_workbook(
    source: ByteSource, settings: ClinicalSettings, dataset: DatasetSettings | None = None
) -> Iterator[ClinicalChunk]:
    """The records of the sheets of an XLSX workbook, as `read_table` gives those of a table."""
    from dicom_assets.clinical.workbook import Sheets, workbook_frames  # few files need its reader

    own = settings if dataset is None else _of_dataset(settings, dataset)
    for found in workbook_frames(source, own.patient_id_columns):
        if isinstance(found, Sheets):
            if found.passed_over:
                said = f"{found.passed_over} of its {found.total} sheets name no patient id column."
                yield ClinicalChunk(RECORDS.empty_table(), (), (("SHEETS_PASSED_OVER", said),))
        else:
            yield _chunk(found, own) if dataset is None else _dataset_chunk(found, own, dataset)


def column_of(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """The column that the first of the wanted names finds, None when none does."""
    by_name = {plain_name(name): name for name in reversed(names)}
    return next((by_name[plain_name(name)] for name in wanted if plain_name(name) in by_name), None)


def _chunk(frame: Frame, settings: ClinicalSettings) -> ClinicalChunk:
    patient = column_of(frame.names, settings.patient_id_columns)
    if patient is None:
        raise ClinicalUnreadable(
            UNREADABLE,
            f"No patient id column; looked for {', '.join(settings.patient_id_columns)}. "
            "Set clinical.patient_id_columns to the column's name.",
        )
    issuer = column_of(frame.names, settings.issuer_columns)
    size = len(frame.rows)
    issuers = [_identifier(v) or settings.issuer for v in frame.column(issuer)] if issuer else [settings.issuer] * size
    arrays = [
        pa.array([_identifier(value) for value in frame.column(patient)], pa.string()),
        pa.array(issuers, pa.string()),
        pa.array(frame.numbers, pa.int64()),
        pa.array([RECORD_TYPE] * size, pa.string()),
        pa.array([_json(frame.names, row) for row in frame.rows], pa.string()),
    ]
    return ClinicalChunk(pa.table(arrays, schema=RECORDS), frame.errors)


def _of_dataset(settings: ClinicalSettings, dataset: DatasetSettings) -> ClinicalSettings:
    """The settings with a data set's columns instead of the usual ones."""
    own = {
        "patient_id_columns": (dataset.patient_id_column,),
        "issuer_columns": (dataset.issuer_column,) if dataset.issuer_column else (),
        "issuer": dataset.issuer or settings.issuer,
        "encoding": dataset.encoding or settings.encoding,
    }
    return settings.model_copy(update=own)


def _dataset_chunk(frame: Frame, settings: ClinicalSettings, dataset: DatasetSettings) -> ClinicalChunk:
    """Records of a configured dataset: its columns instead of the usual ones, its date, its key.

    A record whose key is not whole, or whose date cannot be read, is an error.
    """
    wanted = (*dataset.key_columns, dataset.date_column, dataset.issuer_column)
    _require(frame.names, [name for name in wanted if name], dataset)
    chunk = _chunk(frame, settings)
    size = len(frame.rows)
    records = chunk.records.set_column(3, RECORDS.field("record_type"), pa.array([dataset.name] * size, pa.string()))
    faults: dict[int, str] = {}
    if dataset.date_column:
        written = frame.column(column_of(frame.names, (dataset.date_column,)) or "")
        moments, undated = _moments(written, dataset)
        faults = {frame.numbers[place]: f"Its {dataset.date_column} is no date: {why}." for place, why in undated}
        at = pa.array(moments, CLINICAL.column("effective_at").type)
        text = pa.array([(value or "").strip() or None for value in written], pa.string())
        records = records.append_column("effective_at", at).append_column("effective_text", text)
    if dataset.key_columns:
        columns = [frame.column(column_of(frame.names, (name,)) or "") for name in dataset.key_columns]
        keys = [[(value or "").strip() for value in row] for row in zip(*columns, strict=True)]
        broken = f"Its key is not whole: {', '.join(dataset.key_columns)}."
        faults |= {number: broken for number, key in zip(frame.numbers, keys, strict=True) if not all(key)}
        written_keys = pa.array([orjson.dumps([dataset.name, *key]).decode() for key in keys], pa.string())
        records = records.append_column("natural_key", written_keys)
    if not faults:
        return ClinicalChunk(records, chunk.errors)
    kept = pa.array([number not in faults for number in frame.numbers], pa.bool_())
    errors = (*chunk.errors, *(RecordError(number, why) for number, why in faults.items()))
    return ClinicalChunk(records.filter(kept), tuple(sorted(errors, key=lambda fault: fault.record)))


def _moments(
    written: Sequence[str | None], dataset: DatasetSettings
) -> tuple[list[datetime | None], list[tuple[int, str]]]:
    """The points in time of a date column, and the places of those that cannot be read, with why.

    ClinicalUnreadable where the order of day and month is not certain and not set: one wrong guess would be in silence.
    """
    known: dict[str, datetime | None] = {}
    faults: dict[str, str] = {}
    for value in {value for value in written if value is not None}:
        try:
            known[value] = None if is_missing(value) else moment_of(value, dataset.date_order, dataset.time_zone)
        except OrderUnknown:
            raise ClinicalUnreadable(
                UNREADABLE,
                f"Column {dataset.date_column} of dataset {dataset.name} has dates of which day and month cannot be "
                "told apart. Set date_order of the dataset to day-first or month-first.",
            ) from None
        except DateUnreadable as error:
            faults[value] = str(error)
    moments = [known.get(value) if value is not None else None for value in written]
    return moments, [(place, faults[value]) for place, value in enumerate(written) if value in faults and value]


def _require(names: Sequence[str], wanted: Sequence[str], dataset: DatasetSettings) -> None:
    missing = [name for name in wanted if column_of(names, (name,)) is None]
    if missing:
        raise ClinicalUnreadable(UNREADABLE, f"Dataset {dataset.name} lacks the column {', '.join(missing)}.")


def _identifier(value: str | None) -> str | None:
    return (value.strip(" \t\r\n\0\u00a0") or None) if value else None


def _json(names: Sequence[str], row: Sequence[str | None]) -> str:
    return orjson.dumps({name: value or None for name, value in zip(names, row, strict=True)}).decode("utf-8")
