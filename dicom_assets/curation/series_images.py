"""The images of some series as rows: one for each single-frame instance, one for each frame of a multi-frame object.

Belongs here: where each attribute of geometry comes from. Single-frame objects have them in columns of `instance`,
multi-frame ones in the functional groups of their header (PS3.3 C.7.6.16), dose grids in the Grid Frame Offset Vector
(PS3.3 C.8.8.3). Does not belong here: what follows from them (`geometry`).
"""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pyarrow as pa
from pydicom import uid
from pydicom.datadict import dictionary_VR, tag_for_keyword

from dicom_assets.schema.attributes import TYPE_OF_VR

IS_IMAGE = '"Rows" IS NOT NULL AND "Columns" IS NOT NULL'
"""SQL for the instances that are images: they have the attributes of the Image Pixel module (PS3.3 C.7.6.3)."""

_SECONDARY_CAPTURE = (
    uid.SecondaryCaptureImageStorage,
    uid.MultiFrameSingleBitSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
)
_FUNCTIONAL_GROUPS = (
    uid.EnhancedCTImageStorage,
    uid.LegacyConvertedEnhancedCTImageStorage,
    uid.EnhancedMRImageStorage,
    uid.EnhancedMRColorImageStorage,
    uid.LegacyConvertedEnhancedMRImageStorage,
    uid.EnhancedPETImageStorage,
    uid.LegacyConvertedEnhancedPETImageStorage,
    uid.BreastTomosynthesisImageStorage,
    uid.XRay3DAngiographicImageStorage,
    uid.XRay3DCraniofacialImageStorage,
    uid.SegmentationStorage,
    uid.ParametricMapStorage,
    uid.OphthalmicTomographyImageStorage,
    uid.EnhancedUSVolumeStorage,
)
"""Classes whose positions are in functional groups even where they have one frame."""


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"'{name}'" for name in names)


FRAMES = 'least(greatest(coalesce("NumberOfFrames", 1), 1), 100_000_000)'
"""SQL for how many images an instance says that it is, as far as that can be."""

IS_MULTIFRAME = (
    f'coalesce("NumberOfFrames", 1) > 1 OR coalesce("SOPClassUID" IN ({_listed(_FUNCTIONAL_GROUPS)}), false)'
)
"""SQL for the images whose frames have to be looked for in the header."""

_MACROS: dict[str, tuple[str, ...]] = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing",),
    "FrameContentSequence": (
        "StackID",
        "InStackPositionNumber",
        "TemporalPositionIndex",
        "FrameAcquisitionDateTime",
        "FrameReferenceDateTime",
        "FrameAcquisitionNumber",
    ),
    "MREchoSequence": ("EffectiveEchoTime",),
    "MRDiffusionSequence": ("DiffusionBValue",),
    "CardiacSynchronizationSequence": ("NominalCardiacTriggerDelayTime",),
    "TemporalPositionSequence": ("TemporalPositionTimeOffset",),
    "SegmentIdentificationSequence": ("ReferencedSegmentNumber",),
    "MRImageFrameTypeSequence": ("FrameType", "ComplexImageComponent"),
    "CTImageFrameTypeSequence": ("FrameType",),
    "PETFrameTypeSequence": ("FrameType",),
    "CTAcquisitionDetailsSequence": ("GantryDetectorTilt",),
}
"""The functional group macros that are read (PS3.3 C.7.6.16.2, C.8), with their attributes.

Diffusion Gradient Orientation lies one level deeper, in the Diffusion Gradient Direction Sequence.
"""
_SQL_TYPES = {pa.float64(): "DOUBLE", pa.int64(): "BIGINT"}


def _key(keyword: str) -> str:
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return f"{tag:08X}"


def _values(keyword: str) -> dict[str, list[str]]:
    """The form of an element in DICOM JSON, as json_transform takes it."""
    return {"Value": [_SQL_TYPES.get(TYPE_OF_VR.get(dictionary_VR(keyword), pa.string()), "VARCHAR")]}


def _groups() -> dict[str, Any]:
    """The form of one item of functional groups."""
    form: dict[str, Any] = {
        _key(macro): {"Value": [{_key(one): _values(one) for one in attributes}]}
        for macro, attributes in _MACROS.items()
    }
    gradient = {_key("DiffusionGradientOrientation"): _values("DiffusionGradientOrientation")}
    form[_key("MRDiffusionSequence")]["Value"][0][_key("DiffusionGradientDirectionSequence")] = {"Value": [gradient]}
    return form


_HEADER = {
    _key("PerFrameFunctionalGroupsSequence"): {"Value": [_groups()]},
    _key("SharedFunctionalGroupsSequence"): {"Value": [_groups()]},
    _key("GridFrameOffsetVector"): _values("GridFrameOffsetVector"),
}


def _told(macro: str, *way: str) -> str:
    """SQL for the values of an attribute of a frame: its own, otherwise those of all frames."""
    path = "".join(f'."{_key(step)}".Value[1]' for step in (macro, *way[:-1])) + f'."{_key(way[-1])}".Value'
    return f"coalesce(own{path}, shared{path})"


def _first(macro: str, *way: str) -> str:
    return f"{_told(macro, *way)}[1]"


_FRAME_TYPE = f"""coalesce(
    {_told("MRImageFrameTypeSequence", "FrameType")}, {_told("CTImageFrameTypeSequence", "FrameType")},
    {_told("PETFrameTypeSequence", "FrameType")}
)"""

_GRADIENT = _told("MRDiffusionSequence", "DiffusionGradientDirectionSequence", "DiffusionGradientOrientation")


def _kind(image_type: str, positions: str, orientations: str) -> str:
    """SQL for what an image is: place in KINDS."""
    return f"""CASE
        WHEN coalesce("SOPClassUID" IN ({_listed(_SECONDARY_CAPTURE)}), false) THEN 2
        WHEN coalesce(list_contains(({image_type})[3:], 'LOCALIZER'), false) THEN 1
        WHEN coalesce(list_contains({image_type}, 'MOSAIC'), false) THEN 3
        WHEN coalesce(len({positions}) = 3 AND len({orientations}) = 6, false) THEN 0
        ELSE 4
    END::TINYINT"""


def _numbers(values: str, *names: str) -> str:
    return ", ".join(f"({values})[{place}] AS {name}" for place, name in enumerate(names, start=1))


POSITION, ORIENTATION, SPACING = ("x", "y", "z"), ("rx", "ry", "rz", "cx", "cy", "cz"), ("row_step", "column_step")
_GEOMETRY = (
    ("ImagePositionPatient", POSITION),
    ("ImageOrientationPatient", ORIENTATION),
    ("PixelSpacing", SPACING),
)

_TIME = "coalesce(AcquisitionDateTime, concat_ws('T', AcquisitionDate, AcquisitionTime))"

_SINGLE = f"""
SELECT
    series, 1::BIGINT AS frames, false AS is_frame,
    {_kind("ImageType", "ImagePositionPatient", "ImageOrientationPatient")} AS kind,
    {", ".join(_numbers(f'"{name}"', *parts) for name, parts in _GEOMETRY)},
    "Rows" AS rows, "Columns" AS columns, GantryDetectorTilt AS tilt, FrameOfReferenceUID AS frame_of_reference,
    NULL::VARCHAR AS stack, NULL::BIGINT AS stack_position, array_to_string(ImageType, '\\') AS image_type,
    concat_ws(' ', EchoTime, array_to_string(EchoNumbers, ' ')) AS echo, NULL::BIGINT AS segment,
    DiffusionBValue AS b_value, array_to_string(DiffusionGradientOrientation, ' ') AS gradient,
    TemporalPositionIdentifier::VARCHAR AS temporal_position, TriggerTime AS trigger,
    AcquisitionNumber AS acquisition, nullif({_TIME}, '') AS acquisition_time, ContentTime AS content_time,
    InstanceNumber AS instance_number
FROM instances
WHERE is_image AND NOT is_multiframe
"""

_MULTIFRAME = f"""
-- one row per frame that functional groups or a grid of offsets describe; an object without either is one row
WITH read AS (
    SELECT * EXCLUDE (header), json_transform(header, '{json.dumps(_HEADER)}') AS told FROM multiframe
),
numbered AS (
    SELECT
        * EXCLUDE (told),
        told."{_key("SharedFunctionalGroupsSequence")}".Value[1] AS shared,
        told."{_key("PerFrameFunctionalGroupsSequence")}".Value AS groups,
        CASE WHEN coalesce(len(groups), 0) = 0 THEN told."{_key("GridFrameOffsetVector")}".Value END AS offsets,
        coalesce(len(groups), 0) = 0 AND coalesce(len(offsets), 0) = 0 AS is_whole
    FROM read
),
frames AS (
    -- one list of the three has items; in one pass, as what is read of headers is large
    SELECT
        * EXCLUDE (groups, offsets), unnest(groups) AS own, unnest(offsets) - offsets[1] AS beyond,
        unnest(CASE WHEN is_whole THEN [{FRAMES}] END) AS whole, coalesce(whole, 1) AS frames
    FROM numbered
),
placed AS (
    SELECT
        * REPLACE (
            CASE
                WHEN beyond IS NOT NULL AND len(ImagePositionPatient) = 3 AND len(ImageOrientationPatient) = 6 THEN
                    list_transform(list_zip(ImagePositionPatient, [
                        ImageOrientationPatient[2] * ImageOrientationPatient[6]
                            - ImageOrientationPatient[3] * ImageOrientationPatient[5],
                        ImageOrientationPatient[3] * ImageOrientationPatient[4]
                            - ImageOrientationPatient[1] * ImageOrientationPatient[6],
                        ImageOrientationPatient[1] * ImageOrientationPatient[5]
                            - ImageOrientationPatient[2] * ImageOrientationPatient[4]
                    ]), lambda one: one[1] + beyond * one[2])
                WHEN own IS NULL AND frames > 1 THEN NULL
                ELSE coalesce({_told("PlanePositionSequence", "ImagePositionPatient")}, ImagePositionPatient)
            END AS ImagePositionPatient,
            coalesce({_told("PlaneOrientationSequence", "ImageOrientationPatient")}, ImageOrientationPatient)
                AS ImageOrientationPatient,
            coalesce({_told("PixelMeasuresSequence", "PixelSpacing")}, PixelSpacing) AS PixelSpacing,
            coalesce({_FRAME_TYPE}, ImageType) AS ImageType
        )
    FROM frames
)
SELECT
    series, frames, true AS is_frame, {_kind("ImageType", "ImagePositionPatient", "ImageOrientationPatient")} AS kind,
    {", ".join(_numbers(f'"{name}"', *parts) for name, parts in _GEOMETRY)},
    "Rows" AS rows, "Columns" AS columns,
    coalesce({_first("CTAcquisitionDetailsSequence", "GantryDetectorTilt")}, GantryDetectorTilt) AS tilt,
    FrameOfReferenceUID AS frame_of_reference,
    {_first("FrameContentSequence", "StackID")} AS stack,
    {_first("FrameContentSequence", "InStackPositionNumber")} AS stack_position,
    concat_ws('\\', array_to_string(ImageType, '\\'), {_first("MRImageFrameTypeSequence", "ComplexImageComponent")})
        AS image_type,
    coalesce({_first("MREchoSequence", "EffectiveEchoTime")}, EchoTime)::VARCHAR AS echo,
    {_first("SegmentIdentificationSequence", "ReferencedSegmentNumber")} AS segment,
    {_first("MRDiffusionSequence", "DiffusionBValue")} AS b_value,
    array_to_string({_GRADIENT}, ' ') AS gradient,
    concat_ws(' ', {_first("FrameContentSequence", "TemporalPositionIndex")},
        {_first("TemporalPositionSequence", "TemporalPositionTimeOffset")}) AS temporal_position,
    {_first("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime")} AS trigger,
    coalesce({_first("FrameContentSequence", "FrameAcquisitionNumber")}, AcquisitionNumber) AS acquisition,
    coalesce({_first("FrameContentSequence", "FrameAcquisitionDateTime")},
        {_first("FrameContentSequence", "FrameReferenceDateTime")}, nullif({_TIME}, '')) AS acquisition_time,
    ContentTime AS content_time,
    InstanceNumber AS instance_number
FROM placed
"""

_ATTRIBUTES = (
    "Rows", "Columns", "ImageType", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing",
    "GantryDetectorTilt", "FrameOfReferenceUID", "EchoTime", "EchoNumbers", "DiffusionBValue",
    "DiffusionGradientOrientation", "TemporalPositionIdentifier", "NumberOfTemporalPositions", "TriggerTime",
    "AcquisitionNumber", "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "ContentTime", "InstanceNumber",
    "ImagesInAcquisition", "NumberOfSeriesRelatedInstances",
)  # fmt: skip
_NAMES = (
    "source", "study_key", "StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "batch_id", "object_id",
    "updated_at",
)  # fmt: skip

INSTANCE_COLUMNS = (*_NAMES, *_ATTRIBUTES, "NumberOfFrames")
"""Columns of `instance` that are looked at."""

INSTANCES = f"""
-- one row per current instance of some studies: what its geometry and the claims of its series are about
SELECT
    {", ".join(_NAMES)}, {", ".join(f'"{name}"' for name in _ATTRIBUTES)}, {FRAMES} AS NumberOfFrames,
    {IS_IMAGE} AS is_image, ({IS_IMAGE}) AND ({IS_MULTIFRAME}) AS is_multiframe
FROM instance
"""


def single_frames(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """The images of the table `instances` (INSTANCES with the number of the series, `series`) that have one frame."""
    return connection.sql(_SINGLE).to_arrow_table()


def multi_frames(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """The frames of the others, from the table `multiframe`: these instances and their headers, read once."""
    return connection.sql(_MULTIFRAME).to_arrow_table()
