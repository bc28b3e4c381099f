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

import orjson
import pyarrow as pa

from dicom_assets.clinical.delimited import Frame, delimited_frames
from dicom_assets.clinical.dialect import plain_name
from dicom_assets.clinical.parquet import MAGIC, parquet_frames
from dicom_assets.clinical.source import UNREADABLE, Bytes, ClinicalChunk, ClinicalUnreadable, RecordError
from dicom_assets.fhir.values import moment_or_day
from dicom_assets.lake.registry import CLINICAL
from dicom_assets.settings import ClinicalSettings, DatasetSettings

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
    source: Bytes, settings: ClinicalSettings, dataset: DatasetSettings | None = None
) -> Iterator[ClinicalChunk]:
    """The records of a CSV or Parquet file, told apart by content, in chunks of at most 20,000.

    Schema RECORDS; with `effective_at` and `effective_text` for a dataset that has a date column, and `natural_key` for
    one with a key.
    Raises ClinicalUnreadable when the file as a whole is refused, which may show after some chunks: then those do not
    count either. Storage errors come as they are.
    """
    is_parquet = source.read(0, len(MAGIC)) == MAGIC
    for frame in parquet_frames(source) if is_parquet else delimited_frames(source, settings):
        yield _chunk(frame, settings) if dataset is None else _dataset_chunk(frame, settings, dataset)


def column_of(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """The column that the first of the wanted names finds, None when none does."""
    by_name = {plain_name(name): name for name in reversed(names)}
    return next((by_name[plain_name(name)] for name in wanted if plain_name(name) in by_name), None)


def _chunk(frame: Frame, settings: ClinicalSettings) -> ClinicalChunk:
    names: list[str] = list(frame.values.columns)
    patient = column_of(names, settings.patient_id_columns)
    if patient is None:
        raise ClinicalUnreadable(
            UNREADABLE,
            f"No patient id column; looked for {', '.join(settings.patient_id_columns)}. "
            "Set clinical.patient_id_columns to the column's name.",
        )
    issuer = column_of(names, settings.issuer_columns)
    size = len(frame.values)
    columns = [frame.values[name].tolist() for name in names]
    by_name = dict(zip(names, columns, strict=True))
    issuers = [_identifier(v) or settings.issuer for v in by_name[issuer]] if issuer else [settings.issuer] * size
    arrays = [
        pa.array([_identifier(value) for value in by_name[patient]], pa.string()),
        pa.array(issuers, pa.string()),
        pa.array(frame.values.index.to_list(), pa.int64()),
        pa.array([RECORD_TYPE] * size, pa.string()),
        pa.array([_json(names, row) for row in zip(*columns, strict=True)], pa.string()),
    ]
    return ClinicalChunk(pa.table(arrays, schema=RECORDS), frame.errors)


def _dataset_chunk(frame: Frame, settings: ClinicalSettings, dataset: DatasetSettings) -> ClinicalChunk:
    """Records of a configured dataset: its columns instead of the usual ones, its date, its key."""
    own = {
        "patient_id_columns": (dataset.patient_id_column,),
        "issuer_columns": (dataset.issuer_column,) if dataset.issuer_column else (),
        "issuer": dataset.issuer or settings.issuer,
    }
    names: list[str] = list(frame.values.columns)
    _require(names, [*dataset.key_columns, *([dataset.date_column] if dataset.date_column else [])], dataset)
    chunk = _chunk(frame, settings.model_copy(update=own))
    size = len(frame.values)
    records = chunk.records.set_column(3, RECORDS.field("record_type"), pa.array([dataset.name] * size, pa.string()))
    if dataset.date_column:
        written = frame.values[column_of(names, (dataset.date_column,)) or ""].tolist()
        at = pa.array([moment_or_day(value) for value in written], CLINICAL.column("effective_at").type)
        text = pa.array([(value or "").strip() or None for value in written], pa.string())
        records = records.append_column("effective_at", at).append_column("effective_text", text)
    if not dataset.key_columns:
        return ClinicalChunk(records, chunk.errors)
    columns = [frame.values[column_of(names, (name,)) or ""].tolist() for name in dataset.key_columns]
    keys = [[(value or "").strip() for value in row] for row in zip(*columns, strict=True)]
    kept = pa.array([all(key) for key in keys], pa.bool_())
    faults = [
        RecordError(number, f"Its key is not whole: {', '.join(dataset.key_columns)}.")
        for number, key in zip(frame.values.index, keys, strict=True)
        if not all(key)
    ]
    written_keys = pa.array([orjson.dumps([dataset.name, *key]).decode() for key in keys], pa.string())
    return ClinicalChunk(
        records.append_column("natural_key", written_keys).filter(kept),
        tuple(sorted((*chunk.errors, *faults), key=lambda fault: fault.record)),
    )


def _require(names: Sequence[str], wanted: Sequence[str], dataset: DatasetSettings) -> None:
    missing = [name for name in wanted if column_of(names, (name,)) is None]
    if missing:
        raise ClinicalUnreadable(UNREADABLE, f"Dataset {dataset.name} lacks the column {', '.join(missing)}.")


def _identifier(value: str | None) -> str | None:
    return (value.strip(" \t\r\n\0\u00a0") or None) if value else None


def _json(names: Sequence[str], row: Sequence[str | None]) -> str:
    return orjson.dumps({name: value or None for name, value in zip(names, row, strict=True)}).decode("utf-8")
