"""The gate and the pause: a batch that must not go on keeps its rows staged, says why, and resumes when it may."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_assets.lake.staging import Staging
from dicom_assets_tests.support.dicoms import dicom, uid, without_identity
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import Graph, settings_for, versions
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import Stepped, WithoutDagster, failures

pytestmark = pytest.mark.usefixtures("as_far_as_hierarchy")

AS_FAR_AS_GATE = ("raw_files", "validated_batch")
SHARED = ("flat_metadata", "clinical", "instance", "series", "study")


def put_bad(landing: LandingFolder, bad: int, good: int) -> None:
    for number in range(bad):
        landing.put(f"in/bad{number:02d}.dcm", without_identity(number))
    for number in range(good):
        landing.put(f"in/good{number:02d}.dcm", dicom(instance=number + 1))


def gate_config(**limits: float) -> dict:
    return {"validated_batch_gate": {"config": limits}}


def mostly_bad(graph: Graph, landing: LandingFolder) -> str:
    """A batch that pauses because most of it is bad, and has changed no shared table."""
    put_bad(landing, bad=12, good=3)
    before = versions(graph.lake)
    (batch,) = graph.ingest()
    assert not graph.results[batch].success
    after = versions(graph.lake)
    assert {name: after[name] - before[name] for name in SHARED} == dict.fromkeys(SHARED, 0)
    return batch


class TestTooMuchIsQuarantined:
    @pytest.mark.slow
    def test_the_batch_pauses_says_why_keeps_its_rows_and_resumes_with_a_raised_threshold(self, graph, landing):
        batch = mostly_bad(graph, landing)
        books = graph.books(batch)
        assert books.status == "paused"
        assert books.reason == (
            "validated_batch.gate: 12 of 15 objects are quarantined (80%); the batch pauses above 30%. "
            "Remove the cause and run it again, or raise quarantined_share for that run"
        )
        assert (books.seen, books.quarantined, books.closed_at) == (15, 12, None)
        assert graph.rows("SELECT code, stage, count(*) AS n FROM ingestion_errors GROUP BY ALL ORDER BY code") == [
            {"code": "CHECK_FAILED", "stage": "check", "n": 1},
            {"code": "MISSING_IDENTITY", "stage": "read", "n": 12},
        ]
        with graph.work() as work:
            assert Staging(work.lake.files, batch).left() > 0

        gate = graph.checks(batch)["validated_batch.gate"]
        assert not gate.passed
        assert gate.metadata["expected"].value == 0.3
        assert gate.metadata["actual"].value == 0.8
        quarantined = graph.rows("SELECT object_id FROM validated_batch WHERE outcome = 'quarantined'")
        assert set(gate.metadata["differing"].value) == {row["object_id"] for row in quarantined}

        self.its_run_is_told_from_one_that_broke_off(graph, batch, books.reason)
        assert graph.run(batch, gate_config(quarantined_share=0.9)).success
        books = graph.books(batch)
        assert (books.status, books.reason, books.balance) == ("closed", None, 0)
        assert (books.ingested, books.quarantined) == (3, 12)
        assert graph.rows("SELECT DISTINCT code FROM ingestion_errors") == [{"code": "MISSING_IDENTITY"}]
        assert graph.rows("SELECT instance_count AS n FROM study") == [{"n": 3}]

    def its_run_is_told_from_one_that_broke_off(self, graph: Graph, batch: str, reason: str) -> None:
        """By a tag in the list of runs, and on its page in words: why it waits, and the commands that end that."""
        result = graph.results[batch]
        assert graph.instance.get_run_by_id(result.run_id).tags["dicom_assets/state"] == "paused"
        (failure,) = [event for event in result.all_events if event.is_step_failure]
        words = failure.step_failure_data.user_failure_data.description
        assert words.startswith(f"Batch {batch} is paused and waits for a decision. Nothing broke off")
        assert reason in words
        for command in ("show", "retry", "accept", "dismiss"):
            assert f"dicom-assets batch {command} {batch}" in words

    @pytest.mark.slow
    def test_it_pauses_again_when_it_is_run_again_as_it_was_and_lets_other_batches_pass(self, states):
        graph, landing, batch = states.begin(mostly_bad)
        landing.put("other/fine.dcm", dicom(2))
        (other,) = graph.ingest()
        assert graph.books(other).status == "closed"
        assert not graph.run(batch).success
        assert graph.books(batch).status == "paused"

    @pytest.mark.slow
    def test_it_resumes_when_the_settings_say_so_or_a_minimum_is_not_reached(self, states):
        graph, landing, batch = states.begin(mostly_bad)
        graph.settings = settings_for(Path(graph.settings.lake), landing.root, gate={"minimum": 13})
        assert graph.run(batch).success
        assert graph.books(batch).status == "closed"


def test_a_few_bad_files_do_not_pause(stepped, landing):
    graph = stepped
    graph.judges = True
    put_bad(landing, bad=3, good=1)
    (batch,) = graph.ingest()
    assert (graph.books(batch).status, graph.books(batch).quarantined) == ("closed", 3)


def test_archives_do_not_count_as_objects_of_the_share(tmp_path, landing, instance):
    limits = {"minimum": 1, "quarantined_share": 0.4}
    graph = Stepped(settings_for(tmp_path / "lake", landing.root, gate=limits), instance, judges=False)
    landing.put_zip("a.zip", {"bad.dcm": without_identity(), "good.dcm": dicom()})
    (batch,) = graph.ingest()
    assert graph.books(batch).status == "paused"
    assert "1 of 2 objects are quarantined (50%); the batch pauses above 40%" in graph.books(batch).reason


class TestTheSourceCannotBeReadWhole:
    @pytest.mark.slow
    def test_the_batch_pauses_and_resumes_when_the_source_is_back(self, stepped, landing):
        graph = stepped
        landing.put_series(1, 1, 2)
        (batch,) = graph.claim()
        away = landing.root.with_name("unmounted")
        landing.root.rename(away)
        assert not graph.run(batch).success
        books = graph.books(batch)
        assert books.status == "paused"
        assert "The source is away" in books.reason
        assert (
            graph.rows("SELECT code, detail FROM ingestion_errors WHERE stage = 'read'")
            == [{"code": "SOURCE_UNAVAILABLE", "detail": "The folder of source 'landing' is not there; is it mounted?"}]
            * 2
        )
        with graph.work() as work:
            work.shared_engine = InlineEngine()
            gate = failures(work.batch(batch), judges=False)["validated_batch.gate"]
        assert (gate.expected, gate.actual, len(gate.differing)) == (0, 2, 2)

        away.rename(landing.root)
        assert graph.run(batch).success
        assert (graph.books(batch).status, graph.books(batch).ingested) == ("closed", 2)

    def test_a_raised_threshold_does_not_make_up_for_it(self, stepped, landing):
        graph = stepped
        landing.put("a.dcm", dicom())
        (batch,) = graph.claim()
        landing.root.rename(landing.root.with_name("unmounted"))
        graph.settings = settings_for(
            Path(graph.settings.lake), landing.root, gate={"quarantined_share": 1.0, "minimum": 1_000}
        )
        assert not graph.run(batch).success
        assert graph.books(batch).status == "paused"

    def test_a_single_file_that_is_gone_is_quarantined_and_pauses_nothing(self, stepped, landing):
        graph = stepped
        landing.put("a.dcm", dicom())
        landing.put("b.dcm", dicom(instance=2))
        (batch,) = graph.claim()
        (landing.root / "b.dcm").unlink()
        assert graph.run(batch).success
        assert graph.rows("SELECT code FROM validated_batch ORDER BY code") == [{"code": "OBJECT_GONE"}, {"code": None}]

    @pytest.mark.slow
    def test_a_file_that_changed_since_its_claim_is_quarantined_and_its_new_version_claimed(self, stepped, landing):
        graph = stepped
        landing.put("a.dcm", dicom(SeriesDescription="old"))
        (batch,) = graph.claim()
        landing.put("a.dcm", dicom(SeriesDescription="new"), age_seconds=3_600)
        assert graph.run(batch).success
        assert graph.rows("SELECT code FROM validated_batch") == [{"code": "CHANGED_DURING_READ"}]
        (second,) = graph.ingest()
        assert graph.books(second).ingested == 1
        assert graph.rows("SELECT SeriesDescription AS text FROM instance") == [{"text": "new"}]


@pytest.mark.slow
def test_warnings_of_objects_and_of_studies_are_told_and_pause_nothing(graph, landing):
    landing.put("a.dcm", dicom(1, 1, 1, PatientID="one"))
    landing.put("b.dcm", dicom(1, 1, 2, PatientID="two"))
    for number in (1, 2, 3):
        landing.put(f"without/{number}.dcm", dicom(2, 1, number, PatientID=None))
    (batch,) = graph.ingest()
    check = graph.checks(batch)["study.one_patient_a_study"]
    assert (check.passed, check.severity.value, check.blocking) == (False, "WARN", False)
    assert check.metadata["differing"].value == [
        row["study_key"] for row in graph.rows(f"SELECT study_key FROM study WHERE StudyInstanceUID = '{uid(1)}'")
    ]
    check = graph.checks(batch)["validated_batch.few_warnings"]
    assert (check.passed, check.severity.value, check.metadata["actual"].value) == (False, "WARN", 0.6)
    assert graph.rows("SELECT code FROM ingestion_errors") == [{"code": "PATIENT_ID_MISSING"}] * 3
    assert (graph.books(batch).status, graph.books(batch).ingested) == ("closed", 5)


class TestASmallBatchLosesAllThatItHas(WithoutDagster):
    @pytest.mark.slow
    def test_three_of_three_pause_and_say_what_to_do(self, graph, landing):
        put_bad(landing, bad=3, good=0)
        landing.put("readme.txt", "text")
        (batch,) = graph.ingest()
        books = graph.books(batch)
        assert (books.status, books.quarantined) == ("paused", 3)
        assert books.reason == (
            "validated_batch.gate: Nothing is ingested of what looked like DICOM: all 3 objects are quarantined. "
            "Remove the cause and run it again, or raise quarantined_share to 1 for that run"
        )
        graph.settings = settings_for(Path(graph.settings.lake), landing.root, gate={"quarantined_share": 1.0})
        assert graph.run(batch).success
        assert graph.books(batch).status == "closed"

    def test_what_came_with_it_does_not_hide_it(self, graph, landing):
        put_bad(landing, bad=3, good=0)
        landing.put("table.csv", "PatientID;diagnosis\nP1;R91\n")
        (batch,) = graph.ingest()
        assert graph.books(batch).status == "paused"

    def test_fewer_than_three_broken_files_alone_close_with_their_reasons(self, graph, landing):
        put_bad(landing, bad=2, good=0)
        (batch,) = graph.ingest()
        assert (graph.books(batch).status, graph.books(batch).quarantined) == ("closed", 2)
        assert graph.rows("SELECT count(*) AS n FROM ingestion_errors WHERE code = 'MISSING_IDENTITY'") == [{"n": 2}]

    def test_files_that_only_look_like_data_pause_nothing(self, graph, landing):
        for number in range(4):
            landing.put(f"{number}.dcm", b"")
            landing.put(f"{number}.csv", f"name;size\na;{number}\nb;2\n")
            landing.put(f"{number}.txt", "text")
        (batch,) = graph.ingest()
        assert graph.books(batch).status == "closed"

    def test_how_many_is_a_setting(self, tmp_path, landing, instance):
        graph = Stepped(
            settings_for(tmp_path / "lake", landing.root, gate={"none_ingested": 1}), instance, judges=False
        )
        put_bad(landing, bad=1, good=0)
        (batch,) = graph.ingest()
        assert graph.books(batch).status == "paused"


class TestTooMuchIsNothingThatIsReadHere(WithoutDagster):
    def test_a_folder_of_texts_closes_by_default(self, graph, landing):
        for number in range(12):
            landing.put(f"{number}.txt", "text")
        (batch,) = graph.ingest()
        assert (graph.books(batch).status, graph.books(batch).ignored) == ("closed", 12)

    @pytest.mark.slow
    def test_it_pauses_above_the_share_that_is_set(self, tmp_path, landing, instance):
        graph = Stepped(
            settings_for(tmp_path / "lake", landing.root, gate={"ignored_share": 0.5}), instance, judges=False
        )
        for number in range(12):
            landing.put(f"{number}.txt", "text")
        landing.put("a.dcm", dicom())
        (batch,) = graph.ingest()
        assert graph.books(batch).reason == (
            "validated_batch.gate: 12 of 13 objects are nothing that is read here (92%); the batch pauses above 50%. "
            "Remove the cause and run it again, or raise ignored_share for that run"
        )
        assert graph.run(batch, gate_config(ignored_share=1.0), AS_FAR_AS_GATE).success


class TestTooManyRecordsCannotBeRead(WithoutDagster):
    @pytest.mark.slow
    def test_it_pauses_above_half_of_them(self, graph, landing):
        landing.put("a.csv", "PatientID;diagnosis\n" + "P1;R91\n" * 9 + "P1\n" * 11)
        (batch,) = graph.ingest()
        assert graph.books(batch).reason == (
            "validated_batch.gate: 11 of 20 clinical records cannot be read (55%); the batch pauses above 50%. "
            "Remove the cause and run it again, or raise record_error_share for that run"
        )
        assert graph.run(batch, gate_config(record_error_share=0.6), [*AS_FAR_AS_GATE, "clinical"]).success
        assert graph.rows("SELECT count(*) AS n FROM clinical") == [{"n": 9}]

    def test_a_few_do_not(self, graph, landing):
        landing.put("a.csv", "PatientID;diagnosis\nP1;R91\n" + "P1\n" * 9)
        (batch,) = graph.ingest()
        assert graph.books(batch).status == "closed"
