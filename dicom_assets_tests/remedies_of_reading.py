"""Cases of remedies for what could not be read: reading processes that come to an end, objects that are away or change.

`test_remedies` runs them.
"""

from __future__ import annotations

from collections.abc import Iterator

from dicom_assets.batch.context import RunContext
from dicom_assets.reading import judge
from dicom_assets.reading.engine import ProcessEngine
from dicom_assets.schema.codes import CODES
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.faults import refusing
from dicom_assets_tests.support.harmed_judge import LARGE, SHORT_OF_MEMORY, SLOW, judge_slowly
from dicom_assets_tests.support.lakes import TABLES_OF_A_BATCH, make_asset
from dicom_assets_tests.support.remedies import Zone, remedied_together, remedy

GOOD = dicom()


class Slow:
    """Reading processes with the reader above."""

    def __init__(self, engine: ProcessEngine) -> None:
        self._engine = engine

    def run(self, function, chunks):
        return self._engine.run(judge_slowly if function is judge.judge_chunk else function, chunks)


def run_in_processes(zone: Zone, batch: str) -> None:
    settings = zone.graph.settings
    with ProcessEngine(settings.reading) as engine, RunContext(settings, shared_engine=Slow(engine)) as work:
        for name in TABLES_OF_A_BATCH:
            make_asset(name, batch, work)


def read_again(code: str, what: str, setting: str, low: float, high: float) -> None:
    """Enters a case in which a bound of the reading of one object is raised."""

    def case(zone: Zone) -> None:
        zone.landing.put("a.dcm", dicom(SeriesDescription=what))
        zone.settle(reading={setting: low})
        (batch,) = zone.graph.claim()
        run_in_processes(zone, batch)
        assert zone.codes("a.dcm") == {code, "quarantined"}
        assert f"reading.{setting}" in CODES[code].remedy
        assert "run its batch again" in CODES[code].remedy
        zone.settle(reading={setting: high})
        run_in_processes(zone, batch)
        assert zone.codes("a.dcm") == {"ingested"}
        assert zone.graph.books(batch).status == "closed"

    remedy(code)(case)


read_again("PARSER_TIMEOUT", SLOW, "object_seconds", 0.4, 20)
read_again("PARSER_CRASH", LARGE, "worker_memory_bytes", 2**28, 2**31)


# What could not be read, or was not there.


@remedy("READER_KILLED")
def _(zone: Zone) -> None:
    short = zone.landing.root.parent / SHORT_OF_MEMORY
    short.touch()
    zone.landing.put("a.dcm", dicom(SeriesDescription=SHORT_OF_MEMORY))
    (batch,) = zone.graph.claim()
    run_in_processes(zone, batch)
    with zone.graph.work() as work:
        assert work.log.returned()["code"].to_pylist() == ["READER_KILLED"]
    assert zone.codes("a.dcm") == set()
    short.unlink()
    zone.ingest()
    assert zone.codes("a.dcm") == {"ingested"}


@remedied_together("READ_FAILED")
def _(zone: Zone, folder: str) -> Iterator[None]:
    with refusing(zone.landing.put(f"{folder}/a.dcm", GOOD)):
        yield
        yield
    with zone.graph.work() as work:
        returned = [row["code"] for row in work.log.returned().to_pylist() if f"/{folder}/" in row["uri"]]
    assert returned == ["READ_FAILED"]
    assert zone.codes("a.dcm", folder=folder) == set()
    yield
    yield
    assert zone.codes("a.dcm", folder=folder) == {"ingested"}


@remedy("SOURCE_UNAVAILABLE")
def _(zone: Zone) -> None:
    zone.landing.put("a.dcm", GOOD)
    (batch,) = zone.graph.claim()
    root, away = zone.landing.root, zone.landing.root.with_name("away")
    root.rename(away)
    zone.graph.run(batch)
    assert zone.graph.books(batch).status == "paused"
    assert "SOURCE_UNAVAILABLE" in zone.codes("a.dcm")
    away.rename(root)
    zone.run_again(batch)
    assert zone.codes("a.dcm") == {"ingested"}


@remedied_together("OBJECT_GONE")
def _(zone: Zone, folder: str) -> Iterator[None]:
    path = zone.landing.put(f"{folder}/a.dcm", GOOD)
    yield
    moved = path.rename(zone.landing.root.parent / "moved by mistake")
    yield
    assert zone.codes("a.dcm", folder=folder) == {"OBJECT_GONE", "quarantined"}
    moved.rename(path)
    yield
    yield
    assert zone.codes("a.dcm", folder=folder) == {"ingested"}


@remedied_together("CHANGED_DURING_READ")
def _(zone: Zone, folder: str) -> Iterator[None]:
    zone.landing.put(f"{folder}/a.dcm", GOOD)
    yield
    zone.landing.put(f"{folder}/a.dcm", GOOD, age_seconds=3_600)
    yield
    assert zone.codes("a.dcm", folder=folder) == {"CHANGED_DURING_READ", "quarantined"}
    yield
    yield
    assert zone.codes("a.dcm", folder=folder) == {"ingested"}
