"""Windows of changes: when they are due, what a tick asks for, what a run of one does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_assets.batch.context import RunContext
from dicom_assets.defs.graph import build_defs
from dicom_assets.defs.windows import (
    CATCH_UP,
    RUNS_PER_TICK,
    border,
    due,
    never_read,
    partitions,
    tick_cron,
    wanted,
    window_of,
)
from dicom_assets.settings import ChangesSettings, Settings, SettingsError, load
from dicom_assets_tests.service.feed_server import Fault, running
from dicom_assets_tests.service.service_model import ServiceModel, metadata
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import QUIET, Graph, quiet_dagster

START = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
SILENT = {"telemetry": {"enabled": False}, "nux": {"enabled": False}}
WIDTHS = [5, 10, 15, 20, 30, 60, 120, 180, 240, 360, 480, 720, 1_440]


def changes(**values) -> ChangesSettings:
    return ChangesSettings.model_validate({"start": START, **values})


@pytest.mark.parametrize("minutes", WIDTHS)
def test_windows_of_dagster_are_those_of_the_service(minutes):
    definition = partitions(changes(window_minutes=minutes, start=datetime(2026, 3, 1, tzinfo=UTC)))
    keys = definition.get_partition_keys(current_time=datetime(2026, 3, 3, tzinfo=UTC))
    assert len(keys) == 2 * 1_440 // minutes
    for key in keys:
        window = window_of(key, minutes)
        known = definition.time_window_for_partition_key(key)
        assert (window.start, window.end) == (known.start, known.end)


@pytest.mark.parametrize("minutes", [7, 45, 90, 300, 4, 2_880])
def test_widths_that_leave_a_rest_are_refused(minutes):
    with pytest.raises(ValueError, match="window_minutes"):
        changes(window_minutes=minutes)


def test_a_start_without_a_time_zone_is_refused():
    with pytest.raises(ValueError, match="time zone"):
        changes(start=datetime(2026, 3, 1))


@pytest.mark.parametrize(
    ("minutes", "delay", "cron"),
    [
        (60, 15, "15 * * * *"),
        (5, 15, "0,5,10,15,20,25,30,35,40,45,50,55 * * * *"),
        (30, 10, "10,40 * * * *"),
        (360, 15, "15 0,6,12,18 * * *"),
        (1_440, 90, "30 1 * * *"),
    ],
)
def test_a_tick_comes_when_a_window_has_been_closed_for_the_delay(minutes, delay, cron):
    assert tick_cron(minutes, delay) == cron


@given(st.sampled_from(WIDTHS), st.integers(0, 120), st.integers(0, 3 * 86_400))
def test_every_due_window_has_been_closed_for_the_delay_and_none_is_left_out(minutes, delay, seconds):
    settings = changes(window_minutes=minutes, delay_minutes=delay, start=datetime(2026, 3, 1, tzinfo=UTC))
    now = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    keys = due(settings, now, CATCH_UP)
    all_keys = partitions(settings).get_partition_keys(current_time=now)
    closed = [k for k in all_keys if window_of(k, minutes).closed_by(now, timedelta(minutes=delay))]
    assert keys == closed
    assert border(now, minutes) <= now < border(now, minutes) + timedelta(minutes=minutes)


def test_before_any_window_was_read_only_the_newest_is_wanted():
    assert wanted(["a", "b", "c"], set(), set()) == ["c"]
    assert wanted([], set(), set()) == []


def test_windows_that_failed_are_asked_for_again_and_those_under_way_are_not():
    keys = [f"{n:02d}" for n in range(10)]
    assert wanted(keys, {"02", "03", "06"}, {"07"}) == ["04", "05", "08", "09"]
    assert len(wanted([f"{n:03d}" for n in range(100)], {"000"}, set())) == RUNS_PER_TICK


def test_windows_that_were_never_read_are_known_since_the_first_that_was():
    assert never_read(["a", "b", "c", "d"], {"b", "d"}) == ["c"]
    assert never_read(["a", "b"], set()) == []


def with_service(tmp_path, server, **values) -> Settings:
    return Settings.model_validate(
        {
            "lake": str(tmp_path / "lake"),
            "services": [server.settings(landing=str(tmp_path / "changes"), **values).model_dump()],
            "changes": {"start": START},
            "claiming": {"quiet_seconds": 0},
            "reading": {"workers": 1},
        }
    )


def run(
    settings: Settings, job: str, instance: dg.DagsterInstance, key: str | None = None
) -> dg.ExecuteInProcessResult:
    definition = build_defs(settings, engine=InlineEngine()).resolve_job_def(job)
    return definition.execute_in_process(partition_key=key, instance=instance, raise_on_error=False, run_config=QUIET)


@pytest.mark.slow
def test_a_run_lands_its_window_and_the_sensor_finds_it(tmp_path):
    quiet_dagster()
    with running() as server, dg.DagsterInstance.ephemeral() as instance:
        for number in range(5):
            server.model.store(metadata("1.1", "1.1.1", f"1.1.1.{number}"))
        settings = with_service(tmp_path, server)
        graph = Graph(settings, instance)
        result = run(settings, "sync_dicom_changes", instance, "2026-03-01-08:00")
        assert result.success
        shown = result.asset_materializations_for_node("dicom_changes")[0].metadata
        assert shown["dagster/partition_row_count"].value == 5
        assert shown["window"].value == "2026-03-01T08:00:00Z/2026-03-01T09:00:00Z"
        (batch,) = graph.ingest()
        assert graph.books(batch).status == "closed"
        # The audit agrees, then finds what the lake lacks.
        agreed = run(settings, "audit_dicom_services", instance)
        checks = {one.check_name: one for one in agreed.get_asset_check_evaluations()}
        assert checks["dicom_service_audit"].passed
        missing = checks["no_window_missing"]  # one window was read, of all that are due since then
        assert not missing.passed and missing.severity is dg.AssetCheckSeverity.WARN
        assert "--partitions 2026-03-01-09:00,2026-03-01-10:00," in (missing.description or "")
        server.model.advance(-3_600)
        server.model.store(metadata("1.2", "1.2.1", "1.2.1.1"))
        differs = run(settings, "audit_dicom_services", instance)
        check = next(one for one in differs.get_asset_check_evaluations() if one.check_name == "dicom_service_audit")
        assert not check.passed
        assert (check.metadata["expected"].value, check.metadata["actual"].value) == (0, 1)
        assert "dicom-assets repair pacs" in (check.description or "")
        rows = graph.rows("SELECT * FROM dicom_service_audit")
        assert [(row["difference"], row["server_instances"], row["lake_instances"]) for row in rows] == [
            ("missing", 1, 0)
        ]


@pytest.mark.slow
def test_a_service_that_fails_keeps_no_other_from_being_landed_and_the_run_says_which_window(tmp_path):
    quiet_dagster()
    with running() as bad, running() as good, dg.DagsterInstance.ephemeral() as instance:
        good.model.store(metadata("1.1", "1.1.1", "1.1.1.1"))
        bad.before = lambda _: bad.faults.append(Fault(403))
        settings = Settings.model_validate(
            {
                "lake": str(tmp_path / "lake"),
                "changes": {"start": START},
                "services": [
                    bad.settings(name="bad", landing=str(tmp_path / "bad")).model_dump(),
                    good.settings(name="good", landing=str(tmp_path / "good")).model_dump(),
                ],
            }
        )
        job = build_defs(settings).resolve_asset_graph()
        assert dg.AssetKey("dicom_changes") in job.get_all_asset_keys()
        from dicom_assets.defs.assets import dicom_changes as module

        kept, module.ONCE_MORE = module.ONCE_MORE, None
        try:
            result = run(settings, "sync_dicom_changes", instance, "2026-03-01-08:00")
        finally:
            module.ONCE_MORE = kept
        assert not result.success
        (failure,) = [event for event in result.all_events if event.is_step_failure]
        words = str(failure.step_failure_data.user_failure_data.description)
        assert "bad: changes of 2026-03-01T08:00:00Z/2026-03-01T09:00:00Z" in words
        assert "DICOM Data Reader" in words
        assert list((tmp_path / "good").rglob("*.zst"))


@pytest.mark.slow
def test_the_schedule_asks_for_each_window_once_and_again_when_it_failed(tmp_path):
    model = ServiceModel.at(START)
    with running(model) as server, dg.DagsterInstance.local_temp(str(tmp_path), SILENT) as instance:
        now = datetime.now(UTC)
        settings = with_service(tmp_path, server)
        settings = settings.model_copy(update={"changes": changes(start=border(now, 60) - timedelta(hours=5))})
        definitions = build_defs(settings)
        schedule = next(s for s in definitions.schedules if s.name == "closed_windows")

        def asked() -> list[str]:
            with dg.build_schedule_context(
                instance=instance,
                scheduled_execution_time=now,
                repository_def=definitions.get_repository_def(),
            ) as context:
                ticked = schedule.evaluate_tick(context)
            return [request.partition_key for request in ticked.run_requests or []]

        keys = due(settings.changes, now, CATCH_UP)
        assert asked() == keys[-1:]
        assert run(settings, "sync_dicom_changes", instance, keys[1]).success
        assert asked() == keys[2:]
        for key in keys[2:]:
            assert run(settings, "sync_dicom_changes", instance, key).success
        assert asked() == []


def test_schedules_of_services_are_there_with_a_service_alone_and_run(tmp_path):
    def states(settings: Settings) -> set[str]:
        names = {"closed_windows", "nightly_audit"}
        return {str(s.default_status.value) for s in build_defs(settings).schedules if s.name in names}

    assert states(Settings()) == set()
    service = {"name": "pacs", "url": "https://pacs.example", "landing": str(tmp_path / "changes")}
    assert states(Settings.model_validate({"services": [service]})) == {"RUNNING"}
    assert (tmp_path / "changes").is_dir()


def test_a_service_is_a_source_beside_the_landing_folder(tmp_path):
    config = tmp_path / "dicom-assets.toml"
    config.write_text('[[services]]\nname = "pacs"\nurl = "https://pacs.example/v2"\nauth = "entra"\n')
    settings = load(str(tmp_path / "in"), str(tmp_path / "lake"), {"DICOM_ASSETS_CONFIG": str(config)})
    assert [source.name for source in settings.sources] == ["landing", "pacs"]
    assert settings.service("pacs").landing.endswith("data/changes/pacs")
    with pytest.raises(SettingsError, match="not configured"):
        settings.service("other")
    with RunContext(settings) as work:
        assert len(work.settings.services) == 1
