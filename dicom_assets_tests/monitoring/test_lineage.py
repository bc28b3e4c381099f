"""Runs of batches are told as events of OpenLineage: whole, with columns, once, and without patient data."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dicom_assets.batch.context import RunContext
from dicom_assets.batch.steps import STEPS
from dicom_assets.defs.graph import build_defs
from dicom_assets.lake.delta import Lake
from dicom_assets.monitoring.lineage import EndedRun, Names, Receiver, ReceiverAway, StepRun, as_json, events, names
from dicom_assets.schema.registry import TABLES
from dicom_assets.settings import LineageSettings, Settings, SettingsError, load
from dicom_assets_tests.monitoring.inbox import Web, web
from dicom_assets_tests.monitoring.watched import DESCRIPTION, FOLDER, SECRETS
from dicom_assets_tests.support.canaries import PATIENT, SAYS
from dicom_assets_tests.support.dicoms import dicom, without_identity
from dicom_assets_tests.support.lakes import Graph
from dicom_assets_tests.support.landings import LandingFolder

BEGAN = datetime(2026, 11, 20, 8, tzinfo=UTC)
NAMES = Names("hospital", "file", "/srv/lake")


def ended_run(*, succeeded: bool = True) -> EndedRun:
    """A run in which each step took a second."""
    steps = {
        step.name: StepRun(
            BEGAN + timedelta(seconds=place),
            BEGAN + timedelta(seconds=place + 1),
            succeeded or step.name != "flat_metadata",
            dict.fromkeys(step.tables, 7),
        )
        for place, step in enumerate(STEPS)
        if succeeded or place <= 3
    }
    ended = BEGAN + timedelta(seconds=20)
    return EndedRun(str(uuid.uuid4()), "20261120T080000Z-1f3a9c2e", "ct", BEGAN, ended, succeeded, steps)


def told(run: EndedRun) -> list[dict[str, Any]]:
    return [json.loads(as_json(event)) for event in events(run, NAMES)]


def require_event(event: dict[str, Any]) -> None:
    """What the specification requires of a RunEvent: keys, times, ids; of each facet who made it by which schema."""
    assert {"eventTime", "producer", "run", "job", "eventType", "schemaURL"} <= event.keys()
    assert event["eventType"] in ("START", "COMPLETE", "FAIL")
    assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None
    uuid.UUID(event["run"]["runId"])
    holders = [event["run"], event["job"], *event.get("inputs", ()), *event.get("outputs", ())]
    for holder in holders[1:]:
        assert holder["namespace"] and holder["name"]
    for holder in holders:
        for kind in ("facets", "inputFacets", "outputFacets"):
            for facet in holder.get(kind, {}).values():
                assert facet["_producer"].startswith("urn:dicom-assets:")
                assert re.match(r"https://openlineage\.io/spec/facets/\d+-\d+-\d+/\w+\.json", facet["_schemaURL"])


class TestEvents:
    @pytest.mark.parametrize("succeeded", [True, False])
    def test_are_what_the_specification_requires(self, succeeded: bool):
        found = told(ended_run(succeeded=succeeded))
        for event in found:
            require_event(event)

    def test_each_run_starts_once_and_ends_once_in_order(self):
        found = told(ended_run())
        states: dict[str, list[str]] = {}
        for event in found:
            states.setdefault(event["run"]["runId"], []).append(event["eventType"])
        assert len(states) == len(STEPS) + 1
        assert set(map(tuple, states.values())) == {("START", "COMPLETE")}
        assert [event["eventTime"] for event in found] == sorted(event["eventTime"] for event in found)

    def test_of_a_run_that_failed_its_step_and_itself_say_so_without_a_text_of_others(self):
        found = told(ended_run(succeeded=False))
        failed = [event for event in found if event["eventType"] == "FAIL"]
        assert [event["job"]["name"] for event in failed] == ["ingest_batch.flat_metadata", "ingest_batch"]
        message = failed[0]["run"]["facets"]["errorMessage"]["message"]
        assert message == "Step flat_metadata failed; see its log in Dagster."

    def test_a_step_belongs_to_its_run_and_reads_what_the_list_of_steps_says(self):
        run = ended_run()
        _, event = (one for one in told(run) if one["job"]["name"] == "ingest_batch.hierarchy")
        assert event["run"]["facets"]["parent"]["run"]["runId"] == run.run_id
        assert event["run"]["runId"] != run.run_id
        assert [one["name"] for one in event["inputs"]] == ["/srv/lake/flat_metadata"]
        made = [f"/srv/lake/{name}" for name in ("instance", "series", "study")]
        assert [one["name"] for one in event["outputs"]] == made
        assert {one["namespace"] for one in event["outputs"]} == {"file"}

    def test_the_first_step_reads_the_source_and_the_run_names_its_batch(self):
        event = next(one for one in told(ended_run()) if one["job"]["name"] == "ingest_batch.raw_files")
        assert event["inputs"] == [{"namespace": "hospital", "name": "source/ct", "facets": {}, "inputFacets": {}}]
        tags = {one["key"]: one["value"] for one in event["run"]["facets"]["tags"]["tags"]}
        assert tags == {"batch": "20261120T080000Z-1f3a9c2e", "source": "ct"}

    def test_tables_have_their_columns_where_they_come_from_and_rows(self):
        outputs = {one["name"]: one for event in told(ended_run()) for one in event.get("outputs", ())}
        for name, table in TABLES.items():
            if (output := outputs.get(f"/srv/lake/{name}")) is not None:
                fields = output["facets"]["schema"]["fields"]
                assert [one["name"] for one in fields] == [column.name for column in table.columns]
                assert output["outputFacets"]["outputStatistics"]["rowCount"] == 7
        lineage = outputs["/srv/lake/series"]["facets"]["columnLineage"]["fields"]["Modality"]["inputFields"]
        assert [(one["namespace"], one["name"], one["field"]) for one in lineage] == [
            ("file", "/srv/lake/instance", "Modality")
        ]

    def test_what_is_sent_again_is_the_same(self):
        run = ended_run()
        assert told(run) == told(run)


def test_tables_on_azure_are_named_as_spark_names_them(tmp_path: Path):
    class _Files:
        from dicom_assets.storage.azure import Place

        place = Place("account", "container", "a/lake")

    class _Lake:
        files, uri = _Files(), "az://account/container/a/lake"

    found = names(_Lake(), LineageSettings(url="http://127.0.0.1"))  # type: ignore[arg-type]
    assert found.table("study") == ("abfss://container@account.dfs.core.windows.net", "/a/lake/study")


class TestReceiver:
    @pytest.fixture
    def inbox(self) -> Iterator[Web]:
        with web() as got:
            yield got

    def test_gets_events_with_a_key_from_the_environment(self, inbox: Web):
        settings = LineageSettings(url=f"http://127.0.0.1:{inbox.port}", api_key_variable="KEY")
        receiver = Receiver(settings, {"KEY": "s3cret"})
        receiver.send(next(events(ended_run(), NAMES)))
        receiver.close()
        assert (inbox.paths, inbox.headers[0]["authorization"]) == (["/api/v1/lineage"], "Bearer s3cret")
        require_event(inbox.bodies[0])

    def test_that_is_away_or_refuses_is_told_in_kind(self, inbox: Web):
        inbox.status = 422
        with pytest.raises(ReceiverAway, match=r"answered 422\.$"):
            Receiver(LineageSettings(url=f"http://127.0.0.1:{inbox.port}"), {}).send(next(events(ended_run(), NAMES)))
        with pytest.raises(ReceiverAway, match=r"cannot be reached \(ConnectionError\)\.$"):
            Receiver(LineageSettings(url="http://127.0.0.1:9"), {}).send(next(events(ended_run(), NAMES)))

    def test_a_key_that_is_not_set_is_named(self):
        with pytest.raises(SettingsError, match="KEY is not set"):
            Receiver(LineageSettings(url="https://x.example", api_key_variable="KEY"), {})

    def test_a_key_goes_over_https_only(self, tmp_path: Path):
        file = tmp_path / "dicom-assets.toml"
        file.write_text('[lineage]\nurl = "http://marquez.example.org"\napi_key_variable = "KEY"\n')
        with pytest.raises(SettingsError, match=r"lineage.*over https only"):
            load(environment={"DICOM_ASSETS_CONFIG": str(file)})


def test_the_sensor_is_there_only_when_somebody_is_to_be_told(tmp_path: Path):
    lineage = LineageSettings(url="http://127.0.0.1:9")
    settings = [Settings(lake=str(tmp_path)), Settings(lake=str(tmp_path), lineage=lineage)]
    found = [{sensor.name for sensor in build_defs(one).sensors or ()} for one in settings]
    assert found[1] - found[0] == {"lineage"}


@pytest.mark.slow
def test_runs_of_the_real_graph_are_told_once_when_the_receiver_is_back_and_name_no_patient(
    graph: Graph, landing: LandingFolder, instance: dg.DagsterInstance
):
    landing.put(f"{FOLDER}/{PATIENT}.dcm", dicom(9, 1, 1, StudyDescription=DESCRIPTION, **SAYS))
    landing.put(f"{FOLDER}/broken.dcm", without_identity(1))
    landing.put(f"{FOLDER}/of-{PATIENT}.csv", f"PatientID;diagnosis\n{PATIENT};SECRET-DIAGNOSIS\n")
    (batch,) = graph.ingest()
    cursor: str | None = None

    with web() as inbox:
        lineage = LineageSettings(url=f"http://127.0.0.1:{inbox.port}")
        settings = graph.settings.model_copy(update={"lineage": lineage})
        sensor = next(one for one in build_defs(settings).sensors or () if one.name == "lineage")

        def tick() -> str:
            nonlocal cursor
            with RunContext(settings) as work:
                with dg.build_sensor_context(instance, cursor, resources={"work": work}) as context:
                    found = sensor(context)
                cursor = context.cursor
            assert isinstance(found, dg.SkipReason)
            return found.skip_message or ""

        inbox.status = 503
        assert tick() == "0 runs told. The receiver of lineage answered 503. It is told again."
        inbox.status = 201
        assert [tick(), tick()] == ["1 runs told.", "0 runs told."]
        bodies = inbox.bodies
    for event in bodies:
        require_event(event)
    assert len(bodies) == 2 * (len(STEPS) + 1)
    whole = next(one for one in bodies if one["job"]["name"] == "ingest_batch" and one["eventType"] == "COMPLETE")
    assert {"key": "batch", "value": batch, "source": "DAGSTER"} in whole["run"]["facets"]["tags"]["tags"]
    rows = {one["name"].rsplit("/", 1)[1]: one["outputFacets"] for one in whole["outputs"]}
    assert rows["flat_metadata"]["outputStatistics"]["rowCount"] == 1
    assert rows["raw_files"]["outputStatistics"]["rowCount"] == 3
    assert Lake(settings.lake).uri in {one["name"].rsplit("/", 1)[0] for one in whole["outputs"]}
    assert not SECRETS.stand_in(json.dumps(bodies).encode())
