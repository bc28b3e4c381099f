"""Geometry follows what is current: batches in any order, replaced files, erasures, and lakes that had none."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest

from dicom_assets.batch import geometry_rows
from dicom_assets.batch.context import RunContext
from dicom_assets.batch.erasure.record import finish
from dicom_assets.batch.erasure.removal import begin, carry_out
from dicom_assets.batch.erasure.target import Scope, Target, find
from dicom_assets.batch.verification.verify import verify
from dicom_assets.curation import study_instances
from dicom_assets.lake.rewrite import rewrite_files
from dicom_assets.schema.registry import SERIES_GEOMETRY
from dicom_assets_tests.curation import series as made
from dicom_assets_tests.support.dicoms import uid
from dicom_assets_tests.support.lakes import contents, settings_for
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import Stepped

FILES: dict[str, bytes] = {
    f"{study}/{series}/{number}.dcm": made.written(one)
    for study, series, slices in (
        (1, 1, made.CLEAN),
        (1, 2, made.SPLITS["temporal position"][0]),
        (1, 3, made.DEFECTS["a slice is missing"][0]),
        (2, 1, made.SHORTFALLS["as many as are claimed"][0]),
    )
    for number, one in enumerate(made.datasets(study, series, slices), start=1)
} | {"2/2/1.dcm": made.written(made.enhanced(2, 2, made.volume(6)))}
REPLACED = {
    "1/1/6.dcm": made.written(made.dataset(1, 1, 6, made.moved(made.CLEAN[5], 0, 0, 1))),
    "2/2/1.dcm": made.written(made.enhanced(2, 2, made.volume(7))),
}
"""Files that come in place of others: a slice that lies elsewhere, an object with another frame."""


def geometry(graph: Stepped) -> list[dict[str, Any]]:
    """All rows, but for when their newest object was claimed."""
    rows = graph.rows("SELECT * EXCLUDE (updated_at) FROM series_geometry ORDER BY SeriesInstanceUID")
    assert len(rows) == 5
    return rows


@pytest.fixture(scope="module")
def at_once(states) -> list[dict[str, Any]]:
    """The rows of a lake to which everything came at once, as it is in the end."""
    graph, *_ = states.begin(everything)
    return geometry(graph)


def everything(graph: Stepped, landing: LandingFolder) -> None:
    for path, data in (FILES | REPLACED).items():
        landing.put(path, data)
    graph.ingest()


@pytest.mark.slow
def test_batches_in_any_order_end_in_what_one_batch_gives(at_once, tmp_path, empty_lake, instance):
    landing = LandingFolder(tmp_path / "landing")
    landing.root.mkdir()
    shutil.copytree(empty_lake, tmp_path / "lake")
    graph = Stepped(settings_for(tmp_path / "lake", landing.root), instance, judges=False)
    paths = sorted(FILES.keys() - REPLACED.keys())
    Random(21).shuffle(paths)
    later = {path: FILES[path] for path in paths[::2]} | REPLACED
    for arrives in ({path: data for path, data in FILES.items() if path not in paths[::2]}, later):
        for path, data in arrives.items():
            landing.put(path, data, age_seconds=100_000 if arrives is later else 200_000)
        (batch,) = graph.ingest()
        assert graph.books(batch).status == "closed", graph.books(batch).reason
    assert geometry(graph) == at_once


@pytest.mark.slow
def test_instances_that_are_too_many_to_be_held_are_read_from_the_files(at_once, states, monkeypatch):
    monkeypatch.setattr(study_instances, "ROWS_AT_ONCE", 3)

    def everything_from_files(graph: Stepped, landing: LandingFolder) -> None:
        everything(graph, landing)

    graph, *_ = states.begin(everything_from_files)
    assert geometry(graph) == at_once
    assert {row["status"] for row in graph.rows("SELECT status FROM batches")} == {"closed"}


def erased(graph: Stepped, scope: Scope, name: str) -> None:
    lake, target = graph.lake, Target(scope, name)
    record = begin(lake, target, find(lake, target, "a steward"))
    carry_out(lake, graph.settings, record)
    finish(lake.files)


@pytest.mark.slow
def test_what_is_erased_is_missing_in_the_geometry_of_its_series(states):
    graph, *_ = states.begin(everything)
    erased(graph, Scope.INSTANCE, uid(2, 1, 5))
    (row,) = graph.rows(f"FROM series_geometry WHERE SeriesInstanceUID = '{uid(2, 1)}'")
    assert (row["irregularities"], row["missing_slices"]) == (["MISSING_SLICES"], 1)
    assert {*row["shortfalls"]} >= {"ACQUISITION_CLAIMS_MORE", "INSTANCE_NUMBERS_MISSING"}
    erased(graph, Scope.STUDY, uid(1))
    left = graph.rows("SELECT DISTINCT StudyInstanceUID AS study FROM series_geometry")
    assert left == [{"study": uid(2)}]
    assert [one.rule for one in verify(graph.lake, graph.settings).findings if not one.holds] == []


def as_before(graph: Stepped) -> None:
    """Takes away what a lake of an earlier release did not have: values of new columns, and rows of geometry."""
    lake = graph.lake

    def without(rows: pa.Table) -> pa.Table:
        for name in geometry_rows.COLUMNS:
            at = rows.schema.get_field_index(name)
            rows = rows.set_column(at, rows.schema.field(at), pa.nulls(len(rows), rows.schema.field(at).type))
        return rows

    for name in ("flat_metadata", "instance"):
        with lake.committing(name):
            paths = [str(path) for path in lake.extents(name).paths]
            rewrite_files(lake, name, paths, without, data_change=True)
    with lake.committing(SERIES_GEOMETRY.name):
        keys = [row["study_key"] for row in graph.rows("SELECT DISTINCT study_key FROM study")]
        lake.replace(SERIES_GEOMETRY.name, keys, SERIES_GEOMETRY.schema.empty_table())


def test_a_lake_that_had_no_geometry_gets_the_same_from_its_headers(states, monkeypatch):
    graph, *_ = states.begin(everything)
    names = ("flat_metadata", "instance", "series_geometry")
    before = contents(graph.lake, names)
    as_before(graph)
    assert geometry_rows.find(graph.lake) == 5
    assert contents(graph.lake, names) != before
    monkeypatch.setattr(geometry_rows, "INSTANCES_AT_ONCE", 10)
    with RunContext(graph.settings) as work:
        told: list[tuple[int, int]] = []
        geometry_rows.make(work, lambda done, of: told.append((done, of)))
    assert told == [(0, 2), (1, 2)]
    assert contents(graph.lake, names) == before
    assert not Path(graph.settings.lake, geometry_rows.PROGRESS).exists()
    assert geometry_rows.find(graph.lake) == 0
