"""FHIR in and out through the real graph: parity, order of arrival, versions, deletions."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dicom_assets import reference
from dicom_assets.batch import clinical
from dicom_assets.fhir.validation import fault_of
from dicom_assets.landing.change_windows import DEFAULT_PARTITION
from dicom_assets.service.feed import FeedPage
from dicom_assets.service.window_files import pack
from dicom_assets.storage import files
from dicom_assets_tests.fhir import official
from dicom_assets_tests.fhir.codes import terminology_faults
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.lakes import Graph, contents
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import step_through

SHARED = Path(os.environ.get("DICOM_ASSETS_SHARED") or Path(__file__).parents[3] / "shared")
CLOSED = "closed"


def ndjson(*resources: Mapping[str, Any]) -> str:
    return "".join(json.dumps(one) + "\n" for one in resources)


def patient(name: str = "p1", value: str = "0042", **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": name, "identifier": [{"system": "http://hosp", "value": value}], **more}


def condition(name: str = "c1", subject: str = "Patient/p1", **more: Any) -> dict[str, Any]:
    return {"resourceType": "Condition", "id": name, "subject": {"reference": subject}, **more}


def report(name: str = "r1", accession: str = "A1", **more: Any) -> dict[str, Any]:
    kind = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN"}]}
    return {
        "resourceType": "DiagnosticReport",
        "id": name,
        "status": "final",
        "code": {"text": "CT"},
        "identifier": [{"type": kind, "value": accession}],
        **more,
    }


def deletion(study: int, series: int, instance: int, sequence: int = 1) -> bytes:
    """A landed window of a change feed in which one instance is deleted."""
    entry = {
        "sequence": sequence,
        "partitionName": DEFAULT_PARTITION,
        "studyInstanceUid": uid(study),
        "seriesInstanceUid": uid(study, series),
        "sopInstanceUid": uid(study, series, instance),
        "action": "delete",
        "state": "deleted",
        "timestamp": "2030-01-01T00:00:00Z",
    }
    data, _ = pack([FeedPage([entry])]).file("landing", "v2", None)
    return data


def ingest(graph: Graph) -> list[str]:
    """Ingests what is new, step by step; every blocking rule holds and every batch closes."""
    batches = step_through(graph)
    assert batches
    assert [graph.books(batch).status for batch in batches] == [CLOSED] * len(batches)
    return batches


def resources(graph: Graph) -> list[dict[str, Any]]:
    return [json.loads(row["resource"]) for row in graph.rows("SELECT resource FROM imaging_study ORDER BY id")]


class TestTheReferenceRun:
    @pytest.fixture(scope="class")
    @staticmethod
    def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
        from dagster import DagsterInstance

        from dicom_assets_tests.support.lakes import settings_for

        folder = tmp_path_factory.mktemp("reference")
        reference.write(folder / "landing")
        with DagsterInstance.ephemeral() as instance:
            graph = Graph(settings_for(folder / "lake", folder / "landing"), instance)
            assert [graph.books(batch).status for batch in graph.ingest()] == [CLOSED]
            yield graph

    def test_it_gives_exactly_what_is_expected(self, run: Graph):
        assert reference.found(run.settings.lake) == reference.EXPECTED
        assert reference.EXPECTED["flat_metadata"] == 96

    def test_reports_are_linked_in_each_of_the_three_ways(self, run: Graph):
        rows = run.rows("SELECT linked_by, count(*) AS n FROM diagnostic_report GROUP BY ALL ORDER BY ALL")
        assert [tuple(row.values()) for row in rows] == [
            ("accession_number", 2),
            ("imaging_study", 2),
            ("study_uid", 2),
        ]

    def test_the_ndjson_file_holds_the_table(self, run: Graph):
        (path,) = (Path(run.settings.lake) / "Process/Clinical/FHIR NDJSON/landing").rglob("*.ndjson")
        assert path.parent.name == "ImagingStudy"
        assert sorted(map(json.loads, path.read_text().splitlines()), key=lambda r: r["id"]) == resources(run)

    def test_every_resource_is_valid_and_speaks_the_standards_codes(self, run: Graph):
        assert [fault_of(one) for one in resources(run)] == [None] * 9
        assert [list(terminology_faults(one)) for one in resources(run)] == [[]] * 9

    def test_resources_pass_the_official_definitions(self, run: Graph):
        built = resources(run)
        assert official.structure_faults(built) == [[]] * 9
        assert official.schema_faults(built) == [[]] * 9

    def test_the_coverage_says_so(self, run: Graph):
        rows = run.rows("SELECT measure, mapped, total FROM mapping_coverage WHERE value = ''")
        found = {row["measure"]: (row["mapped"], row["total"]) for row in rows}
        assert found["series with mapped modality"] == (24, 24)
        assert found["series with mapped anatomic site"] == (24, 24)
        assert found["reports linked to a study"] == (6, 6)
        assert found["studies with one known patient"] == (9, 9)

    def test_running_it_again_changes_nothing(self, run: Graph):
        before = contents(run.lake)
        files = {p: p.read_bytes() for p in Path(run.settings.lake, "Process").rglob("*.ndjson")}
        (batch,) = run.results
        assert run.run(batch).success
        assert contents(run.lake) == before
        assert {p: p.read_bytes() for p in Path(run.settings.lake, "Process").rglob("*.ndjson")} == files


class TestOrderOfArrival:
    FILES: Mapping[str, str] = {
        "1.ndjson": ndjson(condition("c1"), condition("c2", "urn:uuid:p1"), condition("c3", "Patient/unknown")),
        "2.json": json.dumps([patient()]),
        "3.json": json.dumps(
            {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": condition("c4")}]}, indent=1
        ),
    }

    @pytest.mark.parametrize("order", ["123", "321"])
    def test_a_reference_is_resolved_whoever_comes_first(self, graph: Graph, landing: LandingFolder, order: str):
        for age, number in enumerate(order):
            name = next(name for name in self.FILES if name.startswith(number))
            landing.put(name, self.FILES[name], age_seconds=9_000 - age * 1_000)
            ingest(graph)
        rows = graph.rows(
            "SELECT resource_id, PatientID, patient_system FROM clinical WHERE record_type = 'Condition' ORDER BY 1"
        )
        known, unknown = ("0042", "http://hosp"), (None, None)
        assert [tuple(row.values())[1:] for row in rows] == [known, known, unknown, known]

    def test_a_patient_whose_identifier_changes_takes_its_records_along(self, graph: Graph, landing: LandingFolder):
        landing.put("a.ndjson", ndjson(patient(), condition()), age_seconds=9_000)
        ingest(graph)
        both = [{"system": "http://hosp", "value": "77"}, {"system": "http://hosp", "value": "0042", "use": "old"}]
        later = {"meta": {"lastUpdated": "2031-01-01T00:00:00Z"}, "identifier": both}
        landing.put("b.ndjson", ndjson(patient() | later), age_seconds=8_000)
        ingest(graph)
        assert graph.rows("SELECT DISTINCT PatientID AS id FROM clinical") == [{"id": "77"}]

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    def test_the_newest_version_wins_whoever_comes_first(
        self, graph: Graph, landing: LandingFolder, order: tuple[int, ...]
    ):
        stamps = ["2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z"]
        for position, number in enumerate(order):
            version = {"meta": {"versionId": str(number), "lastUpdated": stamps[number]}}
            landing.put(f"{number}.json", json.dumps(condition(**version)), age_seconds=9_000 - 1_000 * position)
            ingest(graph)
        assert graph.rows("SELECT resource_version AS v FROM clinical") == [{"v": "1"}]

    def test_a_resource_that_stands_twice_in_a_file_is_one_row(self, graph: Graph, landing: LandingFolder):
        landing.put("a.ndjson", ndjson(condition(), condition()))
        (batch,) = ingest(graph)
        books = graph.books(batch)
        assert (books.clinical_records, books.clinical_rows) == (2, 1)

    def test_a_later_file_of_the_same_name_does_not_take_other_resources_away(
        self, graph: Graph, landing: LandingFolder
    ):
        landing.put("a.ndjson", ndjson(condition("c1"), condition("c2")), age_seconds=9_000)
        ingest(graph)
        landing.put("a.ndjson", ndjson(condition("c3")), age_seconds=8_000)
        ingest(graph)
        rows = graph.rows("SELECT resource_id AS id FROM clinical ORDER BY 1")
        assert [row["id"] for row in rows] == ["c1", "c2", "c3"]

    def test_a_batch_without_records_does_not_touch_the_records(self, graph: Graph, landing: LandingFolder):
        landing.put("a.ndjson", ndjson(patient(), report()), age_seconds=9_000)
        ingest(graph)
        before = {name: graph.lake.table(name).version() for name in ("clinical", "diagnostic_report")}
        landing.put("a.dcm", dicom(1, 1, 1, AccessionNumber="elsewhere"), age_seconds=8_000)
        ingest(graph)
        assert {name: graph.lake.table(name).version() for name in before} == before

    def test_what_a_record_says_is_in_memory_some_thousand_rows_at_a_time(
        self, graph: Graph, landing: LandingFolder, monkeypatch
    ):
        monkeypatch.setattr(clinical, "ROWS_AT_ONCE", 4)
        monkeypatch.setattr(files, "ARROW_ROWS", 4)
        largest = []
        write = clinical.write_rows

        def counting(lake, name, rows):
            return write(lake, name, (largest.append(len(batch)) or batch for batch in rows))

        monkeypatch.setattr(clinical, "write_rows", counting)
        landing.put("a.ndjson", ndjson(*(condition(f"c{n}") for n in range(25))), age_seconds=9_000)
        ingest(graph)
        landing.put("b.ndjson", ndjson(patient()), age_seconds=8_000)
        ingest(graph)
        assert largest and max(largest) <= 4
        assert graph.rows("SELECT DISTINCT PatientID AS id, count(*) AS n FROM clinical GROUP BY ALL") == [
            {"id": "0042", "n": 26}
        ]

    @pytest.mark.parametrize("first", ["study", "report"])
    def test_a_report_finds_its_study_whoever_comes_first(self, graph: Graph, landing: LandingFolder, first: str):
        put = {
            "study": lambda age: landing.put("a.dcm", dicom(1, 1, 1, AccessionNumber="A1"), age_seconds=age),
            "report": lambda age: landing.put("r.json", json.dumps(report()), age_seconds=age),
        }
        for age, name in ((9_000, first), (8_000, next(name for name in put if name != first))):
            put[name](age)
            ingest(graph)
        rows = graph.rows("SELECT StudyInstanceUID AS uid, linked_by, link_state FROM diagnostic_report")
        assert [tuple(row.values()) for row in rows] == [(uid(1), "accession_number", "linked")]


class TestWhatIsWrong:
    def test_an_invalid_resource_is_an_error_row_with_its_path_and_the_rest_goes_on(
        self, graph: Graph, landing: LandingFolder
    ):
        landing.put("a.ndjson", ndjson(patient(), patient("p2", gender="Zzyzx"), condition()) + "{broken\n")
        (batch,) = ingest(graph)
        rows = graph.rows("SELECT record, code, detail FROM ingestion_errors ORDER BY record")
        assert [tuple(row.values()) for row in rows] == [
            (2, "RECORD_INVALID", "Patient.gender: not one of the codes that are allowed here"),
            (4, "RECORD_INVALID", "not valid JSON"),
        ]
        books = graph.books(batch)
        assert (books.clinical_records, books.clinical_rows) == (4, 2)

    def test_two_patients_in_one_study_leave_it_unlinked_until_that_is_resolved(
        self, graph: Graph, landing: LandingFolder
    ):
        landing.put("a.dcm", dicom(1, 1, 1, AccessionNumber="A1"), age_seconds=9_000)
        landing.put("b.dcm", dicom(1, 1, 2, AccessionNumber="A1", PatientID="OTHER"), age_seconds=9_000)
        landing.put("r.json", json.dumps(report()), age_seconds=9_000)
        ingest(graph)
        states = "SELECT s.subject_state, s.PatientID, r.link_state FROM imaging_study s, diagnostic_report r"
        assert [tuple(row.values()) for row in graph.rows(states)] == [("conflict", None, "patient_conflict")]
        assert "extension" in resources(graph)[0]["subject"]
        landing.put("b.dcm", dicom(1, 1, 2, AccessionNumber="A1"), age_seconds=8_000)
        ingest(graph)
        assert [tuple(row.values()) for row in graph.rows(states)] == [("identified", "P0001", "linked")]


class TestStudiesThatGo:
    def test_a_study_that_loses_its_last_instance_is_entered_in_error_with_its_id(
        self, graph: Graph, landing: LandingFolder
    ):
        landing.put("a.dcm", dicom(1, 1, 1, AccessionNumber="A1"))
        landing.put("b.dcm", dicom(2, 1, 1))
        landing.put("r.json", json.dumps(report()))
        ingest(graph)
        before = {one["identifier"][0]["value"]: one["id"] for one in resources(graph)}
        landing.put("delete", deletion(1, 1, 1), age_seconds=3_000)
        ingest(graph)
        by_uid = {one["identifier"][0]["value"]: one for one in resources(graph)}
        gone = by_uid[f"urn:oid:{uid(1)}"]
        assert {name: one["id"] for name, one in by_uid.items()} == before
        assert (gone["status"], gone["numberOfInstances"]) == ("entered-in-error", 0)
        assert gone["subject"]["identifier"]["value"] == "P0001"
        assert fault_of(gone) is None
        rows = graph.rows("SELECT is_deleted, count(*) AS n FROM imaging_study GROUP BY ALL ORDER BY ALL")
        assert [tuple(row.values()) for row in rows] == [(False, 1), (True, 1)]
        assert graph.rows("SELECT link_state AS s FROM diagnostic_report") == [{"s": "unlinked"}]
        assert len(graph.rows("SELECT * FROM image_occurrence")) == 1

    def test_it_comes_back_when_an_instance_does(self, graph: Graph, landing: LandingFolder):
        landing.put("a.dcm", dicom(1, 1, 1))
        landing.put("delete", deletion(1, 1, 1))
        ingest(graph)
        assert [one["status"] for one in resources(graph)] == ["entered-in-error"]
        landing.put("b.dcm", dicom(1, 1, 2))
        ingest(graph)
        assert [one["status"] for one in resources(graph)] == ["available"]
        assert len(graph.rows("SELECT * FROM imaging_study")) == 1


@pytest.mark.skipif(not (SHARED / "corpus/fhir").is_dir(), reason="the shared corpus is not there")
class TestTheCorpus:
    def test_every_resource_is_read_and_none_is_lost(self, graph: Graph, landing: LandingFolder):
        written = 0
        for path in sorted((SHARED / "corpus/fhir").glob("*.ndjson")):
            data = path.read_bytes()
            written += sum(1 for line in data.splitlines() if line.strip())
            landing.put(path.name, data)
        (batch,) = ingest(graph)
        books = graph.books(batch)
        assert (books.clinical_records, books.clinical_rows) == (written, written)
        counted = graph.rows(
            "SELECT count(*) AS n, count(PatientID) AS known FROM clinical WHERE patient_reference IS NOT NULL"
        )[0]
        assert counted["n"] == counted["known"] > 5_000

    @pytest.mark.slow
    def test_every_imaging_study_of_the_corpus_is_valid(self, graph: Graph, landing: LandingFolder):
        for path in sorted((SHARED / "corpus").rglob("*")):
            if path.is_file() and "fhir/" not in str(path) and path.stat().st_size < 2**20:
                landing.put(str(path.relative_to(SHARED / "corpus")), path.read_bytes())
        for batch in graph.claim():
            graph.run(batch, {"validated_batch_gate": {"config": {"quarantined_share": 1.0}}})
            assert graph.books(batch).status == CLOSED
        built = resources(graph)
        assert len(built) > 50
        assert [fault for one in built if (fault := fault_of(one))] == []
        assert [fault for one in built for fault in terminology_faults(one)] == []
        assert [faults for faults in official.schema_faults(built) if faults] == []
        assert [faults for faults in official.structure_faults(built) if faults] == []
