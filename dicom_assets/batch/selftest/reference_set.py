"""The reference set: generated objects and reports of which everything is known in advance.

Belongs here: 96 DICOM files (some in zips with nested folders) of 9 studies and 24 series, 6 DiagnosticReports as JSON
rather than NDJSON, what a lake must hold of them, and the names that they bear. Does not belong here: putting them
anywhere.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicom_assets.dicom.selftest_uids import TEST_ROOT
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
"""What a lake holds of the set."""

STUDIES = 9
REPORTS = 6


@dataclass(frozen=True)
class Names:
    """What the objects of one set are called. base: what stands in the ids of ImagingStudy resources."""

    root: str
    patient: str
    issuer: str
    accession: str
    report: str
    base: str

    def study_uid(self, study: int) -> str:
        """StudyInstanceUID of a study, from 1."""
        return f"{self.root}.{study}"

    @property
    def studies(self) -> list[str]:
        """The StudyInstanceUIDs."""
        return [self.study_uid(number) for number in range(1, STUDIES + 1)]

    def patient_id(self, study: int) -> str:
        """Seven patients for nine studies; identifiers with leading zeros."""
        return f"{self.patient}{(study - 1) % 7 + 1:06d}"

    def report_id(self, number: int) -> str:
        """Id of a report, from 1."""
        return f"{self.report}-{number}"


REFERENCE = Names("1.2.826.0.1.3680043.8.498.71", "", "REFERENCE", "ACC", "reference", "landing")
"""The set that is the same each time."""


def names_of_test(token: str, base: str) -> Names:
    """Names that no other set has. token: eight hexadecimal digits. base: of ImagingStudy resources."""
    root = f"{TEST_ROOT}.{int(token, 16)}"
    return Names(root, f"SELFTEST-{token}-", "SELFTEST", f"ST{token}-", f"selftest-{token}", base)


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
_ZIPPED_STUDIES = {3: "north.zip", 4: "north.zip", 7: "south.zip"}


@dataclass(frozen=True, slots=True)
class File:
    """One DICOM file of the set: its path below the folder or in its zip, and its bytes."""

    path: str
    data: bytes
    archive: str | None


def objects(names: Names) -> Iterator[File]:
    """The 96 DICOM files."""
    for study, series, number in _numbers():
        yield File(_path(study, series, number), _dicom(names, study, series, number), _ZIPPED_STUDIES.get(study))


def _numbers() -> Iterator[tuple[int, int, int]]:
    """Study, series and instance of each file."""
    for study, count in enumerate(_SERIES_OF_STUDY, start=1):
        for series in range(1, count + 1):
            for number in range(1, _INSTANCES + 1):
                yield study, series, number


def _path(study: int, series: int, number: int) -> str:
    return f"study{study}/series{series}/level/{number:03d}.dcm"


def _dicom(names: Names, study: int, series: int, number: int) -> bytes:
    modality, sop_class, part, side = _KINDS[(study + series) % len(_KINDS)]
    uid = f"{names.study_uid(study)}.{series}.{number}"
    dataset = Dataset()
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = uid
    dataset.StudyInstanceUID = names.study_uid(study)
    dataset.SeriesInstanceUID = f"{names.study_uid(study)}.{series}"
    dataset.PatientID = names.patient_id(study)
    dataset.IssuerOfPatientID = names.issuer
    dataset.PatientName = f"Reference^{names.patient_id(study)}"
    dataset.AccessionNumber = f"{names.accession}{study:04d}"
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


def report(names: Names, number: int) -> dict[str, Any]:
    """One DiagnosticReport: two name the ImagingStudy, two the study's UID, two the accession number."""
    study = number
    uid = {"system": "urn:dicom:uid", "value": f"urn:oid:{names.study_uid(study)}"}
    order = {
        "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN"}]},
        "value": f"{names.accession}{study:04d}",
    }
    resource: dict[str, Any] = {
        "resourceType": "DiagnosticReport",
        "id": names.report_id(number),
        "meta": {"versionId": "1", "lastUpdated": f"2024-02-{number:02d}T08:00:00Z"},
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "18748-4", "display": "Diagnostic imaging study"}]},
        "subject": {"type": "Patient", "identifier": {"value": names.patient_id(study)}},
        "effectiveDateTime": f"2024-01-{study:02d}T10:15:00+01:00",
        "issued": f"2024-02-{number:02d}T08:00:00Z",
        "conclusion": f"Conclusion of reference study {study}.",
    }
    if number <= 2:
        resource["imagingStudy"] = [{"reference": f"ImagingStudy/{resource_id(names.base, names.study_uid(study))}"}]
    elif number <= 4:
        resource["imagingStudy"] = [{"identifier": uid}]
    else:
        resource["identifier"] = [order]
    return resource


_REPORT_FILES = ("one.ndjson", "two.json", "bundle.json")


def paths() -> list[str]:
    """The paths of `files`, which are the same for all names, without making what is in them."""
    images = [f"images/{_path(*numbers)}" for numbers in _numbers() if numbers[0] not in _ZIPPED_STUDIES]
    return [*images, *dict.fromkeys(_ZIPPED_STUDIES.values()), *(f"reports/{name}" for name in _REPORT_FILES)]


def files(names: Names) -> Iterator[tuple[str, bytes]]:
    """The files of the set, by path: objects, zips of objects, reports."""
    archives: dict[str, list[File]] = {}
    for file in objects(names):
        if file.archive:
            archives.setdefault(file.archive, []).append(file)
        else:
            yield f"images/{file.path}", file.data
    for name, members in archives.items():
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
            for member in members:
                archive.writestr(zipfile.ZipInfo(f"export/{member.path}", (2024, 1, 1, 0, 0, 0)), member.data)
        yield name, sink.getvalue()
    one, two, three, *rest = (report(names, number) for number in range(1, REPORTS + 1))
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": each} for each in rest]}
    for file_name, value in zip(_REPORT_FILES, (one, [two, three], bundle), strict=True):
        yield f"reports/{file_name}", json.dumps(value, indent=2).encode()
