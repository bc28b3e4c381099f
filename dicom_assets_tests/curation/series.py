"""Generated series for geometry: slices of a volume as attributes, defects of them, and DICOM objects made of these.

Belongs here: series by what is wrong with them. Does not belong here: what the lake says of them (`test_geometry`).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    RTDoseStorage,
    SecondaryCaptureImageStorage,
)

from dicom_assets_tests.support.dicoms import uid

Slices = list[dict[str, Any]]
"""A series: the attributes of each image by keyword."""

AXIAL, CORONAL, SAGITTAL = [1.0, 0, 0, 0, 1, 0], [1.0, 0, 0, 0, 0, -1], [0, 1.0, 0, 0, 0, -1]
COUNT, SPACING = 12, 2.5


def volume(
    count: int = COUNT,
    spacing: float = SPACING,
    orientation: Sequence[float] = AXIAL,
    origin: Sequence[float] = (-100.0, -120.0, 30.0),
    **more: Any,
) -> Slices:
    """A regular volume: `count` slices with a distance of `spacing` mm along their normal."""
    normal = np.cross(orientation[:3], orientation[3:])
    return [
        {
            "ImagePositionPatient": [round(float(one), 6) for one in np.asarray(origin) + place * spacing * normal],
            "ImageOrientationPatient": [float(one) for one in orientation],
            "PixelSpacing": [0.8, 0.8],
            "Rows": 16,
            "Columns": 16,
            "SliceThickness": spacing,
            "InstanceNumber": place + 1,
            "AcquisitionNumber": 1,
            "FrameOfReferenceUID": uid(900, 1),
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            **more,
        }
        for place in range(count)
    ]


def moved(one: dict[str, Any], *by: float) -> dict[str, Any]:
    """A slice that lies elsewhere, by so many mm."""
    return {**one, "ImagePositionPatient": [float(a + b) for a, b in zip(one["ImagePositionPatient"], by, strict=True)]}


def changed(slices: Slices, place: int, **attributes: Any) -> Slices:
    """Slices of which one has other attributes; None leaves one out."""
    return [{**one, **attributes} if at == place else one for at, one in enumerate(slices)]


def repeated(times: int, attributes: Callable[[int], dict[str, Any]], **more: Any) -> Slices:
    """The same volume several times, told apart by attributes."""
    found: Slices = []
    for time in range(times):
        found += [
            {**one, "InstanceNumber": len(found) + one["InstanceNumber"], **attributes(time)} for one in volume(**more)
        ]
    return found


def leaning(degrees: float, **more: Any) -> Slices:
    """A volume whose positions lean in the plane, as they do with a gantry tilt that was not corrected."""
    shift = np.tan(np.radians(degrees)) * SPACING
    return [moved(one, 0, round(float(shift * place), 6), 0) for place, one in enumerate(volume(**more))]


def dataset(
    study: int, series: int, number: int, attributes: dict[str, Any], sop_class: str = CTImageStorage
) -> Dataset:
    """One image of a series, with a pixel for each place."""
    one = Dataset()
    modality = {CTImageStorage: "CT", SecondaryCaptureImageStorage: "OT", RTDoseStorage: "RTDOSE"}
    values: dict[str, Any] = {
        "SOPClassUID": sop_class,
        "SOPInstanceUID": uid(study, series, number),
        "StudyInstanceUID": uid(study),
        "SeriesInstanceUID": uid(study, series),
        "StudyDate": "20240131",
        "Modality": modality.get(sop_class, "MR"),
        "Manufacturer": "ACME",
        "PatientID": f"P{study:04d}",
        "PatientName": f"Test^Patient {study}",
        "SeriesNumber": series,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
    }
    for keyword, value in (values | attributes).items():
        if value is not None:
            setattr(one, keyword, value)
    frames = int(one.get("NumberOfFrames", 1))
    one.PixelData = np.full(frames * one.Rows * one.Columns, number, dtype="<u2").tobytes()
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = one.SOPClassUID, one.SOPInstanceUID
    one.file_meta = meta
    return one


def written(one: Dataset) -> bytes:
    """A DICOM file."""
    sink = io.BytesIO()
    dcmwrite(sink, one, enforce_file_format=True)
    return sink.getvalue()


def datasets(study: int, series: int, slices: Slices, sop_class: str = CTImageStorage) -> list[Dataset]:
    """The objects of a series."""
    return [dataset(study, series, number, one, sop_class) for number, one in enumerate(slices, start=1)]


def _item(**attributes: Any) -> list[Dataset]:
    one = Dataset()
    for keyword, value in attributes.items():
        setattr(one, keyword, value)
    return [one]


def enhanced(study: int, series: int, slices: Slices, **more: Any) -> Dataset:
    """The same slices as frames of one Enhanced MR object: orientation and pixels are shared, the rest is each one's.

    EchoTime and DiffusionBValue of a slice stand in the macros of its frame.
    """
    first = slices[0]
    top = {"Rows": first["Rows"], "Columns": first["Columns"], "NumberOfFrames": len(slices), "InstanceNumber": 1}
    one = dataset(
        study, series, 1, {**top, "FrameOfReferenceUID": first["FrameOfReferenceUID"]}, EnhancedMRImageStorage
    )
    (shared,) = _item(
        PlaneOrientationSequence=_item(ImageOrientationPatient=first["ImageOrientationPatient"]),
        PixelMeasuresSequence=_item(PixelSpacing=first["PixelSpacing"], SliceThickness=first["SliceThickness"]),
    )
    frames = []
    for place, own in enumerate(slices, start=1):
        (frame,) = _item(
            PlanePositionSequence=_item(ImagePositionPatient=own["ImagePositionPatient"]),
            FrameContentSequence=_item(StackID="1", InStackPositionNumber=own.get("place", place)),
        )
        if "EchoTime" in own:
            frame.MREchoSequence = _item(EffectiveEchoTime=float(own["EchoTime"]))
        if "DiffusionBValue" in own:
            frame.MRDiffusionSequence = _item(DiffusionBValue=float(own["DiffusionBValue"]))
        frames.append(frame)
    one.SharedFunctionalGroupsSequence = [shared]
    one.PerFrameFunctionalGroupsSequence = frames
    for keyword, value in more.items():
        setattr(one, keyword, value)
    return one


def dose(study: int, series: int, slices: Slices) -> Dataset:
    """The same slices as one RT Dose object, whose frames lie at offsets from the first position."""
    first = slices[0]
    origin = first["ImagePositionPatient"]
    offsets = [one["ImagePositionPatient"][2] - origin[2] for one in slices]
    grid = {"NumberOfFrames": len(slices), "GridFrameOffsetVector": offsets, "FrameIncrementPointer": 0x3004000C}
    return dataset(study, series, 1, first | grid, RTDoseStorage)


CLEAN = volume()

DEFECTS: dict[str, tuple[Slices, set[str]]] = {
    "clean": (CLEAN, set()),
    "a slice is missing": (CLEAN[:5] + CLEAN[6:], {"MISSING_SLICES"}),
    "a position stands twice": ([*CLEAN, {**CLEAN[4], "InstanceNumber": COUNT + 1}], {"DUPLICATED_POSITIONS"}),
    "a slice lies between two places": (
        [moved(one, 0, 0, SPACING / 3) if at == 6 else one for at, one in enumerate(CLEAN)],
        {"UNEVEN_SPACING"},
    ),
    "a slice lies beside the line": (
        [moved(one, 1.5, 0, 0) if at == 6 else one for at, one in enumerate(CLEAN)],
        {"NOT_ALIGNED"},
    ),
    "a tilt is not corrected": (leaning(15, GantryDetectorTilt=15), {"SHEARED"}),
    "slices of two directions": (CLEAN + volume(orientation=CORONAL), {"SEVERAL_ORIENTATIONS"}),
    "a direction that cannot be": (
        [{**one, "ImageOrientationPatient": [1.0, 0, 0, 0, 0.9, 0]} for one in CLEAN],
        {"ORIENTATION_INVALID"},
    ),
    "a slice has other rows": (changed(CLEAN, 3, Rows=8), {"IN_PLANE_DIFFERS"}),
    "a slice has other pixels": (changed(CLEAN, 3, PixelSpacing=[0.9, 0.9]), {"IN_PLANE_DIFFERS"}),
    "a slice has no position": ([*CLEAN, {**CLEAN[0], "ImagePositionPatient": None}], {"POSITION_MISSING"}),
    "a localizer lies among the slices": (
        [*CLEAN, {**volume(1, orientation=CORONAL)[0], "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}],
        {"OTHER_IMAGES"},
    ),
    "two frames of reference": (changed(CLEAN, 3, FrameOfReferenceUID=uid(900, 2)), {"SEVERAL_FRAMES_OF_REFERENCE"}),
    "a volume of several is short": (
        repeated(3, lambda time: {"TemporalPositionIdentifier": time + 1})[:-2],
        {"VOLUMES_DIFFER"},
    ),
}
"""Series by what is wrong with them, and the reasons that must be found: these, and no other."""

SPLITS: dict[str, tuple[Slices, list[str]]] = {
    "temporal position": (repeated(3, lambda n: {"TemporalPositionIdentifier": n + 1}), ["temporal position"]),
    "echo": (repeated(2, lambda n: {"EchoTime": 10.0 * (n + 1), "EchoNumbers": n + 1}), ["echo"]),
    "b-value": (repeated(2, lambda n: {"DiffusionBValue": 1000.0 * n}), ["b-value"]),
    "direction": (
        repeated(
            3,
            lambda n: {
                "DiffusionBValue": 1000.0,
                "DiffusionGradientOrientation": [float(n == axis) for axis in range(3)],
            },
        ),
        ["gradient direction"],
    ),
    "trigger time": (
        [{**one, "TriggerTime": 100.0 * (n // COUNT) + n} for n, one in enumerate(repeated(4, lambda n: {}))],
        ["trigger time"],
    ),
    "acquisition": (repeated(2, lambda n: {"AcquisitionNumber": n + 1}), ["acquisition"]),
    "acquisition time": (
        [{**one, "AcquisitionTime": f"1015{n:02d}"} for n, one in enumerate(repeated(3, lambda n: {}))],
        ["acquisition time"],
    ),
    "image type": (
        repeated(2, lambda n: {"ImageType": ["ORIGINAL", "PRIMARY", "MP"[n]]}),
        ["image type"],
    ),
    "instance number": (repeated(2, lambda n: {}), ["instance number"]),
}
"""Series of several regular volumes, by what tells these apart."""

SHORTFALLS: dict[str, tuple[Slices, set[str]]] = {
    "a number is left out": (changed(CLEAN, COUNT - 1, InstanceNumber=COUNT + 1), {"INSTANCE_NUMBERS_MISSING"}),
    "the series claims more": (
        [{**one, "NumberOfSeriesRelatedInstances": COUNT + 2} for one in CLEAN],
        {"SERIES_CLAIMS_MORE"},
    ),
    "the acquisition claims more": (
        [{**one, "ImagesInAcquisition": COUNT + 2} for one in CLEAN],
        {"ACQUISITION_CLAIMS_MORE"},
    ),
    "as many as are claimed": (
        [{**one, "ImagesInAcquisition": COUNT, "NumberOfSeriesRelatedInstances": COUNT} for one in CLEAN],
        set(),
    ),
    "temporal positions are missing": (
        repeated(3, lambda n: {"TemporalPositionIdentifier": n + 1, "NumberOfTemporalPositions": 4}),
        {"TEMPORAL_POSITIONS_MISSING"},
    ),
}
"""Series that are regular, and what they claim beyond what is there."""

MR = MRImageStorage
