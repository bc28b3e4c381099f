"""Rows of study, series and instance as the hierarchy makes them, with just what a test is about.

Belongs here: small tables for builders of FHIR and OMOP. Does not belong here: lakes and files.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa

from dicom_assets.schema.registry import INSTANCE, SERIES, STUDY

AT = datetime(2026, 11, 20, 8, 30, 15, 123456, tzinfo=UTC)
BESIDES = (pa.field("source_file", pa.string()), pa.field("subject_state", pa.string()))
"""What builders get besides the columns of study."""


def study(number: int = 1, **columns: Any) -> dict[str, Any]:
    """One row of study with its subject's state, and where its newest object lies."""
    return {
        "source": "pacs",
        "study_key": f"key{number}",
        "object_id": f"object{number}",
        "version_at": AT,
        "series_count": 1,
        "instance_count": 1,
        "patient_count": 1,
        "first_seen_at": AT,
        "updated_at": AT,
        "StudyInstanceUID": f"1.2.{number}",
        "PatientID": f"P{number}",
        "IssuerOfPatientID": None,
        "AccessionNumber": f"A{number}",
        "StudyDate": date(2024, 1, 31),
        "StudyTime": "10:11:12.5",
        "TimezoneOffsetFromUTC": "+0100",
        "StudyDescription": "CT chest",
        "ReferringPhysicianName": "House^Gregory^^Dr",
        "ModalitiesInStudy": ["CT"],
        "source_file": "/landing/one.dcm",
        "subject_state": "identified",
        **columns,
    }


def series(study_number: int = 1, number: int = 1, **columns: Any) -> dict[str, Any]:
    """One row of series."""
    return {
        "source": "pacs",
        "study_key": f"key{study_number}",
        "object_id": f"object{study_number}.{number}",
        "version_at": AT,
        "instance_count": 1,
        "first_seen_at": AT,
        "updated_at": AT,
        "StudyInstanceUID": f"1.2.{study_number}",
        "SeriesInstanceUID": f"1.2.{study_number}.{number}",
        "SeriesNumber": number,
        "Modality": "CT",
        "PatientID": f"P{study_number}",
        "AccessionNumber": f"A{study_number}",
        "SeriesDate": date(2024, 1, 31),
        **columns,
    }


def instance(study_number: int = 1, series_number: int = 1, number: int = 1, **columns: Any) -> dict[str, Any]:
    """One row of instance."""
    return {
        **{k: v for k, v in series(study_number, series_number).items() if k in INSTANCE},
        "batch_id": "b",
        "sequence": 0,
        "SOPInstanceUID": f"1.2.{study_number}.{series_number}.{number}",
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
        "InstanceNumber": number,
        **columns,
    }


def studies(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows of study as a table, with BESIDES."""
    return pa.Table.from_pylist(list(rows), schema=pa.schema([*STUDY.schema, *BESIDES]))


def series_table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows of series as a table."""
    return pa.Table.from_pylist(list(rows), schema=SERIES.schema)


def instances(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows of instance as a table."""
    return pa.Table.from_pylist(list(rows), schema=INSTANCE.schema)
