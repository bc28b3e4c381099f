"""Clinical records of generated lakes: laboratory results, and reports linked to their studies.

Belongs here: their rows. Does not belong here: images and their tables (`scale_lake`).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pyarrow as pa

from bench.scale_names import FIRST, PER_BATCH, PER_STUDY, SOURCE, batch_name, study_uid
from dicom_assets.lake.delta import Lake
from dicom_assets.omop.integers import natural_key
from dicom_assets.schema.keys import record_key, study_key
from dicom_assets.schema.registry import TABLES


def clinical_rows(start: int, end: int) -> pa.Table:
    """A laboratory result of every patient with three studies, in the batch of the first; and the reports."""
    found = []
    for study in range(start, end):
        stamp = FIRST + timedelta(minutes=study * PER_STUDY // PER_BATCH)
        row = {
            "source": SOURCE, "batch_id": batch_name(study * PER_STUDY // PER_BATCH), "record": 1, "version_at": stamp,
            "PatientID": f"P{study // 3:08d}",
        }  # fmt: skip
        if study % 9 == 0:
            key, values = record_key("result", str(study)), f'{{"PatientID":"P{study // 3:08d}","Result":"positive"}}'
            own = {"record_type": "laboratory", "record_key": key, "file_key": key, "record_values": values}
            found.append({**row, **own, "object_id": natural_key("result", str(study))[:20]})
        if study % 20 == 0:
            found.append({**row, **_report(study), "object_id": natural_key("report", str(study))[:20]})
    return pa.Table.from_pylist(found, schema=TABLES["clinical"].schema)


def _report(study: int) -> dict[str, str]:
    key = record_key("report", str(study))
    accession = (
        '{"type":{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/v2-0203","code":"ACSN"}]},'
        f'"value":"A{study}"}}'
    )
    return {
        "record_type": "DiagnosticReport",
        "record_key": key,
        "file_key": key,
        "resource_id": f"report-{study}",
        "status": "final",
        "record_values": f'{{"resourceType":"DiagnosticReport","id":"report-{study}","status":"final",'
        f'"identifier":[{accession}],"conclusion":"No finding."}}',
    }


def put_reports(lake: Lake, instances: int) -> None:
    """The table of reports, each linked to its study."""
    made: list[dict[str, Any]] = []
    for study in range(0, instances // PER_STUDY, 20):
        uid = study_uid(study)
        made.append(
            {
                "source": SOURCE, "record_key": record_key("report", str(study)), "id": f"report-{study}",
                "PatientID": f"P{study // 3:08d}", "status": "final", "conclusion": "No finding.",
                "accession_numbers": [f"A{study}"], "based_on": [], "imaging_studies": [], "study_uids": [],
                "study_key": study_key(SOURCE, uid), "StudyInstanceUID": uid, "study_keys": [study_key(SOURCE, uid)],
                "linked_by": "accession_number", "link_state": "linked", "version_at": FIRST,
                "batch_id": batch_name(study * PER_STUDY // PER_BATCH),
                "object_id": natural_key("report", str(study))[:20],
            }
        )  # fmt: skip
    lake.replace(
        "diagnostic_report",
        [row["record_key"] for row in made],
        pa.Table.from_pylist(made, schema=TABLES["diagnostic_report"].schema),
    )
