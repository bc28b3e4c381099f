"""What the lake has more than once: each kind is found and nothing else, and what goes leaves its groups.

Belongs here: files, as they arrive. Does not belong here: the order in which they do (`test_duplicates_in_any_order`).
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from dicom_assets.batch.erasure import removal
from dicom_assets.batch.erasure.target import Scope, Target, find
from dicom_assets.batch.verification.verify import verify
from dicom_assets.curation import duplicate_rows
from dicom_assets.curation.duplicates import make_again
from dicom_assets.schema.registry import BATCH_DIGEST, DUPLICATE
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.lakes import contents
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import Stepped, step_through

READ_WHOLE = {"reading": {"pixel_digest": True}}


def image(study: int, instance: int = 1, pixels: bytes = b"abcd", **attributes: Any) -> bytes:
    """An object that says which image it is, with pixel data of four bytes."""
    told = {
        "ContentTime": f"1011{study:02d}.{instance:03d}", "Rows": 2, "Columns": 2, "BitsAllocated": 8,
        "SamplesPerPixel": 1, "PixelData": pixels,
    }  # fmt: skip
    return dicom(study, 1, instance, **told | attributes)


def other_software(data: bytes) -> bytes:
    """The same data set behind File Meta Information of another software."""
    assert data.count(b"PYDICOM") == 1
    return data.replace(b"PYDICOM", b"ANOTHER")


def put_each_kind(landing: LandingFolder) -> None:
    """Two or three objects of each kind, and a clean twin of everything that could be taken for one."""
    landing.put("bytes/1.dcm", image(1, pixels=b"0001"))
    landing.put("bytes/2.dcm", image(1, pixels=b"0001"))
    landing.put_zip("bytes/all.zip", {"3.dcm": image(1, pixels=b"0001")})
    landing.put("pixels/1.dcm", image(2, 1, pixels=b"0002"))
    landing.put("pixels/2.dcm", image(2, 2, pixels=b"0002"))
    landing.put("header/1.dcm", image(3, pixels=b"0003", SOPInstanceUID=uid(3, 1, 1)))
    resent = {"SOPInstanceUID": uid(3, 1, 9), "AccessionNumber": "A9", "PatientID": "Q9", "StudyInstanceUID": uid(39)}
    landing.put("header/2.dcm", image(3, pixels=b"0033", **resent))
    landing.put("sop/1.dcm", image(4, pixels=b"0004"))
    landing.put("sop/2.dcm", image(4, pixels=b"0044", SeriesDescription="another", WindowCenter="40"))
    landing.put("meta/1.dcm", image(5, pixels=b"0005"))
    landing.put("meta/2.dcm", other_software(image(5, pixels=b"0005")))
    for number in range(6, 9):
        landing.put(f"clean/{number}.dcm", image(number, pixels=f"{number:04d}".encode()))
    landing.put("clean/nothing-told/1.dcm", dicom(10, 1, 1))
    landing.put("clean/nothing-told/2.dcm", dicom(11, 1, 1))


def each_kind(graph: Stepped, landing: LandingFolder) -> None:
    put_each_kind(landing)
    step_through(graph, judges=False)  # which `verify` does


def groups(graph: Stepped) -> dict[tuple[str, ...], tuple[Any, ...]]:
    """By kind and places of its members: what was compared, and how they differ from the first."""
    rows = graph.rows(
        "SELECT kind, group_id, list(coalesce(member, regexp_extract(uri, '[^/]+/[^/]+$'))) AS places, "
        "list(DISTINCT compared) AS compared, "
        "list_sort(list_distinct(flatten(list(differs_in)))) AS differs "
        "FROM duplicate JOIN flat_metadata USING (batch_id, object_id) GROUP BY ALL"
    )
    return {(row["kind"], *sorted(row["places"])): (row["compared"], row["differs"]) for row in rows}


BYTES = ("bytes", "3.dcm", "bytes/1.dcm", "bytes/2.dcm")
HEADER = ("header", "header/1.dcm", "header/2.dcm")
SOP = ("sop_instance", "sop/1.dcm", "sop/2.dcm")
META = ("header", "meta/1.dcm", "meta/2.dcm")
PIXELS = ("pixels", "pixels/1.dcm", "pixels/2.dcm")


class TestOfHeadersAlone:
    """Objects of which headers were read, as it is without `pixel_digest`."""

    @pytest.fixture
    def lake(self, states) -> Stepped:
        return states.begin(each_kind)[0]

    def test_each_kind_is_found_and_nothing_else(self, lake):
        assert groups(lake) == {
            BYTES: (["header and size"], []),
            HEADER: (
                ["header"], ["AccessionNumber", "PatientID", "SOPInstanceUID", "StudyInstanceUID"],
            ),
            SOP: (["header"], ["SeriesDescription", "WindowCenter"]),
            META: (["header"], []),
        }  # fmt: skip

    def test_one_of_each_group_is_first_and_nothing_is_removed(self, lake):
        assert lake.rows("SELECT group_id FROM duplicate GROUP BY 1 HAVING count(*) FILTER (is_first) <> 1") == []
        assert lake.rows("SELECT count(*) AS n FROM flat_metadata") == [{"n": 16}]
        assert verify(lake.lake, lake.settings).holds

    @pytest.mark.slow
    def test_what_is_erased_leaves_its_groups(self, lake):
        target = Target(Scope.INSTANCE, uid(3, 1, 9))
        own = lake.lake
        removal.carry_out(own, lake.settings, removal.begin(own, target, find(own, target, "somebody")))
        assert {HEADER}.isdisjoint(groups(lake))
        assert lake.rows(f"SELECT 1 FROM duplicate WHERE SOPInstanceUID = '{uid(3, 1, 9)}'") == []
        assert verify(lake.lake, lake.settings).holds

    def test_lost_rows_are_named_by_verify_and_made_again(self, lake):
        before = contents(lake.lake, (DUPLICATE.name, BATCH_DIGEST.name))
        DeltaTable(lake.lake.location("duplicate")).delete("kind = 'sop_instance'")
        found = [one for one in verify(lake.lake, lake.settings).findings if not one.holds]
        assert [one.rule for one in found] == ["duplicates"]
        make_again(lake.lake, pa.array(found[0].keys))
        assert contents(lake.lake, (DUPLICATE.name, BATCH_DIGEST.name)) == before

    def test_a_lake_without_digests_gets_them_all_although_it_is_broken_off(self, lake, monkeypatch):
        before = contents(lake.lake, ("flat_metadata", DUPLICATE.name, BATCH_DIGEST.name))
        own = lake.lake
        for name in (DUPLICATE.name, BATCH_DIGEST.name):
            DeltaTable(own.location(name)).delete("true")
        DeltaTable(own.location("flat_metadata")).update({"stable_digest": "NULL"})
        assert duplicate_rows.objects_left(lake.lake) == 16

        def broken(*_: object) -> None:
            raise KeyboardInterrupt

        for place in ("enter_anew", "make_again"):
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(duplicate_rows, place, broken)
                duplicate_rows.make_rows(lake.lake, lambda *_: None)
        duplicate_rows.make_rows(lake.lake, lambda *_: None)
        assert duplicate_rows.objects_left(lake.lake) == 0
        assert contents(lake.lake, ("flat_metadata", DUPLICATE.name, BATCH_DIGEST.name)) == before


class TestOfWholeObjects:
    """Objects that were read whole, with `pixel_digest`."""

    @pytest.fixture
    def lake(self, states) -> Stepped:
        return states.begin(each_kind, **READ_WHOLE)[0]

    def test_each_kind_is_found_and_nothing_else(self, lake):
        assert groups(lake) == {
            BYTES: (["bytes"], []),
            PIXELS: (["pixel data"], ["ContentTime", "InstanceNumber", "SOPInstanceUID"]),
            SOP: (["header and pixel data"], ["PixelData", "SeriesDescription", "WindowCenter"]),
            META: (["header and pixel data"], []),
        }  # fmt: skip


def what_came_later(graph: Stepped, landing: LandingFolder) -> None:
    """Two members are overwritten, and others arrive and are read whole."""
    each_kind(graph, landing)
    landing.put("sop/2.dcm", image(20, pixels=b"0020"))
    landing.put("pixels/2.dcm", image(21, pixels=b"0021"))
    landing.put("clean/again.dcm", image(6, pixels=b"0006"))
    landing.put("later/1.dcm", image(1, pixels=b"0001"))
    landing.put("later/3.dcm", image(3, pixels=b"0003"))
    reading = graph.settings.reading.model_copy(update={"pixel_digest": True})
    step_through(Stepped(graph.settings.model_copy(update={"reading": reading}), graph.instance), judges=False)


class TestOfWhatComesLater:
    """Objects that arrive, read whole, where those that are there were not, or in their place."""

    @pytest.fixture
    def lake(self, states) -> Stepped:
        return states.begin(what_came_later)[0]

    @pytest.mark.slow
    def test_a_group_goes_when_a_member_is_overwritten_and_comes_when_another_arrives(self, lake):
        found = groups(lake)
        assert {SOP, PIXELS}.isdisjoint(found)
        assert ("bytes", "clean/6.dcm", "clean/again.dcm") in found

    @pytest.mark.slow
    def test_what_was_read_without_pixels_meets_what_is_read_with_them(self, lake):
        found = groups(lake)
        assert found["bytes", "3.dcm", "bytes/1.dcm", "bytes/2.dcm", "later/1.dcm"] == (["header and size"], [])
        assert ("header", "header/1.dcm", "header/2.dcm", "later/3.dcm") in found
        assert verify(lake.lake, lake.settings).holds
