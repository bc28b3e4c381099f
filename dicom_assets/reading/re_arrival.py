"""What arrives of what was erased: nothing of it is taken in.

Belongs here: looking at what an object says before it becomes rows. Does not belong here: what was erased
(`landing.refusals`).
"""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from dicom_assets.landing.refusals import CODE, Refusals
from dicom_assets.reading.tasks import Chunk, ObjectTask
from dicom_assets.reading.verdicts import Verdict, error_row, settled


def without_erased(chunk: Chunk, task: ObjectTask, verdict: Verdict) -> Verdict:
    """A verdict without what was erased: an object as a whole, or some records of a clinical file."""
    if verdict.header is not None:
        return settled(verdict.kind, CODE, None) if chunk.refusals.refuses(verdict.header.columns) else verdict
    if not verdict.records:
        return verdict
    kept = [_kept(chunk.refusals, table) for table in verdict.records]
    gone = [
        number
        for table, mask in zip(verdict.records, kept, strict=True)
        for number, stays in zip(table["record"].to_pylist(), mask.to_pylist(), strict=True)
        if not stays
    ]
    if not gone:
        return verdict
    records = [table.filter(mask) for table, mask in zip(verdict.records, kept, strict=True)]
    if not any(map(len, records)):
        return settled(verdict.kind, CODE, None)
    errors = [error_row(chunk, task, "record", CODE, None, number) for number in gone]
    return replace(verdict, records=records, record_errors=[*verdict.record_errors, *errors])


def _kept(refusals: Refusals, records: pa.Table) -> pa.Array:
    names = ("PatientID", "IssuerOfPatientID", "source", "server", "patient_reference")
    rows = zip(*(records[name].to_pylist() for name in names), strict=True)
    return pa.array(
        [
            not (refusals.refuses_patient(patient, issuer) or refusals.refuses_reference(source, server, reference))
            for patient, issuer, source, server, reference in rows
        ],
        pa.bool_(),
    )
