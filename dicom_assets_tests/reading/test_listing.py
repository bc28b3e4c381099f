"""Archives are opened up where objects are read: one that hangs or ends a process costs itself, never its batch."""

from __future__ import annotations

import bz2
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_assets.batch import expand as expand_module
from dicom_assets.batch.context import RunContext
from dicom_assets.lake.staging import Part
from dicom_assets.landing.claims import claim_new
from dicom_assets.reading import listing
from dicom_assets.reading.engine import ProcessEngine, ReadingEngine
from dicom_assets.reading.listing import ClaimedObject, Listed, ListingChunk, cut, list_chunk
from dicom_assets.settings import Settings
from dicom_assets_tests.landing.zip_forge import Record, forge
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import settings_for
from dicom_assets_tests.support.landings import LandingFolder, put_mixed, zipped

SECONDS = 2.0
RECORDS = 1_500
"""Members of the slow archive; each costs the inflating of a whole bzip2 block, about 5 ms."""


def slow_zip() -> bytes:
    """A small archive that takes many times SECONDS to list: to see 4 KiB of a record, 900 kB are inflated."""
    block = bytes(range(256)) * 3_500
    packed = bz2.compress(block)
    return forge([Record(str(n).encode(), block, method=12, packed=packed) for n in range(RECORDS)])


def expanded(settings: Settings, engine: ReadingEngine) -> pa.Table:
    """What a new lake finds in the folder with an engine, without the columns that name the batch."""
    with RunContext(settings, shared_engine=engine) as work:
        ((claim,),) = [claim_new(store, work.log, settings.claiming).claims for store in work.stores()]
        batch = work.batch(claim.batch_id)
        seen = batch.expand()
        rows = batch.staging.read(Part.RAW)
    assert len(rows) == seen
    return rows.drop_columns(["batch_id", "claimed_at"])


def verdicts(settings: Settings, engine: ReadingEngine) -> dict[str, str | None]:
    """Of the objects that are no members, by file name."""
    rows = expanded(settings, engine).to_pylist()
    return {Path(row["uri"]).name: row["verdict"] for row in rows if row["member"] is None}


@pytest.fixture
def neighbours(landing: LandingFolder) -> LandingFolder:
    """A folder with sound objects on both sides of `m.zip`."""
    landing.put("a.dcm", dicom())
    landing.put_zip("b.zip", {"one.dcm": dicom()})
    landing.put_zip("y.zip", {"two.dcm": dicom()})
    landing.put("z.dcm", dicom())
    return landing


def test_an_archive_that_takes_too_long_to_list_times_out_alone(neighbours: LandingFolder, tmp_path: Path):
    neighbours.put("m.zip", slow_zip())
    settings = settings_for(tmp_path / "lake", neighbours.root, reading={"object_seconds": SECONDS})
    with ProcessEngine(settings.reading) as engine, RunContext(settings, shared_engine=engine) as work:
        ((claim,),) = [claim_new(store, work.log, settings.claiming).claims for store in work.stores()]
        batch = work.batch(claim.batch_id)
        assert batch.expand() == 7
        outcomes = batch.read("run", lambda _: None)
        ledger = batch.staging.read(Part.LEDGER).to_pylist()
    assert outcomes == {"ingested": 4, "ignored": 2, "quarantined": 1}
    assert [row["code"] for row in ledger if row["outcome"] == "quarantined"] == ["PARSER_TIMEOUT"]


def crash_at_m(chunk: ListingChunk, beat: Callable[[int], None]) -> Listed:
    """Lists, and ends its process at `m.zip` as a fault in a library does."""

    def told(position: int) -> None:
        beat(position)
        for one in chunk.objects[position : position + 1]:
            if one.uri.endswith("m.zip") and one.object_id not in chunk.poison:
                os.abort()

    return list_chunk(chunk, told)


@pytest.mark.slow
def test_an_archive_at_which_processes_end_is_blamed_alone(
    neighbours: LandingFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    neighbours.put_zip("m.zip", {"three.dcm": dicom()})
    monkeypatch.setattr(expand_module, "list_chunk", crash_at_m)
    settings = settings_for(tmp_path / "lake", neighbours.root)
    with ProcessEngine(settings.reading) as engine:
        found = verdicts(settings, engine)
    assert found["m.zip"] == "PARSER_CRASH"
    assert [found[name] for name in ("a.dcm", "b.zip", "y.zip", "z.dcm")] == [
        None, "ARCHIVE_EXPANDED", "ARCHIVE_EXPANDED", None,
    ]  # fmt: skip


def test_what_a_parser_does_not_foresee_costs_the_object_alone(
    neighbours: LandingFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> None:
        raise ZeroDivisionError("Doe^John")

    monkeypatch.setattr(listing, "members", fail)
    rows = expanded(settings_for(tmp_path / "lake", neighbours.root), InlineEngine()).to_pylist()
    assert [row["verdict"] for row in rows] == [None, "UNPARSEABLE", "UNPARSEABLE", None]
    assert {row["detail"] for row in rows} == {None, "ZeroDivisionError"}


@pytest.mark.parametrize("objects", [1, 500])
def test_rows_and_their_order_do_not_depend_on_what_lists_them(
    landing: LandingFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objects: int
):
    put_mixed(landing)
    landing.put_zip("nested.zip", {"inner.zip": zipped({"one.dcm": dicom(), "two.dcm": dicom()}), "three.dcm": dicom()})
    monkeypatch.setattr(listing, "SHORTEST", 1)
    inline = settings_for(tmp_path / "inline", landing.root)
    expected = expanded(inline, InlineEngine())
    assert expected["member"].null_count < len(expected)
    settings = settings_for(tmp_path / "lake", landing.root, reading={"workers": 2, "chunk_objects": objects})
    with ProcessEngine(settings.reading) as engine:
        assert expanded(settings, engine).to_pylist() == expected.to_pylist()
    monkeypatch.setattr(listing, "ROWS", 2)
    monkeypatch.setattr(expand_module, "ROWS", 3)
    piecewise = settings_for(tmp_path / "piecewise", landing.root)
    assert expanded(piecewise, InlineEngine()).to_pylist() == expected.to_pylist()


@given(
    st.lists(st.integers(min_value=0, max_value=2 * listing.MOST_BYTES), max_size=400),
    st.integers(min_value=1, max_value=100),
    st.integers(min_value=1, max_value=8),
)
def test_a_batch_is_cut_into_all_of_its_objects_in_order_and_within_bounds(sizes: list[int], longest: int, shares: int):
    objects = [ClaimedObject(str(n), "", "", size, datetime.now(UTC)) for n, size in enumerate(sizes)]
    chunks = list(cut(objects, longest, shares))
    assert [one for chunk in chunks for one in chunk] == objects
    for chunk in chunks:
        assert 1 <= len(chunk) <= longest
        assert len(chunk) == 1 or sum(one.size for one in chunk) <= listing.MOST_BYTES
