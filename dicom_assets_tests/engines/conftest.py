"""Two lakes that engines read: one that much has happened to, and one of an earlier release, brought up to date."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from dicom_assets.batch.promotion import declare, fill
from dicom_assets.batch.withdrawals import audit, follow
from dicom_assets.cli.demo import write_demo
from dicom_assets.defs.jobs import register
from dicom_assets.dicom.from_header import values_of
from dicom_assets.lake import maintenance
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import existing
from dicom_assets.schema.promoted import promoted
from dicom_assets.schema.registry import TABLES
from dicom_assets_tests.support.clinical_resources import as_ndjson
from dicom_assets_tests.support.corrections import correction, link, table
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.lakes import settings_for
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import Stepped, step_through
from dicom_assets_tests.upgrade.lakes import unpacked, upgrade

LABS = {
    "name": "labs",
    "files": ["labs/**"],
    "patient_id_column": "Pat No",
    "key_columns": ["lab_id"],
}
ODD = "odd \"name' of\\a`[column]"
"""A title that needs quoting in every SQL."""

_LABS = [
    ["lab_id", "Pat No", "value", "taken", "day", "known", ODD],
    ["1", "1CT1", "5.5", "2024-01-31T08:00:00+02:00", "2024-01-31", "true", "a"],
    ["2", "98890234", "-1e3", "2024-02-01T09:30:00Z", "2024-02-01", "false", 'it\'s \\ a "b"'],
    ["3", " 1CT1 ", "", "", "", "", ""],
]


def _csv(rows: list[list[str]]) -> str:
    sink = io.StringIO()
    csv.writer(sink, lineterminator="\n").writerows(rows)
    return sink.getvalue()


@dataclass(frozen=True)
class Told:
    """A lake with its landing zone."""

    graph: Stepped
    landing: LandingFolder

    @property
    def folder(self) -> Path:
        """Where the lake lies."""
        return Path(self.graph.settings.lake)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """The demo's files and the lake that is made of them."""
    folder = tmp_path_factory.mktemp("demo")
    landing = LandingFolder(folder / "landing")
    write_demo(landing.root)
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Stepped(settings_for(folder / "lake", landing.root), instance, judges=False)
        step_through(graph, judges=False)
        yield Told(graph, landing)


@pytest.fixture(scope="session")
def changed(demo: Told, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """The same, and what a lake goes through: files replaced and deleted, corrections, datasets, a promoted column,
    merges, vacuum."""
    folder = tmp_path_factory.mktemp("changed")
    shutil.copytree(demo.folder, folder / "lake")
    landing = demo.landing
    settings = settings_for(
        folder / "lake", landing.root, corrections={"files": ["corrections/**"]}, clinical={"datasets": [LABS]}
    )
    graph = Stepped(settings, demo.graph.instance, judges=False)
    landing.put_series(71, 1, 3)
    landing.put("old/1.dcm", dicom(72, 1, 1, PatientOrientation=["L", "P"]))
    landing.put("labs/1.csv", _csv(_LABS))
    landing.put("fhir/ct.dcm", dicom(73, 1, 1, PatientID="P0001", IssuerOfPatientID=None, Modality="CT"))
    landing.put("fhir/records.ndjson", as_ndjson())
    landing.put("corrections/1.csv", table(correction("study", uid(71), AccessionNumber="A1"), link("OLD", "1CT1")))
    step_through(graph, judges=False)
    newer = dicom(72, 1, 1, PatientOrientation=["A", "F"], StudyDescription="again")
    landing.put("old/1.dcm", newer, age_seconds=9_000)
    landing.put("records.csv", "PatientID;diagnosis\n\x0bOLD ;Migraine\n")
    step_through(graph, judges=False)
    (landing.root / "study71/series1/0002.dcm").unlink()
    with graph.work() as work:
        found = audit(work.lake, work.looks, settings, settings.sources[0])
        claims = [claim.batch_id for claim in follow(work.lake, work.log, settings, found)]
    register(graph.instance, claims)
    assert all(graph.run(batch).success for batch in claims)

    lake = Lake(settings.lake, take=values_of)
    declare(lake, [promoted("PatientOrientation", name="orientation", level="series")])
    fill(lake)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maintenance, "NEIGHBOURS", 2)
        for name in TABLES:
            maintenance.maintain(lake, name, 0)
    return Told(graph, landing)


@pytest.fixture(scope="session")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lake that the first release wrote, brought up to date and vacuumed: many files lack many columns."""
    with unpacked("format1") as first:
        settings = first.copy(tmp_path_factory.mktemp("earlier") / "lake")
        upgrade(settings)
        lake = Lake(settings.lake)
        assert lake.is_mixed("clinical")
        for name in TABLES:
            with lake.committing(name):
                lake.table(name).vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
    # Not from within: whoever unpacks that lake next waits until the place is free.
    return Path(settings.lake)


def opened(folder: Path) -> Lake:
    """A lake to read."""
    return existing(str(folder))
