"""The DICOM attributes that are columns of their own, by level of the hierarchy.

Belongs here: which attributes people search by. VR, multiplicity and name come from pydicom's copy of PS3.6, and the
column's type follows from them by one rule. Adding a keyword to a list below adds the column everywhere: reader,
tables, docs, Dagster metadata. Does not belong here: how a value is read (`dicom_assets.dicom`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa
from pydicom.datadict import dictionary_description, dictionary_VM, dictionary_VR, tag_for_keyword


class Level(StrEnum):
    """Level of the DICOM information model that an attribute describes; on which tables it is a column."""

    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"


TYPE_OF_VR: dict[str, pa.DataType] = {
    "DA": pa.date32(),
    "DS": pa.float64(),
    "FD": pa.float64(),
    "FL": pa.float64(),
    "IS": pa.int64(),
    "SL": pa.int64(),
    "SS": pa.int64(),
    "SV": pa.int64(),
    "UL": pa.int64(),
    "US": pa.int64(),
    "UV": pa.int64(),
}
"""Column type of one value by VR; every other VR is text. TM and DT are text in ISO 8601 form."""

_KEYWORDS = {
    Level.STUDY: """
        StudyInstanceUID
        PatientID IssuerOfPatientID PatientName PatientBirthDate PatientSex PatientAge PatientSize PatientWeight
        OtherPatientIDs PatientIdentityRemoved DeidentificationMethod
        StudyID AccessionNumber StudyDate StudyTime StudyDescription ReferringPhysicianName TimezoneOffsetFromUTC
        ModalitiesInStudy NumberOfStudyRelatedSeries NumberOfStudyRelatedInstances""",
    Level.SERIES: """
        SeriesInstanceUID
        SeriesNumber Modality SeriesDate SeriesTime SeriesDescription ProtocolName BodyPartExamined Laterality
        PatientPosition PerformingPhysicianName OperatorsName
        PerformedProcedureStepStartDate PerformedProcedureStepStartTime PerformedProcedureStepID
        PerformedProcedureStepDescription RequestedProcedureID RequestedProcedureDescription
        NumberOfSeriesRelatedInstances
        Manufacturer ManufacturerModelName SoftwareVersions DeviceSerialNumber StationName
        InstitutionName InstitutionalDepartmentName
        FrameOfReferenceUID PositionReferenceIndicator""",
    Level.INSTANCE: """
        SOPInstanceUID SOPClassUID TransferSyntaxUID SpecificCharacterSet
        InstanceNumber AcquisitionNumber AcquisitionDate AcquisitionTime AcquisitionDateTime ContentDate ContentTime
        InstanceCreationDate InstanceCreationTime
        DocumentTitle CompletionFlag VerificationFlag ContentDescription
        ImageType Rows Columns NumberOfFrames SamplesPerPixel BitsAllocated BitsStored PixelRepresentation
        PhotometricInterpretation BurnedInAnnotation LossyImageCompression LossyImageCompressionRatio
        PresentationIntentType RescaleIntercept RescaleSlope WindowCenter WindowWidth ImageLaterality ViewPosition
        PixelSpacing ImagerPixelSpacing SliceThickness SpacingBetweenSlices SliceLocation
        ImagePositionPatient ImageOrientationPatient
        KVP XRayTubeCurrent ExposureTime Exposure ConvolutionKernel ReconstructionDiameter GantryDetectorTilt
        CTDIvol ImageAndFluoroscopyAreaDoseProduct EntranceDoseInmGy DoseUnits DoseType
        MagneticFieldStrength EchoTime RepetitionTime InversionTime FlipAngle EchoTrainLength EchoNumbers
        TemporalPositionIdentifier NumberOfTemporalPositions TriggerTime DiffusionBValue DiffusionGradientOrientation
        ImagesInAcquisition
        ScanningSequence SequenceVariant ScanOptions MRAcquisitionType SequenceName ReceiveCoilName
        ContrastBolusAgent ContrastBolusRoute ContrastBolusVolume
        Radiopharmaceutical StructureSetLabel RTPlanLabel""",
}


@dataclass(frozen=True, slots=True)
class Attribute:
    """One DICOM attribute that is a column (PS3.6).

    multiple: whether its value multiplicity exceeds one; the column is then a list, otherwise one
    value, never the first of several.
    """

    keyword: str
    tag: int
    vr: str
    multiple: bool
    level: Level
    name: str

    @property
    def type(self) -> pa.DataType:
        """Arrow type of the column."""
        one = TYPE_OF_VR.get(self.vr, pa.string())
        return pa.list_(one) if self.multiple else one


def _attribute(keyword: str, level: Level) -> Attribute:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"{keyword} is not a keyword of PS3.6")
    return Attribute(keyword, tag, dictionary_VR(tag), dictionary_VM(tag) != "1", level, dictionary_description(tag))


ATTRIBUTES: tuple[Attribute, ...] = tuple(
    _attribute(keyword, level) for level, keywords in _KEYWORDS.items() for keyword in keywords.split()
)
"""Every attribute that is a column, study level first."""


@dataclass(frozen=True, slots=True)
class CodePart:
    """A column taken from the first item of a code sequence (PS3.3 8.8): attribute `part` of item 1 of `sequence`."""

    column: str
    sequence: str
    part: str
    level: Level

    @property
    def path(self) -> tuple[int, int]:
        """Tags of the sequence and of the part."""
        sequence, part = tag_for_keyword(self.sequence), tag_for_keyword(self.part)
        assert sequence is not None and part is not None
        return sequence, part


_CODE_SEQUENCES = {
    "anatomic_region": ("AnatomicRegionSequence", Level.SERIES),
    "procedure": ("ProcedureCodeSequence", Level.STUDY),
    "reason": ("ReasonForRequestedProcedureCodeSequence", Level.STUDY),
}

CODE_PARTS: tuple[CodePart, ...] = tuple(
    CodePart(f"{stem}_{suffix}", sequence, part, level)
    for stem, (sequence, level) in _CODE_SEQUENCES.items()
    for suffix, part in (("code", "CodeValue"), ("scheme", "CodingSchemeDesignator"), ("meaning", "CodeMeaning"))
)
"""Columns taken from code sequences."""

TOLD_WITH: dict[str, str] = {
    "StudyTime": "StudyDate",
    "SeriesTime": "SeriesDate",
    "PerformedProcedureStepStartTime": "PerformedProcedureStepStartDate",
    "patient_family_name": "PatientName",
    "patient_given_name": "PatientName",
    "patient_ideographic_name": "PatientName",
    "patient_phonetic_name": "PatientName",
    **{c.column: f"{c.column.rsplit('_', 1)[0]}_code" for c in CODE_PARTS if c.part != "CodeValue"},
}
"""Columns that mean something beside another one alone: a series or study takes both from the same object."""
