"""Whose record it is does not change without a word: ids are those of a server, and a change waits for a person."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dicom_assets.batch.context import RunContext
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import Graph, settings_for
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import Stepped, publish, step_through


def stamped(day: int, source: str | None = None) -> dict[str, Any]:
    """Meta of a version of this day."""
    return {"meta": {"lastUpdated": f"2024-01-{day:02d}T00:00:00Z", **({"source": source} if source else {})}}


def patient(name: str, *values: str, day: int = 1, source: str | None = None) -> dict[str, Any]:
    identifiers = [{"system": "http://hosp", "value": value} for value in values]
    old = [{**one, "use": "old"} for one in identifiers[1:]]
    return {"resourceType": "Patient", "id": name, "identifier": identifiers[:1] + old, **stamped(day, source)}


def condition(name: str, subject: str, day: int = 1, source: str | None = None) -> dict[str, Any]:
    return {
        "resourceType": "Condition",
        "id": name,
        "subject": {"reference": f"Patient/{subject}"},
        **stamped(day, source),
    }


def ndjson(*resources: dict[str, Any]) -> str:
    return "".join(json.dumps(one) + "\n" for one in resources)


def lake_of(
    folder: Path,
    instance: dg.DagsterInstance,
    deliveries: list[tuple[str, str]],
    sections: dict[str, Any] | None = None,
) -> tuple[Graph, LandingFolder]:
    """A lake into which each file came by a batch of its own."""
    landing = LandingFolder(folder / "landing")
    landing.root.mkdir(parents=True)
    graph = Stepped(settings_for(folder / "lake", landing.root, **(sections or {})), instance)
    for name, text in deliveries:
        landing.put(name, text)
        step_through(graph)
    return graph, landing


def of_patients(graph: Graph) -> list[tuple[str, str | None]]:
    """Each record that counts, by type, id and day, with its patient."""
    rows = graph.rows(
        "SELECT record_type || '/' || resource_id || ' of ' || coalesce(day(last_updated), 0) AS name, PatientID "
        "FROM clinical ORDER BY ALL"
    )
    return [(row["name"], row["PatientID"]) for row in rows]


def held(graph: Graph) -> list[str]:
    """Details of the errors of identity."""
    sql = "SELECT detail FROM ingestion_errors WHERE code = 'IDENTITY_CHANGED' AND severity = 'error' ORDER BY ALL"
    return [row["detail"] for row in graph.rows(sql)]


def run_again(graph: Graph, sections: dict[str, Any]) -> Graph:
    """Every batch again, with other settings."""
    root = Path(graph.settings.sources[0].root)
    again = Stepped(settings_for(Path(graph.settings.lake), root, **sections), graph.instance)
    with again.work() as work:
        batches = [claim.batch_id for claim in work.log.claims()]
    for name in batches:
        with RunContext(again.settings, shared_engine=InlineEngine()) as work:
            publish(work.batch(name))
    return again


TWO_SERVERS = [
    ("north/1.ndjson", ndjson(patient("p1", "A"), condition("c1", "p1"))),
    ("south/1.ndjson", ndjson(patient("p1", "B", day=2), condition("c1", "p1", day=2))),
]


class TestIdsOfTwoServers:
    def test_servers_of_paths_keep_them_apart(self, tmp_path: Path, instance: dg.DagsterInstance):
        servers = [{"name": "http://north", "files": ["north/**"]}, {"name": "http://south", "files": ["south/**"]}]
        graph, _ = lake_of(tmp_path, instance, TWO_SERVERS, {"fhir": {"servers": servers}})
        rows = graph.rows("SELECT server, record_type AS kind, PatientID FROM clinical ORDER BY ALL")
        assert [tuple(row.values()) for row in rows] == [
            ("http://north", "Condition", "A"),
            ("http://north", "Patient", "A"),
            ("http://south", "Condition", "B"),
            ("http://south", "Patient", "B"),
        ]
        assert held(graph) == []

    def test_what_the_resource_says_of_its_source_keeps_them_apart_without_its_fragment(
        self, tmp_path: Path, instance: dg.DagsterInstance
    ):
        north, south = "http://north#request-1", "http://south#request-2"
        deliveries = [
            ("1.ndjson", ndjson(patient("p1", "A", source=north), condition("c1", "p1", source="http://north#other"))),
            ("2.ndjson", ndjson(patient("p1", "B", day=2, source=south), condition("c1", "p1", 2, south))),
        ]
        graph, _ = lake_of(tmp_path, instance, deliveries)
        rows = graph.rows("SELECT server, PatientID FROM clinical WHERE record_type = 'Condition' ORDER BY ALL")
        assert [tuple(row.values()) for row in rows] == [("http://north", "A"), ("http://south", "B")]

    def test_the_server_of_a_source_counts_before_what_its_resources_say(
        self, tmp_path: Path, instance: dg.DagsterInstance
    ):
        landing = LandingFolder(tmp_path / "landing")
        landing.put("1.ndjson", ndjson(patient("p1", "A", source="http://a"), condition("c1", "p1", source="http://b")))
        settings = settings_for(tmp_path / "lake", landing.root)
        source = settings.sources[0].model_copy(update={"fhir_server": "http://hospital"})
        graph = Stepped(settings.model_copy(update={"sources": (source,)}), instance)
        step_through(graph)
        rows = graph.rows("SELECT DISTINCT server, PatientID FROM clinical")
        assert [tuple(row.values()) for row in rows] == [("http://hospital", "A")]


class TestAnIdentityThatChanges:
    def test_records_stay_with_their_patient_and_the_change_is_an_error(
        self, tmp_path: Path, instance: dg.DagsterInstance
    ):
        graph, _ = lake_of(tmp_path, instance, TWO_SERVERS)
        # The other server's condition refers to p1 as the older one does: without a server nobody can tell them apart.
        assert of_patients(graph) == [("Condition/c1 of 2", "A"), ("Patient/p1 of 1", "A")]
        (detail,) = held(graph)
        (key,) = graph.rows("SELECT record_key FROM clinical WHERE record_type = 'Patient'")
        assert key["record_key"] in detail
        assert "B" not in detail.replace(key["record_key"], "")

    @pytest.mark.slow
    @pytest.mark.parametrize("order", list(permutations(range(4)))[::4])
    def test_no_order_of_arrival_gives_another_result(
        self, tmp_path: Path, instance: dg.DagsterInstance, order: tuple[int, ...]
    ):
        deliveries = [
            ("1.ndjson", ndjson(condition("c1", "p1", 1), condition("c2", "p1", 1))),
            ("2.ndjson", ndjson(condition("c1", "p2", 2))),
            ("3.ndjson", ndjson(condition("c1", "p1", 3), condition("c2", "p3", 3))),
            ("4.ndjson", ndjson(patient("p1", "A"), patient("p2", "B"), patient("p2", "C", day=2))),
        ]
        graph, _ = lake_of(tmp_path, instance, [deliveries[place] for place in order])
        # c1 came back to its patient; of c2 it is not known whom its newest version means, which contradicts nothing.
        assert of_patients(graph) == [
            ("Condition/c1 of 3", "A"),
            ("Condition/c2 of 3", None),
            ("Patient/p1 of 1", "A"),
            ("Patient/p2 of 1", "B"),
        ]
        assert len(set(held(graph))) == 2

    def test_of_a_table_with_keys_as_well(self, tmp_path: Path, instance: dg.DagsterInstance):
        labs = {"name": "labs", "files": ["*.csv"], "patient_id_column": "p", "key_columns": ["lab"]}
        deliveries = [("1.csv", "lab,p,x\n1,7,a\n2,7,a\n3,,a\n"), ("2.csv", "lab,p,x\n1,8,b\n2,7,b\n3,7,b\n")]
        graph, landing = lake_of(tmp_path, instance, [], {"clinical": {"datasets": [labs]}})
        for age, (name, text) in zip((9_000, 8_000), deliveries, strict=True):
            landing.put(name, text, age_seconds=age)
            step_through(graph)
        rows = graph.rows("SELECT lab, p, x FROM clinical_labs ORDER BY lab")
        assert [tuple(row.values()) for row in rows] == [("1", "7", "a"), ("2", "7", "b"), ("3", "7", "b")]
        assert len(held(graph)) == 1

    def test_a_batch_that_is_run_again_gives_the_same_rows_and_errors(
        self, tmp_path: Path, instance: dg.DagsterInstance
    ):
        graph, _ = lake_of(tmp_path, instance, TWO_SERVERS)
        before, errors = of_patients(graph), held(graph)
        again = run_again(graph, {})
        assert (of_patients(again), held(again)) == (before, errors)

    def test_the_graph_publishes_the_error(self, graph: Graph, landing: LandingFolder):
        for name, text in TWO_SERVERS:
            landing.put(name, text)
            (batch,) = graph.ingest()
            assert graph.books(batch).status == "closed"
        assert len(held(graph)) == 1

    def test_a_report_follows_the_version_that_counts(self, tmp_path: Path, instance: dg.DagsterInstance):
        def report(subject: str, day: int) -> dict[str, Any]:
            return condition("r", subject, day) | {
                "resourceType": "DiagnosticReport",
                "status": "final",
                "code": {"text": f"of {day}"},
            }

        patients = ("3.ndjson", ndjson(patient("p1", "A"), patient("p2", "B")))
        deliveries = [("1.ndjson", ndjson(report("p1", 1))), ("2.ndjson", ndjson(report("p2", 2))), patients]
        graph, _ = lake_of(tmp_path, instance, deliveries)
        rows = graph.rows("SELECT PatientID, code_display FROM diagnostic_report")
        assert [tuple(row.values()) for row in rows] == [("A", "of 1")]


class TestAPersonResolvesIt:
    def test_by_naming_the_servers(self, tmp_path: Path, instance: dg.DagsterInstance):
        graph, _ = lake_of(tmp_path, instance, TWO_SERVERS)
        servers = [{"name": "http://north", "files": ["north/**"]}, {"name": "http://south", "files": ["south/**"]}]
        again = run_again(graph, {"fhir": {"servers": servers}})
        assert of_patients(again) == [
            ("Condition/c1 of 1", "A"),
            ("Condition/c1 of 2", "B"),
            ("Patient/p1 of 1", "A"),
            ("Patient/p1 of 2", "B"),
        ]
        assert held(again) == []

    @pytest.mark.parametrize("is_first", [False, True])
    def test_by_a_patient_that_has_the_identifier_before_as_well(
        self, tmp_path: Path, instance: dg.DagsterInstance, is_first: bool
    ):
        confirmed = ("3.ndjson", ndjson(patient("p1", "B", "A", day=3)))
        deliveries = [confirmed, *TWO_SERVERS] if is_first else [*TWO_SERVERS, confirmed]
        graph, _ = lake_of(tmp_path, instance, deliveries)
        assert of_patients(graph) == [("Condition/c1 of 2", "B"), ("Patient/p1 of 3", "B")]

    def test_by_accepting_the_change_of_this_record(self, tmp_path: Path, instance: dg.DagsterInstance):
        graph, _ = lake_of(tmp_path, instance, TWO_SERVERS)
        key = held(graph)[0].split()[1].rstrip(":")
        again = run_again(graph, {"clinical": {"accepted_identity_changes": [key]}})
        assert of_patients(again) == [("Condition/c1 of 2", "B"), ("Patient/p1 of 2", "B")]
        assert held(again) == []
