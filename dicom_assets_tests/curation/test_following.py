"""Tables that follow closed batches: whatever has happened, and whenever they were brought up to date, they hold what
making them from nothing gives; a kill counts nothing twice; nothing of a patient is in them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import dagster as dg
import orjson
import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from typer.testing import CliRunner

from dicom_assets.batch.erasure import removal
from dicom_assets.batch.erasure.record import finish
from dicom_assets.batch.erasure.target import Scope, Target, find
from dicom_assets.batch.publish import publish_flat, publish_hierarchy
from dicom_assets.cli.main import app
from dicom_assets.curation import following, tag_profile
from dicom_assets.curation.following import CurationBusy, behind, follow
from dicom_assets.curation.marks import marker
from dicom_assets.curation.parity import every_series_is_judged, profiles_hold_every_object, risks
from dicom_assets.defs.graph import build_defs
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.maintenance import maintain
from dicom_assets.lake.staging import Part, Staging
from dicom_assets.schema.registry import BATCHES
from dicom_assets.storage import locks
from dicom_assets_tests.curation.support import NAMES, computed, followed
from dicom_assets_tests.support.corrections import correction, table
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.lakes import QUIET, contents
from dicom_assets_tests.support.seeds import seeds
from dicom_assets_tests.support.versions import LEVELS, Version, batch_name, flat_rows

PATIENT = {"PatientName": "CANARYBIRD^Yellow", "PatientID": "CANARY-4711", "PatientBirthDate": "19610412"}
SECTIONS = {"corrections": {"files": ["corrections/**"]}}


def begun(graph, landing) -> list[str]:
    """Two studies in two batches, one of a canary whose name stands in a text, none of them taken in."""
    marker(graph.lake.files)  # its copies mark values as it does
    landing.put_series(1, 1, 2)
    landing.put("own.dcm", dicom(9, 1, 1, FilterType="of Canarybird", **PATIENT))
    first = graph.ingest()
    landing.put("later.dcm", dicom(1, 1, 9, FilterType="canarybird"))
    return [*first, *graph.ingest()]


@pytest.mark.slow
def test_batches_are_behind_until_they_are_taken_in(states):
    graph, _, batches = states.begin(begun, **SECTIONS)
    assert (behind(graph.lake), len(batches)) == (2, 2)
    followed(graph.lake)
    assert behind(graph.lake) == 0
    before = {name: graph.lake.table(name).version() for name in NAMES}
    assert follow(graph.lake).series == 0
    assert {name: graph.lake.table(name).version() for name in NAMES} == before


@pytest.mark.slow
def test_whatever_happens_to_a_lake_what_was_made_before_makes_no_difference(states):
    graph, landing, (first, _) = states.begin(begun, **SECTIONS)
    followed(graph.lake)
    landing.put("own.dcm", dicom(9, 1, 1, InstitutionName="House", **PATIENT), age_seconds=3_600)  # overwritten
    landing.put("corrections/c.csv", table(correction("study", uid(1), StudyInstanceUID=uid(5))))
    landing.put("new.dcm", dicom(7, 1, 1, PatientName="Chest^Anna", FilterType="chest"))
    landing.put("text.dcm", dicom(8, 1, 1, FilterType="like anna"))
    graph.ingest()
    graph.run(first)  # a rerun has another run
    assert behind(graph.lake) >= 1
    found = followed(graph.lake)
    assert found == computed(graph.lake)
    risks = {row["StudyInstanceUID"]: row for row in found["phi_risk"]}
    assert (risks[uid(9)]["own_text"], "InstitutionName" in risks[uid(9)]["indirect"]) == ([], True)
    assert (uid(5) in risks, uid(1) in risks) == (True, False)
    told = {number: (risks[uid(number)]["own_text"], risks[uid(number)]["other_text"]) for number in (7, 8)}
    # a patient of a batch may be named in the text of another one
    assert told == {7: (["00181160"], []), 8: ([], ["00181160"])}

    for name in NAMES:
        maintain(graph.lake, name, 168)
    assert followed(graph.lake) == found


@pytest.mark.slow
def test_of_what_is_erased_no_hash_stays_and_the_rest_is_counted_again(states):
    graph, _, _ = states.begin(begun, **SECTIONS)
    followed(graph.lake)
    lake = graph.lake
    record = removal.begin(
        lake, Target(Scope.PATIENT, PATIENT["PatientID"]), find(lake, Target(Scope.PATIENT, PATIENT["PatientID"]), "me")
    )
    removal.carry_out(lake, graph.settings, record)
    finish(lake.files)
    left = contents(graph.lake, NAMES)
    assert uid(9) not in str(left["phi_risk"])
    assert behind(graph.lake) == 1  # the batch that brought it
    assert followed(graph.lake) == computed(graph.lake)


def deliver(lake: Lake, batch: list[Version], run: str) -> None:
    """Publishes a batch whose headers tell what its rows tell, and closes it."""
    rows = flat_rows(batch)
    said = [header(row) for row in rows.to_pylist()]
    at = rows.schema.get_field_index("header")
    staging = Staging(lake.files, batch_name(batch[0].batch))
    staging.stage(Part.FLAT, rows.set_column(at, rows.schema.field(at), pa.array(said, pa.string())))
    publish_flat(lake, staging)
    for level in LEVELS:
        publish_hierarchy(lake, staging, level)
    books = {"batch_id": staging.batch_id, "source": "landing", "status": "closed", "seen": 0, "run_id": run}
    lake.replace("batches", [staging.batch_id], pa.Table.from_pylist([books], schema=BATCHES.schema))


def header(row: dict[str, Any]) -> str | None:
    if row["operation"] == "delete":
        return None
    said = {"00080018": ("UI", row["SOPInstanceUID"]), "0008103E": ("LO", row["SeriesDescription"]),
            "00100020": ("LO", row["PatientID"])}  # fmt: skip
    return orjson.dumps(
        {tag: {"vr": vr, "Value": [one]} for tag, (vr, one) in said.items() if one is not None}
    ).decode()


def batches(chance: Random) -> list[list[Version]]:
    """Three batches of versions of few instances of a dozen studies, so that they meet."""
    numbers = iter(chance.sample(range(1, 1_000), 90))
    return [
        [
            Version(
                study=chance.randint(1, 12),
                series=chance.randint(1, 2),
                instance=chance.randint(1, 2),
                minute=chance.randint(0, 2),
                sequence=chance.randint(0, 1),
                deletes=chance.random() < 0.25,
                description=chance.choice([None, "a", "b"]),
                patient=chance.choice([None, "", "P1", "P2"]),
                number=next(numbers),
                batch=batch,
            )
            for _ in range(30)
        ]
        for batch in range(3)
    ]


@pytest.mark.slow
@given(seeds())
@settings(max_examples=1, phases=(Phase.explicit, Phase.reuse, Phase.generate))
def test_batches_and_reruns_in_any_order_taken_in_at_any_time_end_in_the_same(empty_lake, seed: int):
    chance = Random(seed)
    drawn = batches(chance)
    again = [[replace(one, description="c") for one in batch] for batch in drawn]
    steps = [*((batch, "first") for batch in drawn), *((batch, "second") for batch in again)]
    pauses = chance.sample(range(len(steps)), 3)
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(shutil.copytree(empty_lake, f"{folder}/lake"), make=False)
        for number, (batch, run) in enumerate(chance.sample(steps, len(steps))):
            deliver(lake, batch, run)
            if number in pauses:
                followed(lake)
        assert followed(lake) == computed(lake)


@pytest.mark.slow
def test_a_run_that_is_broken_off_at_any_commit_counts_nothing_twice(states, monkeypatch):
    graph, _, _ = states.begin(begun, **SECTIONS)
    monkeypatch.setattr(tag_profile, "PARTS_AT_ONCE", 1)
    wanted = computed(graph.lake)
    for at in range(1, 5):
        graph, _, _ = states.begin(begun, **SECTIONS)
        lake = graph.lake
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(lake, "commit", broken_off(lake.commit, at))
            follow(lake)
        assert behind(graph.lake) >= 1
        assert followed(graph.lake) == wanted, at


def broken_off(commit: Callable[..., bool], at: int) -> Callable[..., bool]:
    """A commit that ends the process that makes it, so to say, when it is the one of that number."""
    numbers = count(1)

    def broken(*given: Any, **named: Any) -> bool:
        if next(numbers) == at:
            raise KeyboardInterrupt
        return commit(*given, **named)

    return broken


def test_two_at_once_are_one_after_the_other(states, monkeypatch):
    graph, _, _ = states.begin(begun, **SECTIONS)
    monkeypatch.setattr(following, "WAIT_SECONDS", 0.0)
    with locks.held(graph.lake.files, following.LOCK, 0), pytest.raises(CurationBusy, match="Another process"):
        follow(graph.lake)


BREAKS = {
    "tag_profile": lambda rows: [row | {"objects": row["objects"] + 1} for row in rows],
    "phi_risk": lambda rows: [row | {"SeriesInstanceUID": "1.2"} for row in rows[:1]] + rows[1:],
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_rule_finds_rows_that_are_wrong(states, name):
    graph, _, _ = states.begin(begun, **SECTIONS)
    lake, done = graph.lake, follow(graph.lake)
    rule = {"tag_profile": profiles_hold_every_object, "phi_risk": every_series_is_judged}[name]
    table = lake.tables[name]
    rows = contents(lake, [name])[name]
    wrong = pa.Table.from_pylist(BREAKS[name](rows), schema=table.schema)
    lake.replace(name, sorted({row[table.replaced_by] for row in rows}), wrong)
    assert not rule(lake, done.versions).passed


def test_no_value_of_a_patient_is_in_tables_files_or_what_dagster_keeps(states):
    graph, _, _ = states.begin(begun, **SECTIONS)
    job = build_defs(graph.settings).resolve_job_def("curate_lake")
    result = job.execute_in_process(instance=graph.instance, run_config=QUIET)
    checks = {f"{one.asset_key.to_user_string()}.{one.check_name}": one for one in result.get_asset_check_evaluations()}
    assert {name: one.passed for name, one in checks.items()} == {
        "phi_risk.equals_instance": True,
        "phi_risk.worth_a_look": False,  # the canary's name in a text
        "tag_profile.equals_instance": True,
    }
    told = str([*contents(graph.lake, NAMES).values()]) + str(result.all_events).lower()
    for value in ("canarybird", "CANARY-4711", "1961-04-12", "19610412", "Yellow"):
        assert value.lower() not in told.lower()
    for name in NAMES:
        for path in Path(graph.settings.lake, name).rglob("*.json"):
            assert "canary" not in path.read_text().lower()
    assert risks(graph.lake).counts["text_of_own_patient"] == 1


@pytest.mark.slow
def test_dagster_asks_for_them_when_batches_have_closed_each_night_and_each_hour_while_that_fails(states, instance):
    graph, _, _ = states.begin(begun, **SECTIONS)
    defs, cursor = build_defs(graph.settings), None
    morning = datetime.now(UTC).replace(hour=6, minute=1) + timedelta(days=1)

    def closes(batch: str) -> None:
        instance.report_runless_asset_event(dg.AssetMaterialization("cleanup", partition=batch))

    def asks(minutes: float | None = None) -> bool:
        nonlocal cursor
        at = None if minutes is None else morning + timedelta(minutes=minutes)
        found = dg.evaluate_automation_conditions(defs, instance, evaluation_time=at, cursor=cursor)
        cursor = found.cursor
        keys = {name for name in NAMES if found.get_num_requested(dg.AssetKey(name))}
        assert keys in (set(), set(NAMES)), "one step makes them"
        return bool(keys)

    def runs(**given: Any) -> bool:
        job = build_defs(graph.settings, **given).resolve_job_def("curate_lake")
        return job.execute_in_process(instance=instance, run_config=QUIET, raise_on_error=False).success

    instance.add_dynamic_partitions("batch", ["one", "two"])
    assert not asks()
    closes("one")
    assert [asks(), asks()] == [True, False]
    assert runs()
    assert not asks()
    closes("two")
    assert [asks(), asks()] == [True, False]
    assert runs()
    assert [asks(0), asks(1)] == [True, False], "a night has passed"
    assert not runs(resource_overrides={"work": None})
    assert [asks(2), asks(62), asks(63)] == [False, True, False], "it failed"
    assert runs()
    assert not asks(123)


def test_dagster_asks_for_what_closed_before_it_first_looked(states, instance):
    graph, _, _ = states.begin(begun, **SECTIONS)
    instance.add_dynamic_partitions("batch", ["one"])
    instance.report_runless_asset_event(dg.AssetMaterialization("cleanup", partition="one"))
    found = dg.evaluate_automation_conditions(build_defs(graph.settings), instance)
    assert all(found.get_num_requested(dg.AssetKey(name)) for name in NAMES)


def test_the_command_takes_batches_in_and_status_says_how_many_wait(states):
    graph, _, _ = states.begin(begun, **SECTIONS)
    runner, lake = CliRunner(), ["--lake", graph.settings.lake]
    assert "2 closed batches behind" in runner.invoke(app, ["status", *lake]).stderr
    done = runner.invoke(app, ["curate", *lake, "--format", "csv"])
    assert (done.exit_code, "tag_profile,batches counted,2" in done.stdout) == (0, True)
    assert "canary" not in (done.stdout + done.stderr).lower()
    assert "behind" not in runner.invoke(app, ["status", *lake]).stderr


def test_a_lake_without_these_tables_says_that_all_batches_wait(states):
    graph, _, _ = states.begin(begun, **SECTIONS)
    for name in NAMES:
        shutil.rmtree(Path(graph.settings.lake, name))
    assert "2 closed batches behind" in CliRunner().invoke(app, ["status", "--lake", graph.settings.lake]).stderr
    followed(Lake(graph.settings.lake))
    assert behind(graph.lake) == 0
