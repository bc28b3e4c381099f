"""What a batch has ingested is stored at the service that its source names, once, whatever happens on the way."""

from __future__ import annotations

import shutil
from pathlib import Path

import dagster as dg
import pytest

from dicom_assets.batch.checks.forwarding_checks import forwarded_equals_ingested
from dicom_assets.batch.erasure.target import Scope, Target
from dicom_assets.batch.forwarding import FOLDER, NotForwarded, forward, records, waiting
from dicom_assets.defs.assets.forwarded import JOB, batches_to_forward
from dicom_assets.defs.graph import build_defs
from dicom_assets.defs.jobs import register
from dicom_assets.defs.resources import work_resource
from dicom_assets.dicom.selftest_uids import TEST_ROOT
from dicom_assets.service.errors import ServiceError
from dicom_assets.settings import Settings
from dicom_assets_tests.service.feed_server import Fault, FeedServer, running
from dicom_assets_tests.service.service_model import metadata
from dicom_assets_tests.support.canaries import erased
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.lakes import QUIET, settings_for
from dicom_assets_tests.support.landings import LandingFolder, zipped
from dicom_assets_tests.support.steps import Stepped


@pytest.fixture
def server():
    with running() as server:
        yield server


def put(landing: LandingFolder) -> None:
    """Five instances: three files, of which two have one UID, and two members; and what is none."""
    landing.put("a.dcm", dicom(1, 1, 1))
    landing.put("b.dcm", dicom(1, 1, 2))
    landing.put("b-again.dcm", dicom(1, 1, 2))
    landing.put("c.zip", zipped({"1.dcm": dicom(2, 1, 1), "deep/2.dcm": dicom(2, 1, 2), "notes.txt": b"x"}))
    landing.put("table.csv", "PatientID;x\nP0001;a\n")


@pytest.fixture(scope="module")
def ingested(tmp_path_factory) -> tuple[Path, str]:
    """A folder with a landing zone and its lake, and the one batch of it."""
    folder = tmp_path_factory.mktemp("forwarding")
    (folder / "landing").mkdir()
    landing = LandingFolder(folder / "landing")
    put(landing)
    with dg.DagsterInstance.ephemeral() as instance:
        (batch,) = Stepped(settings_for(folder / "lake", landing.root), instance, judges=False).ingest()
    return folder, batch


@pytest.fixture
def batch(ingested) -> str:
    """The one batch."""
    return ingested[1]


@pytest.fixture
def graph(tmp_path, ingested, instance, server: FeedServer) -> Stepped:
    """A copy of the lake, with a source that is forwarded to the server."""
    shutil.copytree(ingested[0] / "lake", tmp_path / "lake")
    settings = Settings.model_validate({
        "lake": str(tmp_path / "lake"),
        "sources": [{"name": "landing", "root": str(ingested[0] / "landing"), "forward_to": "pacs"}],
        "services": [server.settings(retries=0, follow="nothing").model_dump()],
    })  # fmt: skip
    return Stepped(settings, instance, judges=False)


def stores(server: FeedServer) -> int:
    return sum(one.startswith("POST") for one in server.asked)


STORED = {uid(1, 1, 1), uid(1, 1, 2), uid(2, 1, 1), uid(2, 1, 2)}


def at_service(server: FeedServer) -> set[str]:
    return {key[3] for key in server.model.current}


def parity(graph: Stepped, batch: str) -> list[bool]:
    return [one.passed for one in forwarded_equals_ingested(graph.lake, batch, "pacs")]


class TestForwarding:
    def test_each_object_is_stored_once_and_again_nothing_is_sent(self, graph, batch, server):
        assert waiting(graph.lake, graph.settings) == [batch]
        done = forward(graph.lake, graph.settings, batch)
        assert (done.ingested, dict(done.counts), done.left) == (5, {"stored": 4, "present": 1}, [])
        assert at_service(server) == STORED
        assert (waiting(graph.lake, graph.settings), parity(graph, batch)) == ([], [True, True])
        before = stores(server)
        assert forward(graph.lake, graph.settings, batch).sent_now == 0
        assert stores(server) == before

    def test_what_is_there_already_is_not_sent(self, graph, batch, server):
        server.model.store(metadata(uid(1), uid(1, 1), uid(1, 1, 1)))
        done = forward(graph.lake, graph.settings, batch)
        assert dict(done.counts) == {"stored": 3, "present": 2}
        assert stores(server) == 3

    def test_what_was_lost_between_an_answer_and_its_line_is_not_sent_again(self, graph, batch, server):
        forward(graph.lake, graph.settings, batch)
        graph.lake.files.delete(FOLDER)  # as a kill right before the lines are written leaves it
        before = stores(server)
        assert dict(forward(graph.lake, graph.settings, batch).counts) == {"present": 5}
        assert stores(server) == before

    def test_what_the_service_refuses_is_told_by_object_id_and_tried_again(self, graph, batch, server):

        def refuse(path: str) -> None:
            if stores(server) == 1 and not any(server.faults) and server.asked[-1].startswith("POST"):
                server.faults.append(Fault(415))

        server.before = refuse
        done = forward(graph.lake, graph.settings, batch)
        assert done.counts["refused"] == 1
        ((name, why),) = done.left
        assert (len(name), why) == (20, "status 415")
        assert parity(graph, batch) == [True, False]
        server.before = lambda _: None
        assert forward(graph.lake, graph.settings, batch).counts["stored"] == 4
        assert (at_service(server), parity(graph, batch)) == (STORED, [True, True])

    def test_a_service_that_is_away_is_one_sentence_and_the_next_run_does_the_rest(self, graph, batch, server):
        server.before = lambda _: stores(server) > 2 and server.faults.append(Fault(503))
        with pytest.raises(ServiceError) as away:
            forward(graph.lake, graph.settings, batch)
        assert str(away.value).startswith("pacs: storing a file: the server answered 503")
        assert (parity(graph, batch)[0], waiting(graph.lake, graph.settings)) == (False, [batch])
        assert graph.books(batch).status == "closed"
        server.before, server.faults = lambda _: None, []
        forward(graph.lake, graph.settings, batch)
        assert (at_service(server), parity(graph, batch)) == (STORED, [True, True])

    def test_what_is_gone_since_is_told_and_the_rest_is_there(self, graph, batch, server, ingested):
        path = ingested[0] / "landing" / "a.dcm"
        path.rename(path.with_name(".away"))
        try:
            done = forward(graph.lake, graph.settings, batch)
        finally:
            path.with_name(".away").rename(path)
        assert [why for _, why in done.left] == ["OBJECT_GONE"]
        assert at_service(server) == STORED - {uid(1, 1, 1)}

    @pytest.mark.slow
    def test_objects_of_a_self_test_are_not_sent_and_accounted_for(self, tmp_path, landing, instance, server):
        landing.put("real.dcm", dicom(1, 1, 1))
        landing.put("own.dcm", dicom(2, 1, 1, StudyInstanceUID=f"{TEST_ROOT}.1"))
        settings = Settings.model_validate({
            "lake": str(tmp_path / "lake"),
            "sources": [{"name": "landing", "root": str(landing.root), "forward_to": "pacs"}],
            "services": [server.settings(retries=0, follow="nothing").model_dump()],
            "claiming": {"quiet_seconds": 0},
        })  # fmt: skip
        graph = Stepped(settings, instance, judges=False)
        (batch,) = graph.ingest()
        done = forward(graph.lake, graph.settings, batch)
        assert (done.ingested, dict(done.counts), done.left) == (2, {"stored": 1, "kept": 1}, [])
        assert at_service(server) == {uid(1, 1, 1)}
        assert not any(TEST_ROOT in one for one in server.asked)
        assert (waiting(graph.lake, graph.settings), parity(graph, batch)) == ([], [True, True])

    def test_a_batch_that_is_not_closed_is_not_forwarded(self, graph, batch):
        with graph.work() as work:
            work.batch(batch).begin("run")
        with pytest.raises(NotForwarded, match="is open"):
            forward(graph.lake, graph.settings, batch)

    def test_nothing_of_a_patient_is_written_down(self, graph, batch):
        forward(graph.lake, graph.settings, batch)
        text = str(records(graph.lake.files, batch).to_pylist())
        assert uid(1) not in text and "P0001" not in text and graph.settings.sources[0].root not in text


def asked(graph: Stepped) -> list[str]:
    resources = {"work": work_resource(graph.settings)}
    with dg.build_sensor_context(instance=graph.instance, resources=resources) as context:
        found = batches_to_forward(context)
        return [] if isinstance(found, dg.SkipReason) else [one.partition_key for one in found.run_requests]


def test_the_sensor_asks_for_what_waits_and_no_more(graph, batch):
    assert asked(graph) == []  # a partition that Dagster does not know
    register(graph.instance, [batch])
    assert asked(graph) == [batch]
    forward(graph.lake, graph.settings, batch)
    assert asked(graph) == []


@pytest.mark.slow
def test_what_is_erased_goes_from_what_was_written_down(graph, batch):
    forward(graph.lake, graph.settings, batch)
    gone = {row["object_id"] for row in graph.rows(f"FROM instance WHERE StudyInstanceUID = '{uid(1)}'")}
    erased(graph, Target(Scope.STUDY, uid(1)))
    left = {row["object_id"] for row in records(graph.lake.files, batch).to_pylist()}
    assert (len(left), left & gone) == (2, set())
    assert parity(graph, batch) == [True, True]


def test_a_service_that_is_not_configured_is_refused_at_load(tmp_path):
    with pytest.raises(ValueError, match="forward_to names no service, 'pacs'"):
        Settings.model_validate({"sources": [{"root": str(tmp_path), "forward_to": "pacs"}]})


def test_nothing_stands_in_the_graph_where_no_source_forwards(graph):
    plain = graph.settings.model_copy(update={"sources": (graph.settings.sources[0].model_copy(
        update={"forward_to": None}),)})  # fmt: skip
    for settings, there in ((graph.settings, True), (plain, False)):
        defs = build_defs(settings)
        assert (dg.AssetKey("forwarded") in defs.resolve_asset_graph().get_all_asset_keys()) is there
        assert any(job.name == JOB for job in defs.jobs or ()) is there
        assert any(sensor.name == "batches_to_forward" for sensor in defs.sensors or ()) is there


@pytest.mark.slow
def test_in_the_graph_it_fails_with_one_sentence_and_a_retry_does_the_rest(graph, batch, server):
    register(graph.instance, [batch])
    job = build_defs(graph.settings).resolve_job_def(JOB)

    def run() -> dg.ExecuteInProcessResult:
        return job.execute_in_process(
            partition_key=batch, instance=graph.instance, raise_on_error=False, run_config=QUIET
        )

    server.faults += [Fault(403)]
    failed = run()
    assert not failed.success
    (event,) = [one for one in failed.all_events if one.is_step_failure]
    assert event.step_failure_data.user_failure_data.description.startswith("pacs: ")
    server.faults.clear()
    done = run()
    checks = {one.check_name: one.passed for one in done.get_asset_check_evaluations()}
    assert (done.success, checks) == (True, {"equals_ingested": True, "none_is_left": True})
    assert at_service(server) == STORED
