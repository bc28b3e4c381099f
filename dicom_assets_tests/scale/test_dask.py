"""Reading on a Dask cluster: the same rows as with processes of this machine, whatever happens to a worker."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dicom_assets.batch.context import RunContext
from dicom_assets.batch.validate import chunks
from dicom_assets.lake.staging import Part
from dicom_assets.reading import dask_engine
from dicom_assets.reading.dask_engine import ADDRESS_VARIABLE, DaskEngine
from dicom_assets.reading.engine import EngineFailed, ReadingEngine
from dicom_assets.reading.judge import judge_chunk
from dicom_assets.settings import ReadingLimits, Settings
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import settings_for
from dicom_assets_tests.support.landings import LandingFolder, put_mixed
from dicom_assets_tests.support.misbehaving import Thing, Things, read
from dicom_assets_tests.support.steps import Stepped

distributed = pytest.importorskip("distributed")

LIMITS = ReadingLimits(workers=1, chunk_objects=4)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two worker processes, replaced when they die."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL
    ) as made:
        yield made


@pytest.fixture
def expanded(tmp_path: Path) -> Iterator[tuple[RunContext, str]]:
    """A batch of forty files and some oddities, expanded and ready to be read."""
    landing = LandingFolder(tmp_path / "landing")
    landing.root.mkdir()
    put_mixed(landing)
    for study in range(2, 6):
        landing.put_series(study, 1, 8)
    settings = settings_for(tmp_path / "lake", landing.root, reading=LIMITS.model_dump())
    with RunContext(settings) as work:
        (batch,) = _claimed(work)
        work.batch(batch).begin("run")
        yield work, batch


def _claimed(work: RunContext) -> list[str]:
    from dicom_assets.landing.claims import claim_new

    return [
        claim.batch_id for store in work.stores() for claim in claim_new(store, work.log, work.settings.claiming).claims
    ]


def _read(
    work: RunContext, batch: str, engine: ReadingEngine, settings: Settings | None = None
) -> list[dict[str, Any]]:
    """What an engine makes of a batch: rows by part, chunk by chunk, without the time of judging."""
    held = work.batch(batch)
    found = []
    for judged in engine.run(judge_chunk, chunks(held.staging, settings or work.settings, held.source, "run")):
        parts = {}
        for part, arrow in judged.parts.items():
            rows = pa.ipc.open_file(pa.BufferReader(arrow)).read_all()
            varying = [name for name in ("judged_at", "occurred_at") if name in rows.schema.names]
            parts[part] = rows.drop_columns(varying).to_pylist()
        found.append({"number": judged.number, **parts})
    return found


class TestDaskEngine:
    @pytest.mark.slow
    def test_reads_what_this_machine_reads_row_for_row_and_in_order(self, cluster, expanded):
        work, batch = expanded
        with DaskEngine(cluster.scheduler_address, LIMITS) as engine:
            there = _read(work, batch, engine)
        assert there == _read(work, batch, InlineEngine())
        assert sum(len(chunk.get(Part.FLAT, ())) for chunk in there) >= 38

    @pytest.mark.slow
    def test_a_worker_that_is_killed_in_the_middle_costs_its_chunks_and_nothing_else(self, cluster, expanded):
        work, batch = expanded
        victims = iter([*distributed.Client(cluster, set_as_default=False).run(os.getpid).values()][:1])

        class Killing(DaskEngine):
            def _result(self, future: Any, task: Any) -> Any:
                for pid in victims:
                    os.kill(pid, signal.SIGKILL)
                return super()._result(future, task)

        with Killing(cluster.scheduler_address, LIMITS) as engine:
            there = _read(work, batch, engine)
        assert there == _read(work, batch, InlineEngine())

    @pytest.mark.slow
    def test_an_object_that_ends_its_reader_is_read_again_alone_on_a_worker_and_then_blamed(self, cluster):
        with DaskEngine(cluster.scheduler_address, LIMITS) as engine:
            chunk = Things([Thing("a"), Thing("b", "exit"), Thing("c")])
            assert list(engine.run(read, [chunk])) == [[("a", "read")], [("b", "PARSER_CRASH")], [("c", "read")]]

    @pytest.mark.slow
    def test_a_whole_batch_ends_in_the_same_tables(self, cluster, tmp_path, monkeypatch):
        import dagster as dg

        landing = LandingFolder(tmp_path / "landing")
        landing.root.mkdir()
        put_mixed(landing)
        monkeypatch.setenv(ADDRESS_VARIABLE, cluster.scheduler_address)
        with dg.DagsterInstance.ephemeral() as instance:
            graph = Stepped(settings_for(tmp_path / "lake", landing.root), instance, judges=False)
            (batch,) = graph.ingest()
            assert (graph.books(batch).status, graph.books(batch).balance) == ("closed", 0)
            assert graph.books(batch).ingested == 8


class TestChecksAtTheStart:
    def test_a_scheduler_that_is_not_there_is_named_with_what_to_do(self, monkeypatch):
        monkeypatch.setattr(dask_engine, "_CONNECT_SECONDS", 0.2)
        with pytest.raises(EngineFailed, match=rf"no Dask scheduler at tcp://127.0.0.1:9 .* {ADDRESS_VARIABLE}"):
            DaskEngine("tcp://127.0.0.1:9", LIMITS)

    @pytest.mark.slow
    def test_other_versions_on_the_workers_are_refused(self, cluster, expanded, monkeypatch):
        work, batch = expanded
        ours = dask_engine.versions()
        with DaskEngine(cluster.scheduler_address, LIMITS) as engine:
            differing = {**ours, "pydicom": "2.0"}
            real = engine._client.run
            monkeypatch.setattr(
                engine._client,
                "run",
                lambda function, *a, **k: (
                    {"tcp://w": differing} | dict.fromkeys(engine._client.nthreads(), ours)
                    if function is dask_engine.versions
                    else real(function, *a, **k)
                ),
            )
            with pytest.raises(EngineFailed, match=r"pydicom 2.0 on tcp://w, .* here"):
                _read(work, batch, engine)

    @pytest.mark.slow
    def test_workers_that_do_not_see_the_landing_zone_are_named(self, cluster, expanded, monkeypatch):
        work, batch = expanded
        with DaskEngine(cluster.scheduler_address, LIMITS) as engine:
            real = engine._client.run
            monkeypatch.setattr(
                engine._client,
                "run",
                lambda function, *a, **k: (
                    dict.fromkeys(engine._client.nthreads(), False)
                    if function is dask_engine.can_open
                    else real(function, *a, **k)
                ),
            )
            with pytest.raises(EngineFailed, match="2 Dask workers cannot open objects of the landing zone"):
                _read(work, batch, engine)

    def test_what_is_on_its_way_shows_no_path_in_logs(self, expanded):
        work, batch = expanded
        chunk = next(iter(chunks(work.batch(batch).staging, work.settings, work.batch(batch).source, "run")))
        task = dask_engine._Task(judge_chunk, LIMITS, chunk)
        assert repr(task) == "chunk"
