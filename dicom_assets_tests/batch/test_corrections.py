"""Corrections and patient links: what objects and persons really are, beside what the objects say.

Belongs here: files of corrections, taken through all steps with every blocking rule. One story is told once for all
tests: objects, their corrections, more objects, and that everything is taken back; each test looks at its own study.
Does not belong here: orders of arrival (`test_corrections_in_any_order`).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dicom_assets.batch.checks.contract import CheckResult
from dicom_assets.batch.context import RunContext
from dicom_assets.batch.verification.verify import verify
from dicom_assets.service.audit_lake import lake_counts
from dicom_assets_tests.support.corrections import MONDAY, TUESDAY, correction, link, table
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import Graph, settings_for
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import Stepped, failures, step_through

FILES = {"files": ["corrections/**"]}

GROWS = (correction("study", uid(16), PatientID="P16"), correction("study", uid(17), PatientID="P17"))
"""Rows of a file that is delivered again with one more."""

REPORT = (
    '{"resourceType":"DiagnosticReport","id":"r","status":"final","code":{"text":"CT"},'
    '"identifier":[{"type":{"coding":[{"code":"ACSN"}]},"value":"A6"}],"subject":{"identifier":{"value":"NEWEST"}}}\n'
)


@dataclass(frozen=True)
class Story:
    """A lake as it was at three times: before corrections, with them, and when they were taken back.

    again: the rules that did not hold when the batch of the corrections was run again after objects had come.
    """

    before: Graph
    corrected: Graph
    taken_back: Graph
    again: Mapping[str, CheckResult]


def parquet(*rows: dict[str, str]) -> bytes:
    """Rows as a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows)), sink)
    return sink.getvalue().to_pybytes()


def put_objects(landing: LandingFolder) -> None:
    landing.put("1a.dcm", dicom(1, 1, 1))
    landing.put("1b.dcm", dicom(1, 1, 2))
    landing.put("2.dcm", dicom(2, 1, 1))
    landing.put("3.dcm", dicom(3, 1, 1, AccessionNumber="A1"))
    for series in (1, 2):
        landing.put(f"5{series}.dcm", dicom(5, series, 1))
    landing.put("6.dcm", dicom(6, 1, 1, PatientID="OLD", AccessionNumber="A6"))
    landing.put("7.dcm", dicom(7, 1, 1, PatientID="NEW"))
    landing.put("labs.csv", "PatientID;lab\nOLD;1\nNEW;2\n")
    landing.put("report.ndjson", REPORT)
    for study in (8, 9, 10, 11, 12, 13, 14, 16):
        landing.put(f"{study}.dcm", dicom(study, 1, 1))


def put_corrections(landing: LandingFolder) -> None:
    landing.put(
        "corrections/a.csv",
        table(
            correction("instance", uid(1, 1, 2), StudyInstanceUID=uid(2), PatientID="P0002"),
            correction("study", uid(3), PatientID="P9", IssuerOfPatientID="HOSP", AccessionNumber="A9"),
            correction("patient", "P0004", PatientID="P8"),
            correction("patient", "P0005", PatientID="wide", IssuerOfPatientID="WIDE"),
            correction("study", uid(5), PatientID="any source"),
            correction("study", uid(5), PatientID="this source", source="landing"),
            correction("study", uid(5), PatientID="other source", source="elsewhere"),
            correction("series", uid(5, 2), PatientID="series"),
            correction("study", uid(8), StudyInstanceUID=uid(18)),
            correction("study", uid(9), PatientID="first", corrected_at=MONDAY),
            correction("study", uid(11), PatientID="P5"),
        ),
    )
    landing.put("corrections/b.csv", table(correction("study", uid(9), PatientID="second", corrected_at=TUESDAY)))
    landing.put(
        "corrections/links.csv",
        table(
            link("OLD", "NEW"),
            link("NEW", "NEWEST"),
            link("P0010", "PX"),
            link("PX", "P0010", corrected_at=TUESDAY),
            link("P5", "P6"),
        ),
    )
    landing.put("corrections/c.parquet", parquet(correction("study", uid(12), PatientID="P12")))
    landing.put_zip("corrections/d.zip", {"d.csv": table(correction("study", uid(13), PatientID="P13")).encode()})
    landing.put("export.csv", table(correction("study", uid(14), PatientID="nobody said so")))
    landing.put("corrections/typo.csv", "scope,key,PatientID\nstudy,1.2,P1\n")
    landing.put("corrections/grows.csv", table(*GROWS[:1]))
    landing.put("corrections/late.csv", table(correction("study", uid(15), PatientID="x", corrected_at=TUESDAY)))
    landing.put(
        "corrections/broken.csv",
        table(
            correction("studies", "secret", PatientID="secret"),
            correction("study", "secret"),
            correction("study", uid(14), PatientID="P14"),
            correction("study", "secret", PatientID="secret", corrected_at="yesterday"),
            correction("patient", "secret", StudyInstanceUID=uid(1)),
            correction("study", "secret", StudyInstanceUID="secret"),
            link("secret", "secret"),
        ),
    )


@pytest.fixture(scope="module")
def story(tmp_path_factory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("story")
    (folder / "landing").mkdir()
    landing = LandingFolder(folder / "landing")
    with dg.DagsterInstance.ephemeral() as instance:

        def graph(name: str) -> Graph:
            return Stepped(settings_for(folder / name, landing.root, corrections=FILES), instance)

        now = graph("lake")
        put_objects(landing)
        step_through(now, judges=False)  # objects alone, which others ask every rule of
        shutil.copytree(folder / "lake", folder / "before")
        put_corrections(landing)
        (told,) = step_through(now)
        landing.put("4.dcm", dicom(4, 1, 1))
        landing.put("1b-newer.dcm", dicom(1, 1, 2, SeriesDescription="newer"), age_seconds=3_600)
        landing.put("corrections/grows.csv", table(*GROWS), age_seconds=3_600)
        # Said before one that another batch has brought, of which this one then tells that it is contradicted.
        landing.put("corrections/early.csv", table(correction("study", uid(15), PatientID="early")))
        step_through(now)
        shutil.copytree(folder / "lake", folder / "corrected")
        with RunContext(now.settings, shared_engine=InlineEngine()) as work:
            again = failures(work.batch(told))
        for path in sorted((landing.root / "corrections").iterdir()):
            landing.put(f"corrections/{path.name}", table(), age_seconds=1_800)
        step_through(now)
        yield Story(graph("before"), graph("corrected"), now, again)


def value(graph: Graph, sql: str) -> Any:
    """The one value that a query gives."""
    ((found,),) = (row.values() for row in graph.rows(sql))
    return found


def patients(graph: Graph, study: int) -> list[tuple[str, str | None]]:
    """PatientID and issuer of each instance of a study, by series."""
    rows = graph.rows(
        f"SELECT PatientID, IssuerOfPatientID FROM instance WHERE StudyInstanceUID = '{uid(study)}' "
        "ORDER BY SeriesInstanceUID, SOPInstanceUID"
    )
    return [(row["PatientID"], row["IssuerOfPatientID"]) for row in rows]


@pytest.mark.parametrize("when", ["before", "corrected", "taken_back"])
def test_books_and_tables_agree_at_any_time(story, when):
    graph = getattr(story, when)
    assert [finding.rule for finding in verify(graph.lake, graph.settings).findings if not finding.holds] == []


def test_objects_really_belong_to_another_patient_and_both_values_can_be_seen(story):
    (row,) = story.corrected.rows(f"FROM instance WHERE StudyInstanceUID = '{uid(3)}'")
    assert (row["PatientID"], row["IssuerOfPatientID"], row["AccessionNumber"]) == ("P9", "HOSP", "A9")
    assert (row["received_patient_id"], row["received_patient_issuer"]) == ("P0003", None)
    assert (row["received_accession_number"], row["received_study_instance_uid"]) == ("A1", uid(3))
    (said,) = story.corrected.rows(
        "SELECT corrected_by, corrected_at::DATE::VARCHAR AS day FROM correction "
        f"SEMI JOIN study ON correction_key = study.corrections[1] AND study.StudyInstanceUID = '{uid(3)}'"
    )
    assert said == {"corrected_by": "steward", "day": MONDAY[:10]}


def test_fhir_and_omop_are_made_of_what_is_right(story):
    subject = "SELECT resource ->> '$.subject.identifier.value' FROM imaging_study WHERE StudyInstanceUID = '{}'"
    assert value(story.corrected, subject.format(uid(3))) == "P9"
    series = "SELECT count(*) FROM image_occurrence WHERE image_study_UID = '{}'"
    assert value(story.corrected, series.format(uid(2))) == 2
    assert value(story.corrected, series.format(uid(8))) == 0


def test_flat_metadata_stays_as_it_was_received(story):
    columns = "object_id, PatientID, IssuerOfPatientID, AccessionNumber, StudyInstanceUID, study_key, header"
    before = story.before.rows(f"SELECT {columns} FROM flat_metadata ORDER BY object_id")
    now = {row["object_id"]: row for row in story.corrected.rows(f"SELECT {columns} FROM flat_metadata")}
    assert [now[row["object_id"]] for row in before] == before


def test_objects_that_arrive_after_their_correction_are_corrected(story):
    assert patients(story.corrected, 4) == [("P8", None)]


def test_their_batch_can_be_run_again_after_objects_that_they_are_about_have_come(story):
    assert story.again == {}


def test_the_narrower_correction_counts_and_of_these_the_one_that_names_the_source(story):
    assert [patient for patient, _ in patients(story.corrected, 5)] == ["this source", "series"]


def test_one_correction_says_both_parts_of_a_patient(story):
    assert {issuer for _, issuer in patients(story.corrected, 5)} == {None}


class TestObjectsOfAnotherStudy:
    COUNTS = (
        "SELECT instance_count AS n, patient_count AS p FROM study WHERE StudyInstanceUID IN ('{}', '{}') ORDER BY 1"
    )

    def test_both_studies_are_made_again(self, story):
        assert story.corrected.rows(self.COUNTS.format(uid(1), uid(2))) == [{"n": 1, "p": 1}, {"n": 2, "p": 1}]

    def test_a_newer_version_of_a_moved_object_moves_too(self, story):
        description = f"SELECT SeriesDescription FROM instance WHERE SOPInstanceUID = '{uid(1, 1, 2)}'"
        assert value(story.corrected, description) == "newer"
        assert patients(story.corrected, 2) == [("P0002", None), ("P0002", None)]

    def test_a_study_that_loses_its_last_object_goes_and_one_that_had_none_comes(self, story):
        studies = f"SELECT StudyInstanceUID AS uid FROM study WHERE StudyInstanceUID IN ('{uid(8)}', '{uid(18)}')"
        assert story.corrected.rows(studies) == [{"uid": uid(18)}]
        assert story.taken_back.rows(studies) == [{"uid": uid(8)}]

    def test_fhir_calls_the_one_that_went_entered_in_error(self, story):
        gone = "SELECT StudyInstanceUID AS uid FROM imaging_study WHERE is_deleted"
        assert story.corrected.rows(gone) == [{"uid": uid(8)}]
        assert story.taken_back.rows(gone) == [{"uid": uid(18)}]

    def test_an_audit_counts_them_where_their_service_has_them(self, story):
        before, now = (lake_counts(graph.lake, ["landing"]) for graph in (story.before, story.corrected))
        assert {study: now["landing", uid(study)] for study in (1, 2, 8)} == {1: 2, 2: 1, 8: 1}
        assert set(now) - set(before) == {("landing", uid(4))}


class TestPatientLinks:
    def test_two_ids_are_one_person_at_the_end_of_the_chain(self, story):
        assert patients(story.corrected, 6) == patients(story.corrected, 7) == [("NEWEST", None)]
        persons = (
            f"SELECT count(DISTINCT person_id) FROM image_occurrence WHERE image_study_UID IN ('{uid(6)}', '{uid(7)}')"
        )
        assert (value(story.before, persons), value(story.corrected, persons)) == (2, 1)

    def test_records_of_either_id_are_of_both_studies(self, story):
        joined = "SELECT count(*) FROM study_clinical WHERE record_type = 'table'"
        assert (value(story.before, joined), value(story.corrected, joined)) == (2, 4)

    def test_a_report_of_the_one_id_is_linked_to_a_study_of_the_other(self, story):
        state = "SELECT link_state FROM diagnostic_report"
        assert value(story.before, state) == "patient_mismatch"
        assert value(story.corrected, state) == "linked"
        assert value(story.taken_back, state) == "patient_mismatch"

    def test_a_link_follows_what_a_correction_says(self, story):
        assert patients(story.corrected, 11) == [("P6", None)]


class TestWhatIsNotInForce:
    def test_a_correction_that_contradicts_an_earlier_one_changes_nothing(self, story):
        assert patients(story.corrected, 9) == [("first", None)]

    def test_a_circle_of_links_is_refused_where_it_closes(self, story):
        assert patients(story.corrected, 10) == [("PX", None)]

    @pytest.mark.parametrize("when", ["corrected", "taken_back"])
    def test_each_is_told_once_with_its_record_and_without_a_value(self, story, when):
        """Also when the batch that brought it is run again."""
        told = getattr(story, when).rows(
            "SELECT code, record, detail, uri FROM ingestion_errors "
            "WHERE code IN ('CORRECTION_CONTRADICTED', 'PATIENT_LINK_CYCLE') ORDER BY code, uri"
        )
        assert [(row["code"], row["record"], row["uri"].rsplit("/", 1)[1]) for row in told] == [
            ("CORRECTION_CONTRADICTED", 1, "b.csv"),
            ("CORRECTION_CONTRADICTED", 1, "late.csv"),
            ("PATIENT_LINK_CYCLE", 4, "links.csv"),
        ]
        assert not any(name in row["detail"] for row in told for name in ("first", "second", "P0010", "PX", uid(9)))


class TestWhereCorrectionsAreBelieved:
    def test_parquet_and_members_of_archives_are_believed_too(self, story):
        assert patients(story.corrected, 12) == [("P12", None)]
        assert patients(story.corrected, 13) == [("P13", None)]

    def test_elsewhere_a_table_of_corrections_is_an_error_and_one_there_that_is_none(self, story):
        told = story.corrected.rows(
            "SELECT code, detail FROM ingestion_errors WHERE code LIKE 'CORRECTIONS_%' ORDER BY code"
        )
        assert [row["code"] for row in told] == ["CORRECTIONS_NOT_EXPECTED", "CORRECTIONS_UNREADABLE"]
        assert told[1]["detail"] == "It lacks the column corrected_by, corrected_at."
        assert value(story.corrected, "SELECT count(*) FROM clinical WHERE record_type = 'table'") == 2

    def test_a_broken_row_is_an_error_and_the_others_are_taken(self, story):
        assert patients(story.corrected, 14) == [("P14", None)]
        told = story.corrected.rows(
            "SELECT record, detail FROM ingestion_errors WHERE code = 'CORRECTION_INVALID' ORDER BY record"
        )
        assert [row["record"] for row in told] == [1, 2, 4, 5, 6, 7]
        assert not any("secret" in row["detail"] for row in told)


def test_what_is_taken_back_leaves_the_lake_as_if_it_had_never_been_said(story):
    assert value(story.taken_back, "SELECT count(*) FROM correction WHERE state <> 'replaced'") == 0
    assert value(story.taken_back, "SELECT count(*) FROM patient_link") == 0
    columns = "* EXCLUDE (batch_id)"
    before = story.before.rows(f"SELECT {columns} FROM instance ORDER BY object_id")
    now = {row["object_id"]: row for row in story.taken_back.rows(f"SELECT {columns} FROM instance")}
    newer = {uid(1, 1, 2)}
    assert [now[row["object_id"]] for row in before if row["SOPInstanceUID"] not in newer] == [
        row for row in before if row["SOPInstanceUID"] not in newer
    ]


@pytest.mark.slow
def test_the_graph_ingests_corrections_and_closes_its_books(tmp_path):
    (tmp_path / "landing").mkdir()
    landing = LandingFolder(tmp_path / "landing")
    landing.put("1.dcm", dicom(1, 1, 1))
    landing.put("corrections/a.csv", table(correction("study", uid(1), PatientID="P9"), link("P9", "P10")))
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Graph(settings_for(tmp_path / "lake", landing.root, corrections=FILES), instance)
        (batch,) = graph.ingest()
        assert graph.books(batch).status == "closed", graph.books(batch).reason
        assert graph.books(batch).ingested == 2
        assert graph.rows("SELECT PatientID FROM study") == [{"PatientID": "P10"}]
