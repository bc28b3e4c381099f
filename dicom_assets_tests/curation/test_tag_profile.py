"""tag_profile: what is counted of headers, by device and software, and what has changed between two of them."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from dicom_assets.curation.marks import KEPT, Marker
from dicom_assets.curation.tag_counts import TagCounts
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import arrow, connect
from dicom_assets.schema.keys import profile_key
from dicom_assets.schema.tag_tables import TAG_PROFILE_PART
from dicom_assets_tests.curation.support import followed
from dicom_assets_tests.support.dicoms import dicom

MARKER = Marker(b"of the tests")
DEVICE = {"Manufacturer": "ACME", "ManufacturerModelName": "One", "Modality": "CT"}


@pytest.fixture(scope="module")
def rows(states) -> dict[tuple[str | None, str], dict[str, Any]]:
    """Rows by software and path: three objects with software 1, one of them without a kernel; one with software 2."""

    def make(graph, landing) -> None:
        for number, kernel in enumerate(("SOFT", "", None), start=1):
            more = {"ConvolutionKernel": kernel, "SoftwareVersions": ["1", "a"], **DEVICE}
            landing.put(f"{number}.dcm", dicom(1, 1, number, **more))
        landing.put("4.dcm", dicom(1, 2, 1, SoftwareVersions="2", ConvolutionKernel="SHARPER", **DEVICE))
        graph.ingest()

    graph, _, _ = states.begin(make)
    return {(row["SoftwareVersions"], row["path"]): row for row in followed(graph.lake)["tag_profile"]}


def test_an_element_is_counted_where_it_is_there_and_where_it_is_empty(rows):
    kernel = rows["1\\a", "00181210"]
    told = ("keyword", "vr", "objects", "present", "empty", "distinct_values", "length_min", "length_typical")
    assert [kernel[name] for name in told] == ["ConvolutionKernel", ["SH"], 3, 2, 1, 1, 4, 4.0]


def test_software_has_a_profile_of_its_own(rows):
    assert (rows["2", "00181210"]["objects"], rows["2", "00181210"]["length_max"]) == (1, 7)
    assert rows["1\\a", "00080018"]["distinct_values"] == 3


def header(**elements: Any) -> str:
    """A header of elements, by tag with a T in front."""
    return json.dumps(
        {name[1:]: {"vr": "LO", **said} for name, said in sorted(elements.items())}, separators=(",", ":")
    )


def test_different_values_are_counted_about_as_many_as_there_are(empty_lake, tmp_path):
    counts = TagCounts(MARKER)
    counts.add(["key"] * 5_000, [header(T00080018={"Value": [str(n)]}) for n in range(5_000)])
    lake = with_parts(empty_lake, tmp_path, {("", "2026-10-01"): counts})
    (row,) = [row for row in followed_parts(lake) if row["path"] == "00080018"]
    assert len(counts.rows()[0]["value_marks"]) == KEPT
    assert 3_000 < row["distinct_values"] < 7_000


def with_parts(empty_lake, tmp_path, parts: dict[tuple[str | None, str], TagCounts], **device: str | None) -> Lake:
    """A lake whose parts of tag_profile are these, by software and day of the claim. device: what it is called."""
    lake = Lake(shutil.copytree(empty_lake, tmp_path / "lake").as_posix(), make=False)
    for number, ((software, day), counts) in enumerate(parts.items()):
        group = {"source": "landing", "SoftwareVersions": software, **DEVICE, **device}
        own = {"batch_id": f"batch{number}", "mark": "m", "claimed_at": datetime.fromisoformat(day).replace(tzinfo=UTC)}
        rows = [{**group, **row, **own, "profile_key": profile_key(software)} for row in counts.rows()]
        lake.replace("tag_profile_part", [f"batch{number}"], pa.Table.from_pylist(rows, TAG_PROFILE_PART.schema))
    return lake


def followed_parts(lake: Lake) -> list[dict[str, Any]]:
    from dicom_assets.curation.tag_profile import add_up

    add_up(lake)
    with connect(lake, ["tag_profile"]) as connection:
        return arrow(connection, "FROM tag_profile").to_pylist()


N = 60
SAME = {"T00080070": {"Value": ["ACME"]}}
BEFORE = [
    header(
        **SAME,
        T00080008={"Value": ["ORIGINAL" if n % 2 else "DERIVED"]},
        T00080031={"vr": "TM", "Value": ["1200"]},
        T00080050={"Value": [f"A{n}"]},
        T00081030={"Value": ["short"]},
        T00180015={"Value": ["CHEST"]},
        T00291008={"Value": ["gone"]},
    )
    for n in range(N)
]
AFTER = [
    header(
        **SAME,
        T00080008={"Value": ["SECONDARY"]},
        T00080031={"vr": "DT", "Value": ["1200"]},
        **({"T00080050": {"Value": [f"B{n}"]}} if n % 2 else {}),
        T00081030={"Value": ["quite a bit longer"]},
        T00180015={"Value": ["CHEST"]} if n % 3 else {},
        T00201041={"Value": ["new"]},
    )
    for n in range(N)
]
CHANGES = {
    "00080008": "other values",
    "00080031": "other VR",
    "00080050": "other presence",
    "00081030": "other length",
    "00180015": "other emptiness",
    "00291008": "vanished",
    "00201041": "appeared",
}


def counted(headers: list[str]) -> TagCounts:
    counts = TagCounts(MARKER)
    counts.add(["key"] * len(headers), headers)
    return counts


@pytest.mark.parametrize(
    ("axis", "sides"),
    [("software", (("1", "2026-09-01"), ("2", "2026-09-02"))), ("month", (("1", "2026-09-30"), ("1", "2026-10-01")))],
)
def test_what_has_changed_is_told_and_nothing_else(empty_lake, tmp_path, axis, sides):
    old, new = sides
    lake = with_parts(empty_lake, tmp_path, {old: counted(BEFORE), new: counted(AFTER)})
    with connect(lake, ["tag_profile_part"]) as connection:
        found = connection.execute(f"SELECT path, change FROM tag_drift WHERE axis = '{axis}'").fetchall()
    assert dict(found) == CHANGES


@pytest.mark.parametrize("device", [{"ManufacturerModelName": None}, {}])
def test_versions_are_of_a_device_that_is_named_and_of_software_that_is(empty_lake, tmp_path, device):
    sides = ("1" if device else None, "2026-09-01"), ("2", "2026-09-02")
    lake = with_parts(empty_lake, tmp_path, dict(zip(sides, (counted(BEFORE), counted(AFTER)), strict=True)), **device)
    with connect(lake, ["tag_profile_part"]) as connection:
        assert connection.execute("SELECT DISTINCT axis FROM tag_drift").fetchall() == []


def test_nothing_changes_where_headers_are_alike(empty_lake, tmp_path):
    halves = {("1", "2026-09-01"): counted(BEFORE[: N // 2]), ("2", "2026-09-02"): counted(BEFORE[N // 2 :])}
    lake = with_parts(empty_lake, tmp_path, halves)
    with connect(lake, ["tag_profile_part"]) as connection:
        assert connection.execute("FROM tag_drift").fetchall() == []
