"""Dagster's state as an ingest opens it: the plug-in keeps its engines, and says what Dagster's own class says."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy
import yaml
from dagster._core.storage.event_log.sqlite import sqlite_event_log

from dicom_assets.cli.ingest import ingest_now
from dicom_assets.defs.event_log import MOST_ENGINES, PooledSqliteEventLogStorage
from dicom_assets.defs.instance import fault_of_state, open_instance
from dicom_assets.defs.state_folder import dagster_home, require_own_state
from dicom_assets.settings import SettingsError
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


def refused(home: Path, lake: str) -> str:
    """What is said when a state is opened for another lake than its own."""
    with pytest.raises(SettingsError) as told:
        open_instance(settings_for(home / lake, home / "landing"))
    return str(told.value)


def test_a_state_that_is_named_is_one_lakes_alone(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DAGSTER_HOME", str(home / "state"))
    with open_instance(settings_for(home / "lake", home / "landing")):
        pass
    told = refused(home, "other")
    assert f"is that of the lake {home / 'lake'}, and this is {home / 'other'}" in told
    with pytest.raises(SettingsError):
        require_own_state(settings_for(home / "other", home / "landing"))
    require_own_state(settings_for(home / "lake", home / "landing"))
    (home / "landing").mkdir()
    with pytest.raises(SettingsError):
        ingest_now(settings_for(home / "other", home / "landing"))
    assert not (home / "other").exists(), "nothing was claimed"
    (home / "state" / ".dicom-assets-lake").unlink()
    with open_instance(settings_for(home / "other", home / "landing")):
        pass


def test_a_state_that_cannot_be_read_or_written_is_named_with_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch):
    (home / "state").write_text("")
    monkeypatch.setenv("DAGSTER_HOME", str(home / "state"))
    assert f"Dagster's state in {home / 'state'} cannot be used: Not a directory. See that" in refused(home, "lake")
    (home / "torn/history").mkdir(parents=True)
    (home / "torn/history/runs.db").write_text("no database " * 1000)
    monkeypatch.setenv("DAGSTER_HOME", str(home / "torn"))
    assert f"Dagster's state in {home / 'torn'} cannot be used: file is not a database." in refused(home, "lake")


def test_a_disk_that_is_full_in_the_middle_of_a_run_is_told_without_what_was_written():
    full = sqlite3.OperationalError("database or disk is full")
    told = fault_of_state(sqlalchemy.exc.OperationalError("INSERT INTO runs", ("4711",), full)) or ""
    assert "cannot be used: database or disk is full. See that its disk has space" in told
    assert "INSERT" not in told and "4711" not in told
    assert fault_of_state(sqlalchemy.exc.IntegrityError("INSERT", (), sqlite3.IntegrityError("4711"))) is None


def test_another_lake_in_a_projects_folder_has_its_state_beside_itself(home: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("dagster.yaml", "workspace.yaml"):
        (home / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    first, second = (settings_for(home / name, home / "landing") for name in ("lake", "other"))
    assert dagster_home(first) == home / "lake.dagster"
    monkeypatch.setenv("DICOM_ASSETS_LAKE", "lake")
    with open_instance(first):
        monkeypatch.delenv("DAGSTER_HOME")
    assert (dagster_home(first), dagster_home(second)) == (home, home / "other.dagster")


def test_lakes_in_containers_have_a_state_each_and_the_first_keeps_the_one_that_was_for_all(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(home))
    one, two = (settings_for(home, home / "landing").model_copy(update={"lake": f"az://a/{n}"}) for n in "12")
    assert dagster_home(one) != dagster_home(two)
    assert dagster_home(one).parent == home / ".dicom-assets"
    (home / ".dicom-assets" / "dagster").mkdir()
    with open_instance(one):
        monkeypatch.delenv("DAGSTER_HOME")
    assert dagster_home(one) == home / ".dicom-assets" / "dagster" != dagster_home(two)


def test_a_place_where_no_state_can_be_made_is_told_with_what_to_do(home: Path):
    (home / "file").write_text("")
    with pytest.raises(SettingsError, match="Set DAGSTER_HOME to a folder that may be written"):
        dagster_home(settings_for(home / "file" / "lake", home / "landing"))
