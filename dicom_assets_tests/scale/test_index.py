"""The index of studies, the summary of claims, time travel, and the connection that users get."""

from __future__ import annotations

import time
import weakref
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

import dicom_assets
from dicom_assets.batch.books import Books, Status
from dicom_assets.batch.context import RunContext
from dicom_assets.cli.main import app
from dicom_assets.defs.partitions import batches_to_retire
from dicom_assets.lake import studies
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import QueryError, moment
from dicom_assets.landing import claims
from dicom_assets.landing.claims import ClaimLog, claim_listed
from dicom_assets.landing.store import LISTING, object_id
from dicom_assets.schema.registry import TABLES
from dicom_assets.settings import ClaimingSettings, MaintenanceSettings, Settings
from dicom_assets.storage.files import LakeFiles

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)
OLD = datetime(2026, 11, 1, tzinfo=UTC)


class TestRunContext:
    def test_holds_nothing_of_its_lake_when_it_has_ended_although_it_is_still_there_itself(self, tmp_path):
        with RunContext(Settings(lake=str(tmp_path / "lake"))) as work:
            held = [weakref.ref(one) for one in (work.lake, work.log, work.places)]
        assert [one() for one in held] == [None] * 3


class TestIndexOfStudies:
    def test_names_the_batches_of_the_studies_that_are_asked_for(self, tmp_path):
        lake = Lake(str(tmp_path / "lake"))
        studies.enter(lake, "b1", ["a" * 16, "b" * 16])
        studies.enter(lake, "b2", ["b" * 16])
        studies.enter(lake, "b3", ["c" * 16])
        assert sorted(studies.batches_of(lake, ["b" * 16])) == ["b1", "b2"]
        assert studies.batches_of(lake, ["d" * 16]) == []

    def test_is_made_for_a_lake_that_was_written_without_one(self, tmp_path):
        lake = Lake(str(tmp_path / "lake"))
        row = {
            "batch_id": "b1", "object_id": "0" * 20, "source": "s", "operation": "upsert", "version_at": NOW,
            "sequence": 0, "study_key": "e" * 16, "ingested_at": NOW,
        }  # fmt: skip
        lake.replace("flat_metadata", ["b1"], pa.Table.from_pylist([row], schema=TABLES["flat_metadata"].schema))
        assert studies.batches_of(lake, ["e" * 16]) == []
        studies.build(lake)
        assert studies.batches_of(lake, ["e" * 16]) == ["b1"]


def listing(*numbers: int) -> list[pa.RecordBatch]:
    """One part of a listing with these objects, long at rest."""
    rows = [{"uri": f"/in/{n // 10}/{n}", "etag": "1", "size": 1, "modified_at": OLD} for n in numbers]
    return [pa.RecordBatch.from_pylist(rows, schema=LISTING)]


class TestSummaryOfClaims:
    @pytest.fixture
    def files(self, tmp_path, monkeypatch) -> LakeFiles:
        monkeypatch.setattr(claims, "SUMMARISE_AFTER", 4)
        return LakeFiles(str(tmp_path / "lake"))

    def claim(self, files: LakeFiles, *numbers: int, source: str = "s"):
        few = ClaimingSettings(batch_objects=10, batches_per_tick=100)
        return claim_listed(source, lambda: listing(*numbers), ClaimLog(files), few, NOW)

    def test_nothing_is_claimed_twice_with_and_without_one(self, files):
        for end in range(30, 200, 30):
            done = self.claim(files, *range(end))
            assert sum(one.objects for one in done.claims) == 30
        assert files.names("_claimed")
        assert self.claim(files, *range(180)).claims == ()

    def test_saves_reading_the_claims_it_stands_for(self, files, monkeypatch):
        self.claim(files, *range(100))
        read = []
        real = LakeFiles.get
        monkeypatch.setattr(LakeFiles, "get", lambda self, path: read.append(path) or real(self, path))
        ids = ClaimLog(files).claimed_ids("s")
        assert len(ids) == 100
        assert not [path for path in read if path.startswith("_claims/")]

    def test_is_of_each_source_apart(self, files):
        self.claim(files, *range(50), source="one")
        self.claim(files, *range(50), source="two")
        log = ClaimLog(files)
        mine = pa.array([object_id("one", "/in/0/3", "1", None)])
        assert log.claimed_ids("one").missing(mine).tolist() == [False]
        assert log.claimed_ids("two").missing(mine).tolist() == [True]
        assert len(log.claims()) == 10

    def test_one_that_broke_off_is_not_taken_for_one(self, files):
        self.claim(files, *range(50))
        (folder,) = {path.split("/")[1] for path in files.names("_claimed")}
        files.delete(f"_claimed/{folder}/claims.parquet")
        assert len(ClaimLog(files).claimed_ids("s")) == 50
        assert self.claim(files, *range(50)).claims == ()

    def test_a_log_outlives_the_summary_that_it_began_with(self, files):
        self.claim(files, *range(50))
        log = ClaimLog(files)
        log.claims()
        for end in range(100, 400, 50):
            self.claim(files, *range(end))
        assert len(log.claimed_ids("s")) == 350

    def test_manifests_are_found_through_it(self, files):
        done = self.claim(files, *range(50))
        for claim in done.claims:
            assert len(ClaimLog(files).manifest(claim.batch_id)) == claim.objects


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> Lake:
    """A lake whose index of studies has two versions with rows."""
    lake = Lake(str(tmp_path_factory.mktemp("travel") / "lake"))
    studies.enter(lake, "b1", ["a" * 16])
    time.sleep(0.05)  # a version is as old as the file of the log that holds it, written at the end of the commit
    studies.enter(lake, "b2", ["a" * 16, "b" * 16])
    return lake


class TestTimeTravel:
    def test_connect_hands_over_every_table_without_a_copy(self, lake):
        with dicom_assets.connect(lake.uri) as connection:
            assert connection.execute("SELECT count(*) FROM batch_study").fetchone() == (3,)
            names = {name for (name,) in connection.execute("SHOW TABLES").fetchall()}
        assert set(TABLES) <= names

    def test_connect_goes_back_to_a_version_or_a_time(self, lake):
        assert dicom_assets.connect(lake.uri, 1).execute("SELECT count(*) FROM batch_study").fetchone() == (1,)
        log = Path(lake.uri) / "batch_study" / "_delta_log" / f"{1:020}.json"
        then = datetime.fromtimestamp(log.stat().st_mtime, UTC) + timedelta(milliseconds=1)
        found = dicom_assets.connect(lake.uri, then.isoformat()).execute("SELECT count(*) FROM batch_study").fetchone()
        assert found == (1,)

    def test_a_table_without_that_version_is_not_there(self, lake):
        connection = dicom_assets.connect(lake.uri, 2)
        assert connection.execute("SHOW TABLES").fetchall() == [("batch_study",)]

    def test_sql_takes_at(self, lake):
        command = ["sql", "SELECT count(*) AS n FROM batch_study", "--lake", lake.uri, "--format", "csv", "--at"]
        assert CliRunner().invoke(app, [*command, "1"]).stdout == "n\n1\n"
        assert CliRunner().invoke(app, [*command, "2099-01-01"]).stdout == "n\n3\n"
        wrong = CliRunner().invoke(app, [*command, "yesterday"])
        assert wrong.exit_code == 2
        assert "Give a time such as" in wrong.stderr

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("7", 7),
            ("2026-11-20T08:00Z", NOW),
            ("2026-11-20T08:00", NOW),
            ("2026-11-20T09:00+01:00", NOW),
            ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
        ],
    )
    def test_a_moment_is_a_version_or_a_time_in_utc(self, text, expected):
        assert moment(text) == expected

    def test_what_is_neither_is_refused(self):
        with pytest.raises(QueryError):
            moment("²")


def test_batches_are_retired_that_closed_long_ago_or_are_beyond_the_newest_and_no_others():
    closed = [Books(f"b{days}", "s", Status.CLOSED, closed_at=NOW - timedelta(days=days)) for days in (0, 1, 29, 31)]
    books = [*closed, Books("paused", "s", Status.PAUSED, started_at=NOW - timedelta(days=400))]

    def retired(**maintenance: int) -> set[str]:
        return batches_to_retire(books, MaintenanceSettings.model_validate(maintenance), NOW)

    assert retired() == {"b31"}
    assert retired(partition_most=2) == {"b31", "b29"}
    assert retired(partition_days=0, partition_most=1) == {"b31", "b29", "b1"}
    assert retired(partition_days=0, partition_most=0) == set()
