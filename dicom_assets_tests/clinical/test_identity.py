"""Whose record it is does not change without a word: ids are those of a server, and a change waits for a person.

The cases lie side by side in one lake (`support/side_by_side.py`); in a copy of it everything is run again, with what a
person has decided of some of them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dicom_assets.batch.context import RunContext
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import settings_for
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.side_by_side import Cases
from dicom_assets_tests.support.steps import Stepped, no_further, publish, step_through

Delivery = tuple[str, str]
"""Name and content of the one file of a turn."""


def stamped(day: int, source: str | None = None) -> dict[str, Any]:
    """Meta of a version of this day."""
    return {"meta": {"lastUpdated": f"2024-01-{day:02d}T00:00:00Z", **({"source": source} if source else {})}}


def patient(name: str, *values: str, day: int = 1, source: str | None = None) -> dict[str, Any]:
    identifiers = [{"system": "http://hosp", "value": f"@{value}"} for value in values]
    old = [{**one, "use": "old"} for one in identifiers[1:]]
    return {"resourceType": "Patient", "id": f"@{name}", "identifier": identifiers[:1] + old, **stamped(day, source)}


def condition(name: str, subject: str, day: int = 1, source: str | None = None) -> dict[str, Any]:
    return {
        "resourceType": "Condition",
        "id": f"@{name}",
        "subject": {"reference": f"Patient/@{subject}"},
        **stamped(day, source),
    }


def report(subject: str, day: int) -> dict[str, Any]:
    told = {"resourceType": "DiagnosticReport", "status": "final", "code": {"text": f"of {day}"}}
    return condition("r", subject, day) | told


def ndjson(*resources: dict[str, Any]) -> str:
    return "".join(json.dumps(one) + "\n" for one in resources)


TWO_SERVERS = [
    ("north/1.ndjson", ndjson(patient("p1", "A"), condition("c1", "p1"))),
    ("south/1.ndjson", ndjson(patient("p1", "B", day=2), condition("c1", "p1", day=2))),
]
CONFIRMED = ("3.ndjson", ndjson(patient("p1", "B", "A", day=3)))
NORTH, SOUTH = "http://north#request-1", "http://south#request-2"
TELLING_SOURCES = [
    ("1.ndjson", ndjson(patient("p1", "A", source=NORTH), condition("c1", "p1", source="http://north#other"))),
    ("2.ndjson", ndjson(patient("p1", "B", day=2, source=SOUTH), condition("c1", "p1", 2, SOUTH))),
]
TO_AND_FRO = [
    ("1.ndjson", ndjson(condition("c1", "p1", 1), condition("c2", "p1", 1))),
    ("2.ndjson", ndjson(condition("c1", "p2", 2))),
    ("3.ndjson", ndjson(condition("c1", "p1", 3), condition("c2", "p3", 3))),
    ("4.ndjson", ndjson(patient("p1", "A"), patient("p2", "B"), patient("p2", "C", day=2))),
]
ORDERS = {"".join(map(str, order)): order for order in list(permutations(range(4)))[::4]}
PATIENTS = ("3.ndjson", ndjson(patient("p1", "A"), patient("p2", "B")))
LABS = [("1.csv", "lab,p,x\n@1,@7,a\n@2,@7,a\n@3,,a\n"), ("2.csv", "lab,p,x\n@1,@8,b\n@2,@7,b\n@3,@7,b\n")]

CASES: dict[str, Sequence[Delivery]] = {
    "paths": TWO_SERVERS,
    "sources": TELLING_SOURCES,
    "untouched": TWO_SERVERS,
    "servers": TWO_SERVERS,
    "accepted": TWO_SERVERS,
    "confirmed-before": [CONFIRMED, *TWO_SERVERS],
    "confirmed-after": [*TWO_SERVERS, CONFIRMED],
    "report": [("1.ndjson", ndjson(report("p1", 1))), ("2.ndjson", ndjson(report("p2", 2))), PATIENTS],
    "labs": LABS,
    **{f"order-{name}": [TO_AND_FRO[place] for place in order] for name, order in ORDERS.items()},
}


def servers_of(*cases: str) -> dict[str, Any]:
    """Settings that name the two servers of cases by their paths."""
    named = [
        {"name": f"http://{server}", "files": [f"{case}/{server}/**" for case in cases]}
        for server in ("north", "south")
    ]
    return {"fhir": {"servers": named}}


def clinical(**more: Any) -> dict[str, Any]:
    """Settings of the table that comes with keys, and further ones of its section."""
    labs = {"name": "labs", "files": ["labs/*.csv"], "patient_id_column": "p", "key_columns": ["lab"]}
    return {"clinical": {"datasets": [labs], **more}}


class Identities(Cases):
    """What the lake says of the patients of records."""

    def of_patients(self, case: str) -> list[tuple[str, str | None]]:
        """Each record that counts, by type, id and day, with its patient."""
        return self.rows(
            case,
            "SELECT record_type || '/' || resource_id || ' of ' || coalesce(day(last_updated), 0) AS name, PatientID "
            "FROM clinical WHERE resource_id LIKE '@%' ORDER BY ALL",
        )

    def of_servers(self, case: str, kind: str = "") -> list[tuple[Any, ...]]:
        """Each server with the patients of its records, of a kind or of all."""
        only = f" AND record_type = '{kind}'" if kind else ""
        return self.rows(
            case,
            f"SELECT server, record_type, PatientID FROM clinical WHERE resource_id LIKE '@%'{only} ORDER BY ALL",
        )

    def held(self, case: str) -> list[str]:
        """Details of the errors of identity."""
        rows = self.graph.rows(
            "SELECT DISTINCT e.batch_id, e.detail FROM ingestion_errors e JOIN raw_files r USING (object_id) "
            f"WHERE contains(r.uri, '/{case}/') AND e.code = 'IDENTITY_CHANGED' AND e.severity = 'error' ORDER BY ALL"
        )
        return [row["detail"] for row in rows]

    def key_held(self, case: str) -> str:
        """The key of the record that the one error of a case is about."""
        (detail,) = self.held(case)
        return detail.split()[1].rstrip(":")


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Identities]:
    """All deliveries, one batch after the other. Only of the case `paths` are the servers known from the start."""
    folder = tmp_path_factory.mktemp("cases")
    landing = LandingFolder(folder / "landing")
    landing.root.mkdir()
    settings = settings_for(folder / "lake", landing.root, **servers_of("paths"), **clinical())
    with dg.DagsterInstance.ephemeral() as instance:
        made = Identities(Stepped(settings, instance))
        made.arrive(landing, {case: [dict([one]) for one in turns] for case, turns in CASES.items()})
        yield made


@pytest.fixture(scope="module")
def resolved(cases: Identities, tmp_path_factory: pytest.TempPathFactory) -> Identities:
    """Every batch again in a copy of the lake, with what a person has decided of the cases `servers` and `accepted`."""
    copy = tmp_path_factory.mktemp("resolved") / "lake"
    shutil.copytree(cases.graph.settings.lake, copy)
    root = Path(cases.graph.settings.sources[0].root)
    decided = clinical(accepted_identity_changes=[cases.key_held("accepted")])
    again = Stepped(settings_for(copy, root, **servers_of("paths", "servers"), **decided), cases.graph.instance)
    with again.work() as work:
        batches = [claim.batch_id for claim in work.log.claims()]
    for name in batches:
        with RunContext(again.settings, shared_engine=InlineEngine()) as work, no_further():
            publish(work.batch(name), judges=False)
    return Identities(again)


class TestIdsOfTwoServers:
    @pytest.mark.slow
    def test_servers_of_paths_keep_them_apart(self, cases: Identities):
        assert cases.of_servers("paths") == [
            ("http://north", "Condition", "A"),
            ("http://north", "Patient", "A"),
            ("http://south", "Condition", "B"),
            ("http://south", "Patient", "B"),
        ]
        assert cases.held("paths") == []

    @pytest.mark.slow
    def test_what_the_resource_says_of_its_source_keeps_them_apart_without_its_fragment(self, cases: Identities):
        assert cases.of_servers("sources", "Condition") == [
            ("http://north", "Condition", "A"),
            ("http://south", "Condition", "B"),
        ]

    def test_the_server_of_a_source_counts_before_what_its_resources_say(
        self, tmp_path: Path, instance: dg.DagsterInstance
    ):
        landing = LandingFolder(tmp_path / "landing")
        text = ndjson(patient("p1", "A", source="http://a"), condition("c1", "p1", source="http://b"))
        landing.put("1.ndjson", text.replace("@", ""))
        settings = settings_for(tmp_path / "lake", landing.root)
        source = settings.sources[0].model_copy(update={"fhir_server": "http://hospital"})
        graph = Stepped(settings.model_copy(update={"sources": (source,)}), instance)
        step_through(graph, judges=False)
        rows = graph.rows("SELECT DISTINCT server, PatientID FROM clinical")
        assert [tuple(row.values()) for row in rows] == [("http://hospital", "A")]


class TestAnIdentityThatChanges:
    @pytest.mark.slow
    def test_records_stay_with_their_patient_and_the_change_is_an_error(self, cases: Identities):
        # The other server's condition refers to p1 as the older one does: without a server nobody can tell them apart.
        assert cases.of_patients("untouched") == [("Condition/c1 of 2", "A"), ("Patient/p1 of 1", "A")]
        (detail,) = cases.held("untouched")
        ((key,),) = cases.rows(
            "untouched", "SELECT record_key FROM clinical WHERE record_type = 'Patient' AND resource_id LIKE '@%'"
        )
        assert key in detail
        assert "untouched" not in detail
        assert "B" not in detail.replace(key, "")

    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.slow
    def test_no_order_of_arrival_gives_another_result(self, cases: Identities, order: str):
        # c1 came back to its patient; of c2 it is not known whom its newest version means, which contradicts nothing.
        assert cases.of_patients(f"order-{order}") == [
            ("Condition/c1 of 3", "A"),
            ("Condition/c2 of 3", None),
            ("Patient/p1 of 1", "A"),
            ("Patient/p2 of 1", "B"),
        ]
        assert len(set(cases.held(f"order-{order}"))) == 2

    @pytest.mark.slow
    def test_of_a_table_with_keys_as_well(self, cases: Identities):
        rows = cases.rows("labs", "SELECT lab, p, x FROM clinical_labs ORDER BY lab")
        assert rows == [("1", "7", "a"), ("2", "7", "b"), ("3", "7", "b")]
        assert len(cases.held("labs")) == 1

    @pytest.mark.slow
    def test_a_batch_that_is_run_again_gives_the_same_rows_and_errors(self, cases: Identities, resolved: Identities):
        assert resolved.held("untouched") == cases.held("untouched")
        for case in ("untouched", "labs", "report", *(f"order-{name}" for name in ORDERS)):
            assert resolved.of_patients(case) == cases.of_patients(case)

    @pytest.mark.slow
    def test_a_report_follows_the_version_that_counts(self, cases: Identities):
        rows = cases.rows("report", "SELECT PatientID, code_display FROM diagnostic_report")
        assert rows == [("A", "of 1")]


class TestAPersonResolvesIt:
    @pytest.mark.slow
    def test_by_naming_the_servers(self, resolved: Identities):
        assert resolved.of_patients("servers") == [
            ("Condition/c1 of 1", "A"),
            ("Condition/c1 of 2", "B"),
            ("Patient/p1 of 1", "A"),
            ("Patient/p1 of 2", "B"),
        ]
        assert resolved.held("servers") == []

    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.slow
    def test_by_a_patient_that_has_the_identifier_before_as_well(self, cases: Identities, when: str):
        case = f"confirmed-{when}"
        assert cases.of_patients(case) == [("Condition/c1 of 2", "B"), ("Patient/p1 of 3", "B")]

    @pytest.mark.slow
    def test_by_accepting_the_change_of_this_record(self, resolved: Identities):
        assert resolved.of_patients("accepted") == [("Condition/c1 of 2", "B"), ("Patient/p1 of 2", "B")]
        assert resolved.held("accepted") == []
