"""The whole graph in process: from a landing folder to closed books, again, and after every kind of change."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime

import dagster as dg
import pyarrow as pa
import pytest

from dicom_assets.batch.validate import chunks
from dicom_assets.defs.graph import build_defs
from dicom_assets.lake.staging import RAW_STAGED, Part, Staging
from dicom_assets.storage.files import LakeFiles
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.lakes import (
    QUIET,
    TABLES_OF_A_BATCH,
    Graph,
    contents,
    make_asset,
    settings_for,
    versions,
)
from dicom_assets_tests.support.landings import LandingFolder, put_mixed
from dicom_assets_tests.support.states import States
from dicom_assets_tests.support.steps import Stepped


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> tuple[Graph, str]:
    """A mixed landing folder, ingested once; for tests that only look."""
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "landing").mkdir()
    put_mixed(LandingFolder(folder / "landing"))
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Graph(settings_for(folder / "lake", folder / "landing"), instance)
        (batch,) = graph.ingest()
        yield graph, batch


class TestAMixedFolder:
    def test_its_books_close(self, mixed):
        graph, batch = mixed
        books = graph.books(batch)
        assert (books.status, books.balance) == ("closed", 0)
        assert (books.seen, books.ingested, books.quarantined, books.ignored, books.deleted) == (12, 8, 1, 3, 0)
        assert (books.clinical_records, books.clinical_rows) == (3, 3)
        assert books.reason is None
        assert books.started_at <= books.closed_at
        assert books.run_id == graph.results[batch].run_id

    def test_every_check_passes(self, mixed):
        graph, batch = mixed
        assert graph.results[batch].success
        checks = graph.checks(batch)
        assert len(checks) > 25
        assert [name for name, one in checks.items() if not one.passed] == []

    def test_every_object_and_member_has_exactly_one_outcome(self, mixed):
        graph, _ = mixed
        found = graph.rows(
            """
            SELECT coalesce(member, regexp_extract(uri, '[^/]*/[^/]*$')) AS name, l.kind, outcome, code
            FROM raw_files r JOIN validated_batch l USING (batch_id, object_id) ORDER BY name
            """
        )
        assert [tuple(row.values()) for row in found] == [
            ("a/1.dcm", "dicom", "ingested", None),
            ("a/2.dcm", "dicom", "ingested", None),
            ("a/notes.txt", "other", "ignored", "NOT_DICOM"),
            ("clinical/diagnoses.csv", "clinical", "ingested", None),
            ("landing/other-site.zip", "archive", "ignored", "ARCHIVE_EXPANDED"),
            ("odd/no-identity.dcm", "dicom", "quarantined", "MISSING_IDENTITY"),
            ("odd/readme.txt", "other", "ignored", "NOT_DICOM"),
            ("series1/0001.dcm", "dicom", "ingested", None),
            ("series1/0001.dcm", "dicom", "ingested", None),
            ("series1/0002.dcm", "dicom", "ingested", None),
            ("series1/0003.dcm", "dicom", "ingested", None),
            ("series2/0001.dcm", "dicom", "ingested", None),
        ]

    def test_instances_roll_up_to_series_and_studies(self, mixed):
        graph, _ = mixed
        assert graph.rows(
            "SELECT StudyInstanceUID AS uid, series_count AS series, instance_count AS instances, "
            "patient_count AS patients, ModalitiesInStudy AS modalities FROM study ORDER BY uid"
        ) == [
            {"uid": uid(1), "series": 2, "instances": 4, "patients": 1, "modalities": ["CT"]},
            {"uid": uid(2), "series": 1, "instances": 1, "patients": 1, "modalities": ["CT"]},
            {"uid": uid(3), "series": 1, "instances": 2, "patients": 1, "modalities": ["CT"]},
        ]
        assert graph.rows("SELECT instance_count AS n FROM series ORDER BY SeriesInstanceUID") == [
            {"n": 3}, {"n": 1}, {"n": 1}, {"n": 2},
        ]  # fmt: skip

    def test_the_header_is_kept_whole_beside_the_columns(self, mixed):
        graph, _ = mixed
        (row,) = graph.rows(f"SELECT PatientID, header FROM flat_metadata WHERE SOPInstanceUID = '{uid(2, 1, 1)}'")
        header = json.loads(row["header"])
        assert row["PatientID"] == "P0002"
        assert header["0008103E"] == {"vr": "LO", "Value": ["Series 1"]}

    def test_clinical_ids_stay_text_and_an_empty_one_joins_nothing(self, mixed):
        graph, _ = mixed
        found = graph.rows(
            "SELECT c.PatientID AS id, count(s.StudyInstanceUID) AS studies FROM clinical c "
            "LEFT JOIN study s ON s.PatientID = c.PatientID GROUP BY id ORDER BY id NULLS LAST"
        )
        assert found == [{"id": "0007", "studies": 0}, {"id": "P0001", "studies": 1}, {"id": None, "studies": 0}]

    def test_errors_say_what_and_what_for_without_patient_data(self, mixed):
        graph, _ = mixed
        found = graph.rows("SELECT severity, code, detail FROM ingestion_errors ORDER BY code")
        assert [(row["severity"], row["code"]) for row in found] == [
            ("info", "ARCHIVE_EXPANDED"),
            ("error", "MISSING_IDENTITY"),
            ("info", "NOT_DICOM"),
            ("info", "NOT_DICOM"),
        ]
        assert not any(word in row["detail"] for row in found for word in ("Test^", "P000", "readme", uid(1)))

    def test_nothing_stays_staged(self, mixed):
        graph, batch = mixed
        with graph.work() as work:
            assert Staging(work.lake.files, batch).left() == 0
        assert list((graph.lake.files.local_root / "_staging").rglob("*")) == []

    def test_the_landing_folder_is_left_as_it_was(self, mixed):
        graph, _ = mixed
        root = graph.lake.files.local_root.parent / "landing"
        assert sum(len(files) for _, _, files in os.walk(root)) == 9

    def test_counts_are_metadata_that_dagster_plots(self, mixed):
        graph, batch = mixed
        told = {
            event.asset_key.to_user_string(): {name: one.value for name, one in event.materialization.metadata.items()}
            for event in graph.results[batch].get_asset_materialization_events()
        }
        assert told["raw_files"]["seen"] == 12
        assert told["raw_files"]["claimed"] == 9
        assert told["validated_batch"]["ingested"] == 8
        assert told["validated_batch"]["deleted"] == 0
        assert told["flat_metadata"]["dagster/partition_row_count"] == 7
        assert told["study"]["dagster/row_count"] == 3
        assert told["study"]["touched_studies"] == 3
        assert told["cleanup"]["balance"] == 0

    @pytest.mark.slow
    def test_what_one_step_makes_together_can_be_made_alone(self, graph, landing):
        put_mixed(landing)
        (batch,) = graph.claim()
        assert graph.run(batch, select=[name for name in TABLES_OF_A_BATCH if name != "cleanup"]).success
        again = graph.run(batch, select=["raw_files", "validated_batch", "flat_metadata", "instance", "study"])
        assert again.success
        made = {event.asset_key.to_user_string() for event in again.get_asset_materialization_events()}
        assert made == {"raw_files", "validated_batch", "flat_metadata", "instance", "study"}

    def test_run_events_name_no_patient_path_or_uid(self, mixed):
        graph, batch = mixed
        spoken = "\n".join(
            str(record.dagster_event) + record.user_message
            for record in graph.instance.all_logs(graph.results[batch].run_id)
        )
        for secret in ("P0001", "Test^Patient", "Study 1", "0001.dcm", "diagnoses", "other-site", uid(1)):
            assert secret not in spoken


@pytest.fixture(autouse=True)
def _judged(states: States) -> None:
    """What is done again, or replaced, is asked every rule."""
    states.judges = True


def mixed_batch(graph: Stepped, landing: LandingFolder) -> str:
    """The mixed folder, ingested without Dagster; its batch."""
    graph.judges = False
    put_mixed(landing)
    (batch,) = graph.ingest()
    return batch


def newer_and_older(graph: Stepped, landing: LandingFolder) -> tuple[str, str]:
    """Two batches: the second replaces a file and a table, and brings an older version of an instance."""
    landing.put("a.dcm", dicom(1, 1, 1, PatientID="wrong", SeriesDescription="first"), age_seconds=7_200)
    landing.put("c.csv", "PatientID,x\n01,a\n02,b\n", age_seconds=7_200)
    landing.put("new.dcm", dicom(3, 1, 1, SeriesDescription="new"), age_seconds=3_600)
    (first,) = graph.ingest()
    landing.put("a.dcm", dicom(1, 1, 1, PatientID="right", SeriesDescription="second"), age_seconds=3_600)
    landing.put("c.csv", "PatientID,x\n01,c\n", age_seconds=3_600)
    landing.put("old.dcm", dicom(3, 1, 1, SeriesDescription="old"), age_seconds=90_000)
    (second,) = graph.ingest()
    return first, second


class TestIngestingAgain:
    @pytest.mark.slow
    def test_claims_nothing_and_changes_no_table_even_if_a_file_is_deleted_from_the_landing_folder(self, states):
        graph, landing, _ = states.begin(mixed_batch)
        before = versions(graph.lake)
        assert graph.ingest() == []
        (landing.root / "study1/series1/0001.dcm").unlink()
        assert graph.ingest() == []
        assert versions(graph.lake) == before

    @pytest.mark.slow
    def test_adding_one_file_makes_one_batch_of_one(self, states):
        graph, landing, _ = states.begin(mixed_batch)
        landing.put("study1/series1/0004.dcm", dicom(1, 1, 4))
        (batch,) = graph.ingest()
        assert (graph.books(batch).seen, graph.books(batch).ingested) == (1, 1)
        assert graph.rows(f"SELECT instance_count AS n FROM study WHERE StudyInstanceUID = '{uid(1)}'") == [{"n": 5}]
        assert [row["status"] for row in graph.rows("SELECT status FROM batches")] == ["closed", "closed"]

    @pytest.mark.slow
    def test_replacing_a_file_supersedes_its_instance_and_keeps_its_history(self, states):
        graph, _, (first, second) = states.begin(newer_and_older)
        of_one = f"WHERE StudyInstanceUID = '{uid(1)}'"
        assert graph.rows(f"SELECT PatientID AS id, batch_id AS batch FROM instance {of_one}") == [
            {"id": "right", "batch": second}
        ]
        assert graph.rows(f"SELECT SeriesDescription AS text, instance_count AS n FROM series {of_one}") == [
            {"text": "second", "n": 1}
        ]
        history = graph.rows(f"SELECT batch_id FROM flat_metadata {of_one} ORDER BY version_at")
        assert [row["batch_id"] for row in history] == [first, second]

    @pytest.mark.slow
    def test_an_older_version_that_arrives_later_changes_nothing(self, states):
        graph, _, _ = states.begin(newer_and_older)
        found = graph.rows(f"SELECT SeriesDescription AS text FROM instance WHERE StudyInstanceUID = '{uid(3)}'")
        assert found == [{"text": "new"}]

    @pytest.mark.slow
    def test_a_newer_version_of_a_clinical_file_replaces_its_records(self, states):
        graph, _, (first, second) = states.begin(newer_and_older)
        assert graph.rows("SELECT PatientID AS id, batch_id AS batch FROM clinical") == [{"id": "01", "batch": second}]
        assert {graph.books(one).status for one in (first, second)} == {"closed"}


class TestRunningABatchAgain:
    @pytest.mark.slow
    def test_a_closed_batch_ends_in_the_same_tables_row_for_row(self, states):
        graph, _, batch = states.begin(mixed_batch)
        before = contents(graph.lake)
        assert graph.run(batch).success
        assert contents(graph.lake) == before

    @pytest.mark.slow
    def test_an_earlier_batch_does_not_bring_back_what_a_later_one_replaced(self, stepped, landing):
        graph = replace(stepped, judges=False)
        landing.put("keep.dcm", dicom(1, 1, 2))
        landing.put("c.csv", "PatientID,x\n01,a\n02,b\n", age_seconds=7_200)
        (first,) = graph.ingest()
        landing.put("c2.csv", "PatientID,x\n01,c\n", age_seconds=3_600)
        landing.put("newer.dcm", dicom(1, 1, 2, SeriesDescription="newer"), age_seconds=3_600)
        graph.ingest()
        before = contents(graph.lake)
        assert graph.run(first).success
        assert contents(graph.lake) == before

    @pytest.mark.slow
    def test_cleanup_alone_leaves_closed_books_as_they_are(self, states):
        graph, _, batch = states.begin(mixed_batch)
        before = contents(graph.lake)
        assert graph.run(batch, select=["cleanup"]).success
        assert contents(graph.lake) == before

    def test_a_single_asset_of_a_closed_batch_says_what_to_do(self, states):
        graph, _, batch = states.begin(mixed_batch)
        result = graph.run(batch, select=["study"])
        (failure,) = [event for event in result.all_events if event.is_step_failure]
        assert (
            "has no staged touched_studies: the steps before were not run, or it is closed since. Run the whole job"
            in (failure.step_failure_data.user_failure_data.description)
        )


class TestBatchesOfSeveralSources:
    @pytest.mark.slow
    @pytest.mark.usefixtures("as_far_as_hierarchy")
    def test_the_same_study_in_two_sources_is_two_studies(self, tmp_path, instance):
        folders = [tmp_path / "one", tmp_path / "two"]
        for folder in folders:
            folder.mkdir()
            LandingFolder(folder).put("a.dcm", dicom())
        graph = Stepped(settings_for(tmp_path / "lake", *folders), instance, judges=False)
        assert len(graph.ingest()) == 2
        assert graph.rows("SELECT source FROM study ORDER BY source") == [{"source": "landing"}, {"source": "landing2"}]

    def test_a_batch_of_a_source_that_is_not_configured_any_more_says_so(self, graph, landing, instance):
        landing.put("a.dcm", dicom())
        (batch,) = graph.claim()
        renamed = graph.settings.model_copy(
            update={"sources": (graph.settings.sources[0].model_copy(update={"name": "renamed"}),)}
        )
        other = Graph(renamed, instance)
        result = other.run(batch)
        (failure,) = [event for event in result.all_events if event.is_step_failure]
        assert "Source 'landing' is not configured" in failure.step_failure_data.user_failure_data.description


class TestReading:
    @pytest.mark.slow
    @pytest.mark.usefixtures("as_far_as_hierarchy")
    def test_a_batch_is_read_in_bounded_chunks_in_any_number_with_the_same_result(self, tmp_path, landing, instance):
        put_mixed(landing)
        landing.put_zip("many.zip", {f"{n:02d}.dcm": dicom(9, 1, n) for n in range(1, 12)})
        found = []
        for size in (2, 250):
            graph = Stepped(
                settings_for(tmp_path / f"lake{size}", landing.root, reading={"chunk_objects": size}),
                instance,
                judges=False,
            )
            (batch,) = graph.claim()
            with graph.work() as work:
                make_asset("raw_files", batch, work)
                made = list(
                    chunks(Staging(work.lake.files, batch), graph.settings, graph.settings.source("landing"), "run")
                )
            assert max(len(chunk.objects) for chunk in made) <= size * 4
            assert sum(len(chunk.objects) for chunk in made) == graph.books(batch).seen
            assert graph.run(batch).success
            found.append(
                graph.rows("SELECT object_id, header FROM flat_metadata ORDER BY object_id")
                + graph.rows("SELECT object_id, outcome, code FROM validated_batch ORDER BY object_id")
            )
        assert found[0] == found[1]

    @pytest.mark.parametrize(("objects", "sizes"), [(60, [60]), (200, [100, 50, 25, 16, 9])])
    def test_the_last_chunks_are_short_so_that_processes_end_together(self, tmp_path, objects, sizes):
        settings = settings_for(tmp_path / "lake", tmp_path / "landing", reading={"chunk_objects": 100, "workers": 1})
        staging = Staging(LakeFiles(settings.lake), "batch")
        rows = [{"object_id": f"{n:03d}", "claimed_at": datetime.now(UTC)} for n in range(objects)]
        staging.put(Part.RAW, 0, pa.Table.from_pylist(rows, schema=RAW_STAGED))
        made = list(chunks(staging, settings, settings.source("landing"), "run"))
        assert [len(chunk.objects) for chunk in made] == sizes
        assert [task.object_id for chunk in made for task in chunk.objects] == [row["object_id"] for row in rows]

    @pytest.mark.slow
    def test_reading_in_processes_gives_what_reading_inline_gives(self, states):
        graph, _, batch = states.begin(mixed_batch)
        inline = contents(graph.lake)
        job = build_defs(graph.settings).resolve_job_def("ingest_batch")
        assert job.execute_in_process(partition_key=batch, instance=graph.instance, run_config=QUIET).success
        assert contents(graph.lake) == inline
