"""Conflicts whatever the order of batches: what comes bit by bit is what is made of everything at once.

Belongs here: versions drawn so that patients, studies, series and UIDs meet, across sources, with deletes and rules.
Does not belong here: corrections (`batch.test_corrections_in_any_order`), which values contradict (`test_conflicts`).
"""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings

from dicom_assets.batch.checks.conflict_checks import conflicts_equal_instances, conflicts_hold_the_batch
from dicom_assets.batch.checks.contract import CheckContext
from dicom_assets.batch.checks.rules import ALL_RULES
from dicom_assets.batch.publish import publish_flat, publish_hierarchy
from dicom_assets.batch.verification.findings import Sound
from dicom_assets.batch.verification.verify import conflict_rules, studies
from dicom_assets.curation import conflicts, patients
from dicom_assets.curation.conflicts import publish_conflicts
from dicom_assets.curation.uid_index import enter
from dicom_assets.lake.choice import DEFAULT, Choice
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import arrow, connect
from dicom_assets.lake.staging import Part, Staging
from dicom_assets.schema.keys import study_key
from dicom_assets.schema.registry import BATCHES, FLAT_METADATA
from dicom_assets.settings import Settings
from dicom_assets_tests.support.dicoms import uid
from dicom_assets_tests.support.lakes import contents
from dicom_assets_tests.support.seeds import seeds
from dicom_assets_tests.support.versions import LEVELS, Version, batch_name, flat_rows

TABLES = (*LEVELS, "conflict", "patient_value", "uid_index")
SETTINGS = {
    "the newest": {},
    "ranks of sources and, of some attributes, the most frequent": {
        "conflict_rule": "source_rank",
        "source_rank": ["other", "landing"],
        "attribute_rules": dict.fromkeys(("StudyDescription", "PatientID", "PatientName"), "most_frequent"),
    },
}


@dataclass(frozen=True)
class Met(Version):
    """A version whose series and instance may stand anywhere."""

    source: str = "landing"
    name: str | None = None
    issuer: str | None = None
    indicator: str | None = None
    frame: int = 0


WORLDS = 5
"""Cases in one lake, which have no study, series, instance, patient and frame of reference in common."""


def batches(chance: Random) -> list[list[Met]]:
    """Three batches of versions of few studies, series and instances of each world, so that they meet."""
    drawn: list[list[Met]] = [[] for _ in range(3)]
    numbers = iter(chance.sample(range(1, 1_000), 7 * 3 * WORLDS))
    for own in drawn:
        source = chance.choice(["landing", "landing", "other"])
        for world in range(10, 10 * WORLDS + 10, 10):
            for _ in range(chance.randint(2, 7)):
                patient = chance.choice([None, "P1", "P1 ", "P2"])
                one = Met(
                    study=world + chance.randint(1, 2),
                    series=world + chance.randint(1, 2),
                    instance=world + chance.randint(1, 3),
                    minute=chance.randint(0, 2),
                    sequence=0,
                    deletes=chance.random() < 0.25,
                    description=chance.choice([None, "a", "b", " a"]),
                    patient=patient and f"{world}{patient}",
                    number=next(numbers),
                    batch=drawn.index(own),
                    source=source,
                    name=chance.choice([None, "A^B", "A^B^ ", "C"]),
                    issuer=chance.choice([None, None, "H"]),
                    indicator=chance.choice([None, "XY", "SN"]),
                    frame=world,
                )
                own.append(one)
    return drawn


def rows_of(batch: Sequence[Met]) -> pa.Table:
    """Versions as rows of flat_metadata: a batch is of one source."""
    rows = flat_rows(batch).to_pylist()
    for row, one in zip(rows, batch, strict=True):
        row |= {"source": batch[0].source, "study_key": study_key(batch[0].source, row["StudyInstanceUID"])}
        row |= {"SeriesInstanceUID": uid(90, one.series), "SOPInstanceUID": uid(91, one.instance)}
        if not one.deletes:
            row |= {"PatientName": one.name, "IssuerOfPatientID": one.issuer, "FrameOfReferenceUID": uid(92, one.frame)}
            row |= {"PositionReferenceIndicator": one.indicator, "StudyTime": "10:11:12.50", "StudyDate": None}
    return pa.Table.from_pylist(rows, schema=FLAT_METADATA.schema)


def deliver(lake: Lake, batch: Sequence[Met], choice: Choice) -> Staging:
    """Publishes a batch as far as its conflicts, and closes it."""
    staging = publish(lake, batch, choice)
    make_conflicts(lake, staging, choice)
    close(lake, staging, batch[0].source)
    return staging


def publish(lake: Lake, batch: Sequence[Met], choice: Choice) -> Staging:
    """Publishes what conflicts are made of."""
    staging = Staging(lake.files, batch_name(batch[0].batch))
    staging.stage(Part.FLAT, rows_of(batch))
    publish_flat(lake, staging)
    for level in LEVELS:
        publish_hierarchy(lake, staging, level, choice)
    enter(lake, staging)
    return staging


def make_conflicts(lake: Lake, staging: Staging, choice: Choice) -> None:
    publish_conflicts(lake, staging.read(Part.TOUCHED)["study_key"].to_pylist(), choice)


def close(lake: Lake, staging: Staging, source: str = "landing") -> None:
    row = {"batch_id": staging.batch_id, "source": source, "status": "closed", "seen": 0}
    lake.replace("batches", [staging.batch_id], pa.Table.from_pylist([row], schema=BATCHES.schema))


def judge(lake: Lake, staging: Staging, chosen: Settings) -> None:
    for rule in ALL_RULES:
        if rule.table in ("conflict", "series", "study") and rule.blocking and rule.name != "as_registered":
            result = rule.rule(CheckContext(lake, staging, settings=chosen))
            assert result.passed, (rule.table, rule.name, result)
    with connect(lake, ["batches"]) as connection:
        closed = arrow(connection, "SELECT batch_id FROM batches")
    found = [*conflict_rules.look(Sound(lake), closed, None, chosen.curation)]
    found += [one for one in studies.look(Sound(lake), closed, None, chosen.curation) if one.rule in LEVELS]
    assert [one for one in found if not one.holds] == []


def one(number: int, **said: Any) -> Met:
    fields = {"study": 1, "series": 1, "instance": number, "minute": number, "description": "a", "patient": "P1"}
    return Met(**{**fields, "sequence": 0, "deletes": False, "number": number, **said})


def test_what_two_open_batches_share_is_judged_by_the_one_that_closes_last(empty_lake, tmp_path):
    lake = Lake(shutil.copytree(empty_lake, tmp_path / "lake").as_posix(), make=False)
    first = publish(lake, [one(1)], DEFAULT)
    make_conflicts(lake, first, DEFAULT)
    second = publish(lake, [one(2, batch=1, description="b")], DEFAULT)
    for own in (first, second):
        assert conflicts_equal_instances(CheckContext(lake, own)).passed
    assert conflicts_hold_the_batch(CheckContext(lake, first)).passed
    close(lake, first)
    assert not conflicts_hold_the_batch(CheckContext(lake, second)).passed
    make_conflicts(lake, second, DEFAULT)
    assert conflicts_hold_the_batch(CheckContext(lake, second)).passed


BREAKS: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "differences go unseen": (
        "equals_instances",
        lambda patch: patch.setattr(conflicts, "_doubtful", lambda *_: pa.table({"attributes": []})),
    ),
    "another value is shown": (
        "equals_instances",
        lambda patch: patch.setattr(conflicts, "_shown", lambda *_: defaultdict(lambda: defaultdict(lambda: "a"))),
    ),
    "UIDs in other studies go unseen": (
        "equals_instances",
        lambda patch: patch.setattr(conflicts.uid_index, "other_studies", lambda *_: set()),
    ),
    "a patient's other studies go unseen": (
        "patients_equal_instances",
        lambda patch: patch.setattr(conflicts, "_OTHERS", conflicts._OTHERS + " LIMIT 0"),
    ),
    "who is nobody becomes one patient": (
        "patients_equal_instances",
        lambda patch: patch.setattr(patients, "patient_key", lambda *_: "0" * 16),
    ),
    "the index of UIDs has gaps": (
        "uids_are_indexed",
        lambda patch: patch.setattr(
            conflicts.uid_index, "uid_numbers", lambda uids: np.array([len(uid) for uid in uids])
        ),
    ),
}
"""By what goes wrong, the rule that must say so, and the code that is broken."""


@pytest.mark.parametrize("fault", BREAKS)
def test_a_rule_finds_code_that_is_broken(empty_lake, tmp_path, monkeypatch, fault: str):
    lake = Lake(shutil.copytree(empty_lake, tmp_path / "lake").as_posix(), make=False)
    nobody = [one(number, study=number, series=number, patient=None, name="D") for number in (5, 6)]
    made = [
        [one(1, name="A^B"), one(2, description="b"), *nobody],
        [one(3, study=2, batch=1, name="C"), one(4, study=2, series=2, batch=1, patient=None)],
    ]
    rule, do = BREAKS[fault]
    do(monkeypatch)
    for batch in made:
        staging = deliver(lake, batch, DEFAULT)
        found = {one.name: one.rule(CheckContext(lake, staging)) for one in ALL_RULES if one.table == "conflict"}
        if not found[rule].passed:
            return
    pytest.fail(f"{rule} holds")


def test_a_series_shows_the_patient_whom_most_of_its_objects_name(empty_lake, tmp_path):
    """Whose a study is follows another rule: every rule has to know that it is not the one of its series."""
    chosen = Settings.model_validate({"curation": {"attribute_rules": {"PatientID": "most_frequent"}}})
    lake = Lake(str(shutil.copytree(empty_lake, tmp_path / "lake")), make=False)
    staging = deliver(lake, [one(1), one(2), one(3, patient="P2")], Choice.of(chosen.curation))
    assert [row["PatientID"] for row in contents(lake, ["series"])["series"]] == ["P1"]
    judge(lake, staging, chosen)


@pytest.mark.slow
@pytest.mark.parametrize("rule", SETTINGS)
@given(seed=seeds())
@settings(max_examples=1, phases=(Phase.explicit, Phase.reuse, Phase.generate))
def test_any_order_of_batches_gives_the_same_conflicts_and_every_rule_holds(empty_lake, rule: str, seed: int):
    chance = Random(seed)
    chosen = Settings.model_validate({"curation": SETTINGS[rule]})
    choice = Choice.of(chosen.curation)
    first = batches(chance)
    with tempfile.TemporaryDirectory() as folder:
        lake, other = (Lake(shutil.copytree(empty_lake, f"{folder}/{name}"), make=False) for name in ("one", "other"))
        for batch in first:
            staging = deliver(lake, batch, choice)
        judge(lake, staging, chosen)
        deliver(lake, chance.choice(first), choice)  # again
        found = contents(lake, TABLES)
        make_again(lake, choice)
        assert contents(lake, TABLES) == found
        for batch in chance.choice([*permutations(first)][1:]):
            deliver(other, batch, choice)
        assert contents(other, TABLES) == found


def make_again(lake: Lake, choice: Choice) -> None:
    """Makes all conflicts at once, from nothing."""
    with connect(lake, ["flat_metadata", "conflict", "patient_value"]) as connection:
        keys = arrow(connection, "SELECT DISTINCT study_key FROM flat_metadata")["study_key"].to_pylist()
        for name in ("conflict", "patient_value"):
            column, none = lake.tables[name].replaced_by, lake.tables[name].schema.empty_table()
            had = arrow(connection, f"SELECT DISTINCT {column} AS key FROM {name} ORDER BY 1")["key"].to_pylist()
            assert had
            lake.replace(name, had, none)
    publish_conflicts(lake, keys, choice)
