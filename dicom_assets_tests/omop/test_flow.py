"""OMOP through the steps of a batch: ids that stay, sources that share a study, mappings, and the database."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from deltalake import DeltaTable

from dicom_assets.batch import omop_ids, standards
from dicom_assets.batch.checks.contract import CheckContext
from dicom_assets.batch.checks.rules import ALL_RULES, judged
from dicom_assets.batch.checks.standard_checks import STANDARD_RULES, coverage_is_high
from dicom_assets.batch.context import OpenBatch, RunContext
from dicom_assets.batch.publish import publish_flat, publish_hierarchy
from dicom_assets.batch.standards import publish_coverage, publish_identifiers, publish_occurrences
from dicom_assets.lake.hierarchy import REBUILDS
from dicom_assets.lake.staging import Staging
from dicom_assets.omop.ddl import copy_csv, image_occurrence_ddl, parent_ids, parents_ddl
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import Graph, settings_for, table
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.postgres import postgres
from dicom_assets_tests.support.steps import steps

OMOP = ("omop_identifier", "image_occurrence", "image_occurrence_origin")
NEEDED = {"raw_files", "validated_batch", "correction", "flat_metadata", *REBUILDS, *OMOP}
JOINED = "image_occurrence JOIN image_occurrence_origin USING (image_occurrence_id)"


@pytest.fixture
def two_sources(tmp_path: Path, instance: dg.DagsterInstance) -> Iterator[tuple[Graph, LandingFolder, LandingFolder]]:
    folders = [LandingFolder(tmp_path / name) for name in ("one", "two")]
    for folder in folders:
        folder.root.mkdir()
    yield Graph(settings_for(tmp_path / "lake", *(f.root for f in folders)), instance), folders[0], folders[1]


def take(graph: Graph) -> list[str]:
    """Claims what is new and takes every batch as far as the tables of OMOP; the batches."""
    with RunContext(graph.settings, shared_engine=InlineEngine()) as work:
        batches = graph.claim(work)
        for name in batches:
            make_omop(work.batch(name))
    return batches


def make_omop(batch: OpenBatch) -> None:
    """Makes the tables of OMOP, and what they are made from, of one batch; their blocking rules hold."""
    for (name,), make in steps(batch):
        if name in NEEDED:
            with batch.lake.look_once():
                make()
    context = judged(batch)
    found = {rule.name: rule.rule(context).passed for rule in ALL_RULES if rule.blocking and rule.table in OMOP}
    assert found and all(found.values()), found


def ids(graph: Graph) -> dict[tuple[str, str], int]:
    rows = graph.rows("SELECT source, SeriesInstanceUID AS uid, image_occurrence_id AS id FROM image_occurrence_origin")
    return {(row["source"], row["uid"]): row["id"] for row in rows}


NUMBERS = ("image_occurrence_id", "person_id", "visit_occurrence_id", "procedure_occurrence_id")


def numbers(graph: Graph) -> dict[str, dict[str, int]]:
    """By series, its ids."""
    rows = graph.rows(f"SELECT image_series_UID AS uid, {', '.join(NUMBERS)} FROM image_occurrence")
    return {row["uid"]: {name: row[name] for name in NUMBERS} for row in rows}


def given_out(graph: Graph) -> set[tuple[str, str, int]]:
    rows = graph.rows("SELECT domain, natural_key, id FROM omop_identifier")
    return {(row["domain"], row["natural_key"], row["id"]) for row in rows}


@pytest.fixture(scope="module")
def of_three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with its landing folder: three patients with a series each."""
    folder = tmp_path_factory.mktemp("three")
    landing = LandingFolder(folder / "landing")
    for patient in (1, 2, 3):
        landing.put(f"{patient}.dcm", dicom(patient, 1, 1))
    with dg.DagsterInstance.ephemeral() as instance:
        take(Graph(settings_for(folder / "lake", landing.root), instance))
    return folder


@pytest.mark.parametrize("lost", ["nothing", "the table", "every row", "the last rows", "persons", "one series"])
def test_an_id_stays_whatever_is_added_and_goes_back_when_it_is_lost_to_what_it_stands_for(
    graph: Graph, landing: LandingFolder, of_three: Path, lost: str, monkeypatch: pytest.MonkeyPatch
):
    if lost == "nothing":  # then ids are not looked through one by one
        monkeypatch.setattr(omop_ids, "_READ", "nothing is to be asked here")
    shutil.rmtree(graph.settings.lake)
    shutil.copytree(of_three / "lake", graph.settings.lake)
    before, had = numbers(graph), given_out(graph)
    lake = Path(graph.settings.lake)
    where = {
        "every row": "true", "the last rows": "abs(id) = 3", "persons": "domain = 'person'",
        "one series": "domain = 'image_occurrence' AND id = 2",
    }  # fmt: skip
    if lost == "the table":
        shutil.rmtree(lake / "omop_identifier")
    elif lost != "nothing":
        assert DeltaTable(lake / "omop_identifier").delete(where[lost])["num_deleted_rows"]
    landing.put("again.dcm", dicom(2, 2, 1))
    landing.put("other.dcm", dicom(4, 1, 1))
    take(graph)
    after = numbers(graph)
    assert {uid: after[uid] for uid in before} == before
    assert had <= given_out(graph)
    assert {name: after[uid(2, 2)][name] for name in NUMBERS[1:]} == {
        name: before[uid(2, 1)][name] for name in NUMBERS[1:]
    }
    assert sorted(row["image_occurrence_id"] for row in after.values()) == [1, 2, 3, 4, 5]
    assert after[uid(4, 1)]["person_id"] < min(row["person_id"] for row in before.values())


def test_an_id_that_is_lost_and_not_known_any_more_is_nobody_elses(graph: Graph, landing: LandingFolder):
    """Where each came from is lost as well; rows of image_occurrence are all that is left."""
    landing.put("a.dcm", dicom(1, 1, 1))
    take(graph)
    before = numbers(graph)
    for name in ("omop_identifier", "image_occurrence_origin"):
        shutil.rmtree(Path(graph.settings.lake) / name)
    landing.put("other.dcm", dicom(2, 1, 1))
    take(graph)
    after = numbers(graph)
    assert after[uid(1, 1)] == before[uid(1, 1)]
    assert all(after[uid(2, 1)][name] != before[uid(1, 1)][name] for name in NUMBERS)


def test_series_that_another_batch_adds_meanwhile_get_their_ids_too(graph: Graph, landing: LandingFolder):
    landing.put("a.dcm", dicom(1, 1, 1))
    (first,) = graph.claim()
    landing.put("b.dcm", dicom(1, 2, 1))
    (second,) = graph.claim()
    with (
        RunContext(graph.settings, shared_engine=InlineEngine()) as one,
        RunContext(graph.settings, shared_engine=InlineEngine()) as two,
    ):
        for batch in (one.batch(first), two.batch(second)):
            batch.begin("run")
            batch.judge("run")
            publish_flat(batch.lake, batch.staging)
            for name in REBUILDS:
                publish_hierarchy(batch.lake, batch.staging, name)
            if batch.batch_id == first:
                publish_identifiers(batch.lake, batch.staging, graph.settings)
        staging = one.batch(first).staging
        for name in ("image_occurrence", "image_occurrence_origin"):
            publish_occurrences(one.lake, staging, graph.settings, name)
        assert publish_identifiers(two.lake, two.batch(second).staging, graph.settings) == 0
    assert sorted(ids(graph).values()) == [1, 2]


@pytest.mark.parametrize("is_touched_meanwhile", [False, True])
def test_ids_and_both_tables_come_of_one_reading_unless_somebody_has_written_meanwhile(
    graph: Graph, landing: LandingFolder, monkeypatch: pytest.MonkeyPatch, is_touched_meanwhile: bool
):
    landing.put("a.dcm", dicom(1, 1, 1))
    (first,) = graph.claim()
    read: list[str] = []
    real = standards.occurrences
    monkeypatch.setattr(standards, "occurrences", lambda *a: read.append("again") or real(*a))
    with RunContext(graph.settings, shared_engine=InlineEngine()) as work:
        batch = work.batch(first)
        batch.begin("run")
        batch.judge("run")
        batch.publish_flat()
        for name in REBUILDS:
            publish_hierarchy(work.lake, batch.staging, name)
        publish_identifiers(work.lake, batch.staging, graph.settings)
        read.clear()
        publish_occurrences(work.lake, batch.staging, graph.settings, "image_occurrence")
        if is_touched_meanwhile:
            landing.put("b.dcm", dicom(1, 2, 1))
            (second,) = graph.claim()
            make_omop(work.batch(second))
            read.clear()
        publish_occurrences(work.lake, batch.staging, graph.settings, "image_occurrence_origin")
    assert len(read) == is_touched_meanwhile
    (rows,) = graph.rows("SELECT count(*) AS n FROM image_occurrence_origin")
    assert rows["n"] == 1 + is_touched_meanwhile


@pytest.mark.slow
def test_a_study_that_two_sources_hold_keeps_the_series_of_both_also_when_one_is_not_configured_any_more(
    two_sources: tuple[Graph, LandingFolder, LandingFolder],
):
    graph, one, two = two_sources
    one.put("a.dcm", dicom(1, 1, 1))
    take(graph)
    two.put("b.dcm", dicom(1, 1, 1))
    take(graph)
    one.put("c.dcm", dicom(1, 2, 1))
    take(replace(graph, settings=graph.settings.model_copy(update={"sources": graph.settings.sources[:1]})))
    rows = graph.rows(f"SELECT source, image_series_UID AS uid FROM {JOINED} ORDER BY ALL")
    assert [tuple(row.values()) for row in rows] == [
        ("landing", uid(1, 1)),
        ("landing", uid(1, 2)),
        ("landing2", uid(1, 1)),
    ]


def test_issuers_are_respected_and_empty_identifiers_join_nothing(graph: Graph, landing: LandingFolder):
    landing.put("a.dcm", dicom(1, PatientID="007", IssuerOfPatientID="H"))
    landing.put("b.dcm", dicom(2, PatientID="007", IssuerOfPatientID="C"))
    landing.put("c.dcm", dicom(3, PatientID="7", IssuerOfPatientID="H"))
    landing.put("d.dcm", dicom(4, PatientID=""))
    landing.put("e.dcm", dicom(5, PatientID=None))
    landing.put("f.dcm", dicom(6, PatientID=" 007 ", IssuerOfPatientID="H"))
    take(graph)
    rows = graph.rows("SELECT image_study_UID AS uid, person_id AS person FROM image_occurrence")
    person = {row["uid"]: row["person"] for row in rows}
    assert person[uid(1)] == person[uid(6)]
    assert len(set(person.values())) == 5


def test_mappings_that_are_supplied_later_reach_what_is_run_again(
    tmp_path: Path, landing: LandingFolder, instance: dg.DagsterInstance
):
    landing.put("a.dcm", dicom(1, AccessionNumber="A1"))
    first = Graph(settings_for(tmp_path / "lake", landing.root), instance)
    take(first)
    assert first.rows("SELECT person_id < 0 AS surrogate FROM image_occurrence") == [{"surrogate": True}]
    persons, orders = tmp_path / "persons.csv", tmp_path / "orders.csv"
    persons.write_text("PatientID,person_id\nP0001,501\n")
    orders.write_text("AccessionNumber,procedure_occurrence_id,visit_occurrence_id\nA1,601,701\n")
    omop = {"person_map": str(persons), "procedure_map": str(orders), "visit_map": str(orders)}
    mapped = Graph(settings_for(tmp_path / "lake", landing.root, omop=omop), instance)
    landing.put("b.dcm", dicom(1, 2, 1, AccessionNumber="A1"))
    take(mapped)
    found = mapped.rows("SELECT DISTINCT person_id AS p, procedure_occurrence_id AS o, visit_occurrence_id AS v "
                        "FROM image_occurrence")  # fmt: skip
    assert found == [{"p": 501, "o": 601, "v": 701}]
    assert mapped.rows("SELECT DISTINCT person_from AS f FROM image_occurrence_origin") == [{"f": "mapping"}]


@pytest.mark.slow
def test_the_table_of_a_lake_loads_into_postgresql(graph: Graph, landing: LandingFolder):
    landing.put("a.dcm", dicom(1, BodyPartExamined="CHEST"))
    landing.put("b.dcm", dicom(2, Modality="ZZ", StudyDate=None, PatientID=None))
    landing.put_zip("c.zip", {"x/1.dcm": dicom(3, 1, 1), "x/2.dcm": dicom(3, 2, 1)})
    take(graph)
    rows = table(graph.lake, "image_occurrence")
    with postgres() as conninfo:
        import psycopg

        with psycopg.connect(conninfo) as connection, connection.cursor() as cursor:
            cursor.execute(parents_ddl() + image_occurrence_ddl())
            for parent, wanted in parent_ids(rows).items():
                cursor.executemany(f"INSERT INTO {parent} VALUES (%s)", [(one,) for one in wanted])
            with cursor.copy("COPY image_occurrence FROM STDIN (FORMAT csv, HEADER)") as copy:
                copy.write(copy_csv(rows))
            found: list[Any] = cursor.execute("SELECT * FROM image_occurrence ORDER BY 1").fetchall()
    assert found == [tuple(row.values()) for row in rows.to_pylist()]
    assert len(found) == 4


@pytest.mark.parametrize(("unmapped", "passes", "severe"), [(0, True, False), (1, False, False), (3, False, True)])
def test_coverage_warns_and_fails_by_threshold_and_never_blocks(
    graph: Graph, landing: LandingFolder, unmapped: int, passes: bool, severe: bool
):
    for number in range(1, 5):
        landing.put(f"{number}.dcm", dicom(number, Modality="ZZ" if number <= unmapped else "CT"))
    (batch,) = take(graph)
    with graph.work() as work:
        publish_coverage(work.lake)
        result = coverage_is_high(CheckContext(graph.lake, Staging(work.lake.files, batch)))
    assert (result.passed, result.is_severe) == (passes, severe)
    (rule,) = [rule for rule in STANDARD_RULES if rule.name == "coverage_is_high"]
    assert not rule.blocking
