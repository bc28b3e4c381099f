"""Sample input made of what every installation has: the DICOM files of the pydicom package.

Belongs here: a landing folder worth looking at. Does not belong here: anything that another module needs.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import zipfile
from pathlib import Path
from typing import Any

import pydicom

CLINICAL_CSV = """\
PatientID,record_date,diagnosis_code,diagnosis,smoker
1CT1,2004-01-12,R91.8,Nonspecific abnormal finding of lung field,no
4MR1,2004-08-20,M54.5,Low back pain,yes
77654033,1995-08-30,S72.0,Fracture of neck of femur,no
98890234,2001-01-02,R10.4,Unspecified abdominal pain,no
98890234,2003-04-28,G43.9,Migraine,no
021234567,2004-03-01,Z00.0,General examination,
no-images,2020-02-02,J18.9,Pneumonia,yes
"""
_ACSN = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN"}]}
REPORTS: list[dict[str, Any]] = [
    {"resourceType": "Patient", "id": "demo-1", "identifier": [{"type": {"text": "MRN"}, "value": "98890234"}]},
    {"resourceType": "Patient", "id": "demo-2", "identifier": [{"type": {"text": "MRN"}, "value": "4MR1"}]},
    {
        "resourceType": "Condition",
        "id": "demo-condition",
        "subject": {"reference": "Patient/demo-1"},
        "code": {"coding": [{"system": "http://snomed.info/sct", "code": "37796009", "display": "Migraine"}]},
        "onsetDateTime": "2003-04-28",
    },
    {
        "resourceType": "DiagnosticReport",
        "id": "demo-mr-head",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "24590-2", "display": "MR Brain"}]},
        "subject": {"reference": "Patient/demo-1"},
        "identifier": [{"type": _ACSN, "value": "428"}],
        "effectiveDateTime": "2003-05-05",
        "conclusion": "No focal lesion.",
    },
    {
        "resourceType": "DiagnosticReport",
        "id": "demo-mr-spine",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "24968-0", "display": "MR Lumbar spine"}]},
        "subject": {"reference": "Patient/demo-2"},
        "imagingStudy": [
            {
                "identifier": {
                    "system": "urn:dicom:uid",
                    "value": "urn:oid:1.3.6.1.4.1.5962.1.2.4.20040826185059.5457",
                }
            }
        ],
        "effectiveDateTime": "2004-08-26",
        "conclusion": "Degeneration of a disc.",
    },
]
"""FHIR that belongs to some of the images: invented, like the table above."""
_ZIPPED = "98892003"
_AGE_SECONDS = 3_600


def write_demo(folder: Path) -> int:
    """Fills a folder with sample input; how many files there are. What is there already is left alone.

    Files get a time an hour ago: they are complete, nobody has to wait for them. Raises OSError.
    """
    data = Path(pydicom.__file__).parent / "data"
    images = folder / "images"
    zipped: list[Path] = []
    for part in ("test_files", "charset_files"):
        for found in sorted((data / part).rglob("*")):
            if not found.is_file() or found.suffix in {".py", ".pyc", ".json"}:
                continue
            if _ZIPPED in found.parts:
                zipped.append(found)
            else:
                _place(found, images / part / found.relative_to(data / part))
    _zip(folder / "from-another-site.zip", zipped)
    clinical = folder / "clinical" / "diagnoses.csv"
    if not clinical.exists():
        clinical.parent.mkdir(parents=True, exist_ok=True)
        clinical.write_text(CLINICAL_CSV, encoding="utf-8")
        _settle(clinical)
    reports = folder / "clinical" / "reports.json"
    if not reports.exists():
        bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": one} for one in REPORTS]}
        reports.write_text(json.dumps(bundle, indent=2), encoding="utf-8")
        _settle(reports)
    return sum(1 for path in folder.rglob("*") if path.is_file())


def _settle(path: Path) -> None:
    moment = time.time() - _AGE_SECONDS
    os.utime(path, (moment, moment))


def _place(source: Path, target: Path) -> None:
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        _settle(target)


def _zip(target: Path, sources: list[Path]) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for source in sources:
            archive.write(source, Path(*source.parts[-3:]))
    _settle(target)
