"""A holder that was stopped until its lease ended writes nothing that anybody reads, and what it leaves is removed."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
from azure.storage.blob import BlobLeaseClient

from dicom_assets.batch.books import all_books
from dicom_assets.batch.context import RunContext
from dicom_assets.lake.staging import SCHEMAS, Part, Staging
from dicom_assets.settings import Settings
from dicom_assets.storage import leases
from dicom_assets.storage.azure import container_client, parse_folder
from dicom_assets.storage.files import LakeError
from dicom_assets_tests.azure.azurite import Container
from dicom_assets_tests.support.commands import wait_for
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import Graph, contents, settings_for
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import publish

pytestmark = pytest.mark.slow


@pytest.fixture
def graph(container: Container, tmp_path: Path) -> Graph:
    """A lake on the emulator with one batch that is claimed."""
    (tmp_path / "landing").mkdir()
    LandingFolder(tmp_path / "landing").put("1.dcm", dicom())
    made = settings_for(Path("/lake"), tmp_path / "landing").model_dump()
    with dg.DagsterInstance.ephemeral() as instance:
        yield Graph(Settings.model_validate({**made, "lake": f"{container.url}/lake"}), instance)


def take_away(lake: str, batch: str) -> None:
    """Ends the lease of a batch's holder, as time does while it is stopped."""
    place = parse_folder(lake).below(f"_locks/batch-{batch}.lock")
    BlobLeaseClient(container_client(place).get_blob_client(place.path)).break_lease(lease_break_period=0)


def test_who_has_lost_its_lease_stages_nothing_more(graph, monkeypatch):
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.1)
    (batch,) = graph.claim()
    with RunContext(graph.settings, shared_engine=InlineEngine()) as stopped:
        held = stopped.batch(batch)
        held.begin("run")
        take_away(graph.settings.lake, batch)

        def is_noticed() -> bool:
            try:
                held.staging.clear(Part.LEDGER)
            except LakeError as error:
                assert "right to write was lost" in str(error)
                return True
            return False

        wait_for("the loss to be noticed", is_noticed, pause=0.01)
        for write in (lambda: held.judge("run"), held.staging.begin, held.staging.remove):
            with pytest.raises(LakeError, match="right to write was lost"):
                write()


def test_what_was_on_its_way_is_neither_read_nor_kept(graph, monkeypatch):
    """A write that passed the check before its process was stopped arrives when the batch is somebody else's."""
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.1)
    (batch,) = graph.claim()
    with (
        RunContext(graph.settings, shared_engine=InlineEngine()) as stopped,
        RunContext(graph.settings, shared_engine=InlineEngine()) as successor,
    ):
        late = stopped.batch(batch).staging
        stopped.batch(batch).begin("run")
        take_away(graph.settings.lake, batch)
        late.cache.check = lambda: None  # it looked just before

        own = successor.batch(batch)
        own.begin("run")
        row = {"study_key": "0" * 16}
        late.stage(Part.TOUCHED, SCHEMAS[Part.TOUCHED].empty_table().from_pylist([row], SCHEMAS[Part.TOUCHED]))
        for part in (Part.RAW, Part.LEDGER):
            late.put(part, 7, SCHEMAS[part].empty_table())
        assert len(Staging(own.lake.files, batch).names(Part.RAW)) == 1
        assert Staging(own.lake.files, batch).names(Part.TOUCHED) == []
        assert own.staging.names(Part.LEDGER) == []
        publish(own)
        late.put(Part.RAW, 8, SCHEMAS[Part.RAW].empty_table())
    assert [row["status"] for row in contents(graph.lake, ["batches"])["batches"]] == ["closed"]
    assert [row.seen for row in all_books(graph.lake)] == [1]
    with RunContext(graph.settings) as work:
        assert work.clear_left_staging() == [batch]
        assert work.lake.files.names("_staging") == []


def test_of_two_that_begin_at_the_same_time_one_gets_the_turn(graph):
    (batch,) = graph.claim()
    with RunContext(graph.settings, shared_engine=InlineEngine()) as work:
        held = work.batch(batch)
        held.begin("run")
        assert held.staging.folder.endswith("/000001")
        held.begin("run")
        assert held.staging.folder.endswith("/000002")
        work.lake.files.put(f"_staging/{batch}/000003/begun", b"")
        behind = held.staging
        object.__setattr__(behind, "_last_turn", lambda: 2)
        with pytest.raises(LakeError, match="Somebody else has taken over batch"):
            behind.begin()
