"""A lake whose books have something of everything, whose pages the tests ask for.

Belongs here: the lake, made once for a session. Does not belong here: what is asserted.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from dicom_assets.batch.books import Status
from dicom_assets.landing.looks import Look, Looks, Memory
from dicom_assets_tests.catalogue.shown_lake import Shown
from dicom_assets_tests.support.dicoms import dicom, without_identity
from dicom_assets_tests.support.lakes import settings_for
from dicom_assets_tests.support.landings import LandingFolder, put_mixed
from dicom_assets_tests.support.steps import Stepped

MARKUP = "<img src=x onerror=alert(1)>"
ANSI = "\x1b[31mred"
FORMULA = "=cmd|' /C calc'!A1.dcm"


@dataclass(frozen=True)
class Kept(Shown):
    """A lake of four batches: source `landing` has a closed and a paused one, `landing2` a closed and a claimed one."""

    closed: str
    paused: str
    other: str
    claimed: str


def kept_books(root: Path) -> Kept:
    """Makes the lake."""
    first, second = LandingFolder(root / "landing"), LandingFolder(root / "landing2")
    put_mixed(first)
    first.put_zip("odd-names.zip", {f"{MARKUP}{ANSI}.dcm": without_identity(2), FORMULA: without_identity(3)})
    second.put_series(1, 1, 2, folder="again")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of a value that is none
        second.put("mr.dcm", dicom(8, Modality="<B>MR</B>", StudyDate="20190501", PatientID=None))
    second.put("undated.dcm", dicom(9, StudyDate=None))
    settings = settings_for(root / "lake", first.root, second.root)
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Stepped(settings, instance, judges=False)
        closed, other = graph.ingest()
        for number in range(12):
            first.put(f"broken/{number}.dcm", without_identity(10 + number))
        (paused,) = graph.ingest()
        assert graph.books(paused).status == Status.PAUSED
        second.put("late.dcm", dicom(8, 2, 1))
        (claimed,) = graph.claim()
        then = datetime.now(UTC) - timedelta(hours=3)
        had, has = (Look(objects, then.isoformat(), 1, "scope") for objects in (40, 0))
        Looks(graph.lake.files).remember("landing2", Memory(had, has))
    return Kept(settings, graph, closed, paused, other, claimed)
