"""What corrections and patient links mean for the tables of FHIR beyond what the hierarchy tells them.

Belongs here: studies that only corrections had made, reports of persons with several identifiers. Does not belong here:
publishing (`standards`).
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from dicom_assets.fhir import diagnostic_report as reports
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import connect, sql_type
from dicom_assets.lake.subjects import persons
from dicom_assets.schema.registry import PATIENT_LINK, STUDY

_KNOWN_BEFORE = {
    **{name: name for name in ("source", "study_key", "StudyInstanceUID", "PatientID", "IssuerOfPatientID")},
    **dict.fromkeys(("series_count", "instance_count", "size"), "0"),
    "object_id": "''",
    "version_at": "modified_at",
    "first_seen_at": "created_at",
    "updated_at": "modified_at",
    "patient_count": "CASE subject_state WHEN 'conflict' THEN 2 WHEN 'missing' THEN 0 ELSE 1 END",
}

_LISTED_BEFORE = ", ".join(
    f'{_KNOWN_BEFORE.get(column.name, f"NULL::{sql_type(column.type)}")} AS "{column.name}"' for column in STUDY.columns
)

EMPTIED = f"""
-- one row per study of which nothing is left and no object was ever received: corrections had moved some there
SELECT
    {_LISTED_BEFORE},
    NULL::VARCHAR AS source_file
FROM imaging_study SEMI JOIN gone USING (study_key)
WHERE study_key NOT IN (SELECT study_key FROM flat_metadata)
"""
"""SQL for rows of `study`, with source_file, of those in the table `gone`; beside imaging_study and flat_metadata."""


def as_persons(lake: Lake, read: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Reports with the identifier that survives for their patient, where patient links name another one."""
    patients = {(report["PatientID"], report["IssuerOfPatientID"]) for report in read}
    if not len(lake.extents(PATIENT_LINK.name)) or not patients:
        return read
    names = ("PatientID", "IssuerOfPatientID")
    with connect(lake, [PATIENT_LINK.name]) as connection:
        columns = zip(*patients, strict=True)
        told = {name: pa.array(values, pa.string()) for name, values in zip(names, columns, strict=True)}
        connection.register("told", pa.table(told))
        found = connection.execute(f"SELECT PatientID, IssuerOfPatientID, id, issuer FROM {persons('told')}").fetchall()
    known = {(patient, issuer): (own, of) for patient, issuer, own, of in found}
    return [{**report, reports.PERSON: known[report["PatientID"], report["IssuerOfPatientID"]]} for report in read]
