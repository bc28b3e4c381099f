"""Dagster's state as an ingest opens it: the plug-in keeps its engines, and says what Dagster's own class says."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy
import yaml
from dagster._core.storage.event_log.sqlite import sqlite_event_log

from dicom_assets.defs.event_log import MOST_ENGINES, PooledSqliteEventLogStorage
from dicom_assets.defs.instance import open_instance
from dicom_assets_tests.support.lakes import settings_for

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where no state is configured."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def instance(home: Path):
    """The state beside a lake, as `ingest` makes it."""
    with open_instance(settings_for(home / "lake", home / "landing")) as opened:
        yield opened


@dg.asset
def made() -> None:
    """An asset."""


def materialize(instance: dg.DagsterInstance) -> str:
    """Runs the asset; the run's id."""
    return dg.materialize([made], instance=instance).run_id


def test_an_ingest_names_the_plug_in(instance: dg.DagsterInstance):
    assert isinstance(instance.event_log_storage, PooledSqliteEventLogStorage)


def test_no_engine_is_made_for_a_statement(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch):
    materialize(instance)
    engines, statements = [], []
    create = sqlalchemy.create_engine

    def counted(*given, **named):
        engines.append(create(*given, **named))
        sqlalchemy.event.listen(engines[-1], "before_cursor_execute", lambda *_: statements.append(1))
        return engines[-1]

    monkeypatch.setattr(sqlalchemy, "create_engine", counted)
    monkeypatch.setattr(sqlite_event_log, "create_engine", counted)
    run = materialize(instance)
    assert len(instance.all_logs(run)) > 8
    assert len(statements) > 8
    assert len(engines) == 1, "one for the file of the new run"


def test_dagsters_own_class_reads_what_the_plug_in_wrote(instance: dg.DagsterInstance, home: Path):
    run = materialize(instance)
    written = [record.message for record in instance.all_logs(run)]
    own = sqlite_event_log.SqliteEventLogStorage(str(home / "lake.dagster" / "history" / "runs"))
    assert [record.message for record in own.get_logs_for_run(run)] == written


def test_runs_beyond_those_whose_engines_are_kept_are_still_read(instance: dg.DagsterInstance):
    runs = [materialize(instance) for _ in range(MOST_ENGINES + 2)]
    assert all(instance.all_logs(run) for run in runs)


def test_a_partition_is_there_from_when_it_was_made(instance: dg.DagsterInstance):
    assert not instance.has_dynamic_partition("batch", "one")
    instance.add_dynamic_partitions("batch", ["one"])
    assert instance.has_dynamic_partition("batch", "one")
    assert not instance.has_dynamic_partition("batch", "two")
    instance.delete_dynamic_partition("batch", "one")
    assert not instance.has_dynamic_partition("batch", "one")


def test_wiping_removes_everything(instance: dg.DagsterInstance):
    run = materialize(instance)
    instance.event_log_storage.wipe()
    assert list(instance.all_logs(run)) == []


def test_the_project_and_what_an_ingest_makes_name_the_same_class(instance: dg.DagsterInstance, home: Path):
    project = yaml.safe_load((ROOT / "dagster.yaml").read_text(encoding="utf-8"))["event_log_storage"]
    beside = yaml.safe_load((home / "lake.dagster" / "dagster.yaml").read_text(encoding="utf-8"))["event_log_storage"]
    assert (project["module"], project["class"]) == (beside["module"], beside["class"])


def test_a_state_that_has_moved_keeps_its_events_where_it_lies_now(home: Path, monkeypatch: pytest.MonkeyPatch):
    with open_instance(settings_for(home / "lake", home / "landing")) as first:
        run = materialize(first)
    (home / "lake.dagster").rename(home / "moved.dagster")
    monkeypatch.delenv("DAGSTER_HOME")
    with open_instance(settings_for(home / "moved", home / "landing")) as again:
        assert list(again.all_logs(run))
    assert not (home / "lake.dagster").exists()
