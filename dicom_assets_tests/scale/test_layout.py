"""What keeps a batch's cost apart from the lake's size: pruning by the log, files rewritten in place, merges."""

from __future__ import annotations

import shutil
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dicom_assets.lake import maintenance, rewrite
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.extents import Extents, extents
from dicom_assets.lake.maintenance import (
    CROWDED_NODE,
    NEIGHBOURS,
    OVERLAPPING,
    STRAYS,
    maintain,
    neighbours,
    tidy,
    tree_merge,
)
from dicom_assets.lake.positions import POSITION, add_positions, positions
from dicom_assets.lake.query import connect, scan
from dicom_assets.lake.rewrite import get_file, split
from dicom_assets.lake.studies import enter
from dicom_assets.schema.registry import TABLES

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)


def key(number: int) -> str:
    """A study_key, spread over the whole range."""
    return f"{(number * 0x9E3779B97F4A7C15) % 2**64:016x}"


def studies(*numbers: int, source: str = "landing", updated: int = 0, batch: str = "b") -> pa.Table:
    """Rows of `study`, one a number."""
    rows = [
        {
            "source": source,
            "study_key": key(number),
            "object_id": f"{number:020d}",
            "version_at": NOW,
            "series_count": 1,
            "instance_count": updated,
            "patient_count": 1,
            "first_seen_at": NOW,
            "updated_at": NOW,
            "StudyInstanceUID": f"1.2.{number}",
        }
        for number in numbers
    ]
    return pa.Table.from_pylist(rows, schema=TABLES["study"].schema)


def counted(lake: Lake) -> dict[str, int]:
    """instance_count by StudyInstanceUID; fails when a study stands twice."""
    with connect(lake, ["study"]) as connection:
        found = connection.execute("SELECT StudyInstanceUID, instance_count FROM study").fetchall()
    assert max(Counter(uid for uid, _ in found).values(), default=1) == 1
    return dict(found)


@pytest.fixture
def lake(tmp_path, monkeypatch, empty_lake) -> Lake:
    """An empty lake whose tables by study have files of 20 rows."""
    monkeypatch.setattr(rewrite, "_FILE_ROWS", {"study": 20})
    return copied(empty_lake, tmp_path)


def copied(folder: Path, into: Path) -> Lake:
    """A copy of a lake, to be changed."""
    shutil.copytree(folder, into / "lake")
    return Lake(str(into / "lake"), make=False)


class TestReplacingStudies:
    def test_new_rows_take_the_place_of_old_ones_and_the_others_stay(self, lake):
        lake.replace("study", [key(n) for n in range(50)], studies(*range(50), updated=1))
        lake.replace("study", [key(n) for n in (3, 7, 99)], studies(3, 99, updated=2))
        expected = {f"1.2.{n}": 1 for n in range(50) if n != 7} | {"1.2.3": 2, "1.2.99": 2}
        assert counted(lake) == expected

    def test_only_files_that_hold_a_touched_study_are_rewritten(self, lake):
        numbers = range(200)
        lake.replace("study", [key(n) for n in numbers], studies(*numbers, updated=1))
        before = set(extents(lake.table("study")).paths)
        lake.replace("study", [key(3), key(1_000)], studies(3, 1_000, updated=2))
        after = set(extents(lake.table("study")).paths)
        assert len(before) == 10
        assert len(before - after) == 1
        assert len(after - before) == 2

    def test_studies_that_are_all_new_rewrite_nothing(self, lake):
        lake.replace("study", [key(n) for n in range(30)], studies(*range(30)))
        before = set(extents(lake.table("study")).paths)
        lake.replace("study", [key(n) for n in range(30, 60)], studies(*range(30, 60)))
        assert before < set(extents(lake.table("study")).paths)

    def test_a_repeated_publication_changes_nothing(self, lake):
        for _ in range(2):
            lake.replace("study", [key(n) for n in range(50)], studies(*range(50), updated=1))
        assert counted(lake) == {f"1.2.{n}": 1 for n in range(50)}

    def test_a_study_of_which_nothing_is_left_goes(self, lake):
        lake.replace("study", [key(1)], studies(1))
        lake.replace("study", [key(1)], studies())
        assert counted(lake) == {}
        assert len(extents(lake.table("study"))) == 0

    def test_somebody_elses_commit_in_between_is_worked_in(self, lake, monkeypatch):
        lake.replace("study", [key(n) for n in range(10)], studies(*range(10), updated=1))
        put, once = rewrite.put_file, []

        def overtaken(*arguments):
            if not once:
                once.append(True)
                Lake(lake.uri).replace("study", [key(2)], studies(2, updated=5))
            return put(*arguments)

        monkeypatch.setattr(rewrite, "put_file", overtaken)
        lake.replace("study", [key(1)], studies(1, updated=7))
        assert counted(lake) == {f"1.2.{n}": 1 for n in range(10)} | {"1.2.1": 7, "1.2.2": 5}

    def test_a_file_that_another_writer_left_unsorted_is_read_all_the_same(self, lake):
        from deltalake import write_deltalake

        write_deltalake(lake.location("study"), studies(5, 1, 4, 2, 3, updated=1), mode="append")
        lake.replace("study", [key(2), key(4)], studies(2, 4, updated=2))
        assert counted(lake) == {"1.2.1": 1, "1.2.2": 2, "1.2.3": 1, "1.2.4": 2, "1.2.5": 1}

    @hypothesis_settings(max_examples=50, deadline=None)
    @given(st.lists(st.integers(0, 30), max_size=80), st.integers(1, 25))
    def test_cutting_keeps_every_row_and_a_study_in_one_part(self, numbers, bound):
        rows = studies(*numbers).sort_by("study_key")
        parts = list(split(rows, "study_key", bound))
        assert pa.concat_tables([rows.slice(0, 0), *parts]).equals(rows)
        held = [set(part["study_key"].to_pylist()) for part in parts]
        assert sum(map(len, held)) == len(set().union(*held))


class TestPruning:
    def test_a_scan_opens_only_files_that_can_hold_what_is_asked_for(self, lake):
        for batch in ("b1", "b2", "b3"):
            enter(lake, batch, [key(1)])
        assert scan(lake, "batch_study").count(".parquet") == 3
        assert scan(lake, "batch_study", within={"batch_id": ["b2", "b9"]}).count(".parquet") == 1
        assert "WHERE false" in scan(lake, "batch_study", within={"batch_id": []})
        with connect(lake, ["batch_study"], within={"batch_study": {"batch_id": ["b2"]}}) as connection:
            assert connection.execute("SELECT batch_id FROM batch_study").fetchall() == [("b2",)]

    @hypothesis_settings(max_examples=200, deadline=None)
    @given(
        st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12),
        st.lists(st.integers(0, 60), max_size=6),
    )
    def test_no_file_that_holds_a_value_is_left_out(self, ranges, wanted):
        ranges = [(min(pair), max(pair)) for pair in ranges]
        known = files([(f"{low:03d}", f"{high:03d}", 1) for low, high in ranges], "batch_id")
        found = known.may_hold("batch_id", [f"{value:03d}" for value in wanted]).tolist()
        assert found == [any(low <= value <= high for value in wanted) for low, high in ranges]

    def test_a_file_without_statistics_is_opened(self):
        known = files([("a", "b", 1), (None, None, 1)], "batch_id")
        assert known.may_hold("batch_id", ["z"]).tolist() == [False, True]


def files(ranges: list[tuple[str | None, str | None, int]], column: str) -> Extents:
    """Extents of files with these ranges and rows."""
    return Extents(
        0,
        np.array([str(number) for number in range(len(ranges))], dtype=object),
        np.array([rows for *_, rows in ranges], dtype=np.int64),
        np.array([rows * 100 for *_, rows in ranges], dtype=np.int64),
        {column: np.array([low for low, _, _ in ranges], dtype=object)},
        {column: np.array([high for _, high, _ in ranges], dtype=object)},
    )


class TestMergesOfBatches:
    def test_few_files_are_left_alone(self):
        assert neighbours(files([(f"b{n:03d}", f"b{n:03d}", 100) for n in range(NEIGHBOURS - 1)], "batch_id")) == []

    def test_many_small_neighbours_become_one_file_in_their_order(self):
        known = files([(f"b{n:03d}", f"b{n:03d}", 100) for n in reversed(range(NEIGHBOURS))], "batch_id")
        (group,) = neighbours(known)
        assert group.tolist() == list(reversed(range(NEIGHBOURS)))

    def test_no_file_becomes_larger_than_a_rerun_should_rewrite(self):
        known = files([(f"b{n:04d}", f"b{n:04d}", 30_000) for n in range(40)], "batch_id")
        groups = neighbours(known)
        assert groups
        assert all(known.rows[group].sum() <= maintenance.BATCH_FILE_ROWS for group in groups)

    def test_small_files_between_large_ones_are_gathered_in_the_end(self):
        mixed = [(f"b{n:04d}", f"b{n:04d}", 100 if n % 2 else 200_000) for n in range(2 * STRAYS)]
        (group,) = neighbours(files(mixed, "batch_id"))
        assert len(group) == STRAYS


class TestMergesOfStudies:
    @pytest.fixture(autouse=True)
    def files_of_few_rows(self, lake, monkeypatch):
        monkeypatch.setattr(rewrite, "_FILE_ROWS", {"study": 5})

    def test_the_tree_stays_shallow_and_its_files_narrow_however_many_batches_come(self, lake):
        expected = {}
        for batch in range(60):
            old = [batch // 2] if batch else []
            numbers = [*range(1_000 + batch * 8, 1_008 + batch * 8), *old]
            lake.replace("study", [key(n) for n in numbers], studies(*numbers, updated=batch))
            expected |= {f"1.2.{n}": batch for n in numbers}
            tidy(lake, "study")
        assert counted(lake) == expected
        known = extents(lake.table("study"))
        covering = [known.may_hold("study_key", [key(n)]).sum() for n in range(1_000, 1_480, 16)]
        assert max(covering) <= CROWDED_NODE + OVERLAPPING
        assert np.mean(covering) < len(known) / 4

    def test_a_merge_takes_bounded_rows_and_keeps_them(self, lake):
        for first in range(0, 640, 10):
            lake.replace("study", [key(n) for n in range(first, first + 10)], studies(*range(first, first + 10)))
        merge = tree_merge(extents(lake.table("study")), 5, 320)
        assert merge is not None
        assert len(merge.edges) == 7
        before = lake.table("study").version()
        assert tidy(lake, "study", at_most=100) >= 1
        assert lake.table("study").version() > before
        assert len(counted(lake)) == 640
        assert tidy(lake, "study") == 0

    def test_files_of_single_studies_do_not_pile_up(self, lake):
        for number in range(40):
            lake.replace("study", [key(number)], studies(number))
            tidy(lake, "study")
        assert len(extents(lake.table("study"))) <= CROWDED_NODE
        assert len(counted(lake)) == 40


def of_studies(*numbers: int) -> pa.Table:
    """Rows of `image_occurrence`, two a study."""
    rows = [
        {
            "image_occurrence_id": 2 * number + each,
            "person_id": -1,
            "procedure_occurrence_id": -1,
            "image_occurrence_date": NOW.date(),
            "image_study_UID": f"1.2.{number}",
            "image_series_UID": f"1.2.{number}.{each}",
            "modality_concept_id": 0,
        }
        for number in numbers
        for each in range(2)
    ]
    return pa.Table.from_pylist(rows, schema=TABLES["image_occurrence"].schema)


def with_files_of_20_rows(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rewrite, "_FILE_ROWS", {})
    patch.setattr(rewrite, "_OTHER_FILE_ROWS", 20)


@pytest.fixture(scope="module")
def twenty_batches(tmp_path_factory, empty_lake) -> Path:
    """A lake whose image_occurrence was filled and tidied twenty times, in files of 20 rows."""
    lake = copied(empty_lake, tmp_path_factory.mktemp("filled"))
    with pytest.MonkeyPatch.context() as patch:
        with_files_of_20_rows(patch)
        for first in range(0, 600, 30):
            some = range(first, first + 30)
            lake.replace("image_occurrence", [f"1.2.{n}" for n in some], of_studies(*some))
            tidy(lake, "image_occurrence")
    return Path(lake.uri)


class TestATableWhoseKeyIsNoHash:
    """image_occurrence has the columns of its standard and no others, so the names of its files tell their ranges."""

    @pytest.fixture
    def filled(self, twenty_batches, tmp_path, monkeypatch) -> Lake:
        with_files_of_20_rows(monkeypatch)
        return copied(twenty_batches, tmp_path)

    def test_its_files_become_narrow_and_its_merges_come_to_an_end(self, filled):
        tidy(filled, "image_occurrence", at_most=100)
        assert tidy(filled, "image_occurrence") == 0
        known = extents(filled.table("image_occurrence"))
        asked = [{"image_study_UID": [f"1.2.{n}"]} for n in range(0, 600, 20)]
        opened = [scan(filled, "image_occurrence", within=within).count(".parquet") for within in asked]
        assert np.mean(opened) < len(known) / 4

    def test_what_is_asked_for_is_found_through_them(self, filled):
        asked = [f"1.2.{n}" for n in (0, 17, 599, 9_999)]
        with connect(filled, ["image_occurrence"], within={"image_occurrence": {"image_study_UID": asked}}) as found:
            rows = found.execute("SELECT image_study_UID, count(*) FROM image_occurrence GROUP BY 1 ORDER BY 1")
            assert rows.fetchall() == [("1.2.0", 2), ("1.2.17", 2), ("1.2.599", 2)]

    def test_rows_are_replaced_where_they_stand(self, filled):
        before = set(extents(filled.table("image_occurrence")).paths)
        filled.replace("image_occurrence", ["1.2.17"], of_studies(17).slice(0, 1))
        assert len(before - set(extents(filled.table("image_occurrence")).paths)) == 1
        with connect(filled, ["image_occurrence"]) as connection:
            assert connection.execute("SELECT count(*) FROM image_occurrence").fetchall() == [(1_199,)]

    def test_a_file_of_another_writer_is_opened_for_everything(self, filled, monkeypatch):
        monkeypatch.setattr(rewrite, "range_in_name", lambda *_: "")
        table = TABLES["image_occurrence"]
        add = rewrite.put_file(filled, table, of_studies(1_000, 1_001))
        rewrite.swap(filled, table.name, lambda *_: (np.empty(0, np.int64), [add]), data_change=True)
        known = add_positions("image_occurrence", extents(filled.table("image_occurrence")))
        (foreign,) = np.flatnonzero(known.low[POSITION] == None)  # noqa: E711 - element by element
        wanted = [positions("image_occurrence", [f"1.2.1000.{n}"]) for n in range(5)]
        assert all(known.may_hold(POSITION, places)[foreign] for places in wanted)


class TestReplacingBatches:
    def records(self, batch: str, *numbers: int) -> pa.Table:
        rows = [
            {
                "source": "landing",
                "record_key": key(number),
                "record_type": "note",
                "batch_id": batch,
                "object_id": "o",
                "record": number,
                "file_key": "f",
                "version_at": NOW,
            }
            for number in numbers
        ]
        return pa.Table.from_pylist(rows, schema=TABLES["clinical"].schema)

    def replace(self, lake: Lake, batches: list[str], *tables: pa.Table) -> None:
        rewrite.replace_batches(lake, "clinical", batches, lambda: (b for t in tables for b in t.to_batches()))

    def found(self, lake: Lake) -> list[tuple[str, int]]:
        with connect(lake, ["clinical"]) as connection:
            return connection.execute("SELECT batch_id, record FROM clinical ORDER BY ALL").fetchall()

    def test_rows_of_other_batches_stay_whatever_file_they_share(self, lake):
        for number in range(STRAYS):
            self.replace(lake, [f"b{number:02d}"], self.records(f"b{number:02d}", number))
        assert tidy(lake, "clinical") == 1
        self.replace(lake, ["b03", "b05", "b99"], self.records("b03", 100, 101), self.records("b99", 7))
        others = [(f"b{n:02d}", n) for n in range(STRAYS) if n not in (3, 5)]
        assert self.found(lake) == sorted([*others, ("b03", 100), ("b03", 101), ("b99", 7)])

    def test_nothing_new_takes_the_old_rows_away(self, lake):
        self.replace(lake, ["b1"], self.records("b1", 1))
        self.replace(lake, ["b1"])
        assert self.found(lake) == []

    def test_it_is_tried_again_when_somebody_else_has_taken_the_file(self, lake, monkeypatch):
        self.replace(lake, ["b1", "b2"], self.records("b1", 1), self.records("b2", 2))
        put, once = rewrite.pack_rows, []

        def overtaken(*arguments):
            if not once:
                once.append(True)
                self.replace(lake, ["b2"], self.records("b2", 22))
            return put(*arguments)

        monkeypatch.setattr(rewrite, "pack_rows", overtaken)
        self.replace(lake, ["b1"], self.records("b1", 11))
        assert self.found(lake) == [("b1", 11), ("b2", 22)]


class TestMaintenance:
    def test_merges_and_deletes_and_tells_what_it_did(self, lake):
        for number in range(STRAYS):
            enter(lake, f"b{number:03d}", [key(number)])
        done = maintain(lake, "batch_study", retention_hours=0)
        assert (done.files_before, done.files_after) == (STRAYS, 1)
        assert done.files_deleted >= STRAYS
        assert done.bytes_after < done.bytes_before
        assert datetime.now(UTC) - done.oldest < timedelta(minutes=1)
        with connect(lake, ["batch_study"]) as connection:
            assert connection.execute("SELECT count(DISTINCT batch_id) FROM batch_study").fetchone() == (STRAYS,)

    def test_what_is_younger_than_the_retention_stays_readable(self, lake):
        lake.replace("study", [key(1)], studies(1, updated=1))
        version = lake.table("study").version()
        lake.replace("study", [key(1)], studies(1, updated=2))
        assert maintain(lake, "study", retention_hours=1).files_deleted == 0
        with connect(lake, ["study"], at=version) as connection:
            assert connection.execute("SELECT instance_count FROM study").fetchall() == [(1,)]

    def test_a_batch_is_replaced_in_a_merged_file_as_in_its_own(self, lake):
        for number in range(NEIGHBOURS):
            enter(lake, f"b{number:03d}", [key(number)])
        assert tidy(lake, "batch_study") == 1
        enter(lake, "b005", [key(99)])
        with connect(lake, ["batch_study"]) as connection:
            found = dict(connection.execute("SELECT batch_id, study_key FROM batch_study").fetchall())
        assert found == {f"b{n:03d}": key(n) for n in range(NEIGHBOURS)} | {"b005": key(99)}


def occurrences(*numbers: int) -> pa.Table:
    """Rows of `image_occurrence`, one a number, in studies whose UIDs begin alike."""
    rows = [
        {
            "image_occurrence_id": number,
            "person_id": -1,
            "procedure_occurrence_id": -1,
            "visit_occurrence_id": -1,
            "image_occurrence_date": NOW.date(),
            "image_study_UID": f"1.2.826.0.1.{number}",
            "image_series_UID": f"1.2.826.0.1.{number}.1",
            "modality_concept_id": 0,
        }
        for number in numbers
    ]
    return pa.Table.from_pylist(rows, schema=TABLES["image_occurrence"].schema)


class TestTablesWhoseKeyIsNoHash:
    @pytest.fixture
    def lake(self, tmp_path, monkeypatch, empty_lake) -> Lake:
        monkeypatch.setattr(rewrite, "_FILE_ROWS", {"image_occurrence": 20})
        return copied(empty_lake, tmp_path)

    def put(self, lake: Lake, *numbers: int) -> None:
        lake.replace("image_occurrence", [f"1.2.826.0.1.{number}" for number in numbers], occurrences(*numbers))

    def ids(self, lake: Lake) -> list[int]:
        with connect(lake, ["image_occurrence"]) as connection:
            found = connection.execute("SELECT image_occurrence_id FROM image_occurrence ORDER BY 1").fetchall()
        return [number for (number,) in found]

    def test_merges_come_to_an_end_and_leave_narrow_files(self, lake):
        for first in range(0, 640, 10):
            self.put(lake, *range(first, first + 10))
        assert 1 <= tidy(lake, "image_occurrence", at_most=100) < 20
        assert tidy(lake, "image_occurrence") == 0
        before = set(lake.extents("image_occurrence").paths)
        self.put(lake, 5)
        assert len(before - set(lake.extents("image_occurrence").paths)) == 1
        assert self.ids(lake) == list(range(640))

    def test_only_files_that_can_hold_a_touched_study_are_opened(self, lake, monkeypatch):
        self.put(lake, *range(200))
        opened = []
        monkeypatch.setattr(rewrite, "get_file", lambda *names: opened.append(names[-1]) or get_file(*names))
        self.put(lake, 7)
        assert len(opened) == 1

    def test_a_file_whose_name_tells_no_range_is_looked_into(self, lake):
        from deltalake import write_deltalake

        write_deltalake(lake.location("image_occurrence"), occurrences(*range(30)), mode="append")
        self.put(lake, 3, 100)
        assert self.ids(lake) == [*range(30), 100]


class TestOpenTables:
    def test_a_table_that_is_open_shows_what_others_have_committed_since(self, lake):
        assert counted(lake) == {}
        Lake(lake.uri).replace("study", [key(1)], studies(1, updated=1))
        assert counted(lake) == {"1.2.1": 1}
        assert lake.row_count("study") == 1
