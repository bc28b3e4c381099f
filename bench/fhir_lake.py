"""Lakes of any size with clinical records and the tables of FHIR and OMOP, for the benchmark of those.

Belongs here: what a generated lake says of its patients besides images, and publishing all of it by the project's own
functions, some hundred studies a batch, merged as the clean-up of batches does it. Does not belong here: the DICOM
tables (`scale_lake`), what is measured (`fhir`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import orjson
import pyarrow as pa

from bench.scale_lake import make, study_keys
from bench.scale_names import FIRST, PER_BATCH, PER_STUDY, SOURCE, batch_name, study_uid
from dicom_assets.batch.clinical import publish_clinical
from dicom_assets.batch.standards import (
    publish_coverage,
    publish_diagnostic_report,
    publish_identifiers,
    publish_imaging_study,
    publish_occurrences,
)
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.maintenance import tidy
from dicom_assets.lake.staging import SCHEMAS, Part, Staging
from dicom_assets.schema.keys import record_key
from dicom_assets.settings import Settings

STUDIES_AT_ONCE = 500
"""Studies of one batch by which the tables are filled."""

OBSERVATIONS = 4
"""Observations of a patient; a patient has three studies and one report for each."""

STANDARD_TABLES = (
    "clinical",
    "imaging_study",
    "diagnostic_report",
    "omop_identifier",
    "image_occurrence",
    "image_occurrence_origin",
)


def settings_of(lake: Lake) -> Settings:
    """The settings of a generated lake."""
    return Settings.model_validate({"lake": lake.uri, "sources": [{"name": SOURCE, "root": "/landing"}]})


def _record(batch: str, number: int, kind: str, name: str, patient: int, own: dict[str, Any]) -> dict[str, Any]:
    """A row of clinical, as reading a FHIR resource gives it."""
    resource = {
        "resourceType": kind,
        "id": name,
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "18748-4", "display": "Diagnostic imaging study"}]},
        "subject": {"reference": f"Patient/p{patient}"},
        "text": {"status": "generated", "div": f"<div>{'No acute finding. ' * 20}{name}</div>"},
        **own,
    }
    key = record_key(SOURCE, kind, name)
    return {
        "source": SOURCE,
        "record_key": key,
        "record_type": kind,
        "batch_id": batch,
        "object_id": f"c{batch}",
        "record": number,
        "file_key": key,
        "version_at": FIRST,
        "PatientID": f"P{patient:08}",
        "IssuerOfPatientID": "HOSPITAL",
        "record_values": orjson.dumps(resource).decode(),
        "resource_id": name,
        "resource_version": "1",
        "last_updated": FIRST + timedelta(days=1),
        "patient_reference": f"Patient/p{patient}",
        "patient_system": "urn:hospital",
        "status": "final",
        "code_system": "http://loinc.org",
        "code": "18748-4",
        "code_display": "Diagnostic imaging study",
    }


def clinical_rows(batch: str, studies: range) -> Iterator[dict[str, Any]]:
    """A report for each study; for each patient whose first study is among them the Patient and observations."""
    number = 0
    for study in studies:
        patient = study // 3
        identifier = [
            {"type": {"coding": [{"code": "ACSN"}]}, "value": f"A{study}"},
            {"system": "urn:dicom:uid", "value": f"urn:oid:{study_uid(study)}"},
        ]
        number += 1
        yield _record(batch, number, "DiagnosticReport", f"r{study}", patient, {"identifier": identifier})
        if study % 3 == 0:
            number += 1
            yield _record(batch, number, "Patient", f"p{patient}", patient, {})
            for each in range(OBSERVATIONS):
                number += 1
                yield _record(batch, number, "Observation", f"o{patient}-{each}", patient, {})


def staged(lake: Lake, batch: str, studies: range, *, with_records: bool = False) -> Staging:
    """The staging of a batch that touches these studies of a generated lake."""
    staging = Staging(lake.files, batch)
    keys = study_keys(studies.start, studies.stop)["study_key"]
    staging.put(Part.TOUCHED, 0, pa.table({"study_key": sorted(keys.to_pylist())}, schema=SCHEMAS[Part.TOUCHED]))
    raw = {"batch_id": batch, "object_id": "o", "source": SOURCE, "uri": "x", "kind": "dicom", "claimed_at": FIRST}
    staging.put(Part.RAW, 0, pa.Table.from_pylist([raw], schema=SCHEMAS[Part.RAW]))
    if with_records:
        records = list(clinical_rows(batch, studies))
        staging.put(Part.CLINICAL, 0, pa.Table.from_pylist(records, schema=SCHEMAS[Part.CLINICAL]))
    return staging


def steps(lake: Lake, staging: Staging, settings: Settings) -> dict[str, Callable[[], object]]:
    """The publishing of one batch, by asset."""
    return {
        "clinical": lambda: publish_clinical(lake, staging),
        "imaging_study": lambda: publish_imaging_study(lake, staging, settings),
        "diagnostic_report": lambda: publish_diagnostic_report(lake, staging),
        "omop_identifier": lambda: publish_identifiers(lake, staging, settings),
        "image_occurrence": lambda: publish_occurrences(lake, staging, settings, "image_occurrence"),
        "image_occurrence_origin": lambda: publish_occurrences(lake, staging, settings, "image_occurrence_origin"),
        "mapping_coverage": lambda: publish_coverage(lake),
    }


def filled(uri: str, instances: int) -> Lake:
    """Makes a lake of so many instances, with everything that is made from them."""
    lake = make(uri, instances)
    settings = settings_of(lake)
    studies = instances // PER_STUDY
    for start in range(0, studies, STUDIES_AT_ONCE):
        some = range(start, min(start + STUDIES_AT_ONCE, studies))
        staging = staged(lake, batch_name(start * PER_STUDY // PER_BATCH), some, with_records=True)
        for name, work in steps(lake, staging, settings).items():
            if name != "mapping_coverage":
                work()
        staging.remove()
        for name in STANDARD_TABLES:
            tidy(lake, name)
    publish_coverage(lake)
    return lake
