"""What is wrong with where images lie is found, and nothing else: series by series, through all steps of a batch."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import dcm2niix
import numpy as np
import pyarrow as pa
import pytest
from highdicom.spatial import get_series_volume_positions, get_volume_positions
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, MRImageStorage, SecondaryCaptureImageStorage

from dicom_assets.batch.checks.contract import CheckContext
from dicom_assets.batch.checks.geometry_checks import volumes_are_regular
from dicom_assets.batch.verification.verify import verify
from dicom_assets.lake.staging import SCHEMAS, Part, Staging
from dicom_assets.schema.geometry_table import MEANINGS, GeometryKind, Irregularity, Shortfall
from dicom_assets_tests.curation import series as made
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.lakes import settings_for
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import Stepped

FRAMES = made.volume(orientation=made.SAGITTAL)
_WITHOUT_POSITION = [{**one, "ImagePositionPatient": None, "ImageOrientationPatient": None} for one in made.CLEAN[:3]]

OTHERS: dict[str, list[Dataset]] = {
    "frames": [made.enhanced(3, 1, FRAMES)],
    "frames, one missing": [made.enhanced(3, 2, FRAMES[:5] + [{**o, "place": n} for n, o in enumerate(FRAMES[6:], 7)])],
    "frames of two echoes": [made.enhanced(3, 3, made.repeated(2, lambda n: {"EchoTime": 10 * n + 10}))],
    "frames that nothing describes": [made.enhanced(3, 4, FRAMES, NumberOfFrames=14)],
    "one enhanced object for each slice": [
        made.enhanced(3, 5, [one], SOPInstanceUID=uid(3, 5, n)) for n, one in enumerate(FRAMES, 1)
    ],
    "dose": [made.dose(3, 6, made.CLEAN)],
    "localizer": made.datasets(
        3, 7, [{**o, "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]} for o in made.CLEAN[:2]]
    ),
    "secondary capture": made.datasets(3, 8, _WITHOUT_POSITION, SecondaryCaptureImageStorage),
    "no position": made.datasets(3, 9, _WITHOUT_POSITION),
    "numbers that cannot be": made.datasets(
        3,
        14,
        [
            {**made.CLEAN[0], "ImagePositionPatient": ["0", "", "3"]},
            {**made.CLEAN[1], "ImageOrientationPatient": ["1", "", "0", "0", "1", "0"]},
            {**made.CLEAN[2], "ImagePositionPatient": ["1e30", "0", "-1e30"]},
            {**made.CLEAN[3], "ImageOrientationPatient": [0, 0, 0, 0, 0, 0]},
            {**made.CLEAN[4], "ImagePositionPatient": ["0", "1"], "PixelSpacing": ["1e300", "0"]},
        ],
    ),
    "single slice": made.datasets(3, 10, made.CLEAN[:1]),
    "mosaic": made.datasets(
        3, 11, [{**o, "ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]} for o in made.CLEAN[:2]]
    ),
    "oblique": made.datasets(3, 12, made.volume(orientation=[1.0, 0, 0, 0, 0.5**0.5, 0.5**0.5])),
    "coronal, backwards": made.datasets(3, 13, made.volume(orientation=made.CORONAL)[::-1]),
}
"""Series that are no slices of single frames in one direction, by what they are."""


@dataclass(frozen=True)
class Lake:
    """A lake with every generated series. rows: of series_geometry, by the name of the series."""

    graph: Stepped
    batch: str
    rows: dict[str, dict[str, Any]]


def put(landing: LandingFolder, name: str, objects: Sequence[Dataset]) -> str:
    """Writes the objects of a series; its UID."""
    for number, one in enumerate(objects):
        landing.put(f"{name}/{number:03d}.dcm", made.written(one))
    return str(objects[0].SeriesInstanceUID)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """One batch of all of them."""
    folder = tmp_path_factory.mktemp("geometry")
    landing = LandingFolder(folder / "landing")
    landing.root.mkdir()
    names: dict[str, str] = {}
    groups = (made.DEFECTS, made.SPLITS, made.SHORTFALLS)
    for study, group in enumerate(groups, start=10):
        for number, (name, (slices, _)) in enumerate(group.items(), start=1):
            kind = MRImageStorage if group is made.SPLITS else CTImageStorage
            names[put(landing, f"{study}/{number}", made.datasets(study, number, slices, kind))] = name
    for number, (name, objects) in enumerate(OTHERS.items()):
        names[put(landing, f"others/{number}", objects)] = name
    landing.put("report.dcm", dicom(99, 1, 1))  # a series without an image
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Stepped(settings_for(folder / "lake", landing.root), instance)
        (batch,) = graph.ingest()
        assert graph.books(batch).status == "closed", graph.books(batch).reason
        rows = {names[row["SeriesInstanceUID"]]: row for row in graph.rows("FROM series_geometry")}
        yield Lake(graph, batch, rows)


def test_each_series_with_images_has_a_row_and_no_other(lake):
    assert len(lake.rows) == len(made.DEFECTS) + len(made.SPLITS) + len(made.SHORTFALLS) + len(OTHERS)


@pytest.mark.parametrize("name", made.DEFECTS)
def test_what_is_irregular_is_found_and_nothing_else(lake, name):
    row = lake.rows[name]
    assert {*row["irregularities"]} == made.DEFECTS[name][1]
    assert row["is_regular_volume"] == (not made.DEFECTS[name][1])
    assert row["geometry_kind"] == "slices"


def test_every_irregularity_and_shortfall_is_caused_by_a_series(lake):
    assert {reason for row in lake.rows.values() for reason in row["irregularities"]} == {*map(str, Irregularity)}
    assert {reason for row in lake.rows.values() for reason in row["shortfalls"]} == {*map(str, Shortfall)}
    assert {row["geometry_kind"] for row in lake.rows.values()} == {*map(str, GeometryKind)}
    assert {*MEANINGS} == {*GeometryKind, *Irregularity, *Shortfall}


def test_a_regular_volume_is_described_in_millimetres_and_degrees(lake):
    row = lake.rows["clean"]
    expected = {
        "instance_count": 12, "image_count": 12, "slice_count": 12, "position_count": 12, "volume_count": 1,
        "slices_per_volume": 12, "orientation_count": 1, "orientation": made.AXIAL, "plane": "axial",
        "plane_angle": 0.0, "missing_slices": 0, "duplicated_images": 0, "first_position": 30.0,
        "last_position": 57.5, "spacing": 2.5, "largest_distance": 2.5, "shear_angle": 0.0, "Rows": 16, "Columns": 16,
        "PixelSpacing": [0.8, 0.8], "gantry_tilt": None, "split_by": [], "is_multiframe": False,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    assert row["spacing_deviation"] == pytest.approx(0, abs=1e-9)


def test_defects_are_measured(lake):
    assert lake.rows["a slice is missing"]["missing_slices"] == 1
    assert lake.rows["a slice is missing"]["largest_distance"] == pytest.approx(5)
    assert lake.rows["a position stands twice"]["duplicated_images"] == 1
    assert lake.rows["a slice lies between two places"]["spacing_deviation"] == pytest.approx(2.5 / 3)
    assert lake.rows["a slice lies beside the line"]["misalignment"] == pytest.approx(1.5)
    tilted = lake.rows["a tilt is not corrected"]
    assert (tilted["shear_angle"], tilted["gantry_tilt"]) == (pytest.approx(15, abs=1e-3), 15)
    assert lake.rows["slices of two directions"]["orientation_count"] == 2
    assert lake.rows["a slice has other rows"]["Rows"] is None
    assert lake.rows["a slice has other pixels"]["PixelSpacing"] is None


@pytest.mark.parametrize("name", made.SPLITS)
def test_volumes_in_one_place_are_told_apart_and_nothing_is_called_twice_or_missing(lake, name):
    slices, names = made.SPLITS[name]
    row = lake.rows[name]
    assert (row["is_regular_volume"], row["irregularities"]) == (True, [])
    assert (row["split_by"], row["volume_count"]) == (names, len(slices) // made.COUNT)
    assert (row["position_count"], row["slices_per_volume"]) == (made.COUNT, made.COUNT)


@pytest.mark.parametrize("name", made.SHORTFALLS)
def test_a_series_that_claims_more_than_is_there_is_told_and_stays_regular(lake, name):
    row = lake.rows[name]
    assert {*row["shortfalls"]} == made.SHORTFALLS[name][1]
    assert row["is_regular_volume"]


def test_claims_are_counted(lake):
    assert lake.rows["a number is left out"]["instance_numbers_missing"] == 1
    assert lake.rows["the series claims more"]["claimed_instances"] == 14
    assert lake.rows["the acquisition claims more"]["claimed_images"] == 14
    assert lake.rows["clean"]["claimed_images"] is None


def test_frames_are_judged_as_single_images_are(lake):
    row, missing, echoes = (lake.rows[name] for name in ("frames", "frames, one missing", "frames of two echoes"))
    assert (row["is_regular_volume"], row["plane"], row["spacing"]) == (True, "sagittal", pytest.approx(2.5))
    assert (row["is_multiframe"], row["instance_count"], row["image_count"], row["position_count"]) == (True, 1, 12, 12)
    assert (row["PixelSpacing"], row["orientation"], row["shortfalls"]) == ([0.8, 0.8], made.SAGITTAL, [])
    assert (missing["irregularities"], missing["shortfalls"]) == (["MISSING_SLICES"], ["STACK_POSITIONS_MISSING"])
    assert (echoes["is_regular_volume"], echoes["split_by"], echoes["volume_count"]) == (True, ["echo"], 2)


def test_frames_that_the_header_does_not_describe_are_a_shortfall(lake):
    row = lake.rows["frames that nothing describes"]
    assert (row["shortfalls"], row["image_count"], row["is_regular_volume"]) == (["FRAMES_MISSING"], 12, True)


def test_enhanced_objects_of_one_frame_and_dose_grids_have_positions(lake):
    single, dose = lake.rows["one enhanced object for each slice"], lake.rows["dose"]
    assert (single["is_regular_volume"], single["position_count"], single["instance_count"]) == (True, 12, 12)
    assert (dose["is_regular_volume"], dose["position_count"], dose["spacing"]) == (True, 12, pytest.approx(2.5))


def test_numbers_that_cannot_be_are_no_position_and_pause_no_batch(lake):
    row = lake.rows["numbers that cannot be"]
    assert (row["geometry_kind"], row["image_count"], row["slice_count"]) == ("no position", 5, 0)


@pytest.mark.parametrize("kind", ["localizer", "secondary capture", "no position", "single slice", "mosaic"])
def test_what_is_no_volume_is_called_what_it_is_and_not_irregular(lake, kind):
    row = lake.rows[kind]
    assert (row["geometry_kind"], row["is_regular_volume"], row["irregularities"]) == (kind, None, [])


def test_planes_are_told_by_their_normal_whatever_the_order(lake):
    assert lake.rows["coronal, backwards"]["plane"] == "coronal"
    assert lake.rows["coronal, backwards"]["is_regular_volume"]
    oblique = lake.rows["oblique"]
    assert (oblique["plane"], oblique["plane_angle"]) == ("oblique", pytest.approx(45))


def test_the_remark_counts_irregular_series_by_reason_and_lets_the_batch_close(lake):
    staging = Staging(lake.graph.lake.files, "looks-again")
    keys = sorted({row["study_key"] for row in lake.rows.values()})
    staging.stage(Part.TOUCHED, pa.table({"study_key": keys}, schema=SCHEMAS[Part.TOUCHED]))
    try:
        found = volumes_are_regular(CheckContext(lake.graph.lake, staging))
    finally:
        staging.remove()
    irregular = [row for row in lake.rows.values() if row["is_regular_volume"] is False]
    assert (found.passed, found.actual) == (False, len(irregular))
    assert "IN_PLANE_DIFFERS 2, MISSING_SLICES 2" in found.explanation


def test_the_lake_verifies(lake):
    found = verify(lake.graph.lake, lake.graph.settings)
    assert [one.rule for one in found.findings if not one.holds] == []


OF_POSITIONS = {"MISSING_SLICES", "DUPLICATED_POSITIONS", "UNEVEN_SPACING", "NOT_ALIGNED", "SHEARED"}
OF_SEVERAL = {"SEVERAL_ORIENTATIONS", "POSITION_MISSING", "OTHER_IMAGES", "ORIENTATION_INVALID"}
COMPARED = {name: slices for name, (slices, why) in (made.DEFECTS | made.SHORTFALLS).items() if not why & OF_SEVERAL}


@pytest.mark.parametrize("name", COMPARED)
def test_highdicom_calls_the_same_series_volumes_and_finds_the_same_spacing(lake, name):
    """Each volume by itself, since highdicom looks at one. Of pixels and frames of reference it says nothing."""
    slices, row = COMPARED[name], lake.rows[name]
    by_time: dict[Any, list[list[float]]] = {}
    for one in slices:
        by_time.setdefault(one.get("TemporalPositionIdentifier"), []).append(one["ImagePositionPatient"])
    found = [get_volume_positions(positions, slices[0]["ImageOrientationPatient"])[0] for positions in by_time.values()]
    assert all(found) == (not {*row["irregularities"]} & OF_POSITIONS)
    for spacing in found:
        assert spacing is None or spacing == pytest.approx(row["spacing"], rel=1e-3)


def test_highdicom_finds_the_gap_of_a_series_from_its_objects(lake):
    slices = made.DEFECTS["a slice is missing"][0]
    spacing, places = get_series_volume_positions(made.datasets(10, 2, slices), allow_missing_positions=True)
    assert spacing == pytest.approx(lake.rows["a slice is missing"]["spacing"])
    assert places is not None
    assert np.ptp(places) + 1 - len(places) == lake.rows["a slice is missing"]["missing_slices"]


@dataclass(frozen=True)
class Converted:
    """What dcm2niix makes of a series. volumes: by file; spacings: of its files, mm; said: its words."""

    volumes: list[int]
    spacings: list[float]
    said: str


def converted(folder: Path, slices: made.Slices, sop_class: str) -> Converted:
    """Converts a series to NIfTI, whose header tells dimensions at byte 40 and distances at byte 76."""
    (folder / "out").mkdir(parents=True)
    for number, one in enumerate(made.datasets(50, 1, slices, sop_class)):
        (folder / f"{number:03d}.dcm").write_bytes(made.written(one))
    command = [dcm2niix.bin, "-z", "n", "-b", "n", "-f", "%s", "-o", str(folder / "out"), str(folder)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    heads = [path.read_bytes()[:348] for path in sorted((folder / "out").glob("*.nii"))]
    dimensions = [struct.unpack_from("<8h", head, 40) for head in heads]
    distances = [struct.unpack_from("<8f", head, 76) for head in heads]
    return Converted([max(one[4], 1) for one in dimensions], [one[3] for one in distances], said)


@pytest.mark.slow
@pytest.mark.parametrize("name", made.SPLITS)
def test_dcm2niix_makes_as_many_volumes_with_the_same_spacing(lake, tmp_path, name):
    row, found = lake.rows[name], converted(tmp_path / "series", made.SPLITS[name][0], MRImageStorage)
    assert sum(found.volumes) == row["volume_count"]
    assert found.spacings == pytest.approx([row["spacing"]] * len(found.volumes), abs=1e-4)
    assert "distance varies" not in found.said


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in made.DEFECTS if name != "a volume of several is short"])
def test_dcm2niix_warns_of_distances_and_tilts_that_are_irregular(lake, tmp_path, name):
    """It makes a file for each direction and size, and says nothing of pixels and frames of reference."""
    row, found = lake.rows[name], converted(tmp_path / "series", made.DEFECTS[name][0], CTImageStorage)
    reasons = {*row["irregularities"]}
    varies = reasons & (OF_POSITIONS - {"SHEARED"}) or name == "a slice has other rows"  # which it takes out
    assert ("distance varies" in found.said) == bool(varies)
    assert ("gantry tilt of -15" in found.said) == ("SHEARED" in reasons)
    assert (len(found.volumes) > 1) == bool(reasons & {"SEVERAL_ORIENTATIONS", "OTHER_IMAGES"} or row["Rows"] is None)
    assert found.spacings[-1 if len(found.spacings) > 1 else 0] == pytest.approx(2.5, abs=1e-4)


@pytest.mark.slow
def test_dcm2niix_refuses_volumes_that_differ(tmp_path):
    found = converted(tmp_path / "series", made.DEFECTS["a volume of several is short"][0], CTImageStorage)
    assert found.volumes == []
    assert "missing images?" in found.said
