"""Staged rows of `correction`: what one table of corrections says.

Does not belong here: what a row must say (`clinical.correction_reader`), which rows are in force (`batch.corrections`).
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from dicom_assets.dicom.header import Memo
from dicom_assets.lake.staging import SCHEMAS, Part
from dicom_assets.reading.clinical_rows import nothing_taken
from dicom_assets.reading.tasks import Chunk, ObjectTask
from dicom_assets.reading.verdicts import Verdict, error_row, settled
from dicom_assets.schema import keys
from dicom_assets.schema.codes import Kind, Outcome
from dicom_assets.schema.correction_tables import State
from dicom_assets.storage.byte_ranges import ByteSource


def read_correction_table(chunk: Chunk, task: ObjectTask, opened: ByteSource, memo: Memo) -> Verdict:
    """What a table of corrections ends as, and its rows; those that cannot be read are errors. ClinicalUnreadable."""
    from dicom_assets.clinical.correction_reader import read_corrections  # few workers need it

    tables, errors = [], []
    for part in read_corrections(opened, chunk.clinical):
        tables.append(_rows(chunk, task, part.records))
        errors += [error_row(chunk, task, "record", "CORRECTION_INVALID", e.detail, e.record) for e in part.errors]
    if any(map(len, tables)):
        return Verdict(Outcome.INGESTED, Kind.CORRECTION, corrections=tables, record_errors=errors)
    nothing = settled(Kind.CORRECTION, *nothing_taken(len(errors)))
    nothing.record_errors = errors
    return nothing


def _rows(chunk: Chunk, task: ObjectTask, records: pa.Table) -> pa.Table:
    size = len(records)
    own: dict[str, Any] = {
        "batch_id": chunk.batch_id,
        "object_id": task.object_id,
        "source": task.source,
        "place_key": keys.file_key(task.source, task.uri, None),  # what an archive says goes with it
        "claimed_at": chunk.claimed_at,
        "state": str(State.IN_FORCE),
    }
    schema = SCHEMAS[Part.CORRECTION]
    arrays = [
        pa.array([own[f.name]] * size, f.type) if f.name in own else records[f.name].combine_chunks() for f in schema
    ]
    return pa.table(arrays, schema=schema)
