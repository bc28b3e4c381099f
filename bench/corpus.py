"""A deterministic corpus of DICOM files of twelve kinds, with headers of realistic size and invented content.

Belongs here: what the files say and how many of each kind there are. Does not belong here: measuring.

    python -m bench.corpus FOLDER [--files N] [--seed S]

Files lie as an archive would hold them: FOLDER/patient/study/series/file. Native pixel data is a hole in the file
(zeros that take no room on disk), compressed pixel data is noise of a plausible size.
"""

from __future__ import annotations

import argparse
import io
import random
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
)

ROOT = "1.2.826.0.1.3680043.10.1511"
"""Below pydicom's root for examples; not registered for anybody's equipment."""


@dataclass(frozen=True, slots=True)
class Series:
    """One series to write: number within the corpus, how many instances, and the corpus' randomness for it."""

    number: int
    instances: int
    rng: random.Random

    @property
    def study_uid(self) -> str:
        """Each study has three series."""
        return f"{ROOT}.1.{1_000_000 + self.number // 3}"

    @property
    def uid(self) -> str:
        """SeriesInstanceUID."""
        return f"{ROOT}.2.{1_000_000 + self.number}"

    def instance_uid(self, index: int) -> str:
        """SOPInstanceUID; always of the same length."""
        return f"{ROOT}.3.{1_000_000 + self.number}.{100_000 + index}"


@dataclass(frozen=True, slots=True)
class File:
    """One file: what is written, and how many bytes of zeros follow."""

    content: bytes
    hole: int = 0


_NUMBER = "918273"
"""Stands for the number of an instance in what all instances of a series are made from; no UID has these digits."""

Maker = Callable[[Series], Iterator[File]]

_FAMILY = ("Amsel", "Birke", "Drossel", "Erle", "Fuchs", "Ginster", "Hasel", "Iltis", "Jasmin", "Kranich", "Linde")
_GIVEN = ("Ada", "Bruno", "Clara", "David", "Emil", "Frida", "Gustav", "Hanna", "Ida", "Jakob", "Karla", "Ludwig")


def _common(series: Series, modality: str, sop_class: str, syntax: str) -> Dataset:
    """Patient, study, series and equipment: some 60 elements that hold for a whole series."""
    rng = series.rng
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.InstanceCreationDate, ds.InstanceCreationTime = "20260105", "101500.123000"
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, series.instance_uid(0)
    day = f"2026{rng.randint(1, 12):02d}{rng.randint(1, 28):02d}"
    for name in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
        setattr(ds, name, day)
    ds.StudyTime, ds.SeriesTime, ds.AcquisitionTime, ds.ContentTime = "101112", "101213", "101314.250000", "101415"
    ds.AccessionNumber = f"A{series.number // 3:09d}"
    ds.Modality = modality
    ds.Manufacturer, ds.ManufacturerModelName = "Musterwerk", f"Scanner {rng.randint(1, 9)}"
    ds.InstitutionName, ds.InstitutionAddress = "Klinik am Fluss", "Uferweg 1, 12345 Musterstadt"
    ds.ReferringPhysicianName, ds.StationName = "Zander^Otto^^Dr.", f"ST{rng.randint(10, 99)}"
    ds.StudyDescription, ds.SeriesDescription = f"{modality} Thorax/Abdomen", f"Serie {series.number} nativ"
    ds.InstitutionalDepartmentName = "Radiologie"
    ds.PerformingPhysicianName, ds.OperatorsName = "Specht^Eva", "Meise^Tom"
    ds.ProcedureCodeSequence = [_code("24627-2", "LN", "CT Chest")]
    ds.ReferencedStudySequence = [_reference("1.2.840.10008.3.1.2.3.1", series.study_uid + ".9")]
    ds.PatientName = f"{rng.choice(_FAMILY)}^{rng.choice(_GIVEN)}"
    ds.PatientID, ds.IssuerOfPatientID = f"P{series.number // 6:07d}", "MUSTER"
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "19610203", rng.choice("FMO"), "064Y"
    ds.PatientSize, ds.PatientWeight = "1.75", str(rng.randint(50, 99))
    ds.AdditionalPatientHistory, ds.PatientComments = "Verlaufskontrolle", "keine Kontraindikation"
    ds.BodyPartExamined, ds.PatientPosition, ds.ProtocolName = "CHEST", "HFS", "Thorax Standard"
    ds.DeviceSerialNumber, ds.SoftwareVersions = str(rng.randint(10_000, 99_999)), ["VB10A", "SP2"]
    ds.StudyInstanceUID, ds.SeriesInstanceUID = series.study_uid, series.uid
    ds.StudyID, ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = "1", str(series.number), "1", _NUMBER
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = series.uid + ".1", "SN"
    ds.PerformedProcedureStepStartDate, ds.PerformedProcedureStepStartTime = day, "101000"
    ds.PerformedProcedureStepID, ds.PerformedProcedureStepDescription = f"PPS{series.number}", "CT Thorax mit KM"
    step = Dataset()
    step.ScheduledProcedureStepDescription, step.ScheduledProcedureStepID = "CT Thorax", "SPS1"
    step.RequestedProcedureID, step.RequestedProcedureDescription = f"RP{series.number}", "Thorax"
    ds.RequestAttributesSequence = [step]
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = sop_class, ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.ImplementationClassUID, ds.file_meta.ImplementationVersionName = ROOT + ".9", "BENCH 1"
    return ds


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    ds = Dataset()
    ds.CodeValue, ds.CodingSchemeDesignator, ds.CodeMeaning = value, scheme, meaning
    return ds


def _reference(sop_class: str, uid: str) -> Dataset:
    ds = Dataset()
    ds.ReferencedSOPClassUID, ds.ReferencedSOPInstanceUID = sop_class, uid
    return ds


def _image(ds: Dataset, rows: int, columns: int, *, bits: int = 16, samples: int = 1, frames: int | None = None) -> int:
    """Adds image attributes; bytes of native pixel data."""
    ds.SamplesPerPixel, ds.PhotometricInterpretation = samples, "MONOCHROME2" if samples == 1 else "RGB"
    if samples > 1:
        ds.PlanarConfiguration = 0
    if frames is not None:
        ds.NumberOfFrames = str(frames)
    ds.Rows, ds.Columns = rows, columns
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = bits, 12 if bits == 16 else bits, 11 if bits == 16 else bits - 1
    ds.PixelRepresentation = 0
    if samples == 1:
        ds.PixelSpacing = ["0.703125", "0.703125"]
        ds.WindowCenter, ds.WindowWidth = ["40", "-600"], ["400", "1500"]
        ds.WindowCenterWidthExplanation = ["WINDOW1", "WINDOW2"]
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "-1024", "1", "HU"
        ds.SmallestImagePixelValue, ds.LargestImagePixelValue = 0, 4095
    return rows * columns * samples * (frames or 1) * bits // 8


def _slice(ds: Dataset) -> None:
    """Position of a slice; fixed width, so that it can be replaced in the bytes."""
    ds.ImagePositionPatient = ["-180.0000000", "-180.0000000", f"-{_NUMBER}.0000"]
    ds.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    ds.SliceLocation, ds.SliceThickness, ds.SpacingBetweenSlices = f"-{_NUMBER}.0000", "1.25", "1.25"


def _ct(series: Series, syntax: str) -> tuple[Dataset, int]:
    ds = _common(series, "CT", "1.2.840.10008.5.1.4.1.1.2", syntax)
    _slice(ds)
    ds.ScanOptions, ds.KVP, ds.DataCollectionDiameter, ds.ReconstructionDiameter = "HELICAL MODE", "120", "500", "360"
    ds.DistanceSourceToDetector, ds.DistanceSourceToPatient, ds.GantryDetectorTilt = "1085.6", "595", "0"
    ds.TableHeight, ds.RotationDirection, ds.ExposureTime, ds.XRayTubeCurrent = "142.5", "CW", "500", "210"
    ds.Exposure, ds.FilterType, ds.GeneratorPower, ds.FocalSpots = "105", "BODY FILTER", "25", ["0.7", "1.2"]
    ds.ConvolutionKernel, ds.SingleCollimationWidth, ds.TotalCollimationWidth = ["Br40d", "3"], 0.6, 38.4
    ds.TableSpeed, ds.TableFeedPerRotation, ds.SpiralPitchFactor, ds.CTDIvol = 46.0, 23.0, 0.6, 6.53
    ds.ExposureModulationType, ds.ContrastBolusAgent, ds.ContrastBolusRoute = "XYZ_EC", "Iomeprol 400", "IV"
    block = ds.private_block(0x0019, "MUSTERWERK CT HEADER", create=True)
    for offset in range(24):
        block.add_new(offset, "DS" if offset % 2 else "LO", str(offset * 1.5) if offset % 2 else f"WERT {offset}")
    return ds, _image(ds, 512, 512)


def _mr(series: Series) -> tuple[Dataset, int]:
    ds = _common(series, "MR", "1.2.840.10008.5.1.4.1.1.4", ExplicitVRLittleEndian)
    _slice(ds)
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "SE", ["SK", "SP"], "PFP", "2D"
    ds.SequenceName, ds.AngioFlag, ds.RepetitionTime, ds.EchoTime, ds.NumberOfAverages = (
        "*tse2d",
        "N",
        "4000",
        "89",
        "2",
    )
    ds.ImagingFrequency, ds.ImagedNucleus, ds.EchoNumbers, ds.MagneticFieldStrength = "123.25", "1H", "1", "3"
    ds.NumberOfPhaseEncodingSteps, ds.EchoTrainLength, ds.PercentSampling = "256", "15", "100"
    ds.PixelBandwidth, ds.FlipAngle, ds.SAR, ds.dBdt, ds.ReceiveCoilName = "220", "150", "1.2", "0", "HeadNeck_64"
    block = ds.private_block(0x0029, "MUSTERWERK CSA HEADER", create=True)
    block.add_new(0x10, "OB", series.rng.randbytes(12_000))
    block.add_new(0x20, "OB", series.rng.randbytes(78_000))
    block.add_new(0x30, "CS", "IMAGE NUM 4")
    return ds, _image(ds, 384, 384)


def _us(series: Series) -> tuple[Dataset, int]:
    ds = _common(series, "US", "1.2.840.10008.5.1.4.1.1.3.1", ExplicitVRLittleEndian)
    ds.FrameTime, ds.TransducerData, ds.HeartRate = "33.3", ["C5-1", "", ""], "71"
    ds.FrameIncrementPointer = 0x00181063
    regions = []
    for number in range(3):
        region = Dataset()
        region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, number, 3
        region.RegionLocationMinX0, region.RegionLocationMinY0 = 10, 20
        region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 600, 400
        region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
        region.PhysicalDeltaX = region.PhysicalDeltaY = 0.0125
        regions.append(region)
    ds.SequenceOfUltrasoundRegions = Sequence(regions)
    return ds, _image(ds, 480, 640, bits=8, samples=3, frames=24)


def _xa(series: Series) -> tuple[Dataset, int]:
    ds = _common(series, "XA", "1.2.840.10008.5.1.4.1.1.12.1", ExplicitVRLittleEndian)
    ds.KVP, ds.ExposureTime, ds.XRayTubeCurrent, ds.RadiationSetting, ds.FrameTime = "80", "7", "600", "GR", "66.7"
    ds.PositionerPrimaryAngle, ds.PositionerSecondaryAngle, ds.FrameIncrementPointer = "-30", "25", 0x00181063
    return ds, _image(ds, 512, 512, frames=100)


def _enhanced_mr(series: Series) -> tuple[Dataset, int]:
    ds = _common(series, "MR", "1.2.840.10008.5.1.4.1.1.4.1", ExplicitVRLittleEndian)
    frames = series.rng.randrange(60, 241, 20)
    shared = Dataset()
    measures = Dataset()
    measures.PixelSpacing, measures.SliceThickness, measures.SpacingBetweenSlices = ["0.9", "0.9"], "3", "3.3"
    shared.PixelMeasuresSequence = [measures]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = Sequence(_frame(series, number) for number in range(frames))
    index = []
    for pointer, functional in ((0x00209056, 0x00209111), (0x00209057, 0x00209111), (0x00209128, 0x00209111)):
        dimension = Dataset()
        dimension.DimensionIndexPointer, dimension.FunctionalGroupPointer = pointer, functional
        dimension.DimensionOrganizationUID = series.uid + ".7"
        index.append(dimension)
    ds.DimensionIndexSequence = index
    ds.AcquisitionDateTime, ds.ContentQualification, ds.MagneticFieldStrength = "20260105101314.25", "PRODUCT", "3"
    ds.ResonantNucleus, ds.VolumetricProperties = "1H", "VOLUME"
    return ds, _image(ds, 256, 256, frames=frames)


def _frame(series: Series, number: int) -> Dataset:
    """Functional groups of one frame: nine sequences, four of which differ from frame to frame."""
    content, position, orientation, window, timing, echo, averages, transform, kind = (Dataset() for _ in range(9))
    content.FrameAcquisitionNumber, content.DimensionIndexValues = number + 1, [1, number + 1, 1]
    content.FrameAcquisitionDateTime = content.FrameReferenceDateTime = f"20260105101314.{number:06d}"
    content.TemporalPositionIndex, content.InStackPositionNumber, content.StackID = 1, number + 1, "1"
    position.ImagePositionPatient = ["-115.2", "-115.2", f"{number * 3.3:.3f}"]
    orientation.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    window.WindowCenter, window.WindowWidth = str(400 + number % 7), "900"
    timing.RepetitionTime, timing.FlipAngle, timing.EchoTrainLength = "2500", "90", "1"
    timing.GradientEchoTrainLength, timing.RFEchoTrainLength = 0, 1
    echo.EffectiveEchoTime = 30.0 + number % 3
    averages.NumberOfAverages = "1"
    transform.RescaleIntercept, transform.RescaleSlope, transform.RescaleType = "0", "1", "US"
    kind.FrameType = ["ORIGINAL", "PRIMARY", "M", "NONE"]
    kind.PixelPresentation, kind.VolumetricProperties, kind.ComplexImageComponent = "MONOCHROME", "VOLUME", "MAGNITUDE"
    ds = Dataset()
    ds.FrameContentSequence, ds.PlanePositionSequence = [content], [position]
    ds.PlaneOrientationSequence, ds.FrameVOILUTSequence = [orientation], [window]
    ds.MRTimingAndRelatedParametersSequence, ds.MREchoSequence = [timing], [echo]
    ds.MRAveragesSequence, ds.PixelValueTransformationSequence, ds.MRImageFrameTypeSequence = (
        [averages],
        [transform],
        [kind],
    )
    return ds


def _sr(series: Series) -> tuple[Dataset, int]:
    ds = _common(series, "SR", "1.2.840.10008.5.1.4.1.1.88.33", ExplicitVRLittleEndian)
    ds.CompletionFlag, ds.VerificationFlag, ds.ValueType, ds.ContinuityOfContent = (
        "COMPLETE",
        "UNVERIFIED",
        "CONTAINER",
        "SEPARATE",
    )
    ds.ConceptNameCodeSequence = [_code("126000", "DCM", "Imaging Measurement Report")]
    ds.ContentSequence = Sequence(_container(series, number) for number in range(24))
    return ds, 0


def _container(series: Series, number: int) -> Dataset:
    """A group of five measurements with a text, as a measurement report has them."""
    container = _content("CONTAINER", "125007", "Measurement Group")
    container.ContinuityOfContent = "SEPARATE"
    children = []
    for concept in range(5):
        measured = _content("NUM", f"4103{concept}", f"Measurement {concept}")
        value = Dataset()
        value.NumericValue = f"{series.rng.random() * 100:.4f}"
        value.MeasurementUnitsCodeSequence = [_code("mm", "UCUM", "millimeter")]
        measured.MeasuredValueSequence = [value]
        children.append(measured)
    text = _content("TEXT", "121071", "Finding")
    text.TextValue = f"Befund {number}: unauffällig, Verlaufskontrolle empfohlen."
    container.ContentSequence = Sequence([*children, text])
    return container


def _content(value_type: str, code: str, meaning: str) -> Dataset:
    ds = Dataset()
    ds.RelationshipType, ds.ValueType = "CONTAINS", value_type
    ds.ConceptNameCodeSequence = [_code(code, "DCM", meaning)]
    return ds


def _rtstruct(series: Series) -> tuple[Dataset, int]:
    ds = _common(series, "RTSTRUCT", "1.2.840.10008.5.1.4.1.1.481.3", ImplicitVRLittleEndian)
    ds.StructureSetLabel, ds.StructureSetDate, ds.StructureSetTime = "PLAN1", "20260105", "101500"
    rng, regions, contours = series.rng, [], []
    for number in range(1, 13):
        region = Dataset()
        region.ROINumber, region.ReferencedFrameOfReferenceUID = str(number), series.uid + ".1"
        region.ROIName, region.ROIGenerationAlgorithm = f"Organ {number}", "AUTOMATIC"
        regions.append(region)
        outline = Dataset()
        outline.ROIDisplayColor, outline.ReferencedROINumber = [str(rng.randrange(256)) for _ in range(3)], str(number)
        slices = []
        for level in range(40):
            points = rng.randrange(30, 90)
            contour = Dataset()
            contour.ContourImageSequence = [_reference("1.2.840.10008.5.1.4.1.1.2", f"{series.study_uid}.5.{level}")]
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", str(points)
            flat = (f"{rng.uniform(-200, 200):.2f}" for _ in range(points * 2))
            contour.ContourData = [c for pair in zip(flat, flat, strict=True) for c in (*pair, f"{level * 2.5:.2f}")]
            slices.append(contour)
        outline.ContourSequence = slices
        contours.append(outline)
    ds.StructureSetROISequence, ds.ROIContourSequence = regions, contours
    return ds, 0


def _encoded(ds: Dataset, pixel_bytes: int) -> bytes:
    """The file as pydicom writes it, up to the first byte of native pixel data."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if pixel_bytes:
            ds.PixelData = b""
            ds["PixelData"].VR = "OW" if ds.BitsAllocated > 8 else "OB"
        pydicom.dcmwrite(buffer, ds, enforce_file_format=True, **_encoding(ds))
    content = buffer.getvalue()
    if pixel_bytes:
        order = "big" if ds.file_meta.TransferSyntaxUID == ExplicitVRBigEndian else "little"
        content = content[:-4] + pixel_bytes.to_bytes(4, order)  # type: ignore[arg-type]
    return content


def _encoding(ds: Dataset) -> dict[str, bool]:
    syntax = ds.file_meta.TransferSyntaxUID
    return {"implicit_vr": syntax == ImplicitVRLittleEndian, "little_endian": syntax != ExplicitVRBigEndian}


def _instances(series: Series, content: bytes) -> Iterator[bytes]:
    """The instances of a series: each differs from the first in UIDs, number, time and position."""
    first = series.instance_uid(0).encode()
    for index in range(series.instances):
        one = content.replace(first, series.instance_uid(index).encode())
        one = one.replace(_NUMBER.encode(), f"{100_001 + index}".encode())
        yield one.replace(b"101415", f"10{index // 60 % 60:02d}{index % 60:02d}".encode())


def _native(make: Callable[[Series], tuple[Dataset, int]]) -> Maker:
    def files(series: Series) -> Iterator[File]:
        ds, pixel_bytes = make(series)
        for content in _instances(series, _encoded(ds, pixel_bytes)):
            yield File(content, pixel_bytes)

    return files


def _single(make: Callable[[Series], tuple[Dataset, int]]) -> Maker:
    """Objects of which a series has few, each with content of its own."""

    def files(series: Series) -> Iterator[File]:
        for index in range(series.instances):
            ds, pixel_bytes = make(series)
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = series.instance_uid(index)
            ds.InstanceNumber = str(index + 1)
            yield File(_encoded(ds, pixel_bytes), pixel_bytes)

    return files


def _compressed(syntax: str, size: int) -> Maker:
    def files(series: Series) -> Iterator[File]:
        ds, _ = _ct(series, syntax)
        ds.PixelData = encapsulate([series.rng.randbytes(size)])
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
        for content in _instances(series, _encoded(ds, 0)):
            yield File(content)

    return files


def _deflated(series: Series) -> Iterator[File]:
    ds, pixel_bytes = _ct(series, ExplicitVRLittleEndian)
    plain = _encoded(ds, pixel_bytes)
    start = 144 + int.from_bytes(plain[140:144], "little")
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    ds.PixelData = b""
    meta = _encoded(ds, 0)
    front = meta[: 144 + int.from_bytes(meta[140:144], "little")]
    for whole in _instances(series, front + plain[start:]):
        packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
        body = packer.compress(whole[len(front) :] + bytes(pixel_bytes)) + packer.flush()
        yield File(whole[: len(front)] + body + b"\0" * (len(body) % 2))


KINDS: dict[str, tuple[Maker, float, int]] = {
    "ct explicit": (_native(lambda s: _ct(s, ExplicitVRLittleEndian)), 0.40, 120),
    "ct implicit": (_native(lambda s: _ct(s, ImplicitVRLittleEndian)), 0.13, 120),
    "mr private blobs": (_native(_mr), 0.20, 60),
    "us multi-frame": (_native(_us), 0.04, 12),
    "jpeg": (_compressed(JPEGBaseline8Bit, 60_000), 0.05, 40),
    "jpeg 2000": (_compressed(JPEG2000Lossless, 180_000), 0.05, 40),
    "big endian": (_native(lambda s: _ct(s, ExplicitVRBigEndian)), 0.03, 60),
    "deflated": (_deflated, 0.03, 60),
    "enhanced mr": (_single(_enhanced_mr), 0.02, 4),
    "sr": (_single(_sr), 0.04, 2),
    "rtstruct": (_single(_rtstruct), 0.004, 1),
    "xa 50 MB": (_native(_xa), 0.006, 4),
}
"""By name: how its files are made, its share of the corpus, instances in a series."""


def files_of(kind: str, count: int, seed: int = 1, first_series: int = 0) -> Iterator[tuple[Series, File]]:
    """`count` files of one kind, series by series."""
    make, _, usual = KINDS[kind]
    number = first_series
    while count > 0:
        series = Series(number, min(usual, count), random.Random(f"{seed} {kind} {number}"))
        for file in make(series):
            yield series, file
        count -= series.instances
        number += 1


def generate(folder: Path, files: int = 5_000, seed: int = 1) -> dict[str, list[Path]]:
    """Writes the corpus; paths by kind, in the order in which they lie. What is there already is written again."""
    written: dict[str, list[Path]] = {}
    first = 0
    for kind, (_, share, usual) in KINDS.items():
        count = max(round(files * share), 1)
        paths = written.setdefault(kind, [])
        for series, file in files_of(kind, count, seed, first):
            place = folder / f"P{series.number // 6:05d}" / f"S{series.number // 3:05d}" / f"{series.number:06d}"
            place.mkdir(parents=True, exist_ok=True)
            path = place / f"{len(paths):07d}.dcm"
            with path.open("wb") as out:
                out.write(file.content)
                out.truncate(len(file.content) + file.hole)
            paths.append(path)
        first += -(-count // usual) + 3 - (-(-count // usual)) % 3
    return written


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("folder", type=Path)
    parser.add_argument("--files", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    for kind, paths in generate(args.folder, args.files, args.seed).items():
        print(f"{len(paths):7} {kind}")


if __name__ == "__main__":
    main()
