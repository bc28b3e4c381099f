"""Corrections whatever the order: which of them are in force, and what they make of objects that come before or after.

Belongs here: decisions, and publishing of staged rows. Does not belong here: files of corrections (`test_corrections`).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dicom_assets.batch import corrections, publish
from dicom_assets.batch.checks.contract import CheckContext
from dicom_assets.batch.checks.rules import ALL_RULES
from dicom_assets.batch.corrections import decide, publish_corrections, resolved
from dicom_assets.lake import hierarchy
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.staging import RAW_STAGED, SCHEMAS, Part, Staging
from dicom_assets.schema.keys import correction_key
from dicom_assets.schema.registry import BATCHES
from dicom_assets_tests.support.dicoms import uid
from dicom_assets_tests.support.lakes import contents
from dicom_assets_tests.support.versions import LEVELS, NOON, Version, batch_name, flat_rows


def said_rows() -> st.SearchStrategy[list[dict[str, Any]]]:
    """Corrections of few keys, so that they meet, chain and contradict each other."""
    ids, issuers = st.sampled_from(["P1", "P2", "P3"]), st.sampled_from([None, None, "H"])
    when = st.sampled_from([NOON, NOON + timedelta(hours=1)])
    shared = {"corrected_at": when, "PatientID": ids, "IssuerOfPatientID": issuers}
    about = st.one_of(
        st.tuples(st.just("instance"), st.sampled_from([uid(1, 1, 1), uid(2, 1, 1)])),
        st.tuples(st.just("series"), st.sampled_from([uid(1, 1), uid(2, 2)])),
        st.tuples(st.just("study"), st.sampled_from([uid(1), uid(2)])),
    )
    of_objects = st.fixed_dictionaries(
        {
            **shared,
            "about": about,
            "StudyInstanceUID": st.sampled_from([None, uid(1), uid(2), uid(3)]),
            "object_source": st.sampled_from([None, "landing"]),
        }
    )
    of_persons = st.fixed_dictionaries(
        {**shared, "about": st.tuples(st.sampled_from(["patient", "patient_link"]), ids), "key_issuer": issuers}
    )
    return st.lists(st.one_of(of_objects, of_persons), min_size=1, max_size=4)


def staged_corrections(rows: list[dict[str, Any]], number: int) -> pa.Table:
    """Rows as they are staged of batch `number`."""
    made = []
    for place, said in enumerate(rows):
        (scope, key), own = said["about"], {name: value for name, value in said.items() if name != "about"}
        if scope == "patient_link" and own["PatientID"] == key:
            continue
        told = {name: own.get(name) for name in SCHEMAS[Part.CORRECTION].names} | {
            "batch_id": batch_name(number), "object_id": f"{number:020x}", "record": place, "source": "landing",
            "place_key": f"place{number}", "claimed_at": NOON, "scope": scope, "key": key, "corrected_by": "somebody",
            "state": "in_force",
        }  # fmt: skip
        names = ("scope", "object_source", "key", "key_issuer", "PatientID", "IssuerOfPatientID", "StudyInstanceUID")
        told["correction_key"] = correction_key(*(told[name] for name in names), told["corrected_at"].isoformat())
        made.append(told)
    return pa.Table.from_pylist(made, schema=SCHEMAS[Part.CORRECTION])


def objects() -> st.SearchStrategy[list[Version]]:
    one = st.builds(
        Version,
        study=st.integers(1, 2), series=st.integers(1, 2), instance=st.just(1), minute=st.integers(0, 2),
        sequence=st.integers(0, 1), deletes=st.sampled_from([False, False, False, True]),
        description=st.sampled_from([None, "a"]), patient=st.sampled_from([None, "P1", "P2", " P1 "]),
    )  # fmt: skip
    return st.lists(one, min_size=1, max_size=4)


Batch = tuple[str, dict[Part, pa.Table]]


def batches(parts: list[list[Version]], said: list[list[dict[str, Any]]]) -> list[Batch]:
    """Batches of objects, then batches of corrections, as they are staged."""
    made: list[Batch] = []
    number = 0
    for place, versions in enumerate(parts):
        own = []
        for version in versions:
            number += 1
            fields = {name: getattr(version, name) for name in Version.__dataclass_fields__}
            own.append(Version(**{**fields, "number": number, "batch": place}))
        made.append((batch_name(place), {Part.FLAT: flat_rows(own)}))
    for place, rows in enumerate(said, start=len(parts)):
        made.append((batch_name(place), {Part.CORRECTION: staged_corrections(rows, place)}))
    return made


HIERARCHY = [rule for rule in ALL_RULES if rule.table in (*LEVELS, "correction", "patient_link") and rule.blocking]


def deliver(lake: Lake, batch: str, parts: dict[Part, pa.Table]) -> Staging:
    """Publishes a batch."""
    started, staging = datetime.now(UTC), Staging(lake.files, batch)
    for part in (Part.RAW, Part.LEDGER, Part.FLAT, Part.CORRECTION, Part.ERRORS):
        schema = RAW_STAGED if part is Part.RAW else SCHEMAS[part]
        staging.stage(part, parts.get(part, schema.empty_table()))
    publish_corrections(lake, staging, "run")
    publish.publish_flat(lake, staging)
    for level in LEVELS:
        publish.publish_hierarchy(lake, staging, level)
    row = {"batch_id": batch, "source": "landing", "status": "closed", "seen": 0}
    row |= {"started_at": started, "closed_at": datetime.now(UTC)}
    lake.replace("batches", [batch], pa.Table.from_pylist([row], schema=BATCHES.schema))
    return staging


def judge(lake: Lake, staging: Staging) -> None:
    """Every rule about a batch holds."""
    for rule in HIERARCHY:
        result = rule.rule(CheckContext(lake, staging))
        assert result.passed, (rule.table, rule.name, result)


@pytest.mark.slow
@given(st.lists(objects(), min_size=1, max_size=2), st.lists(said_rows(), min_size=1, max_size=2), st.randoms())
@settings(
    max_examples=2,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
def test_the_order_in_which_files_and_corrections_arrive_makes_no_difference(empty_lake, parts, said, chance: Random):
    made = batches(parts, said)
    found = []
    for order in (made, chance.sample(made, len(made))):
        with tempfile.TemporaryDirectory() as folder:
            lake = Lake(shutil.copytree(empty_lake, f"{folder}/lake"), make=False)
            for batch, rows in order:
                staging = deliver(lake, batch, rows)
            judge(lake, staging)
            found.append(contents(lake, (*LEVELS, "correction", "patient_link")))
    assert found[0] == found[1]


def reversed_ranks(patch: pytest.MonkeyPatch) -> None:
    broken = hierarchy.CORRECTED_INSTANCE_SQL.replace("'scope': CASE", "'scope': -CASE")
    assert broken != hierarchy.CORRECTED_INSTANCE_SQL
    patch.setattr(publish, "CORRECTED_INSTANCE_SQL", broken)


def one_step(rows: Any) -> list[dict[str, Any]]:
    """Links that are not followed further than one."""
    return [
        row | {"surviving_patient_id": link["PatientID"]}
        for row in resolved(rows)
        for link in rows
        if link["scope"] == "patient_link" and link["key"] == row["PatientID"]
    ]


BREAKS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "correction.equals_staged": lambda patch: patch.setattr(
        corrections, "decide", lambda rows, last: [row | {"PatientID": "X"} for row in decide(rows, last)]
    ),
    "correction.states_follow": lambda patch: patch.setattr(corrections, "_contradicted", lambda rows: []),
    "correction.studies_are_entered": lambda patch: patch.setattr(
        corrections, "_changed", lambda *rows: corrections._Changed([], set())
    ),
    "patient_link.follows_links": lambda patch: patch.setattr(corrections, "resolved", one_step),
    "instance.is_newest": reversed_ranks,
}
"""By rule, code that is broken and that it must find."""


def said(scope: str, key: str, patient: str | None, hours: int = 0, **more: Any) -> dict[str, Any]:
    return {"about": (scope, key), "PatientID": patient, "corrected_at": NOON + timedelta(hours=hours), **more}


@pytest.mark.parametrize("rule", BREAKS)
def test_a_rule_finds_code_that_is_broken(empty_lake, tmp_path, monkeypatch, rule):
    objects_then = batches(
        [[Version(study, 1, 1, 0, 0, False, None, f"P{study}") for study in (1, 2)]],
        [
            [
                said("study", uid(1), "A"), said("patient", "P1", "B"), said("study", uid(1), "C", 1),
                said("patient_link", "P2", "P3"), said("patient_link", "P3", "P4"),
            ]
        ],
    )  # fmt: skip
    lake = Lake(shutil.copytree(empty_lake, tmp_path / "lake").as_posix(), make=False)
    BREAKS[rule](monkeypatch)
    for batch, rows in objects_then:
        staging = deliver(lake, batch, rows)
    found = {f"{one.table}.{one.name}": one.rule(CheckContext(lake, staging)) for one in HIERARCHY}
    assert not found[rule].passed


class TestDecisions:
    """What `decide` says of rows, whatever their order, also when the row in their way goes."""

    def _rows(self, *said: tuple[str, str, str, int]) -> list[dict[str, Any]]:
        return staged_corrections(
            [
                {"about": (scope, key), "PatientID": patient, "corrected_at": NOON + timedelta(hours=hours)}
                for scope, key, patient, hours in said
            ],
            1,
        ).to_pylist()

    def _states(self, *said: tuple[str, str, str, int]) -> list[str]:
        rows = self._rows(*said)
        states = [row["state"] for row in decide(rows, {})]
        assert states == [row["state"] for row in decide(rows[::-1], {})]
        return states

    def test_of_one_time_all_that_contradict_each_other_are_out_and_a_later_one_comes_in(self):
        assert self._states(("study", "1", "A", 0), ("study", "1", "B", 0), ("study", "1", "C", 1)) == [
            "contradicted", "contradicted", "in_force",
        ]  # fmt: skip

    def test_the_same_said_twice_is_no_contradiction(self):
        assert self._states(("study", "1", "A", 0), ("study", "1", "A", 1)) == ["in_force"] * 2

    def test_a_long_circle_of_one_time_is_out_whole_and_what_leads_into_it_stays(self):
        links = [("patient_link", "A", "B", 0), ("patient_link", "B", "C", 0), ("patient_link", "C", "A", 0)]
        assert self._states(*links, ("patient_link", "X", "A", 0)) == ["cyclic"] * 3 + ["in_force"]

    def test_a_chain_ends_where_its_last_link_does(self):
        rows = decide(self._rows(("patient_link", "A", "B", 2), ("patient_link", "B", "C", 1)), {})
        ends = {row["PatientID"]: row["surviving_patient_id"] for row in resolved(rows)}
        assert ends == {"A": "C", "B": "C"}

    def test_a_row_comes_into_force_when_the_one_that_kept_it_out_goes(self):
        first, second = self._rows(("study", "1", "A", 0), ("study", "1", "B", 1))
        assert [row["state"] for row in decide([first, second], {})] == ["in_force", "contradicted"]
        other = second | {"place_key": "another"}
        gone = {first["place_key"]: NOON + timedelta(hours=1)}
        assert [row["state"] for row in decide([first, other], gone)] == ["replaced", "in_force"]

    def test_a_link_of_one_issuer_counts_before_that_of_any(self):
        rows = decide(
            staged_corrections(
                [
                    said("patient_link", "A", "B"),
                    said("patient_link", "A", "C", key_issuer="H"),
                    said("patient_link", "B", "D", key_issuer="H"),
                ],
                1,
            ).to_pylist(),
            {},
        )
        ends = {(row["PatientID"], row["IssuerOfPatientID"]): row["surviving_patient_id"] for row in resolved(rows)}
        assert ends == {("A", None): "B", ("A", "H"): "C", ("B", "H"): "D"}
