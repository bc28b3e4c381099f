"""FHIR in and out through the steps of batches: parity, order of arrival, versions, deletions."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
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
from dicom_assets_tests.support.lakes import Graph, contents, settings_for
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.side_by_side import Cases, Turn
from dicom_assets_tests.support.steps import Stepped, step_through

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


def ingest(graph: Graph, *, judges: bool = False) -> list[str]:
    """Ingests what is new, step by step; every batch closes. judges: see `Stepped`."""
    batches = step_through(graph, judges=judges)
    assert batches
    assert [graph.books(batch).status for batch in batches] == [CLOSED] * len(batches)
    return batches


def resources(graph: Graph) -> list[dict[str, Any]]:
    return [json.loads(row["resource"]) for row in graph.rows("SELECT resource FROM imaging_study ORDER BY id")]


class TestTheReferenceRun:
    @pytest.fixture(scope="class")
    @staticmethod
    def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
        folder = tmp_path_factory.mktemp("reference")
        reference.write(folder / "landing")
        with dg.DagsterInstance.ephemeral() as instance:
            graph = Stepped(settings_for(folder / "lake", folder / "landing"), instance)
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

    @pytest.mark.slow
    def test_running_it_again_changes_nothing(self, run: Graph):
        before = contents(run.lake)
        files = {p: p.read_bytes() for p in Path(run.settings.lake, "Process").rglob("*.ndjson")}
        (batch,) = run.results
        assert run.run(batch).success
        assert contents(run.lake) == before
        assert {p: p.read_bytes() for p in Path(run.settings.lake, "Process").rglob("*.ndjson")} == files


def bundle(*resources: Mapping[str, Any]) -> str:
    entries = [{"resource": one} for one in resources]
    return json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}, indent=1)


def of_day(number: int, resource: Mapping[str, Any]) -> str:
    """A version of a resource."""
    meta = {"versionId": str(number), "lastUpdated": f"2024-01-0{number + 1}T00:00:00Z"}
    return json.dumps({**resource, "meta": meta})


def own(resource: Mapping[str, Any]) -> dict[str, Any]:
    """A resource with an id, a subject and identifiers of its case: those that the functions above give it."""
    text = json.dumps(resource)
    for name in ("p1", "p2", "c1", "c2", "c3", "c4", "r1", "0042", "A1"):
        text = text.replace(f'"{name}"', f'"@{name}"').replace(f"Patient/{name}", f"Patient/@{name}")
    return json.loads(text)


def of_case(*resources: Mapping[str, Any]) -> str:
    return ndjson(*map(own, resources))


REFERENCES = (
    {"1.ndjson": of_case(condition("c1"), condition("c2", "urn:uuid:@p1"), condition("c3", "Patient/unknown"))},
    {"2.json": json.dumps([own(patient())])},
    {"3.json": bundle(own(condition("c4")))},
)
LATER = {
    "meta": {"lastUpdated": "2031-01-01T00:00:00Z"},
    "identifier": [
        {"system": "http://hosp", "value": "@77"},
        {"system": "http://hosp", "value": "@0042", "use": "old"},
    ],
}
VERSIONS = [{f"{number}.json": of_day(number, own(condition()))} for number in (0, 1)]


def linked(case: str, study: int) -> tuple[Turn, Turn]:
    """A study and the report of it."""
    image = dicom(study, 1, 1, AccessionNumber=f"{case}-A1")
    return {"a.dcm": image}, {"r.json": json.dumps(own(report()))}


def of_two_patients(case: str, study: int) -> Turn:
    first, other = (
        dicom(study, 1, 1, AccessionNumber=f"{case}-A1"),
        dicom(study, 1, 2, AccessionNumber=f"{case}-A1", PatientID="OTHER"),
    )
    return {"a.dcm": first, "b.dcm": other, "r.json": json.dumps(own(report()))}


CASES: Mapping[str, Sequence[Turn]] = {
    "forward": REFERENCES,
    "backward": REFERENCES[::-1],
    "renamed": [{"a.ndjson": of_case(patient(), condition())}, {"b.ndjson": ndjson(own(patient()) | LATER)}],
    "newer-last": VERSIONS,
    "newer-first": VERSIONS[::-1],
    "same-name": [
        {"a.ndjson": of_case(condition("c1"), condition("c2"))},
        {"a.ndjson": of_case(condition("c3"))},
    ],
    "study-first": linked("study-first", 11),
    "report-first": linked("report-first", 12)[::-1],
    "two-patients": [of_two_patients("two-patients", 13)],
    "one-patient-again": [
        of_two_patients("one-patient-again", 14),
        {"b.dcm": dicom(14, 1, 2, AccessionNumber="one-patient-again-A1")},
    ],
    "deleted-later": [
        {**linked("deleted-later", 15)[0], **linked("deleted-later", 15)[1], "b.dcm": dicom(16, 1, 1)},
        {"delete": deletion(15, 1, 1)},
    ],
    "deleted-at-once": [{"a.dcm": dicom(17, 1, 1), "delete": deletion(17, 1, 1)}],
    "come-back": [{"a.dcm": dicom(18, 1, 1), "delete": deletion(18, 1, 1)}, {"b.dcm": dicom(18, 1, 2)}],
}
LAST: Mapping[str, Sequence[Turn]] = {
    "twice": [{"a.ndjson": of_case(condition(), condition())}],
    "invalid": [
        {"a.ndjson": of_case(patient(), patient("p2", gender="Zzyzx"), condition()) + "{broken\n"},
    ],
}
"""A batch of their own, after all others: what its books say is counted."""


@dataclass(frozen=True)
class Flow(Cases):
    """The lake of all cases. ids: of the resources of the first turn, by study; last: the batch of LAST."""

    ids: dict[str, str] = field(default_factory=dict)
    last: list[str] = field(default_factory=list)

    def study(self, number: int) -> dict[str, Any]:
        """The resource of a study."""
        (row,) = self.graph.rows(f"SELECT resource FROM imaging_study WHERE StudyInstanceUID = '{uid(number)}'")
        return json.loads(row["resource"])


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flow]:
    folder = tmp_path_factory.mktemp("cases")
    landing = LandingFolder(folder / "landing")
    landing.root.mkdir()
    with dg.DagsterInstance.ephemeral() as instance:
        made = Flow(Stepped(settings_for(folder / "lake", landing.root), instance))
        made.take(landing, CASES, 0)
        rows = made.graph.rows("SELECT StudyInstanceUID AS study, id FROM imaging_study")
        made.ids.update((row["study"], row["id"]) for row in rows)
        for turn in (1, 2):
            made.take(landing, CASES, turn)
        made.last.append(made.take(landing, LAST, 0))
        yield made


@pytest.fixture
def copied(cases: Flow, tmp_path: Path, landing: LandingFolder) -> Stepped:
    """A copy of the lake, into which what lies in `landing` arrives."""
    shutil.copytree(cases.graph.settings.lake, tmp_path / "lake")
    return Stepped(settings_for(tmp_path / "lake", landing.root), cases.graph.instance)


class TestOrderOfArrival:
    @pytest.mark.parametrize("case", ["forward", "backward"])
    def test_a_reference_is_resolved_whoever_comes_first(self, cases: Flow, case: str):
        rows = cases.rows(
            case,
            "SELECT resource_id, PatientID, patient_system FROM clinical "
            "WHERE record_type = 'Condition' AND resource_id LIKE '@%' ORDER BY 1",
        )
        known, unknown = ("0042", "http://hosp"), (None, None)
        assert [row[1:] for row in rows] == [known, known, unknown, known]

    def test_a_patient_whose_identifier_changes_takes_its_records_along(self, cases: Flow):
        rows = cases.rows("renamed", "SELECT DISTINCT PatientID FROM clinical WHERE resource_id LIKE '@%'")
        assert rows == [("77",)]

    @pytest.mark.parametrize("case", ["newer-last", "newer-first"])
    def test_the_newest_version_wins_whoever_comes_first(self, cases: Flow, case: str):
        assert cases.rows(case, "SELECT resource_version FROM clinical WHERE resource_id LIKE '@%'") == [("1",)]

    def test_a_later_file_of_the_same_name_does_not_take_other_resources_away(self, cases: Flow):
        rows = cases.rows("same-name", "SELECT resource_id FROM clinical WHERE resource_id LIKE '@%' ORDER BY 1")
        assert rows == [("c1",), ("c2",), ("c3",)]

    @pytest.mark.slow
    def test_a_batch_without_records_does_not_touch_the_records(self, copied: Stepped, landing: LandingFolder):
        before = {name: copied.lake.table(name).version() for name in ("clinical", "diagnostic_report")}
        landing.put("a.dcm", dicom(1, 1, 1, AccessionNumber="elsewhere"))
        ingest(copied)
        assert {name: copied.lake.table(name).version() for name in before} == before

    @pytest.mark.slow
    def test_what_a_record_says_is_in_memory_some_thousand_rows_at_a_time(
        self, stepped: Stepped, landing: LandingFolder, monkeypatch
    ):
        monkeypatch.setattr(clinical, "ROWS_AT_ONCE", 4)
        monkeypatch.setattr(files, "ARROW_ROWS", 4)
        largest = []
        write = clinical.write_rows

        def counting(lake, name, rows):
            return write(lake, name, (largest.append(len(batch)) or batch for batch in rows))

        monkeypatch.setattr(clinical, "write_rows", counting)
        landing.put("a.ndjson", ndjson(*(condition(f"c{n}") for n in range(25))), age_seconds=9_000)
        ingest(stepped)
        landing.put("b.ndjson", ndjson(patient()), age_seconds=8_000)
        ingest(stepped)
        assert largest and max(largest) <= 4
        assert stepped.rows("SELECT DISTINCT PatientID AS id, count(*) AS n FROM clinical GROUP BY ALL") == [
            {"id": "0042", "n": 26}
        ]

    @pytest.mark.parametrize(("case", "study"), [("study-first", 11), ("report-first", 12)])
    def test_a_report_finds_its_study_whoever_comes_first(self, cases: Flow, case: str, study: int):
        rows = cases.rows(
            case, "SELECT StudyInstanceUID, linked_by, link_state FROM diagnostic_report WHERE id LIKE '@%'"
        )
        assert rows == [(uid(study), "accession_number", "linked")]


class TestWhatIsWrong:
    def test_an_invalid_resource_is_an_error_row_with_its_path_and_the_rest_goes_on(self, cases: Flow):
        rows = cases.graph.rows(
            "SELECT record, code, detail FROM ingestion_errors WHERE code = 'RECORD_INVALID' ORDER BY record"
        )
        assert [tuple(row.values()) for row in rows] == [
            (2, "RECORD_INVALID", "Patient.gender: not one of the codes that are allowed here"),
            (4, "RECORD_INVALID", "not valid JSON"),
        ]
        kept = cases.rows("invalid", "SELECT resource_id FROM clinical WHERE resource_id LIKE '@%' ORDER BY 1")
        assert kept == [("c1",), ("p1",)]

    def test_a_resource_that_stands_twice_in_a_file_is_one_row(self, cases: Flow):
        assert len(cases.rows("twice", "SELECT record FROM clinical WHERE resource_id LIKE '@%'")) == 1

    def test_the_books_count_every_record_that_came_and_every_row_that_became_of_them(self, cases: Flow):
        books = cases.graph.books(cases.last[0])
        assert (books.clinical_records, books.clinical_rows) == (2 + 4, 1 + 2)

    STATES = (
        "SELECT s.subject_state, s.PatientID, r.link_state "
        "FROM imaging_study s JOIN diagnostic_report r ON r.id = '@r1' AND s.StudyInstanceUID = '{}'"
    )

    def test_two_patients_in_one_study_leave_it_unlinked(self, cases: Flow):
        states = cases.rows("two-patients", self.STATES.format(uid(13)))
        assert states == [("conflict", None, "patient_conflict")]
        assert "extension" in cases.study(13)["subject"]

    def test_it_is_linked_when_that_is_resolved(self, cases: Flow):
        assert cases.rows("one-patient-again", self.STATES.format(uid(14))) == [("identified", "P0014", "linked")]


class TestStudiesThatGo:
    def test_a_study_that_loses_its_last_instance_is_entered_in_error_with_its_id(self, cases: Flow):
        gone = cases.study(15)
        assert {uid(number): cases.study(number)["id"] for number in (15, 16)} == {
            uid(number): cases.ids[uid(number)] for number in (15, 16)
        }
        assert (gone["status"], gone["numberOfInstances"]) == ("entered-in-error", 0)
        assert gone["subject"]["identifier"]["value"] == "P0015"
        assert fault_of(gone) is None
        rows = cases.graph.rows(
            "SELECT StudyInstanceUID AS study, is_deleted FROM imaging_study "
            f"WHERE StudyInstanceUID IN ('{uid(15)}', '{uid(16)}') ORDER BY 1"
        )
        assert [tuple(row.values()) for row in rows] == [(uid(15), True), (uid(16), False)]
        states = cases.rows("deleted-later", "SELECT link_state FROM diagnostic_report WHERE id LIKE '@%'")
        assert states == [("unlinked",)]
        seen = cases.graph.rows("SELECT image_study_UID AS study FROM image_occurrence")
        assert {row["study"] for row in seen} & {uid(15), uid(16)} == {uid(16)}

    def test_it_comes_back_when_an_instance_does(self, cases: Flow):
        assert cases.study(17)["status"] == "entered-in-error"
        assert cases.ids.keys() >= {uid(17), uid(18)}
        assert cases.study(18)["status"] == "available"


@pytest.mark.skipif(not (SHARED / "corpus/fhir").is_dir(), reason="the shared corpus is not there")
class TestTheCorpus:
    @pytest.mark.slow
    def test_every_resource_is_read_and_none_is_lost(self, graph: Graph, landing: LandingFolder):
        written = 0
        for path in sorted((SHARED / "corpus/fhir").glob("*.ndjson")):
            data = path.read_bytes()
            written += sum(1 for line in data.splitlines() if line.strip())
            landing.put(path.name, data)
        (batch,) = ingest(graph, judges=True)
        books = graph.books(batch)
        assert (books.clinical_records, books.clinical_rows) == (written, written)
        counted = graph.rows(
            "SELECT count(*) AS n, count(PatientID) AS known FROM clinical WHERE patient_reference IS NOT NULL"
        )[0]
        assert counted["n"] == counted["known"] > 5_000

    @pytest.mark.slow
    def test_every_imaging_study_of_the_corpus_is_valid(
        self, tmp_path: Path, landing: LandingFolder, instance: dg.DagsterInstance
    ):
        gate = {"quarantined_share": 1.0}
        graph = Stepped(settings_for(tmp_path / "lake", landing.root, gate=gate), instance)
        for path in sorted((SHARED / "corpus").rglob("*")):
            if path.is_file() and "fhir/" not in str(path) and path.stat().st_size < 2**20:
                landing.put(str(path.relative_to(SHARED / "corpus")), path.read_bytes())
        ingest(graph)  # `.ci/run` has every rule asked of the corpus
        built = resources(graph)
        assert len(built) > 50
        assert [fault for one in built if (fault := fault_of(one))] == []
        assert [fault for one in built for fault in terminology_faults(one)] == []
        assert [faults for faults in official.schema_faults(built) if faults] == []
        assert [faults for faults in official.structure_faults(built) if faults] == []


def test_a_series_whose_uid_fhir_cannot_hold_stands_in_its_study_without_it(stepped, landing):
    landing.put("1.dcm", dicom(1, 1, 1, SeriesInstanceUID=f"1.2.{'3' * 64}"))
    landing.put("2.dcm", dicom(1, 2, 1))
    ingest(stepped)
    (study,) = resources(stepped)
    assert [one.get("uid") for one in study["series"]] == [None, uid(1, 2)]
