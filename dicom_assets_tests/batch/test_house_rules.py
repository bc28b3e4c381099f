"""Rules of the house: what breaks one is told, kept out or holds its batch up, and books and tables agree."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from dicom_assets.batch import decisions, house_rules
from dicom_assets.batch.context import RunContext
from dicom_assets.batch.promotion import promote
from dicom_assets.batch.rule_trials import chosen, try_rules
from dicom_assets.batch.verification.verify import verify
from dicom_assets.cli.main import app
from dicom_assets.defs.graph import build_defs
from dicom_assets.landing.claims import claim_new
from dicom_assets.settings import SettingsError
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import Graph, contents, settings_for, table
from dicom_assets_tests.support.landings import LandingFolder, zipped
from dicom_assets_tests.support.steps import Stepped, failures, publish

HOUSE = "validated_batch.house_rules"


def rule(name: str, condition: str, effect: str = "quarantine", level: str = "object", **more: object) -> dict:
    """A section of the settings."""
    return {"name": name, "condition": condition, "effect": effect, "level": level, **more}


ACCESSION = rule("accession", "Modality <> 'CT' OR AccessionNumber IS NOT NULL", message="Ask radiology.")
ONE_PATIENT = "count(DISTINCT PatientID) <= 1"
Make = Callable[..., Stepped]


@pytest.fixture
def lake_with(tmp_path, landing: LandingFolder, instance) -> Make:
    """Makes the lake of the test, with rules; again, with others."""

    def make(*rules: dict, **sections: object) -> Stepped:
        given = {"gate": {"quarantined_share": 1}, **sections}
        return Stepped(settings_for(tmp_path / "lake", landing.root, rules=rules, **given), instance, judges=False)

    return make


def told(graph: Graph) -> list[tuple]:
    """Code and rules of each row that names rules, and what it is of: the name of a file, or nothing for a batch."""
    rows = graph.rows("SELECT code, rules, uri, object_id FROM ingestion_errors WHERE rules IS NOT NULL")
    return sorted((row["code"], tuple(row["rules"]), (row["uri"] or "").rsplit("/", 1)[-1]) for row in rows)


def standing(graph: Graph) -> int:
    """Instances in the hierarchy, which agree with flat_metadata."""
    there = [len(table(graph.lake, name)) for name in ("flat_metadata", "instance")]
    assert there[0] == there[1]
    return there[0]


def first_of(graph: Graph, study: int) -> str:
    """The file of the object by which a study is told."""
    (row,) = graph.rows("SELECT arg_min(uri, object_id) AS uri FROM flat_metadata "
                        f"WHERE StudyInstanceUID = '{uid(study)}'")  # fmt: skip
    return str(row["uri"]).rsplit("/", 1)[-1]


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> Stepped:
    folder = tmp_path_factory.mktemp("house")
    landing = LandingFolder(folder / "landing")
    landing.root.mkdir()
    landing.put("sound.dcm", dicom(1, 1, 1, AccessionNumber="A1"))
    landing.put("without.dcm", dicom(1, 1, 2))
    landing.put("unsaid.dcm", dicom(2, 1, 1, Modality=None))
    landing.put("private.dcm", dicom(3, 1, 1, Modality="OT", IssuerOfPatientID="ELSEWHERE", StudyDate="20991231"))
    landing.put("two.dcm", dicom(4, 1, 1, Modality="MR", PatientID="P1"))
    landing.put("patients.dcm", dicom(4, 1, 2, Modality="MR", PatientID="P2"))
    landing.put("a.zip", zipped({"in/b.dcm": dicom(5, 1, 1), "c.dcm": dicom(5, 1, 2, AccessionNumber="A5")}))
    landing.put("table.csv", "PatientID;x\nP0001;a\n")
    rules = (
        ACCESSION,
        rule("issuer", "header ->> '$.00100021.Value[0]' <> 'ELSEWHERE'"),
        rule("in_future", "StudyDate <= ingested_at::DATE", "warn"),
        rule("one_patient", ONE_PATIENT, "warn", "study"),
        rule("many", "count(*) > 100", "warn", "batch"),
        rule("unfit", "SeriesDescription::INT > 0", "warn"),
    )
    settings = settings_for(folder / "lake", landing.root, rules=rules, gate={"quarantined_share": 1})
    graph = Stepped(settings, None)  # type: ignore[arg-type]  # nothing of Dagster is asked for
    with graph.work() as work:
        work.shared_engine = InlineEngine()
        (claimed,) = claim_new(work.stores()[0], work.log, settings.claiming).claims
        batch = work.batch(claimed.batch_id)
        publish(batch)
    return graph


class TestInABatchOfEverything:
    """One batch with a rule of each kind, in a lake that no test changes."""

    @pytest.fixture
    def graph(self, everything) -> Stepped:
        """That lake."""
        return everything

    def test_what_breaks_a_rule_that_quarantines_is_kept_out_and_all_else_is_there(self, graph):
        (books,) = graph.rows("SELECT seen, ingested, quarantined, ignored, status FROM batches")
        assert books == {"seen": 10, "ingested": 6, "quarantined": 3, "ignored": 1, "status": "closed"}
        assert standing(graph) == 5

    def test_each_is_told_once_with_the_rules_that_it_breaks_in_their_order(self, graph):
        assert told(graph) == [
            ("RULE_FAILED", ("accession",), "a.zip"),
            ("RULE_FAILED", ("accession",), "without.dcm"),
            ("RULE_FAILED", ("issuer", "in_future"), "private.dcm"),
            ("RULE_WARNING", ("many",), ""),
            ("RULE_WARNING", ("one_patient",), first_of(graph, 4)),
        ]

    def test_words_are_the_rules_and_never_values(self, graph):
        rows = graph.rows("SELECT DISTINCT detail FROM ingestion_errors WHERE rules IS NOT NULL ORDER BY detail")
        assert [row["detail"] for row in rows] == [
            "rule accession does not hold: Ask radiology.",
            "rule issuer does not hold; rule in_future does not hold",
            "rule many does not hold of its batch",
            "rule one_patient does not hold of its study",
        ]

    def test_what_an_object_does_not_say_breaks_no_rule(self, graph):
        assert graph.rows("SELECT outcome FROM validated_batch JOIN raw_files USING (object_id) "
                          "WHERE uri LIKE '%unsaid.dcm'") == [{"outcome": "ingested"}]  # fmt: skip

    def test_fhir_and_omop_have_what_the_hierarchy_has(self, graph):
        (row,) = graph.rows("SELECT (SELECT count(*) FROM series) AS s, (SELECT count(*) FROM image_occurrence) AS o, "
                            "(SELECT count(*) FROM study) AS t, (SELECT count(*) FROM imaging_study) AS i")  # fmt: skip
        assert (row["s"], row["t"]) == (row["o"], row["i"])

    def test_verify_finds_nothing(self, graph):
        assert [one.rule for one in verify(graph.lake, graph.settings).findings if not one.holds] == []

    def test_errors_lists_them_by_the_rules_name(self, graph):
        run = CliRunner().invoke(app, ["errors", "--lake", graph.settings.lake, "-f", "json"])
        found = {(row["code"], row["rule"]): row["objects"] for row in json.loads(run.stdout)}
        assert found["RULE_FAILED", "accession"] == 2
        assert found["RULE_FAILED", "issuer"] == found["RULE_FAILED", "in_future"] == 1
        assert found["RULE_WARNING", "one_patient"] == 1
        printed = CliRunner().invoke(app, ["errors", "--lake", graph.settings.lake]).stdout
        assert "one_patient" in printed

    def test_a_trial_counts_what_is_in_the_lake_by_source_and_modality(self, graph):
        trials = try_rules(graph.lake, chosen(graph.settings, None, "AccessionNumber IS NOT NULL", "object"))
        assert [(one.groups, one.broken) for one in trials] == [(5, 3)]
        assert [(c.source, c.modality, c.asked, c.broken, len(c.few)) for c in trials[0].counts] == [
            ("landing", "CT", 2, 0, 0), ("landing", "MR", 2, 2, 2), ("landing", None, 1, 1, 1)]  # fmt: skip


class TestAStudy:
    @pytest.mark.slow
    def test_is_what_the_lake_has_of_it_and_what_the_batch_brings(self, lake_with, landing):
        graph = lake_with(rule("one_patient", ONE_PATIENT, "quarantine", "study"))
        landing.put("a.dcm", dicom(1, 1, 1, PatientID="P1"))
        graph.ingest()
        landing.put("b.dcm", dicom(1, 1, 2, PatientID="P2"))
        landing.put("c.dcm", dicom(2, 1, 1, PatientID="P3"))
        (second,) = graph.ingest()
        assert told(graph) == [("RULE_FAILED", ("one_patient",), "b.dcm")]
        assert standing(graph) == 2
        landing.put("d.dcm", dicom(2, 1, 2, PatientID="P4"))
        graph.ingest()
        before = contents(graph.lake)
        graph.run(second)
        assert graph.books(second).status == "closed"
        assert contents(graph.lake) == before  # what came later is no part of it

    @pytest.mark.slow
    @pytest.mark.usefixtures("as_far_as_hierarchy")
    def test_is_asked_of_what_is_current_of_it(self, lake_with, landing):
        graph = lake_with(rule("one_patient", ONE_PATIENT, "quarantine", "study"))
        landing.put("a.dcm", dicom(1, 1, 1, PatientID="P1"))
        landing.put("b.dcm", dicom(1, 1, 2, PatientID="P1"))
        graph.ingest()
        landing.put("a.dcm", dicom(1, 1, 1, PatientID="P2"), age_seconds=60)  # the same instance, in its place
        landing.put("elsewhere.dcm", dicom(1, 1, 2, PatientID="P2"), age_seconds=60)  # and at another one
        graph.ingest()
        assert told(graph) == []
        assert {row["PatientID"] for row in table(graph.lake, "instance").to_pylist()} == {"P2"}


PAUSING = rule("accession", ACCESSION["condition"], "pause")


@pytest.mark.usefixtures("as_far_as_hierarchy")
class TestABatchThatPauses:
    @pytest.fixture
    def paused(self, lake_with, landing) -> tuple[Stepped, str]:
        graph = lake_with(PAUSING)
        landing.put("a.dcm", dicom(1, 1, 1))
        landing.put("b.dcm", dicom(1, 1, 2, AccessionNumber="A1"))
        (batch,) = graph.ingest()
        return graph, batch

    def test_says_by_which_rule_and_publishes_nothing(self, paused):
        graph, batch = paused
        books = graph.books(batch)
        assert books.status == "paused"
        assert books.reason == f"{HOUSE}: Rule accession (pause) does not hold of 1 objects"
        assert standing(graph) == 0
        assert told(graph) == [("RULE_WARNING", ("accession",), "a.dcm")]

    @pytest.mark.slow
    def test_is_accepted_and_goes_on_with_the_warning(self, paused):
        graph, batch = paused
        with graph.work() as work:
            decisions.accept(work.batch(batch), "anna", "known")
        graph.run(batch)
        assert graph.books(batch).status == "closed"
        assert standing(graph) == 2
        assert told(graph) == [("RULE_WARNING", ("accession",), "a.dcm")]

    @pytest.mark.slow
    def test_goes_on_when_it_is_run_again_after_the_rule_was_changed(self, paused, lake_with):
        _, batch = paused
        graph = lake_with(ACCESSION)
        graph.run(batch)
        assert (graph.books(batch).status, standing(graph)) == ("closed", 1)
        graph = lake_with()
        graph.run(batch)
        assert (graph.books(batch).status, standing(graph), told(graph)) == ("closed", 2, [])


def test_what_a_rule_cannot_be_asked_of_pauses_the_batch_and_is_not_quoted(lake_with, landing):
    graph = lake_with(rule("number", "PatientID::INT > 0"))
    landing.put("a.dcm", dicom(1, 1, 1, PatientID="canary-71"))
    (batch,) = graph.ingest()
    reason = graph.books(batch).reason or ""
    assert reason.startswith(
        f"{HOUSE}: Rule number (quarantine): it cannot be asked of every row (ConversionException)"
    )
    assert "canary" not in reason


@pytest.mark.slow
@pytest.mark.usefixtures("as_far_as_hierarchy")
def test_a_promoted_column_is_asked_for_before_the_lake_has_it_and_after(lake_with, landing):
    section = ({"path": "AcquisitionDeviceProcessingCode"},)
    graph = lake_with(rule("protocol", "AcquisitionDeviceProcessingCode <> 'SCOUT'"), columns=section)
    landing.put("a.dcm", dicom(1, 1, 1, AcquisitionDeviceProcessingCode="SCOUT"))
    landing.put("b.dcm", dicom(1, 1, 2, AcquisitionDeviceProcessingCode="CHEST"))
    graph.ingest()
    assert told(graph) == [("RULE_FAILED", ("protocol",), "a.dcm")]
    with RunContext(graph.settings) as work:
        promote(work.lake, graph.settings)
    landing.put("c.dcm", dicom(1, 1, 3, AcquisitionDeviceProcessingCode="SCOUT"))
    graph.settings = lake_with(rule("protocol", "AcquisitionDeviceProcessingCode <> 'SCOUT'")).settings
    graph.ingest()
    assert [file for _, _, file in told(graph)] == ["a.dcm", "c.dcm"]
    assert [row["AcquisitionDeviceProcessingCode"] for row in table(graph.lake, "instance").to_pylist()] == ["CHEST"]


@pytest.mark.slow
def test_the_check_finds_what_was_not_done(lake_with, landing, monkeypatch):
    graph = lake_with(ACCESSION, rule("one_patient", ONE_PATIENT, "warn", "study"))
    landing.put("a.dcm", dicom(1, 1, 1))
    landing.put("b.dcm", dicom(2, 1, 1, AccessionNumber="A", PatientID="P1"))
    landing.put("c.dcm", dicom(2, 1, 2, AccessionNumber="A", PatientID="P2"))
    monkeypatch.setattr(house_rules, "_broken", lambda *_: None)
    (batch,) = graph.claim()
    with graph.work() as work:
        work.shared_engine = InlineEngine()
        found = failures(work.batch(batch))
        assert found[HOUSE].actual == 2
        assert len(found[HOUSE].differing) == 2
        monkeypatch.undo()
        assert failures(work.batch(batch)) == {}


BROKEN = {"name": "broken", "condition": "StudyDat > DATE '2000-01-01'"}


def test_a_broken_rule_is_refused_at_load_with_its_place_and_nothing_is_changed(lake_with, landing, tmp_path):
    landing.put("a.dcm", dicom())
    graph = lake_with(ACCESSION, BROKEN)
    place = "dicom-assets.toml: rules.1.condition: rule 'broken' cannot be asked: there is no column StudyDat; nearest"
    with pytest.raises(SettingsError, match=place):
        build_defs(graph.settings)
    with pytest.raises(SettingsError, match=place):
        graph.claim()
    assert not (tmp_path / "lake").exists()


def test_the_command_refuses_it_and_tries_what_is_sound(everything, tmp_path, monkeypatch):
    path = tmp_path / "dicom-assets.toml"
    path.write_text("[[rules]]\nname = 'broken'\ncondition = 'StudyDat > 1'\n")
    monkeypatch.setenv("DICOM_ASSETS_CONFIG", str(path))
    lake = ["--lake", everything.settings.lake]
    refused = CliRunner().invoke(app, ["rules", "try", *lake])
    assert refused.exit_code == 2
    assert f"{path}: rules.0.condition: rule 'broken'" in refused.stderr
    assert CliRunner().invoke(app, ["ingest", *lake]).exit_code == 2
    given = ["rules", "try", "--sql", ONE_PATIENT, "--level", "study", *lake, "-f", "json"]
    tried = CliRunner().invoke(app, given)
    rows = {(row["modality"], row["objects"], row["break it"]) for row in json.loads(tried.stdout)}
    assert rows == {("CT", 2, 0), ("MR", 2, 2), (None, 1, 0)}
    said = CliRunner().invoke(app, ["rules", "try", "--sql", "PatientID::INT > 0", *lake])
    assert (said.exit_code, "P0001" in said.output) == (2, False)
    assert "--sql: rule 'tried' cannot be asked: syntax error" in CliRunner().invoke(
        app, ["rules", "try", "--sql", "true; DROP TABLE study", *lake]
    ).stderr  # fmt: skip


@pytest.mark.slow
def test_in_the_graph_a_rule_that_warns_is_a_warning_of_a_check_that_blocks(tmp_path, landing, instance):
    landing.put("a.dcm", dicom(1, 1, 1))
    settings = settings_for(tmp_path / "lake", landing.root, rules=(ACCESSION | {"effect": "warn"},))
    graph = Graph(settings, instance)
    (batch,) = graph.ingest()
    check = graph.checks(batch)[HOUSE]
    assert (check.passed, check.severity.value, check.blocking, graph.books(batch).status) == (
        False, "WARN", True, "closed")  # fmt: skip
    assert len(check.metadata["differing"].value) == 1
    graph.settings = settings_for(tmp_path / "lake", landing.root, rules=(PAUSING,))
    assert not graph.run(batch).success
    check = graph.checks(batch)[HOUSE]
    assert (check.passed, check.severity.value, graph.books(batch).status) == (False, "ERROR", "paused")
