"""A folder that cannot be listed: told, with all else claimed, and claimed itself as soon as it can be."""

from __future__ import annotations

import os

import pytest

from dicom_assets.cli.sources import tell_doubts
from dicom_assets.defs.runner import ingest
from dicom_assets_tests.defs.test_sensors import tick
from dicom_assets_tests.support.dicoms import dicom

pytestmark = pytest.mark.usefixtures("without_dagster", "as_far_as_hierarchy")


@pytest.fixture
def locked(landing, monkeypatch):
    """A folder `DOE^JANE` with one object that cannot be listed, beside one that can."""
    landing.put("DOE^JANE/a.dcm", dicom(1))
    landing.put("b.dcm", dicom(2))
    scandir = os.scandir

    def refuse(path):
        if os.fsencode(path).endswith(b"JANE"):
            raise PermissionError(13, "no")
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr("dicom_assets.landing.local.os.scandir", refuse)
        yield patch


@pytest.mark.slow
def test_is_told_by_ingest_errors_and_status_without_its_name_and_the_rest_is_ingested(graph, locked, capsys):
    ended = ingest(graph.settings, graph.instance)
    assert [(one.status, one.seen) for one in ended.books] == [("closed", 1)]
    assert not ended.closed
    assert ended.troubles == ("Source 'landing': 1 folder could not be read; see `dicom-assets errors`.",)
    (row,) = graph.rows("SELECT code, severity, uri, detail, batch_id FROM ingestion_errors")
    assert row["uri"].endswith("/DOE%5EJANE/")
    assert (row["code"], row["severity"], row["detail"], row["batch_id"]) == (
        "FOLDER_UNREADABLE",
        "error",
        "Permission denied",
        "source-landing",
    )
    tell_doubts(graph.lake)
    assert capsys.readouterr().err.strip() == ended.troubles[0]


def test_does_not_end_a_tick_and_is_entered_once(graph, locked):
    assert len(tick(graph).run_requests) == 1
    before = graph.lake.table("ingestion_errors").version()
    tick(graph)
    assert graph.lake.table("ingestion_errors").version() == before


@pytest.mark.slow
def test_is_claimed_when_it_can_be_read_again_and_told_no_more(graph, locked, capsys):
    ingest(graph.settings, graph.instance)
    locked.undo()
    ended = ingest(graph.settings, graph.instance)
    assert ended.closed
    assert [(one.status, one.ingested) for one in ended.books] == [("closed", 1)]
    assert graph.rows("SELECT * FROM ingestion_errors") == []
    tell_doubts(graph.lake)
    assert capsys.readouterr().err == ""
