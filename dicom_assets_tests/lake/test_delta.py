"""The Delta tables of a lake: one rule of replacing rows for all, safe beside other writers, and no foreign tables."""

from __future__ import annotations

import json
import shutil
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from dicom_assets.lake import open_tables
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import connect
from dicom_assets.lake.table_form import differences
from dicom_assets.lake.tables import CHECKPOINT_COMMITS, ForeignTable
from dicom_assets.reading.worker import resident
from dicom_assets.schema.registry import TABLES
from dicom_assets.storage.files import LakeError
from dicom_assets_tests.support.lakes import table

AT = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture
def lake(tmp_path, empty_lake) -> Lake:
    return Lake(str(shutil.copytree(empty_lake, tmp_path / "lake")))


def judged(batch: str, *objects: str) -> pa.Table:
    """Rows of the ledger."""
    return pa.Table.from_pylist(
        [
            {"batch_id": batch, "object_id": one, "outcome": "ingested", "kind": "dicom", "judged_at": AT}
            for one in objects
        ],
        schema=TABLES["validated_batch"].schema,
    )


def ledger(lake: Lake) -> list[tuple[str, str]]:
    return [(row["batch_id"], row["object_id"]) for row in table(lake, "validated_batch").to_pylist()]


class TestReplacing:
    def test_takes_the_place_of_the_rows_of_one_batch_and_of_no_other(self, lake):
        lake.replace("validated_batch", ["b1"], judged("b1", "x", "y"))
        lake.replace("validated_batch", ["b2"], judged("b2", "z"))
        lake.replace("validated_batch", ["b1"], judged("b1", "w"))
        assert ledger(lake) == [("b1", "w"), ("b2", "z")]
        assert lake.row_count("validated_batch") == 2

    def test_with_nothing_removes_them(self, lake):
        lake.replace("validated_batch", ["b1"], judged("b1", "x"))
        lake.replace("validated_batch", ["b1"], judged("b1"))
        assert ledger(lake) == []

    def test_of_no_values_is_no_commit(self, lake):
        before = lake.table("validated_batch").version()
        lake.replace("validated_batch", [], judged("b1"))
        assert lake.table("validated_batch").version() == before

    def test_adds_rows_of_other_keys_and_leaves_the_files_as_they_are(self, lake):
        for some, member in (([], "x"), ([], "y"), (["k"], "z")):
            rows = [
                {"group_id": key, "kind": "bytes", "shared_key": key, "batch_id": "b", "object_id": f"{key}{member}",
                 "source": "s", "SOPInstanceUID": "1.2", "is_first": False, "compared": "bytes", "differs_in": []}
                for key in ("k", "l")
            ]  # fmt: skip
            before = set(lake.extents("duplicate").paths)
            lake.replace("duplicate", some, pa.Table.from_pylist(rows, schema=TABLES["duplicate"].schema))
            assert some or before < set(lake.extents("duplicate").paths)
        assert sorted(table(lake, "duplicate")["object_id"].to_pylist()) == ["kz", "lx", "ly", "lz"]

    def test_takes_values_that_hold_quotes(self, lake):
        lake.replace("validated_batch", ["it's"], judged("it's", "x"))
        lake.replace("validated_batch", ["it's", "b"], judged("it's", "y"))
        assert ledger(lake) == [("it's", "y")]

    def test_begins_a_stream_anew_for_each_try(self, lake):
        begun = []

        def rows() -> pa.RecordBatchReader:
            begun.append(1)
            return judged("b1", "x").to_reader()

        lake.replace("validated_batch", ["b1"], rows)
        lake.replace("validated_batch", ["b1"], rows)
        assert ledger(lake) == [("b1", "x")]
        assert len(begun) == 2

    def test_by_several_writers_at_once_loses_no_row(self, lake):
        def write(number: int) -> None:
            mine = Lake(lake.uri, make=False)
            with mine.committing("validated_batch"):
                mine.replace("validated_batch", [f"b{number}"], judged(f"b{number}", "x"))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(8)))
        assert ledger(lake) == [(f"b{number}", "x") for number in range(8)]

    def test_by_several_threads_of_one_process_loses_no_row(self, lake):
        def write(number: int) -> None:
            for again in range(3):
                lake.replace("validated_batch", [f"b{number}"], judged(f"b{number}", str(again)))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(4)))
        assert ledger(lake) == [(f"b{number}", "2") for number in range(4)]

    def test_that_rests_on_an_older_version_is_not_committed_though_the_newer_one_was_read_meanwhile(self, lake):
        seen = lake.extents("validated_batch")
        lake.replace("validated_batch", ["b1"], judged("b1", "x"))
        assert lake.extents("validated_batch").version > seen.version
        assert not lake.commit("validated_batch", seen, [])

    def test_by_others_is_seen_even_when_the_next_log_entry_was_cleaned_up(self, lake, monkeypatch):
        at = lake.extents("validated_batch").version
        other = Lake(lake.uri, make=False)
        for batch in ("b1", "b2"):
            other.replace("validated_batch", [batch], judged(batch, "x"))
        other.table("validated_batch").create_checkpoint()
        (lake.files.local_root / f"validated_batch/_delta_log/{at + 1:020d}.json").unlink()
        monkeypatch.setattr(open_tables, "OPEN_SECONDS", 0.0)
        assert lake.row_count("validated_batch") == 2


class TestAStepThatLooksOnce:
    @pytest.fixture
    def other(self, lake) -> Lake:
        return Lake(lake.uri, make=False)

    def test_sees_what_others_commit_when_it_may_commit_itself(self, lake, other):
        with lake.look_once():
            assert lake.row_count("validated_batch") == 0
            other.replace("validated_batch", ["b1"], judged("b1", "x"))
            assert lake.row_count("validated_batch") == 0
            with lake.committing("raw_files"):
                assert lake.row_count("validated_batch") == 1

    def test_may_look_at_tables_before_it_asks_for_them(self, lake, other):
        with lake.look_once(["validated_batch"]):
            other.replace("validated_batch", ["b1"], judged("b1", "x"))
            assert lake.row_count("validated_batch") == 0

    def test_is_told_of_a_missing_table_when_it_asks_for_it(self, tmp_path):
        empty = Lake(str(tmp_path / "empty"), make=False)
        with empty.look_once(["study"]), pytest.raises(LakeError, match="There is no table study"):
            empty.row_count("study")

    def test_sees_what_it_commits_itself(self, lake):
        with lake.look_once():
            assert lake.row_count("validated_batch") == 0
            lake.replace("validated_batch", ["b1"], judged("b1", "x"))
            assert lake.row_count("validated_batch") == 1

    def test_loses_no_row_to_others_who_commit_behind_its_back(self, lake, other):
        with lake.look_once():
            assert lake.row_count("validated_batch") == 0
            other.replace("validated_batch", ["b1"], judged("b1", "x"))
            lake.replace("validated_batch", ["b2"], judged("b2", "y"))
        assert ledger(lake) == [("b1", "x"), ("b2", "y")]

    def test_leaves_the_step_after_it_and_other_threads_their_own_look(self, lake, other):
        with lake.look_once(), ThreadPoolExecutor(1) as pool:
            assert lake.row_count("validated_batch") == 0
            other.replace("validated_batch", ["b1"], judged("b1", "x"))
            assert pool.submit(lake.row_count, "validated_batch").result() == 1
        other.replace("validated_batch", ["b2"], judged("b2", "y"))
        with lake.look_once():
            assert lake.row_count("validated_batch") == 2
        other.replace("validated_batch", ["b3"], judged("b3", "z"))
        assert lake.row_count("validated_batch") == 3


def test_what_a_lake_keeps_ends_with_it(tmp_path):
    lake = Lake(str(tmp_path / "lake"))
    lake.replace("study", ["0" * 16], TABLES["study"].schema.empty_table())
    with connect(lake, ["study"], within={"study": {"study_key": ["0" * 16]}}) as connection:
        connection.execute("FROM study").fetchall()
    kept = [weakref.ref(one) for one in (lake, lake.file_keys, lake._database)]
    open_still = connect(lake, ["study"])
    del lake
    assert [one() for one in kept] == [None] * 3
    assert open_still.execute("SELECT count(*) FROM study").fetchall() == [(0,)]


@pytest.mark.skipif(sys.platform != "linux", reason="nothing tells how much memory is held")
def test_what_queries_have_freed_goes_back_to_the_system_when_that_is_asked_for(lake):
    def given_back() -> int:
        with lake.cursor() as connection:
            connection.sql(
                "SELECT max(text) FROM (SELECT i::VARCHAR AS text FROM range(1_000_000) AS r(i) ORDER BY hash(i))"
            ).fetchall()
        held = resident()
        lake.give_back()
        return held - resident()

    assert max(given_back() for _ in range(5)) > 20 << 20  # by itself it happens after a second, perhaps just before


def footers_held(lake: Lake) -> int:
    """Bytes that the lake's database holds of footers."""
    with lake.cursor() as connection:
        sql = "SELECT memory_usage_bytes FROM duckdb_memory() WHERE tag = 'OBJECT_CACHE'"
        ((held,),) = connection.execute(sql).fetchall()
    return int(held)


def test_what_footers_say_is_kept_where_that_is_asked_for_until_it_is_asked_for_anew(lake):
    lake.replace("validated_batch", ["b1"], judged("b1", "x", "y"))

    def ask() -> int:
        with connect(lake, ["validated_batch"]) as connection:
            assert len(connection.execute("FROM validated_batch").fetchall()) == 2
        return footers_held(lake)

    assert ask() == ask()
    lake.keep_footers()
    before = footers_held(lake)
    assert before < ask() == ask()
    connection = connect(lake, ["validated_batch"])
    lake.keep_footers()
    assert footers_held(lake) == before
    assert len(connection.execute("FROM validated_batch").fetchall()) == 2


class TestTables:
    def test_are_made_with_the_columns_of_the_registry(self, lake):
        for name, one in TABLES.items():
            assert differences(one, pa.schema(lake.table(name).schema().to_arrow())).names == []
            assert lake.row_count(name) == 0

    def test_have_logs_that_are_summed_up_before_they_are_long(self, lake):
        for number in range(CHECKPOINT_COMMITS + 1):
            lake.replace("validated_batch", [f"b{number}"], judged(f"b{number}", "x"))
        last = json.loads(lake.files.get("validated_batch/_delta_log/_last_checkpoint"))
        assert 1 < last["version"] <= CHECKPOINT_COMMITS
        assert len(ledger(Lake(lake.uri, make=False))) == CHECKPOINT_COMMITS + 1

    def test_that_are_empty_can_be_queried(self, lake):
        with connect(lake) as connection:
            for name in TABLES:
                assert connection.execute(f"SELECT count(*) FROM {name}").fetchall() == [(0,)]

    def test_of_another_make_are_refused_with_what_differs(self, tmp_path):
        Lake(str(tmp_path / "lake"))
        shutil.rmtree(tmp_path / "lake" / "series")
        write_deltalake(str(tmp_path / "lake" / "series"), pa.table({"SeriesInstanceUID": [1]}))
        with pytest.raises(ForeignTable, match=r"already holds a Delta table 'series' .* columns differ"):
            Lake(str(tmp_path / "lake"))

    def test_that_are_missing_are_named_with_what_to_do(self, tmp_path):
        with pytest.raises(LakeError, match=r"There is no table study in this lake\. Run `dicom-assets ingest` first"):
            Lake(str(tmp_path / "lake"), make=False).table("study")
