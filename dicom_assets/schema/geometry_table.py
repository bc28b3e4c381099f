"""The table of geometry, and the closed lists of what it says of a series: kinds, irregularities, shortfalls, planes.

Belongs here: names, types, units and meanings. Does not belong here: how a series is judged (`curation.geometry`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import pyarrow as pa

from dicom_assets.schema.table import TEXTS, Column, Table

_TEXT, _COUNT, _REAL, _FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()


class GeometryKind(StrEnum):
    """What the images of a series are, as far as geometry goes; `slices` alone are judged."""

    SLICES = "slices"
    SINGLE_SLICE = "single slice"
    LOCALIZER = "localizer"
    SECONDARY_CAPTURE = "secondary capture"
    MOSAIC = "mosaic"
    NO_POSITION = "no position"


class Plane(StrEnum):
    """The plane of the body that images lie in."""

    AXIAL = "axial"
    CORONAL = "coronal"
    SAGITTAL = "sagittal"
    OBLIQUE = "oblique"


class Irregularity(StrEnum):
    """Why slices are no regular volume."""

    POSITION_MISSING = "POSITION_MISSING"
    OTHER_IMAGES = "OTHER_IMAGES"
    SEVERAL_FRAMES_OF_REFERENCE = "SEVERAL_FRAMES_OF_REFERENCE"
    SEVERAL_ORIENTATIONS = "SEVERAL_ORIENTATIONS"
    ORIENTATION_INVALID = "ORIENTATION_INVALID"
    IN_PLANE_DIFFERS = "IN_PLANE_DIFFERS"
    DUPLICATED_POSITIONS = "DUPLICATED_POSITIONS"
    MISSING_SLICES = "MISSING_SLICES"
    UNEVEN_SPACING = "UNEVEN_SPACING"
    NOT_ALIGNED = "NOT_ALIGNED"
    SHEARED = "SHEARED"
    VOLUMES_DIFFER = "VOLUMES_DIFFER"


class Shortfall(StrEnum):
    """What a series says of itself and does not have."""

    SERIES_CLAIMS_MORE = "SERIES_CLAIMS_MORE"
    ACQUISITION_CLAIMS_MORE = "ACQUISITION_CLAIMS_MORE"
    TEMPORAL_POSITIONS_MISSING = "TEMPORAL_POSITIONS_MISSING"
    STACK_POSITIONS_MISSING = "STACK_POSITIONS_MISSING"
    FRAMES_MISSING = "FRAMES_MISSING"
    INSTANCE_NUMBERS_MISSING = "INSTANCE_NUMBERS_MISSING"


MEANINGS: dict[StrEnum, str] = {
    GeometryKind.SLICES: "Images with position and orientation at two positions or more; they are judged",
    GeometryKind.SINGLE_SLICE: "Images with position and orientation, all at one position",
    GeometryKind.LOCALIZER: "Value 3 or a later one of Image Type or Frame Type is LOCALIZER (PS3.3 C.8.2.1.1.1)",
    GeometryKind.SECONDARY_CAPTURE: "Objects of a secondary capture SOP class (PS3.3 A.8)",
    GeometryKind.MOSAIC: "Image Type has MOSAIC: each image shows all slices side by side, and its position is that of "
    "no slice",
    GeometryKind.NO_POSITION: "Images without Image Position (Patient) or Image Orientation (Patient), such as "
    "projections and ultrasound",
    Irregularity.POSITION_MISSING: "Some images have position and orientation, others do not",
    Irregularity.OTHER_IMAGES: "Localizers, secondary captures or mosaics lie among the slices",
    Irregularity.SEVERAL_FRAMES_OF_REFERENCE: "Frame of Reference UID differs, so that positions cannot be compared",
    Irregularity.SEVERAL_ORIENTATIONS: "The slices lie in planes of several directions",
    Irregularity.ORIENTATION_INVALID: "Direction cosines are not of length one, or not at right angles (PS3.3 "
    "C.7.6.2.1.1)",
    Irregularity.IN_PLANE_DIFFERS: "Rows, Columns or Pixel Spacing differ",
    Irregularity.DUPLICATED_POSITIONS: "A volume has several images at one position, and nothing tells them apart",
    Irregularity.MISSING_SLICES: "Two neighbours are two or more whole spacings apart",
    Irregularity.UNEVEN_SPACING: "Distances of neighbours differ by more than the tolerance, and are no whole gap",
    Irregularity.NOT_ALIGNED: "Positions do not lie on one straight line",
    Irregularity.SHEARED: "Positions lie on a line that is not at right angles to the slices, as with a gantry tilt",
    Irregularity.VOLUMES_DIFFER: "The volumes of the series differ in slices, or in where they begin or end",
    Shortfall.SERIES_CLAIMS_MORE: "Number of Series Related Instances is more than the instances that are there",
    Shortfall.ACQUISITION_CLAIMS_MORE: "Images in Acquisition is more than the images of that Acquisition Number",
    Shortfall.TEMPORAL_POSITIONS_MISSING: "Number of Temporal Positions is more than the temporal positions that "
    "images name",
    Shortfall.STACK_POSITIONS_MISSING: "In-Stack Position Number leaves numbers below its largest out",
    Shortfall.FRAMES_MISSING: "Number of Frames is more than the frames that the functional groups describe",
    Shortfall.INSTANCE_NUMBERS_MISSING: "Instance Number leaves numbers between its smallest and largest out",
}
"""What each code says, for users; docs/curation.md has the same sentences."""


def _column(name: str, kind: pa.DataType, text: str, *, nullable: bool = True) -> Column:
    return Column(name, kind, text, nullable)


def series_geometry_table(own: Mapping[str, Column]) -> Table:
    """The table `series_geometry`. own: the project's own columns by name."""

    def needed(name: str) -> Column:
        return Column(name, own[name].type, own[name].description, nullable=False)

    return Table(
        "series_geometry",
        "current series with images",
        ("source", "StudyInstanceUID", "SeriesInstanceUID"),
        (
            needed("source"),
            needed("study_key"),
            _column("StudyInstanceUID", _TEXT, "Study Instance UID (0020,000D) UI", nullable=False),
            _column("SeriesInstanceUID", _TEXT, "Series Instance UID (0020,000E) UI", nullable=False),
            _column("geometry_kind", _TEXT, f"What its images are: {', '.join(GeometryKind)}", nullable=False),
            _column(
                "is_regular_volume",
                _FLAG,
                "Whether the slices fill one grid of equal distances, in each of its volumes; NULL where the kind is "
                "not slices",
            ),
            _column("irregularities", TEXTS, f"Why not: {', '.join(Irregularity)}", nullable=False),
            _column("shortfalls", TEXTS, f"What it claims and does not have: {', '.join(Shortfall)}", nullable=False),
            needed("instance_count"),
            _column("image_count", _COUNT, "Images, counted: each frame of a multi-frame object", nullable=False),
            _column("slice_count", _COUNT, "Images that are judged as slices", nullable=False),
            _column("is_multiframe", _FLAG, "Whether an object of it has several frames, or may have", nullable=False),
            _column("orientation_count", _COUNT, "Different directions of the slices", nullable=False),
            _column(
                "orientation",
                pa.list_(_REAL),
                "Direction cosines of row and column, as in Image Orientation (Patient); of most of the slices",
            ),
            _column("plane", _TEXT, f"Plane of these: {', '.join(Plane)}"),
            _column("plane_angle", _REAL, "Angle between the normal of the slices and that of the plane, degrees"),
            _column("position_count", _COUNT, "Different positions along the normal", nullable=False),
            _column("volume_count", _COUNT, "Volumes that the slices make", nullable=False),
            _column("split_by", TEXTS, "What tells the volumes apart that have slices in one place", nullable=False),
            _column("slices_per_volume", _COUNT, "Positions of the volume that has most", nullable=False),
            _column("spacing", _REAL, "Typical distance of neighbouring slices along the normal (median), mm"),
            _column("spacing_deviation", _REAL, "Largest difference of a distance from it, whole gaps aside, mm"),
            _column("largest_distance", _REAL, "Largest distance of neighbouring slices, mm"),
            _column("missing_slices", _COUNT, "Slices that the gaps between neighbours have room for", nullable=False),
            _column(
                "duplicated_images",
                _COUNT,
                "Images beyond the first at a position of a volume",
                nullable=False,
            ),
            _column(
                "first_position",
                _REAL,
                "Least position along the normal, mm; NULL where slices have several directions",
            ),
            _column("last_position", _REAL, "Greatest position along the normal, mm; NULL as before"),
            _column("misalignment", _REAL, "Largest distance of a position from the line of its volume, mm"),
            _column("shear_angle", _REAL, "Largest angle between that line and the normal, degrees"),
            _column("gantry_tilt", _REAL, "Gantry/Detector Tilt as told, the largest, degrees"),
            _column("Rows", _COUNT, "Rows of each slice; NULL where they differ"),
            _column("Columns", _COUNT, "Columns of each slice; NULL where they differ"),
            _column("PixelSpacing", pa.list_(_REAL), "Distance of rows and of columns, mm; NULL where they differ"),
            _column("claimed_instances", _COUNT, "Number of Series Related Instances, the largest that is told"),
            _column("claimed_images", _COUNT, "Images in Acquisition, summed over Acquisition Numbers"),
            _column(
                "instance_numbers_missing",
                _COUNT,
                "Numbers between the smallest and the largest Instance Number that no instance has",
            ),
            needed("updated_at"),
        ),
        "Where the images of each series lie: orientation, positions, spacing, volumes, and whether they fill a "
        "regular grid.",
        "study_key",
        ("instance", "flat_metadata"),
    )
