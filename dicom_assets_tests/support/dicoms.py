"""Small DICOM objects made on the spot: bytes with just what a test is about.

Belongs here: bytes of one object. Does not belong here: folders and archives (`landings`).
"""

from __future__ import annotations

import io
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

ROOT = "1.2.826.0.1.3680043.8.498"
"""pydicom's own root, under which anybody may make UIDs for tests."""


def uid(*numbers: int) -> str:
    """A UID below ROOT: `uid(3)` names study 3, `uid(3, 1)` its series 1, `uid(3, 1, 7)` an instance of it."""
    return ".".join([ROOT, *map(str, numbers)])


def dicom(study: int = 1, series: int = 1, instance: int = 1, *, preamble: bool = True, **attributes: Any) -> bytes:
    """One CT instance without pixels, about 900 bytes. attributes: by keyword; None leaves one out."""
    values: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": uid(study, series, instance),
        "StudyDate": "20240131",
        "Modality": "CT",
        "StudyDescription": f"Study {study}",
        "SeriesDescription": f"Series {series}",
        "PatientName": f"Test^Patient {study}",
        "PatientID": f"P{study:04d}",
        "StudyInstanceUID": uid(study),
        "SeriesInstanceUID": uid(study, series),
        "SeriesNumber": series,
        "InstanceNumber": instance,
    }
    dataset = Dataset()
    for keyword, value in (values | attributes).items():
        if value is not None:
            setattr(dataset, keyword, value)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", uid(study, series, instance))
    dataset.file_meta = meta
    sink = io.BytesIO()
    dcmwrite(sink, dataset, enforce_file_format=True)
    return sink.getvalue() if preamble else sink.getvalue()[132:]


def without_identity(number: int = 1) -> bytes:
    """DICOM without a Study Instance UID: quarantined as MISSING_IDENTITY."""
    return dicom(instance=number, StudyInstanceUID=None)
