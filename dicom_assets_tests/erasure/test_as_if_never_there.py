"""After an erasure the lake says what one says that never had it, whatever the order in which things had come.

Belongs here: objects that meet those that go in each table that is made of several objects, in orders that are drawn.
Does not belong here: where traces may stand (`test_removal`).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import dagster as dg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dicom_assets.batch.context import RunContext
from dicom_assets.batch.erasure.target import Scope, Target
from dicom_assets.batch.verification.verify import verify
from dicom_assets.curation.following import follow
from dicom_assets.schema.registry import TABLES
from dicom_assets_tests.support.canaries import erased
from dicom_assets_tests.support.corrections import correction, table
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import settings_for
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import Stepped, judging, steps
from dicom_assets_tests.upgrade.lakes import rows

BOOKS = {"raw_files", "validated_batch", "batches", "erasure", "batch_study"}
"""Where a row stays for what was erased; and the index of which batch touched which study, which may say one more."""
NUMBERED = {"omop_identifier", "image_occurrence", "image_occurrence_origin"}
"""Whose integers are given out in order, and to nobody again."""
OF_A_LAKE = {
    *("mark", "made_from", "value_marks", "value_shares", "text_marks"),  # keyed by the lake
    *("told_first_at", "told_last_at", "first_claimed_at", "last_claimed_at"),
}
TOLD_THEN = {"ERASED", "SOP_INSTANCE_CONFLICT"}
"""Remarks that say of an object that stays what was so when it arrived, and of one that goes that it went."""
COMPARED = [name for name in TABLES if name not in BOOKS | NUMBERED]


def image(study: int, instance: int, **said: Any) -> bytes:
    """A slice of a series, which says which image it is."""
    told: dict[str, Any] = {
        "ContentTime": f"1011{study:02d}.{instance:03d}", "Rows": 2, "Columns": 2, "BitsAllocated": 8,
        "SamplesPerPixel": 1, "PixelData": bytes([study, instance, 0, 0]), "PixelSpacing": [1, 1],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, instance],
        "FrameOfReferenceUID": uid(study, 0),
    }  # fmt: skip
    return dicom(study, 1, instance, **told | said)


@dataclass(frozen=True)
class Case:
    """What is erased, in studies of its own. first: the number of the study before its first one. name: of a patient.

    target: of which scope, and its key. goes: the beginnings of the names of what a lake would lack that never had it.
    """

    first: int
    name: str
    scope: Scope
    goes: tuple[str, ...]
    is_corrected: bool = True

    @property
    def target(self) -> Target:
        """What is erased."""
        keys = {Scope.STUDY: uid(self.first + 1), Scope.INSTANCE: uid(self.first + 1, 1, 1),
                Scope.PATIENT: f"P{self.first + 1:04d}"}  # fmt: skip
        return Target(self.scope, keys[self.scope])

    def objects(self) -> Mapping[str, bytes]:
        """What meets in it, by name."""
        one, two, three, four = (self.first + number for number in (1, 2, 3, 4))
        patient, person = f"P{one:04d}", f"Gone^{self.name}"
        sent = {"StudyInstanceUID": uid(three), "SOPInstanceUID": uid(three, 1, 2), "PatientID": f"Q{three}"}
        return {
            "1/1.dcm": image(one, 1, PatientName=person),
            "1/2.dcm": image(one, 2, PatientName=person, StudyDescription="another"),
            "1/copy.dcm": image(one, 1, PatientName=person),
            "2/1.dcm": image(two, 1, PatientID=patient, PatientBirthDate="19610412"),  # the patient, in another study
            "2/uid.dcm": image(two, 2, PatientID=patient, SOPInstanceUID=uid(one, 1, 1)),  # under the same UID
            "3/sent.dcm": image(one, 2, **sent),  # and the series
            "3/sent-again.dcm": image(one, 2, **sent),
            "3/text.dcm": image(three, 9, FilterType=f"like {self.name}"),
            "4/1.dcm": image(four, 1),
            "4/2.dcm": image(four, 5, StudyDescription="another"),
        }

    def corrections(self) -> Mapping[str, str]:
        """Tables of corrections, of which one may come, by name."""
        one, two, three, four = (uid(self.first + number) for number in (1, 2, 3, 4))
        said = {
            "away.csv": correction("study", one, StudyInstanceUID=two),
            "into.csv": correction("study", three, StudyInstanceUID=one),
            "other.csv": correction("study", four, PatientID=f"P{self.first + 1:04d}"),
        }
        return {name: table(row) for name, row in said.items()} if self.is_corrected else {}


STAYING = {"4/1.dcm": 0, "4/2.dcm": 1}
"""What makes each batch one of both lakes."""
CASES = (
    Case(0, "Aurelia", Scope.STUDY, ("1/", "away")),
    Case(10, "Berenike", Scope.INSTANCE, ("1/1", "1/copy", "2/uid")),
    Case(20, "Cordula", Scope.PATIENT, ("1/", "2/"), is_corrected=False),
)

Turns = list[dict[str, int]]
"""Of each case, by name of a file the batch in which it has come: 0 or 1."""


def history(chance: Random) -> Turns:
    """In which batch what may meet has come, and which correction came."""
    turns = []
    for case in CASES:
        come = [*case.objects(), *chance.sample([*case.corrections()], 1 if case.is_corrected else 0)]
        turns.append({name: chance.randint(0, 1) for name in come} | STAYING)
    return turns


def put(landing: LandingFolder, turns: Turns, turn: int) -> None:
    """Puts what came in a batch where it lies, always as old."""
    for case, own in zip(CASES, turns, strict=True):
        for name in [name for name, came in own.items() if came == turn]:
            objects = case.objects()
            place = f"{case.first}/{name}" if name in objects else f"corrections/{case.first}/{name}"
            data = objects[name] if name in objects else case.corrections()[name]
            os.utime(landing.put(place, data), (1_700_000_000, 1_700_000_000))


@contextmanager
def lake_of(empty: Path, landing: LandingFolder, turns: Turns) -> Iterator[Stepped]:
    """A lake that has what came, in two batches, and follows them."""
    shutil.rmtree(landing.root, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.ephemeral() as instance:
        shutil.copytree(empty, f"{folder}/lake")
        configured = settings_for(Path(folder, "lake"), landing.root, corrections={"files": ["corrections/**"]})
        graph = Stepped(configured, instance)
        for turn in (0, 1):
            put(landing, turns, turn)
            (batch,) = graph.claim()
            with RunContext(graph.settings, shared_engine=InlineEngine()) as work, judging(False):  # `verify` does
                for _, make in steps(work.batch(batch)):
                    make()
            assert graph.books(batch).status == "closed"
        follow(graph.lake)
        yield graph


def everything(graph: Stepped) -> dict[str, list[dict[str, Any]]]:
    """What the tables say, but for when, by which batch, and hashes that are a lake's own."""
    follow(graph.lake)
    lake = graph.lake
    found = {name: rows(lake, name) for name in COMPARED}
    found["ingestion_errors"] = [row for row in found["ingestion_errors"] if row["code"] not in TOLD_THEN]
    return {
        name: sorted(({k: v for k, v in row.items() if k not in OF_A_LAKE} for row in own), key=repr)
        for name, own in found.items()
    }


@pytest.mark.slow
@given(st.integers(0, 2**32))
@settings(
    max_examples=1,  # of each case, in a lake of all of them
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
def test_what_remains_is_what_a_lake_says_that_never_had_it(empty_lake, tmp_path_factory, seed):
    turns = history(Random(seed))
    landing = LandingFolder(tmp_path_factory.mktemp("place") / "landing")
    with lake_of(empty_lake, landing, turns) as graph:
        for case in CASES:
            erased(graph, case.target)
        assert [one for one in verify(graph.lake, graph.settings).findings if not one.holds] == []
        left = everything(graph)
    without = [
        {name: turn for name, turn in own.items() if not name.startswith(case.goes)}
        for case, own in zip(CASES, turns, strict=True)
    ]
    with lake_of(empty_lake, landing, without) as graph:
        assert left == everything(graph)
