"""Geometry of drawn series: each defect is found wherever it is, and nothing depends on order or place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_assets.curation.claims_of_series import claimed
from dicom_assets.curation.geometry import measured
from dicom_assets.curation.series_images import INSTANCES, single_frames
from dicom_assets.schema.registry import INSTANCE
from dicom_assets_tests.curation.series import Slices, volume


def geometry_of(*series: Slices) -> list[dict[str, Any]]:
    """What is measured of some series of single frames."""
    rows = [
        {**one, "SeriesInstanceUID": str(number)} for number, slices in enumerate(series, start=1) for one in slices
    ]
    fields = [field.with_nullable(True) for field in INSTANCE.schema]
    with duckdb.connect() as connection:
        connection.register("instance", pa.Table.from_pylist(rows, schema=pa.schema(fields)))
        connection.execute(
            f"CREATE TEMP TABLE instances AS SELECT SeriesInstanceUID::BIGINT - 1 AS series, * FROM ({INSTANCES})"
        )
        images, instances = single_frames(connection), connection.sql("FROM instances").to_arrow_table()
        claims = claimed(instances, images, len(series))
        return measured(images, len(series)).append_column("shortfalls", claims["shortfalls"]).to_pylist()


@dataclass(frozen=True)
class Drawn:
    """A regular volume that lies anywhere, and the number generator that goes on drawing."""

    slices: Slices
    spacing: float
    normal: np.ndarray
    in_plane: np.ndarray
    place: int


@st.composite
def volumes(draw: st.DrawFn) -> Drawn:
    """Seven slices or more in any direction; place: one of them that has two neighbours on each side."""
    count = draw(st.integers(7, 40))
    spacing = draw(st.floats(0.3, 12))
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rotation, _ = np.linalg.qr(numbers.normal(size=(3, 3)))
    orientation = [round(float(one), 8) for one in (*rotation[0], *rotation[1])]
    slices = volume(count, spacing, orientation, numbers.uniform(-500, 500, 3))
    normal = np.cross(rotation[0], rotation[1])
    return Drawn(slices, spacing, normal, rotation[0], draw(st.integers(2, count - 3)))


def shifted(drawn: Drawn, by: np.ndarray) -> Slices:
    """The slices, of which one is moved, mm."""
    found = [dict(one) for one in drawn.slices]
    moved = np.asarray(found[drawn.place]["ImagePositionPatient"]) + by
    found[drawn.place]["ImagePositionPatient"] = [round(float(one), 6) for one in moved]
    return found


@settings(max_examples=40)
@given(volumes(), st.integers(1, 2), st.floats(0.05, 0.95), st.floats(0.15, 30), st.randoms(use_true_random=False))
def test_each_defect_is_found_in_a_volume_that_lies_anywhere(drawn, gone, share, aside, chance):
    place, slices = drawn.place, drawn.slices
    numbered = {"InstanceNumber": slices[place]["InstanceNumber"]}
    series = {
        "clean": slices,
        "MISSING_SLICES": slices[:place] + slices[place + gone :],
        "DUPLICATED_POSITIONS": [*slices, slices[place] | numbered],
        "UNEVEN_SPACING": shifted(drawn, drawn.normal * share * drawn.spacing),
        "NOT_ALIGNED": shifted(drawn, drawn.in_plane * aside),
    }
    for one in series.values():
        chance.shuffle(one)
    rows = dict(zip(series, geometry_of(*series.values()), strict=True))
    assert {name: row["irregularities"] for name, row in rows.items()} == {
        name: [] if name == "clean" else [name] for name in series
    }
    assert all(row["spacing"] == pytest.approx(drawn.spacing, abs=1e-5) for row in rows.values())
    assert rows["MISSING_SLICES"]["missing_slices"] == gone
    assert rows["DUPLICATED_POSITIONS"]["duplicated_images"] == 1
    assert rows["UNEVEN_SPACING"]["spacing_deviation"] == pytest.approx(drawn.spacing * share, abs=1e-5)
    assert rows["NOT_ALIGNED"]["misalignment"] == pytest.approx(aside, abs=1e-4)


ODD = st.one_of(st.floats(), st.sampled_from([0.0, 1.0, -1.0, 1e-300, 1e300, 0.5]))


@settings(max_examples=40)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "ImagePositionPatient": st.none() | st.lists(ODD, max_size=4),
                "ImageOrientationPatient": st.none() | st.lists(ODD, max_size=7),
                "PixelSpacing": st.none() | st.lists(ODD, max_size=3),
                "GantryDetectorTilt": st.none() | ODD,
                "EchoTime": st.none() | ODD,
                "InstanceNumber": st.none() | st.integers(-(2**63), 2**63 - 1),
                "ImagesInAcquisition": st.none() | st.integers(-(2**63), 2**63 - 1),
                "NumberOfFrames": st.sampled_from([None, 0, 1, -5]),
            }
        ),
        min_size=1,
        max_size=8,
    )
)
def test_whatever_stands_in_headers_is_measured_and_raises_nothing(slices):
    (row,) = geometry_of([{"Rows": 4, "Columns": 4, **one} for one in slices])
    assert row["image_count"] == len(slices)
    assert row["is_regular_volume"] is None or row["slice_count"] > 1
    for value in (row["spacing"], row["misalignment"], row["shear_angle"]):
        assert value is None or np.isfinite(value)


TOLD_APART = (
    {"EchoTime": [10.0, 20.0, 30.0]},
    {"TemporalPositionIdentifier": [1, 2, 3]},
    {"AcquisitionTime": ["10:00:00", "10:00:09", "10:00:10"]},
    {"DiffusionBValue": [0.0, 500.0, 1000.0]},
)


@settings(max_examples=20)
@given(volumes(), st.sampled_from(TOLD_APART), st.booleans(), st.randoms(use_true_random=False))
def test_nothing_depends_on_the_order_of_images(drawn, told, is_short, chance):
    ((keyword, values),) = told.items()
    slices = [{**one, keyword: value} for value in values for one in drawn.slices]
    slices = slices[:-1] if is_short else slices
    other = [*slices]
    chance.shuffle(other)
    ordered, shuffled = geometry_of(slices, other)
    assert ordered == shuffled
    assert (ordered["volume_count"], ordered["is_regular_volume"]) == (3, not is_short)
    assert ordered["irregularities"] == (["VOLUMES_DIFFER"] if is_short else [])
