"""ImagingStudy: resources of FHIR R4B from the rows of study, series and instance, and their NDJSON files.

Belongs here: putting resources together, their ids, rows of `imaging_study`, file names. Does not belong here: how an
element is made (`mapping`), which studies are built and where files go (whoever publishes).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import orjson
import pyarrow as pa

from dicom_assets.fhir import conversions as values
from dicom_assets.fhir.mapping import INSTANCE, SERIES, STUDY, Context, Row, made
from dicom_assets.omop.concepts import MAPPING_VERSION
from dicom_assets.schema.registry import IMAGING_STUDY

RESOURCES_PER_FILE = 1_000
INSTANCE_COLUMNS = (
    "study_key",
    "source",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "SOPClassUID",
    "InstanceNumber",
    "DocumentTitle",
)
"""What the builder reads of `instance`."""

SERIES_COLUMNS = (
    "study_key",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "Modality",
    "SeriesDescription",
    "anatomic_region_code",
    "anatomic_region_scheme",
    "anatomic_region_meaning",
    "BodyPartExamined",
    "Laterality",
    "SeriesDate",
    "SeriesTime",
    "TimezoneOffsetFromUTC",
    "PerformingPhysicianName",
    "OperatorsName",
    "Manufacturer",
    "ManufacturerModelName",
)
"""What the builder reads of `series`, which has four times as many."""


def resource_id(base: str, study_uid: str) -> str:
    """Id of a study's resource: SHA-256 in hexadecimal of `base/ImagingStudy/StudyInstanceUID`, without an empty base.

    64 hexadecimal digits are just what FHIR's `id` takes. The base keeps a study that two sources hold apart.
    """
    name = f"ImagingStudy/{study_uid}"
    return hashlib.sha256((f"{base.rstrip('/')}/{name}" if base else name).encode()).hexdigest()


def _order(row: Row, number: str, uid: str) -> tuple[bool, int, str]:
    value = row.get(number)
    return value is None, value or 0, row[uid]


def resource(
    study: Row, series: Sequence[Row], instances: Sequence[Row], base: str, context: Context
) -> dict[str, Any]:
    """One ImagingStudy of R4B from one row of `study`, its rows of `series` and its rows of `instance`.

    Without series it is `entered-in-error`. Series are in the order of number and UID, and so are instances, so that
    equal rows give equal bytes.
    """
    by_series: dict[str, list[Row]] = defaultdict(list)
    for instance in instances:
        by_series[instance["SeriesInstanceUID"]].append(instance)
    ordered = sorted(series, key=lambda row: _order(row, "SeriesNumber", "SeriesInstanceUID"))
    filled = [{**row, "instances": by_series[row["SeriesInstanceUID"]]} for row in ordered]
    result: dict[str, Any] = {
        "resourceType": "ImagingStudy",
        "id": resource_id(base, study["StudyInstanceUID"]),
        "meta": {"lastUpdated": values.instant(study["updated_at"])},
        **made(STUDY, {**study, "series": filled}, context),
    }
    if filled:
        result["series"] = [_series(row, context) for row in filled]
    return result


def _series(row: Row, context: Context) -> dict[str, Any]:
    result = made(SERIES, row, context)
    instances = sorted(row["instances"], key=lambda i: _order(i, "InstanceNumber", "SOPInstanceUID"))
    result["instance"] = [made(INSTANCE, instance, context) for instance in instances]
    return result


def rows(studies: pa.Table, series: pa.Table, instances: pa.Table, *, base: str | None, context: Context) -> pa.Table:
    """Rows of `imaging_study`, one for each row of `studies`, in its order.

    studies: columns of `study` with their subject and its state (`lake.subjects.subjects`), and `source_file`; those
    without series become entered-in-error. series, instances:
    SERIES_COLUMNS, INSTANCE_COLUMNS. base: None takes each study's source.
    """
    series_of: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in series.select(list(SERIES_COLUMNS)).to_pylist():
        series_of[row["study_key"], row["StudyInstanceUID"]].append(row)
    instances_of: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in instances.select(list(INSTANCE_COLUMNS)).to_pylist():
        instances_of[row["study_key"], row["StudyInstanceUID"]].append(row)
    found = []
    for study in studies.to_pylist():
        key = study["study_key"], study["StudyInstanceUID"]
        own_base = study["source"] if base is None else base
        made_resource = resource(study, series_of[key], instances_of[key], own_base, context)
        found.append(_row(study, made_resource))
    return pa.Table.from_pylist(found, schema=IMAGING_STUDY.schema)


def _row(study: Row, built: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": built["id"],
        "source": study["source"],
        "study_key": study["study_key"],
        "StudyInstanceUID": study["StudyInstanceUID"],
        "status": built["status"],
        "is_deleted": built["status"] == "entered-in-error",
        "PatientID": study.get("PatientID"),
        "IssuerOfPatientID": study.get("IssuerOfPatientID"),
        "subject_state": study["subject_state"],
        "AccessionNumber": values.text(study.get("AccessionNumber")),
        "started": built.get("started"),
        "started_date": study.get("StudyDate"),
        "modality": [coding["code"] for coding in built.get("modality", ())],
        "description": built.get("description"),
        "series_count": built["numberOfSeries"],
        "instance_count": built["numberOfInstances"],
        "resource": orjson.dumps(built).decode(),
        "created_at": study["first_seen_at"],
        "modified_at": study["updated_at"],
        "source_file": study.get("source_file"),
        "mapping_version": MAPPING_VERSION,
    }


NDJSON = "Process/Clinical/FHIR NDJSON"
"""The folder of the lake that NDJSON files lie below."""


def ndjson_folder(namespace: str, at: datetime) -> str:
    """Where the NDJSON files of a batch lie: `Process/Clinical/FHIR NDJSON/{namespace}/yyyy/mm/dd/ImagingStudy`.

    at: when the batch was claimed, in UTC.
    """
    return f"{NDJSON}/{namespace}/{at:%Y/%m/%d}/ImagingStudy"


def ndjson_name(batch_id: str) -> str:
    """What the names of a batch's NDJSON files begin with. A time alone would be shared by all batches of a round."""
    return f"ImagingStudy-{batch_id}-"


def ndjson_files(resources: Iterable[str], batch_id: str) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the NDJSON files of one batch, RESOURCES_PER_FILE resources each, numbered from 1.

    They are the same in every rerun, and no other batch has them.
    """
    held: list[str] = []
    number = 1
    for one in resources:
        held.append(one)
        if len(held) == RESOURCES_PER_FILE:
            yield _file(held, batch_id, number)
            held, number = [], number + 1
    if held:
        yield _file(held, batch_id, number)


def _file(lines: list[str], batch_id: str, number: int) -> tuple[str, bytes]:
    return f"{ndjson_name(batch_id)}{number:06d}.ndjson", "".join(f"{line}\n" for line in lines).encode()
