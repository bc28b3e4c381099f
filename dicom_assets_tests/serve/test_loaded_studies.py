"""Studies that are held in memory are those of the lake, version after version, in the order of answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from dicom_assets.lake.delta import Lake
from dicom_assets.schema.keys import study_key
from dicom_assets.schema.registry import TABLES
from dicom_assets.serve.loaded_studies import LoadedStudies
from dicom_assets.serve.newest import newest
from dicom_assets.serve.served import Scope, Snapshot

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def put(
    lake: Lake, *studies: int, name: str = "A", source: str = "landing", at: datetime = NOW, modality: str = "CT"
) -> None:
    """Replaces some studies of a source."""
    rows = [
        {
            "source": source,
            "study_key": study_key(source, f"1.2.{number}"),
            "object_id": f"{number:020d}",
            "ModalitiesInStudy": [modality],
            **dict.fromkeys(("version_at", "first_seen_at", "updated_at"), at),
            **dict.fromkeys(("series_count", "instance_count"), 1),
            "StudyInstanceUID": f"1.2.{number}",
            "StudyDate": None if number % 7 == 0 else date(2020, 1, 1 + number % 5),
            "PatientName": name,
        }
        for number in studies
    ]
    lake.replace("study", [row["study_key"] for row in rows], pa.Table.from_pylist(rows, schema=TABLES["study"].schema))


def remove(lake: Lake, *studies: int) -> None:
    """Takes some studies out."""
    keys = [study_key("landing", f"1.2.{number}") for number in studies]
    lake.replace("study", keys, TABLES["study"].schema.empty_table())


def seen(lake: Lake, studies: LoadedStudies) -> tuple[list[tuple[str, str]], Snapshot]:
    """UIDs and names as a snapshot gives them, unsorted."""
    known = lake.extents("study")
    snapshot = Snapshot(lake, {"study": known}, studies=studies.look(known))
    with snapshot.cursor() as connection:
        sql = f"SELECT StudyInstanceUID, PatientName FROM {snapshot.scan('study')}"
        return connection.execute(sql).fetchall(), snapshot


def read(lake: Lake) -> Sequence[tuple[str, str]]:
    """The same from the files, in the order of answers."""
    snapshot = Snapshot(lake, {"study": lake.extents("study")})
    with snapshot.cursor() as connection:
        return connection.execute(
            f"SELECT StudyInstanceUID, PatientName FROM {snapshot.scan('study')} "
            "ORDER BY StudyDate DESC NULLS LAST, StudyInstanceUID"
        ).fetchall()


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake of thirty studies."""
    path: Path = tmp_path_factory.mktemp("loaded")
    lake = Lake(str(path / "lake"), synced=False)
    put(lake, *range(20))
    put(lake, *range(20, 30))
    return lake


def test_what_is_held_comes_in_the_order_of_answers(lake: Lake):
    found, snapshot = seen(lake, LoadedStudies(lake))
    assert found == read(lake)
    assert snapshot.is_in_order


def test_versions_are_followed_at_once_whatever_came_or_went(lake: Lake):
    studies = LoadedStudies(lake)
    seen(lake, studies)
    for change in (
        lambda: put(lake, *range(40, 45)),
        lambda: put(lake, 3, 41, name="B"),
        lambda: remove(lake, 5, 40),
        lambda: put(lake, 5),
    ):
        change()
        found, snapshot = seen(lake, studies)
        assert not snapshot.is_in_order
        assert sorted(found) == sorted(read(lake))


def test_a_snapshot_keeps_its_version(lake: Lake):
    studies = LoadedStudies(lake)
    before, snapshot = seen(lake, studies)
    put(lake, 99)
    seen(lake, studies)
    with snapshot.cursor() as connection:
        assert connection.execute(f"SELECT count(*) FROM {snapshot.scan('study')}").fetchall() == [(len(before),)]


def test_what_came_is_loaded_in_the_background_and_what_nobody_holds_goes(lake: Lake, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dicom_assets.serve.loaded_studies.AGAIN_SECONDS", 0.0)
    studies = LoadedStudies(lake)
    seen(lake, studies)
    put(lake, 77)
    for _ in range(500):
        found, snapshot = seen(lake, studies)
        if snapshot.is_in_order:
            break
    assert found == read(lake)
    del snapshot
    tables = "SELECT count(*) FROM duckdb_tables() WHERE table_name LIKE 'loaded_studies%'"
    with lake.cursor() as connection:
        (held,) = connection.execute(tables).fetchall()
    assert held[0] <= 2


def test_more_studies_than_may_be_held_are_read_from_the_files(lake: Lake):
    found, snapshot = seen(lake, LoadedStudies(lake, most=10))
    assert snapshot.studies is None
    assert sorted(found) == sorted(read(lake))


SOURCES = ("landing", "other")
SCOPES = (Scope(), Scope(("other",)), Scope(condition="PatientName <> 'B'"))


def newest_of(lake: Lake, studies: LoadedStudies | None, scope: Scope) -> dict[str, tuple[str, str, list[str]]]:
    """Source, name and modalities of each study, as `newest` gives them; none stands twice."""
    known = lake.extents("study")
    snapshot = Snapshot(lake, {"study": known}, SOURCES, studies=studies and studies.look(known)).within(scope)
    rows = newest(snapshot, "study", counted=False)
    with snapshot.cursor() as connection:
        sql = f"SELECT StudyInstanceUID, source, PatientName, ModalitiesInStudy FROM {rows.sql}"
        found = connection.execute(sql, rows.parameters).fetchall()
    uids = [uid for uid, *_ in found]
    assert len(uids) == len(set(uids))
    if snapshot.is_in_order:
        order = places(lake)
        assert uids == sorted(uids, key=order.__getitem__)
    return {uid: (source, name, sorted(modalities)) for uid, source, name, modalities in found}


def places(lake: Lake) -> dict[str, int]:
    """The place of each study in the order of answers, whatever its source."""
    return {uid: place for place, (uid, _) in enumerate(read(lake))}


def test_of_a_study_of_several_sources_the_newest_row_is_seen_in_every_state(tmp_path: Path):
    lake = Lake(str(tmp_path / "lake"), synced=False)
    put(lake, *range(10))
    put(lake, *range(5, 15), source="other", at=NOW + timedelta(days=1), name="B", modality="SR")
    studies = LoadedStudies(lake)
    for change in (
        lambda: None,
        lambda: put(lake, 1, 20, source="other", at=NOW - timedelta(days=1), name="C", modality="MR"),
        lambda: put(lake, 6, at=NOW + timedelta(days=2), name="D"),
        lambda: remove(lake, 7),
    ):
        change()
        for scope in SCOPES:
            assert newest_of(lake, studies, scope) == newest_of(lake, None, scope)
    fresh = LoadedStudies(lake)
    for scope in SCOPES:
        assert newest_of(lake, fresh, scope) == newest_of(lake, None, scope)
    assert newest_of(lake, fresh, Scope())["1.2.6"] == ("landing", "D", ["CT", "SR"])
    assert newest_of(lake, fresh, Scope(("other",)))["1.2.6"] == ("other", "B", ["SR"])
