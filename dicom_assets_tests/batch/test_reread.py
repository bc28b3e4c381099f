"""Reading again: what the lake has is read once more, in a batch of its own, and the books of the old one stay."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicom_assets.batch.books import Books, all_books
from dicom_assets.batch.decisions import accept, dismiss
from dicom_assets.batch.erasure.target import Scope, Target
from dicom_assets.batch.reread import Choice, Chosen, NothingChosen, choose, claim_chosen
from dicom_assets.batch.verification.verify import verify
from dicom_assets.cli.main import app
from dicom_assets.defs.jobs import register
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.query import QueryError
from dicom_assets.settings import Settings, SettingsError
from dicom_assets_tests.support.canaries import erased
from dicom_assets_tests.support.commands import command
from dicom_assets_tests.support.crashing import STATUS
from dicom_assets_tests.support.dicoms import dicom, uid, without_identity
from dicom_assets_tests.support.lakes import Graph, contents, settings_for
from dicom_assets_tests.support.landings import DAY, LandingFolder, put_mixed
from dicom_assets_tests.support.projects import REPOSITORY
from dicom_assets_tests.support.steps import Stepped


def ingested(graph: Graph) -> str:
    (batch,) = graph.ingest()
    assert graph.books(batch).status == "closed", graph.books(batch).reason
    return batch


def chosen(graph: Graph, **choice: object) -> Chosen:
    with graph.work() as work:
        return choose(work, Choice(**choice))  # type: ignore[arg-type]


def claimed(graph: Graph, **choice: object) -> list[str]:
    """Claims what a choice comes to; which batches."""
    with graph.work() as work:
        batches = [claim.batch_id for claim in claim_chosen(work, choose(work, Choice(**choice)))]  # type: ignore[arg-type]
        register(graph.instance, batches)
        return batches


def reread(graph: Graph, **choice: object) -> str:
    """Reads again what a choice comes to, as one batch, which closes; which."""
    (batch,) = claimed(graph, **choice)
    graph.run(batch)
    assert graph.books(batch).status == "closed", graph.books(batch).reason
    return batch


def mixed(graph: Stepped, landing: LandingFolder) -> str:
    """A mixed folder, ingested; its batch."""
    put_mixed(landing)
    landing.put("odd/age.dcm", dicom(4, 1, 1, PatientBirthDate="20209999"))
    return ingested(graph)


@dataclass(frozen=True)
class ReadAgain:
    """What a mixed folder was before it was read again and since. books: of the first batch."""

    first: str
    again: str
    before: dict[str, list[dict[str, object]]]
    books: Books


def mixed_again(graph: Stepped, landing: LandingFolder) -> ReadAgain:
    """A mixed folder, ingested and read again."""
    first = mixed(graph, landing)
    before, books = said(graph), graph.books(first)
    graph.judges = True
    return ReadAgain(first, reread(graph, source="landing"), before, books)


def one(graph: Stepped, landing: LandingFolder) -> str:
    """A file, ingested; its batch."""
    landing.put("a.dcm", dicom(1, 1, 1))
    return ingested(graph)


def series(graph: Stepped, landing: LandingFolder) -> str:
    """A series of three, ingested; its batch."""
    landing.put_series(1, 1, 3, folder="s")
    return ingested(graph)


def refused(graph: Stepped, landing: LandingFolder) -> tuple[str, str]:
    """A series of which one file is not what it was when it was ingested, to whoever reads it again; the batches."""
    first = series(graph, landing)
    overwrite_unseen(landing.root / "s/0001.dcm", without_identity())
    (again,) = claimed(graph, source="landing")
    graph.run(again)
    return first, again


CURRENT = ("instance", "series", "study", "clinical", "imaging_study", "image_occurrence")
OF_THE_BATCH = {"batch_id", "updated_at", "modified_at", "resource"}


def said(graph: Graph) -> dict[str, list[dict[str, object]]]:
    """What the current tables say, but for which batch has read it when."""
    return {name: current(graph.lake, name) for name in CURRENT}


def current(lake: Lake, name: str) -> list[dict[str, object]]:
    rows = contents(lake, [name])[name]
    return [{key: value for key, value in row.items() if key not in OF_THE_BATCH} for row in rows]


def overwrite_unseen(path: Path, data: bytes) -> None:
    """Writes other bytes with the same time and size: to whoever lists the file it is the same."""
    moment, size = path.stat(), path.stat().st_size
    path.write_bytes(data.ljust(size, b"\0")[:size])
    os.utime(path, ns=(moment.st_atime_ns, moment.st_mtime_ns))


class TestEverythingOfASource:
    @pytest.mark.slow
    def test_gives_the_same_current_tables_and_leaves_the_books_of_the_old_batch(self, states):
        graph, _, it = states.begin(mixed_again)
        assert said(graph) == it.before
        assert graph.books(it.first) == it.books
        assert graph.books(it.again).kind == "reread"
        assert graph.books(it.again).balance == 0
        assert {
            row["batch_id"] for row in graph.rows("SELECT batch_id FROM instance UNION SELECT batch_id FROM clinical")
        } == {it.again}
        assert verify(graph.lake, graph.settings).holds

    @pytest.mark.slow
    def test_marks_the_old_rows_of_the_ledger_and_no_others(self, states):
        graph, _, it = states.begin(mixed_again)
        outcomes = (
            "SELECT DISTINCT superseded_by, outcome IS NOT NULL AS judged FROM validated_batch WHERE batch_id = '{}'"
        )
        # the archive itself has no outcome that could change, but it was read again as well
        assert graph.rows(outcomes.format(it.first)) == [{"superseded_by": it.again, "judged": True}]
        assert graph.rows(outcomes.format(it.again)) == [{"superseded_by": None, "judged": True}]

    @pytest.mark.slow
    def test_counts_one_row_of_flat_metadata_of_each_object_as_current(self, states):
        graph, _, it = states.begin(mixed_again)
        rows = graph.rows(
            "SELECT batch_id, replaced_in, count(*) AS n FROM flat_metadata_versions GROUP BY ALL ORDER BY batch_id"
        )
        assert [(row["batch_id"], row["replaced_in"], row["n"]) for row in rows] == [
            (it.first, it.again, 8),
            (it.again, None, 8),
        ]

    @pytest.mark.slow
    def test_once_more_makes_a_chain(self, states):
        graph, _, first = states.begin(one)
        second, third = reread(graph, source="landing"), reread(graph, source="landing")
        chain = {
            r["batch_id"]: r["superseded_by"] for r in graph.rows("SELECT batch_id, superseded_by FROM validated_batch")
        }
        assert chain == {first: second, second: third, third: None}

    @pytest.mark.slow
    def test_of_the_old_batch_run_again_changes_nothing(self, states):
        graph, _, it = states.begin(mixed_again)
        before = contents(graph.lake)
        graph.run(it.first)
        assert graph.books(it.first).status == "closed", graph.books(it.first).reason
        after = contents(graph.lake)
        for name in before:
            if name != "batches":  # of the clinical records, none are the old batch's any more
                assert after[name] == before[name], name

    @pytest.mark.slow
    def test_is_erased_in_each_batch_that_has_read_it(self, states):
        graph, _, _ = states.begin(mixed_again)
        erased(graph, Target(Scope.STUDY, uid(1)))
        assert [one.rule for one in verify(graph.lake, graph.settings).findings if not one.holds] == []


class TestWhatWasRefused:
    @pytest.mark.slow
    def test_comes_in_when_it_is_taken_now_and_its_old_row_keeps_its_outcome(self, stepped, landing):
        graph = replace(stepped, judges=False)
        landing.put_series(1, 1, 3, folder="s")
        landing.put("s/large.dcm", dicom(1, 1, 4, PatientComments="x" * 9_000))
        sound = graph.settings
        graph.settings = settings_for(Path(sound.lake), landing.root, reading={"max_object_bytes": 5_000})
        first = ingested(graph)
        graph.settings = sound
        again = reread(graph, codes=["TOO_LARGE"])
        assert len(graph.rows("FROM instance")) == 4
        ledger = "SELECT outcome, code, superseded_by FROM validated_batch WHERE superseded_by IS NOT NULL"
        assert graph.rows(ledger) == [{"outcome": "quarantined", "code": "TOO_LARGE", "superseded_by": again}]
        assert (graph.books(first).quarantined, graph.books(again).ingested) == (1, 1)


class TestOfASourceThatIsOrganized:
    @pytest.mark.slow
    def test_reads_objects_where_they_lie_now_and_moves_them_no_more(self, stepped, landing):
        graph = replace(stepped, judges=False)
        landing.put_series(1, 1, 2, folder="s")
        source = {"name": "landing", "root": str(landing.root), "mode": "organize"}
        graph.settings = Settings.model_validate({**graph.settings.model_dump(), "sources": [source]})
        ingested(graph)
        places = [row["uri"] for row in graph.rows("SELECT uri FROM instance ORDER BY uri")]
        assert all("/Process/" in uri for uri in places)
        again = reread(graph, source="landing")
        assert [row["uri"] for row in graph.rows("SELECT uri FROM instance ORDER BY uri")] == places
        assert graph.books(again).ingested == 2
        assert verify(graph.lake, graph.settings).holds


class TestAChoice:
    def test_by_reason_finds_outcomes_and_warnings(self, states):
        graph, _, _ = states.begin(mixed)
        assert chosen(graph, codes=["MISSING_IDENTITY"]).by_reason == {("quarantined", "MISSING_IDENTITY"): 1}
        assert chosen(graph, codes=["VALUE_INVALID"]).members == 1

    def test_by_sql_asks_for_columns_of_the_object(self, states):
        graph, _, _ = states.begin(mixed)
        assert chosen(graph, where="PatientID = 'P0002' AND outcome = 'ingested'").members == 1
        assert chosen(graph, where="header IS NULL", codes=["NOT_DICOM"]).members == 2

    @pytest.mark.slow
    def test_of_a_member_reads_its_archive_again(self, states):
        graph, _, _ = states.begin(mixed)
        found = chosen(graph, where=f"SOPInstanceUID = '{uid(3, 1, 2)}'")
        assert (found.members, len(found.objects)) == (1, 1)
        again = reread(graph, where=f"SOPInstanceUID = '{uid(3, 1, 2)}'")
        assert graph.books(again).seen == 4

    @pytest.mark.slow
    def test_leaves_out_what_was_replaced_and_what_is_being_read(self, states):
        graph, landing, _ = states.begin(series)
        landing.put("s/0001.dcm", dicom(2, 1, 1), age_seconds=DAY / 2)
        ingested(graph)
        found = chosen(graph, source="landing")
        assert (found.members, found.left) == (3, {"something else lies in their place by now": 1})
        claimed(graph, source="landing")
        found = chosen(graph, source="landing")
        assert (found.members, found.left["a batch that is not closed reads them already"]) == (0, 3)

    @pytest.mark.slow
    def test_that_is_none_or_names_nothing_is_refused_and_claims_nothing(self, states):
        graph, _, _ = states.begin(one)
        for choice, error in (
            ({}, NothingChosen),
            ({"batches": ["nothing"]}, NothingChosen),
            ({"codes": ["NOTHING"]}, NothingChosen),
            ({"source": "nowhere"}, SettingsError),
            ({"where": "no_column = 1"}, QueryError),
            ({"where": "1 = 1) UNION SELECT 1 --"}, QueryError),
            ({"where": "1 = 1; DROP TABLE x"}, QueryError),
            ({"where": "SELECT 1"}, QueryError),
            ({"where": "InstanceNumber"}, QueryError),
            ({"where": "uri IN (SELECT filename FROM read_text('/etc/hostname'))"}, QueryError),
        ):
            with pytest.raises(error):
                claimed(graph, **choice)
        with graph.work() as work:
            assert len(work.log) == 1

    def test_of_what_came_from_another_folder_is_refused_and_claims_nothing(self, states, tmp_path):
        graph, _, _ = states.begin(one)
        elsewhere = replace(graph, settings=settings_for(graph.settings.lake, tmp_path / "elsewhere"))
        with pytest.raises(SettingsError, match=r"from another folder .* --landing"):
            claimed(elsewhere, source="landing")
        with graph.work() as work:
            assert len(work.log) == 1


class TestASourceThatHasChanged:
    @pytest.mark.slow
    def test_leaves_what_the_lake_had(self, states):
        graph, landing, first = states.begin(series)
        (landing.root / "s/0001.dcm").unlink()
        (again,) = claimed(graph, source="landing")
        graph.run(again)
        books = graph.books(again)
        assert (books.status, books.ingested, books.balance) == ("closed", 2, 0), books
        gone = graph.rows(f"SELECT code FROM validated_batch WHERE batch_id = '{again}' AND outcome <> 'ingested'")
        assert gone == [{"code": "OBJECT_GONE"}]
        rows = graph.rows("SELECT batch_id, count(*) AS n FROM instance GROUP BY 1 ORDER BY 1")
        assert rows == [{"batch_id": first, "n": 1}, {"batch_id": again, "n": 2}]
        ledger = graph.rows(
            f"SELECT count(*) AS n FROM validated_batch WHERE batch_id = '{first}' AND superseded_by IS NULL"
        )
        assert ledger == [{"n": 1}]
        assert verify(graph.lake, graph.settings).holds


class TestClinicalRecords:
    @pytest.mark.slow
    def test_stand_once_and_those_of_other_files_stay(self, stepped, landing):
        graph = replace(stepped, judges=False)
        landing.put("t.csv", "PatientID,Visit\nP1,one\nP2,two\n")
        landing.put("other.csv", "PatientID,Visit\nP1,other\n")
        first = ingested(graph)
        again = reread(graph, where="uri LIKE '%/t.csv'")
        rows = graph.rows("SELECT batch_id, record_values ->> 'Visit' AS v FROM clinical ORDER BY v")
        assert [(row["batch_id"], row["v"]) for row in rows] == [(again, "one"), (first, "other"), (again, "two")]


class TestAReaderThatRefusesWhatTheLakeHas:
    def test_pauses_the_batch_and_the_lake_keeps_it(self, states):
        graph, _, (first, again) = states.begin(refused)
        books = graph.books(again)
        assert books.status == "paused", books
        assert "1 of them are refused by this reading" in str(books.reason)
        assert graph.rows("SELECT DISTINCT batch_id FROM instance") == [{"batch_id": first}]


class TestTheCommand:
    def test_says_what_would_be_read_and_refuses_what_it_does_not_understand(self, states):
        graph, landing, _ = states.begin(mixed)
        lake = ["--lake", graph.settings.lake, "--landing", str(landing.root)]
        planned = CliRunner().invoke(app, ["reread", "--plan", "--code", "MISSING_IDENTITY", *lake])
        assert (planned.exit_code, "1 object, in 1 file of" in planned.stdout) == (0, True), planned.output
        for wrong, sentence in (
            ([], "Say what is to be read again"),
            (["--code", "NONE"], "There is no reason code 'NONE'"),
            (["--where", "1 = 1; SELECT 2"], "--where is one SQL condition"),
            (["--where", "NoSuchColumn = 1"], "NoSuchColumn"),
            (["--where", "PatientID::INTEGER = 1"], "cannot be asked of every row (ConversionException)"),
        ):
            refused = CliRunner().invoke(app, ["reread", *wrong, *lake])
            assert (refused.exit_code, sentence in refused.stderr) == (2, True), refused.output
            assert "P0001" not in refused.output
        with graph.work() as work:
            assert len(work.log) == 1


class TestAPausedReading:
    @pytest.mark.slow
    def test_that_is_accepted_takes_out_of_the_current_tables_what_it_refuses(self, states):
        graph, _, (_, again) = states.begin(refused)
        with graph.work() as work:
            accept(work.batch(again), "tester", "it is damaged for good")
        graph.run(again)
        assert (graph.books(again).status, graph.books(again).quarantined) == ("closed", 1), graph.books(again)
        assert graph.rows("SELECT batch_id FROM instance") == [{"batch_id": again}] * 2

    @pytest.mark.slow
    def test_that_is_dismissed_leaves_what_the_lake_had(self, states):
        graph, _, (first, again) = states.begin(refused)
        assert graph.books(again).status == "paused"
        with graph.work() as work:
            dismiss(work.batch(again), "tester", "the file was damaged")
        graph.run(again)
        assert (graph.books(again).status, graph.books(again).quarantined) == ("closed", 3)
        assert graph.rows("SELECT DISTINCT batch_id FROM instance") == [{"batch_id": first}]
        assert graph.rows("SELECT DISTINCT superseded_by FROM validated_batch") == [{"superseded_by": None}]
        assert verify(graph.lake, graph.settings).holds


def test_a_reading_that_was_claimed_and_not_begun_is_left_to_the_next_ingest(states):
    graph, _, _ = states.begin(one)
    batches = claimed(graph, source="landing")
    with graph.work() as work:
        assert work.unclosed() == batches


@pytest.mark.slow
@pytest.mark.usefixtures("without_dagster")
def test_a_reading_that_was_killed_is_finished_by_the_next_ingest(states, monkeypatch):
    graph, landing, _ = states.begin(mixed)
    folder = landing.root.parent
    where = ("--landing", str(landing.root), "--lake", graph.settings.lake)
    before = said(graph)
    killed = command(
        *("python", "-m", "dicom_assets_tests.support.crashing", "lake.delta:Lake", "replace", "3"),
        *("reread", "--source", "landing", *where),
        cwd=folder,
        environment={"PYTHONPATH": str(REPOSITORY)},
    )
    assert killed.returncode == STATUS, killed.stderr
    monkeypatch.chdir(folder)
    again = CliRunner().invoke(app, ["ingest", *where])
    assert again.exit_code == 0, again.output
    assert [(row.kind, row.status, row.balance) for row in all_books(graph.lake)] == [
        ("arrival", "closed", 0),
        ("reread", "closed", 0),
    ]
    assert said(graph) == before
    assert verify(graph.lake, graph.settings).holds
