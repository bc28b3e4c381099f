"""Lakes of any size for the benchmark of scale, made without reading a single DICOM file.

An honest shortcut: rows come from a SELECT instead of headers, and each file is written and committed once, in the
layout that maintenance leaves behind, instead of by thousands of batches. What lies on the disk afterwards (tables,
columns, file sizes, statistics, claims) is what a lake of that size has; headers are shorter (about 0.9 KB instead of
10 KB), which only `flat_metadata` notices.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import pyarrow as pa

from dicom_assets.lake.delta import Lake
from dicom_assets.lake.keys import study_key
from dicom_assets.lake.maintenance import tidy
from dicom_assets.lake.registry import TABLES
from dicom_assets.lake.rewrite import file_rows, put_file, split, swap
from dicom_assets.landing.claims import FOLDER as CLAIMS
from dicom_assets.landing.claims import MANIFEST, ClaimLog
from dicom_assets.landing.store import LISTING, object_id

SOURCE = "landing"
PER_STUDY, PER_SERIES, PER_BATCH = 100, 25, 5_000
FIRST = datetime(2020, 1, 1, tzinfo=UTC)
UNIT = 250_000
"""Instances made at a time; also the rows of a file of the tables that are replaced by batch."""

STUDY_ROOT = "1.2.826.0.1.3680043.10.99"


def batch_name(number: int) -> str:
    """The id of a generated batch."""
    return f"{FIRST + timedelta(minutes=number):%Y%m%dT%H%M%SZ}-{number:08x}"


def study_uid(number: int) -> str:
    """The UID of a generated study."""
    return f"{STUDY_ROOT}.{number}"


_VALUES = {
    "source": f"'{SOURCE}'",
    "batch_id": "batch_id",
    "object_id": "substr(md5('o' || i), 1, 20)",
    "operation": "'upsert'",
    "version_at": "claimed_at",
    "sequence": "0",
    "uri": "'/landing/' || study || '/' || (i // 25) || '/' || i || '.dcm'",
    "size": "520000 + hash(i) % 9000",
    "study_key": "study_key",
    "content_digest": "md5('c' || i)",
    "ingested_at": "claimed_at",
    "first_seen_at": "claimed_at",
    "updated_at": "claimed_at",
    "issues": "[]",
    "StudyInstanceUID": f"'{STUDY_ROOT}.' || study",
    "SeriesInstanceUID": f"'{STUDY_ROOT}.' || study || '.' || (i // 25)",
    "SOPInstanceUID": f"'{STUDY_ROOT}.' || study || '.' || (i // 25) || '.' || i",
    "PatientID": "'P' || lpad((study // 3)::VARCHAR, 8, '0')",
    "IssuerOfPatientID": "'HOSPITAL'",
    "PatientName": "'FAMILY' || (study // 3 % 5000) || '^GIVEN' || (study % 700)",
    "PatientSex": "['M', 'F', 'O'][1 + (study // 3) % 3]",
    "PatientBirthDate": "DATE '1930-01-01' + ((study // 3) % 30000)::INTEGER",
    "PatientAge": "lpad((20 + study % 70)::VARCHAR, 3, '0') || 'Y'",
    "AccessionNumber": "'A' || study",
    "StudyID": "study::VARCHAR",
    "StudyDate": "DATE '2010-01-01' + (hash(study) % 5500)::INTEGER",
    "SeriesDate": "DATE '2010-01-01' + (hash(study) % 5500)::INTEGER",
    "StudyDescription": "['CT CHEST', 'MR BRAIN', 'CT ABDOMEN', 'XR HAND', 'US LIVER'][1 + study % 5]",
    "SeriesDescription": "['AXIAL', 'CORONAL', 'T1', 'T2', 'SCOUT'][1 + (i // 25) % 5]",
    "Modality": "['CT', 'MR', 'CT', 'DX', 'US'][1 + study % 5]",
    "BodyPartExamined": "['CHEST', 'BRAIN', 'ABDOMEN', 'HAND', 'LIVER'][1 + study % 5]",
    "Manufacturer": "['ACME', 'Beta Imaging', 'Gamma'][1 + study % 3]",
    "ManufacturerModelName": "'Model ' || study % 17",
    "SeriesNumber": "1 + (i // 25) % 4",
    "InstanceNumber": "1 + i % 25",
    "Rows": "512",
    "Columns": "512",
    "BitsAllocated": "16",
    "BitsStored": "12",
    "HighBit": "11",
    "SamplesPerPixel": "1",
    "PhotometricInterpretation": "'MONOCHROME2'",
    "PixelSpacing": "[0.7, 0.7]",
    "ImagePositionPatient": "[-180.0, -180.0, (i % 25) * 2.5]",
    "ImageOrientationPatient": "[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]",
    "SliceLocation": "(i % 25) * 2.5",
    "SliceThickness": "2.5",
    "KVP": "120.0",
    "SOPClassUID": "'1.2.840.10008.5.1.4.1.1.2'",
    "TransferSyntaxUID": "'1.2.840.10008.1.2.1'",
    "header": '\'{"00080018":{"vr":"UI","Value":["' + STUDY_ROOT + ".' || i || '\"]},' || repeat("
    '\'"00080060":{"vr":"CS","Value":["CT"]},\', 20) || \'"00200013":{"vr":"IS","Value":[\' || i || \']}}\'',
    "instance_count": "25",
    "series_count": "4",
    "patient_count": "1",
    "ModalitiesInStudy": "['CT']",
    "etag": "'e' || i",
    "modified_at": "claimed_at",
    "kind": "'dicom'",
    "claimed_at": "claimed_at",
    "outcome": "'ingested'",
    "judged_at": "claimed_at",
}


def _connection(studies: pa.Table | None) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    if studies is not None:
        connection.register("studies", studies)
    return connection


def study_keys(start: int, end: int) -> pa.Table:
    """Numbers of generated studies with their keys."""
    numbers = range(start, end)
    return pa.table({"study": list(numbers), "study_key": [study_key(SOURCE, study_uid(n)) for n in numbers]})


def rows(name: str, numbers: pa.Table, studies: pa.Table, order: str = "i") -> pa.Table:
    """Rows of a table for the instances whose numbers `i` are given; see the module."""
    table = TABLES[name]
    columns = ", ".join(f'{_VALUES.get(c.name, "NULL")} AS "{c.name}"' for c in table.columns)
    stamp = f"TIMESTAMPTZ '{FIRST.isoformat()}' + to_minutes(i // {PER_BATCH})"
    name_of = f"strftime({stamp}, '%Y%m%dT%H%M%SZ') || '-' || printf('%08x', i // {PER_BATCH})"
    with _connection(studies) as connection:
        connection.register("numbers", numbers)
        found = connection.sql(
            f"SELECT {columns} FROM (SELECT i, study, study_key, {stamp} AS claimed_at, {name_of} AS batch_id "
            f"FROM (SELECT i, i // {PER_STUDY} AS study FROM numbers) JOIN studies USING (study)) ORDER BY {order}"
        ).to_arrow_table()
    return found.cast(table.schema)


def numbers(start: int, end: int, step: int = 1) -> pa.Table:
    """Numbers of instances: all, or the first of each series or study."""
    return pa.table({"i": np.arange(start, end, step)})


def _append(lake: Lake, name: str, parts: Iterator[pa.Table]) -> None:
    adds = [put_file(lake, TABLES[name], part) for part in parts]
    swap(lake, name, lambda *_: (np.empty(0, np.int64), adds), data_change=True)


def make(uri: str, instances: int, tail: int = 20) -> Lake:
    """Makes a lake of so many instances.

    tail: newest batches, written one by one and merged as the clean-up of batches does it.
    """
    lake = Lake(uri)
    batches = instances // PER_BATCH
    merged = max(0, batches - tail) * PER_BATCH
    for start in range(0, merged, UNIT):
        _unit(lake, start, min(start + UNIT, merged))
    _clustered(lake, merged)
    for start in range(merged, instances, PER_BATCH):
        _unit(lake, start, start + PER_BATCH)
        _levels(lake, start, start + PER_BATCH)
    _books_and_claims(lake, batches)
    for name in TABLES:
        tidy(lake, name, at_most=1_000)
    return lake


def _unit(lake: Lake, start: int, end: int) -> None:
    studies = study_keys(start // PER_STUDY, -(-end // PER_STUDY))
    for name in ("raw_files", "validated_batch", "flat_metadata"):
        _append(lake, name, iter([rows(name, numbers(start, end), studies, "batch_id, study_key, i")]))
    firsts = numbers(start, end, PER_STUDY)
    _append(lake, "batch_study", iter([rows("batch_study", firsts, studies, "study_key")]))


_STEP = {"instance": 1, "series": PER_SERIES, "study": PER_STUDY}


def _levels(lake: Lake, start: int, end: int) -> None:
    studies = study_keys(start // PER_STUDY, -(-end // PER_STUDY))
    for name, step in _STEP.items():
        found = rows(name, numbers(start, end, step), studies, "study_key, i")
        _append(lake, name, split(found, "study_key", file_rows(name)))


def _clustered(lake: Lake, end: int) -> None:
    """The hierarchy in narrow ranges of study_key, some ranges at a time."""
    if not end:
        return
    studies = study_keys(0, -(-end // PER_STUDY)).sort_by("study_key")
    for name, step in _STEP.items():
        at_once = max(1, UNIT * step // PER_STUDY)
        for first in range(0, len(studies), at_once):
            some = studies.slice(first, at_once)
            of_each = np.arange(0, PER_STUDY, step)
            all_of_them = (some["study"].to_numpy()[:, None] * PER_STUDY + of_each[None, :]).ravel()
            found = rows(name, pa.table({"i": all_of_them[all_of_them < end]}), some, "study_key, i")
            _append(lake, name, split(found, "study_key", file_rows(name)))


def _books_and_claims(lake: Lake, batches: int) -> None:
    """The books of every batch, and its claim in the log."""
    made = pa.Table.from_pylist(
        [
            {
                "batch_id": batch_name(number), "source": SOURCE, "status": "closed", "seen": PER_BATCH,
                "ingested": PER_BATCH, "quarantined": 0, "ignored": 0, "deleted": 0, "clinical_records": 0,
                "clinical_rows": 0, "started_at": FIRST, "closed_at": FIRST, "run_id": "generated",
            }
            for number in range(batches)
        ],
        schema=TABLES["batches"].schema,
    )  # fmt: skip
    _append(lake, "batches", iter([made]))
    for number in range(batches):
        part = listing(number * PER_BATCH, (number + 1) * PER_BATCH)
        ids = [
            object_id(SOURCE, uri, etag, None)
            for uri, etag in zip(part["uri"].to_pylist(), part["etag"].to_pylist(), strict=True)
        ]
        size = len(part)
        columns = {
            "batch_id": pa.array([batch_name(number)] * size),
            "object_id": pa.array(ids),
            "source": pa.array([SOURCE] * size),
            "claimed_at": pa.array([FIRST] * size, MANIFEST.field("claimed_at").type),
            **{name: part[name] for name in LISTING.names},
        }
        claim = pa.table([columns[name] for name in MANIFEST.names], schema=MANIFEST)
        lake.files.put_parquet(f"{CLAIMS}/{number + 1:012d}.parquet", claim)
    ClaimLog(lake.files).summarise()


def listing(start: int, end: int) -> pa.RecordBatch:
    """What a listing of the landing zone says of some generated objects."""
    count = end - start
    return pa.record_batch(
        [
            pa.array([f"/landing/{i // PER_STUDY}/{i // PER_SERIES}/{i}.dcm" for i in range(start, end)]),
            pa.array([f"e{i}" for i in range(start, end)]),
            pa.array([520_000] * count, pa.int64()),
            pa.array([FIRST] * count, LISTING.field("modified_at").type),
        ],
        schema=LISTING,
    )
