"""The reference run: a generated set whose results are known in advance, and whether a lake has them.

    python -m dicom_assets.reference write FOLDER
    python -m dicom_assets.reference check LAKE

Belongs here: 96 DICOM files (some in zips with nested folders) of 9 studies and 24 series, 6 DiagnosticReports as JSON
rather than NDJSON, and what a lake must hold of them. Does not belong here: anything that another module needs.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicom_assets.fhir.imaging_study import resource_id

EXPECTED = {
    "flat_metadata": 96,
    "instance": 96,
    "series": 24,
    "study": 9,
    "imaging_study": 9,
    "image_occurrence": 24,
    "diagnostic_report": 6,
    "linked reports": 6,
    "ingestion_errors that are errors": 0,
}
"""What a lake holds that has taken in the reference set and nothing else."""

SOURCE = "landing"
"""Name of the landing source; it stands in the ids of ImagingStudy resources."""

_ROOT = "1.2.826.0.1.3680043.8.498.71"
_SERIES_OF_STUDY = (4, 3, 3, 3, 3, 2, 2, 2, 2)
_INSTANCES = 4
_KINDS = (
    ("CT", "1.2.840.10008.5.1.4.1.1.2", "CHEST", None),
    ("MR", "1.2.840.10008.5.1.4.1.1.4", "BRAIN", None),
    ("US", "1.2.840.10008.5.1.4.1.1.6.1", "BREAST", "L"),
    ("DX", "1.2.840.10008.5.1.4.1.1.1.1", "KNEE", "R"),
    ("PT", "1.2.840.10008.5.1.4.1.1.128", "WHOLEBODY", None),
    ("MG", "1.2.840.10008.5.1.4.1.1.1.2", "BREAST", "R"),
)
_AGE_SECONDS = 3_600
_ZIPPED_STUDIES = {3: "north.zip", 4: "north.zip", 7: "south.zip"}


@dataclass(frozen=True, slots=True)
class File:
    """One DICOM file of the set: its path below the folder or in its zip, and its bytes."""

    path: str
    data: bytes
    archive: str | None


def study_uid(study: int) -> str:
    """StudyInstanceUID of a study, from 1."""
    return f"{_ROOT}.{study}"


def files() -> Iterator[File]:
    """The 96 DICOM files."""
    for study, count in enumerate(_SERIES_OF_STUDY, start=1):
        for series in range(1, count + 1):
            for number in range(1, _INSTANCES + 1):
                name = f"study{study}/series{series}/level/{number:03d}.dcm"
                yield File(name, _dicom(study, series, number), _ZIPPED_STUDIES.get(study))


def _dicom(study: int, series: int, number: int) -> bytes:
    modality, sop_class, part, side = _KINDS[(study + series) % len(_KINDS)]
    uid = f"{study_uid(study)}.{series}.{number}"
    dataset = Dataset()
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = uid
    dataset.StudyInstanceUID = study_uid(study)
    dataset.SeriesInstanceUID = f"{study_uid(study)}.{series}"
    dataset.PatientID = _patient(study)
    dataset.IssuerOfPatientID = "REFERENCE"
    dataset.PatientName = f"Reference^{_patient(study)}"
    dataset.AccessionNumber = f"ACC{study:04d}"
    dataset.StudyDate = dataset.SeriesDate = f"202401{study:02d}"
    dataset.StudyTime = dataset.SeriesTime = "101500"
    dataset.TimezoneOffsetFromUTC = "+0100"
    dataset.StudyDescription = f"Reference study {study}"
    dataset.SeriesDescription = f"{modality} series"
    dataset.Modality = modality
    dataset.BodyPartExamined = part
    dataset.SeriesNumber = series
    dataset.InstanceNumber = number
    dataset.Manufacturer = "Reference"
    if side:
        dataset.Laterality = side
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(uid)
    dataset.file_meta = meta
    sink = io.BytesIO()
    dcmwrite(sink, dataset, enforce_file_format=True)
    return sink.getvalue()


def _patient(study: int) -> str:
    """Seven patients for nine studies; identifiers with leading zeros."""
    return f"{(study - 1) % 7 + 1:06d}"


def report(number: int) -> dict[str, Any]:
    """One DiagnosticReport: two name the ImagingStudy, two the study's UID, two the accession number."""
    study = number
    uid = {"system": "urn:dicom:uid", "value": f"urn:oid:{study_uid(study)}"}
    order = {
        "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN"}]},
        "value": f"ACC{study:04d}",
    }
    resource: dict[str, Any] = {
        "resourceType": "DiagnosticReport",
        "id": f"reference-{number}",
        "meta": {"versionId": "1", "lastUpdated": f"2024-02-{number:02d}T08:00:00Z"},
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "18748-4", "display": "Diagnostic imaging study"}]},
        "subject": {"type": "Patient", "identifier": {"value": _patient(study)}},
        "effectiveDateTime": f"2024-01-{study:02d}T10:15:00+01:00",
        "issued": f"2024-02-{number:02d}T08:00:00Z",
        "conclusion": f"Conclusion of reference study {study}.",
    }
    if number <= 2:
        resource["imagingStudy"] = [{"reference": f"ImagingStudy/{resource_id(SOURCE, study_uid(study))}"}]
    elif number <= 4:
        resource["imagingStudy"] = [{"identifier": uid}]
    else:
        resource["identifier"] = [order]
    return resource


def write(folder: Path) -> int:
    """Writes the set into a folder; how many files there are now. Raises OSError."""
    archives: dict[str, list[File]] = {}
    for file in files():
        if file.archive:
            archives.setdefault(file.archive, []).append(file)
        else:
            _put(folder / "images" / file.path, file.data)
    for name, members in archives.items():
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
            for member in members:
                archive.writestr(zipfile.ZipInfo(f"export/{member.path}", (2024, 1, 1, 0, 0, 0)), member.data)
        _put(folder / name, sink.getvalue())
    one, two, three, *rest = (report(number) for number in range(1, 7))
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": each} for each in rest]}
    for file_name, value in (("one.ndjson", one), ("two.json", [two, three]), ("bundle.json", bundle)):
        _put(folder / "reports" / file_name, json.dumps(value, indent=2).encode())
    return sum(1 for path in folder.rglob("*") if path.is_file())


def _put(path: Path, data: bytes) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        moment = time.time() - _AGE_SECONDS
        os.utime(path, (moment, moment))


def found(lake_uri: str) -> dict[str, int]:
    """What a lake holds of everything in EXPECTED. Raises LakeError."""
    from dicom_assets.lake.query import connect, existing

    queries = {name: f"SELECT count(*) FROM {name}" for name in EXPECTED if " " not in name}
    queries["linked reports"] = "SELECT count(*) FROM diagnostic_report WHERE link_state = 'linked'"
    queries["ingestion_errors that are errors"] = "SELECT count(*) FROM ingestion_errors WHERE severity = 'error'"
    with connect(existing(lake_uri)) as connection:
        return {name: connection.execute(sql).fetchall()[0][0] for name, sql in queries.items()}


def main(arguments: Sequence[str]) -> int:
    """Writes the set, or compares a lake with what is expected; 0 when it is right."""
    if len(arguments) != 2 or arguments[0] not in ("write", "check"):
        print(__doc__, file=sys.stderr)
        return 2
    if arguments[0] == "write":
        print(f"{write(Path(arguments[1]))} files in {arguments[1]}")
        return 0
    actual = found(str(Path(arguments[1]).absolute()))
    print(f"{'':36}{'expected':>10}{'found':>8}")
    for name, expected in EXPECTED.items():
        print(f"{name:36}{expected:>10}{actual[name]:>8}{'' if actual[name] == expected else '   differs'}")
    return 0 if actual == EXPECTED else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
