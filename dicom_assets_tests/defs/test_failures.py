"""An exception that nobody foresaw: nothing of its text is in anything that Dagster keeps or that is printed."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from dagster._utils.error import serializable_error_info_from_exc_info
from typer.testing import CliRunner

from dicom_assets import faults
from dicom_assets.batch.context import RunContext
from dicom_assets.cli import main as cli
from dicom_assets.cli.main import app
from dicom_assets.defs.checks import checks_of_batch
from dicom_assets.defs.failures import IS_CLEAR
from dicom_assets.defs.graph import build_defs
from dicom_assets.defs.partitions import BATCH
from dicom_assets.defs.windows import partitions
from dicom_assets.settings import Settings
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.lakes import settings_for

SECRET = "Doe^John 19610417 MRN-778899"
PARTS = (b"Doe^John", b"19610417", b"MRN-778899")
SILENT = {"telemetry": {"enabled": False}, "nux": {"enabled": False}}


def fail(*_: object, **__: object) -> object:
    """Raises what quotes a patient, caused by what does so, too."""
    patient = SECRET
    try:
        raise ValueError(f"no such date: {patient}")
    except ValueError as error:
        raise RuntimeError(f"cannot work on {patient}") from error


class Hostile:
    """A RunContext that breaks whatever is asked of it."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("_"):
            raise AttributeError(name)  # Dagster looks for marks of its own
        return fail()


def held(folder: Path) -> list[str]:
    """Files below a folder in which the patient stands."""
    return [
        path.name for path in folder.rglob("*") if path.is_file() and any(part in path.read_bytes() for part in PARTS)
    ]


def said_of(error: BaseException) -> str:
    """What Dagster would keep of an exception."""
    return serializable_error_info_from_exc_info((type(error), error, error.__traceback__)).to_string()


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("failures")
    (folder / "landing").mkdir()
    service = {"name": "pacs", "url": "http://127.0.0.1:9/", "landing": str(folder / "changes")}
    sources = [
        {"name": "landing", "root": str(folder / "landing"), "mode": "organize"},
        {"name": "blobs", "root": "az://account/container", "queue": "arrivals"},
    ]
    return settings_for(folder / "lake", folder / "landing", services=[service], sources=sources)


@pytest.fixture(scope="module")
def definitions(settings):
    hostile = dg.ResourceDefinition.hardcoded_resource(Hostile())
    return build_defs(settings, resource_overrides={"work": hostile})


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """An instance whose state lies in files, and the folder of these."""
    home = tmp_path_factory.mktemp("home")
    with dg.DagsterInstance.local_temp(str(home), SILENT) as instance:
        instance.add_dynamic_partitions(BATCH.name, ["batch"])
        yield instance, home


@pytest.fixture(autouse=True)
def no_pause_before_a_retry(monkeypatch):
    monkeypatch.setattr(dg.RetryPolicy, "calculate_delay", lambda *_: 0)


BARE = Settings(lake="/lake")
ASSETS = ("raw_files", "study", "cleanup")
"""The first, one of several that a step makes, and the last; which functions are decorated, all of them, is a test."""
CHECK_STEPS = {check.op.name if hasattr(check, "op") else str(check): check for check in checks_of_batch(BARE)}


class TestAStep:
    @pytest.mark.parametrize("name", ASSETS)
    def test_of_an_asset_leaves_nothing_of_an_exceptions_text(self, name, definitions, kept, capfd):
        self.run(definitions.resolve_job_def("ingest_batch"), "batch", kept, capfd, assets=[dg.AssetKey(name)])

    @pytest.mark.parametrize("name", [*CHECK_STEPS][:1])
    def test_of_checks_leaves_nothing_of_an_exceptions_text(self, name, definitions, kept, capfd):
        keys = set(CHECK_STEPS[name].check_keys)
        job = definitions.resolve_job_def("ingest_batch").get_subset(asset_selection=set(), asset_check_selection=keys)
        self.run(job, "batch", kept, capfd)

    @pytest.mark.parametrize(
        "job", ["maintain_lake", "claim_new_files", "organize_left", "audit_dicom_services", "sync_dicom_changes"]
    )
    def test_of_another_job_leaves_nothing_of_an_exceptions_text(self, job, definitions, settings, kept, capfd):
        windows = partitions(settings.changes) if job == "sync_dicom_changes" else None
        key = windows.get_last_partition_key() if windows else None
        self.run(definitions.resolve_job_def(job), key, kept, capfd)

    def run(self, job, partition_key, kept, capfd, assets=None):
        instance, home = kept
        result = job.execute_in_process(
            partition_key=partition_key, instance=instance, raise_on_error=False, asset_selection=assets
        )
        assert not result.success
        (step, *_) = [event for event in result.all_events if event.is_step_failure]
        description = step.step_failure_data.user_failure_data.description
        assert "RuntimeError at " in description
        assert faults.TRACEBACK_VARIABLE in description
        printed = "".join(capfd.readouterr())
        assert description in printed  # Dagster's own log, which is on here
        assert not any(part.decode() in printed for part in PARTS)
        assert held(home) == []
        kept_of_it = [str(one) for one in instance.all_logs(result.run_id)] + [str(result.dagster_run.tags)]
        assert not any(part.decode() in one for one in kept_of_it for part in PARTS)

    def test_in_which_work_cannot_even_be_opened_leaves_nothing_of_it(self, settings, kept, capfd, monkeypatch):
        monkeypatch.setattr(RunContext, "__enter__", fail)
        instance, home = kept
        job = build_defs(settings).resolve_job_def("maintain_lake")
        result = job.execute_in_process(instance=instance, raise_on_error=False)
        assert not result.success
        assert not any(part.decode() in "".join(capfd.readouterr()) for part in PARTS)
        assert held(home) == []


class TestATick:
    @pytest.mark.parametrize("name", ["new_files", "blob_events", "missed_events", "left_unorganized"])
    def test_of_a_sensor_says_type_and_place_alone(self, name, definitions, settings, kept, monkeypatch):
        monkeypatch.setattr("dicom_assets.defs.organize.unfinished", fail)
        with dg.build_sensor_context(instance=kept[0], resources={"work": Hostile()}) as context:
            self.ticks(lambda: definitions.get_sensor_def(name)(context))

    def test_of_mark_failed_says_type_and_place_alone(self, definitions, kept, monkeypatch):
        monkeypatch.setattr(RunContext, "lake", property(fail))
        run = dg.DagsterRun(job_name="ingest_batch", tags={"dagster/partition": "batch"})
        event = dg.DagsterEvent("PIPELINE_FAILURE", "ingest_batch")
        context = dg.build_run_status_sensor_context("mark_failed", event, kept[0], run).for_run_failure()
        self.ticks(lambda: definitions.get_sensor_def("mark_failed")(context))

    def test_of_the_schedule_of_windows_says_type_and_place_alone(self, definitions, kept, monkeypatch):
        monkeypatch.setattr("dicom_assets.defs.services.due", fail)
        context = dg.build_schedule_context(kept[0], scheduled_execution_time=datetime.now(UTC))
        self.ticks(lambda: definitions.get_schedule_def("closed_windows")(context))

    def ticks(self, tick):
        with pytest.raises(dg.Failure) as raised:
            tick()
        said = said_of(raised.value)
        assert "RuntimeError at " in said
        assert not any(part.decode() in said for part in PARTS)
        assert raised.value.__cause__ is None
        assert raised.value.__context__ is None


def test_every_function_that_dagster_calls_fails_clearly(definitions):
    """A new step, check or sensor without it is found here, whatever it does."""
    repository = definitions.get_repository_def()
    computed = [
        asset.op.compute_fn.decorated_fn for asset in repository.assets_defs_by_key.values() if asset.is_executable
    ]
    computed += [check.node_def.compute_fn.decorated_fn for check in repository.asset_checks_defs_by_key.values()]
    computed += [
        node.compute_fn.decorated_fn
        for job in repository.get_all_jobs()
        for node in job.all_node_defs
        if isinstance(node, dg.OpDefinition)
    ]
    others = dg.RunStatusSensorDefinition, dg.AutomationConditionSensorDefinition  # have no function, or wrap it
    ticked = [sensor._raw_fn for sensor in repository.sensor_defs if not isinstance(sensor, others)]
    assert len(computed) > 20
    assert len(ticked) >= 4
    assert [function.__qualname__ for function in {*computed, *ticked} if not hasattr(function, IS_CLEAR)] == []


class TestAnIngest:
    @pytest.mark.slow
    def test_that_breaks_anywhere_says_no_word_of_the_exception_and_closes_without_it(
        self, tmp_path, landing, monkeypatch, capfd
    ):
        landing.put("a.dcm", dicom())
        arguments = ["ingest", "--landing", str(landing.root), "--lake", str(tmp_path / "lake")]
        for name in ("DAGSTER_HOME", "DICOM_ASSETS_CONFIG"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.chdir(tmp_path)
        for broken in ("OpenBatch.begin", "OpenBatch.judge", "OpenBatch.publish_flat", "expand", "read_batch"):
            with monkeypatch.context() as patch:
                patch.setattr(f"dicom_assets.batch.context.{broken}", fail)
                result = CliRunner().invoke(app, arguments)
            printed = result.output + "".join(capfd.readouterr())
            assert result.exit_code == 1, (broken, printed)
            assert "RuntimeError at " in printed, broken
            assert not any(part.decode() in printed for part in PARTS), broken
        assert held(tmp_path / "lake") == []
        assert held(tmp_path / "lake.dagster") == []
        again = CliRunner().invoke(app, arguments)
        assert again.exit_code == 0, again.output
        assert "closed" in again.output

    def test_that_breaks_outside_any_batch_ends_with_3_and_a_place(self, tmp_path, landing, monkeypatch, capsys):
        monkeypatch.setattr("dicom_assets.batch.claim_rounds.claim_everywhere", fail)
        monkeypatch.delenv("DAGSTER_HOME", raising=False)
        monkeypatch.setattr(
            sys, "argv", ["dicom-assets", "ingest", "--landing", str(landing.root), "--lake", f"{tmp_path}/l"]
        )
        monkeypatch.setattr(cli, "leave", sys.exit)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == cli.UNFORESEEN
        printed = capsys.readouterr().err
        assert "RuntimeError at dicom_assets" in printed
        assert not any(part.decode() in printed for part in PARTS)


_RAISES = f"""
import os, sys, threading
from dicom_assets import faults
faults.hush()
log = os.open("log", os.O_WRONLY | os.O_CREAT)
kept = os.dup(2)
os.dup2(log, 2)  # as Dagster does while a run lasts
def fail(): raise RuntimeError({SECRET!r})
try: fail()
except RuntimeError as error: faults.show(error)
thread = threading.Thread(target=fail)
thread.start(); thread.join()
"""


class TestTheSwitch:
    def run(self, folder: Path, **environment: str) -> tuple[str, str]:
        """What was printed where the process was started, and where Dagster keeps what is printed."""
        done = subprocess.run(
            [sys.executable, "-c", _RAISES],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stderr, (folder / "log").read_text()

    def test_prints_everything_on_the_stderr_of_the_start_and_nowhere_else(self, tmp_path):
        printed, logged = self.run(tmp_path, **{faults.TRACEBACK_VARIABLE: "1"})
        assert printed.count(SECRET) == printed.count("Traceback (most recent call last)") == 2
        assert SECRET not in logged

    def test_is_off_unless_somebody_turns_it_on(self, tmp_path):
        printed, logged = self.run(tmp_path, **{faults.TRACEBACK_VARIABLE: ""})
        assert SECRET not in printed + logged
        assert "RuntimeError at __main__:fail:" in logged
