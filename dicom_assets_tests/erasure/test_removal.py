"""A patient is erased: the search first finds the canary in every kind of place, and afterwards nowhere."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dicom_assets.batch.context import BatchBusy, RunContext
from dicom_assets.batch.erasure import removal, row_rules
from dicom_assets.batch.erasure.plan import places
from dicom_assets.batch.erasure.record import PATH, ErasureRefused, Record, finish, is_under_way
from dicom_assets.batch.erasure.search import counts, search
from dicom_assets.batch.erasure.target import Scope, Target, find
from dicom_assets.batch.verification.verify import verify
from dicom_assets.defs.forgotten_runs import clean
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.staging import Part, Staging
from dicom_assets.landing.refusals import ERASED
from dicom_assets.schema.registry import TABLES, Table
from dicom_assets.storage import locks
from dicom_assets.storage.files import LakeFiles
from dicom_assets.storage.traces import Terms
from dicom_assets_tests.support.canaries import PATIENT, SAYS, STUDY, TERMS, canary_lake, erased, plant
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.lakes import Graph, contents, table
from dicom_assets_tests.support.landings import LandingFolder

TARGET = Target(Scope.PATIENT, PATIENT)


@dataclass
class Canary:
    """A lake with the canary, what an erasure of it would do, and where the search found it."""

    graph: Graph
    record: Record
    before: dict[str, int]
    planned: dict[str, int]
    state: Path
    after: dict[str, list[dict[str, Any]]]

    def copy(self, to: Path) -> Lake:
        """The lake as it was before the erasure, elsewhere."""
        shutil.copytree(f"{self.graph.settings.lake}.before", to)
        return Lake(str(to))


@pytest.fixture(scope="module")
def canary(tmp_path_factory) -> Iterator[Canary]:
    """The canary's lake, erased."""
    root = tmp_path_factory.mktemp("canary")
    with dg.DagsterInstance.ephemeral() as instance:
        graph = canary_lake(root, instance)
        lake, state = graph.lake, root / "state"
        plant(Path(graph.settings.lake), state)
        record = find(lake, TARGET, "a steward")
        planned = dict(places(lake, graph.settings, record))
        before = dict(counts(search(lake, graph.settings, TERMS, [state])))
        record = removal.begin(lake, TARGET, record)
        shutil.copytree(graph.settings.lake, f"{graph.settings.lake}.before")
        removal.carry_out(lake, graph.settings, record)
        clean([state])
        finish(lake.files)
        yield Canary(graph, record, before, planned, state, contents(lake))


KINDS = (
    "data file: values",
    "data file: statistics",
    "data file that no log names: values",
    "data file that no log names: statistics",
    "data file that no log names: cut Parquet: bytes",
    "file of _claims: values",
    "staged file: values",
    "spilled file: bytes",
    "file of _torn: gzip: bytes",
    "file: bytes",
    "file beside the lake: SQLite page",
    "file beside the lake: SQLite write-ahead log",
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_before_the_erasure_the_canary_is_found_in_each_kind_of_place(canary, kind):
    assert canary.before.get(kind, 0) > 0, canary.before


@pytest.mark.slow
def test_what_the_search_of_an_erasure_looks_for_is_also_found_in_logs_and_checkpoints(canary, tmp_path):
    lake = canary.copy(tmp_path / "lake")
    found = counts(search(lake, canary.graph.settings, Terms.of(canary.record.terms)))
    assert found["entry of a log: bytes"] > 0
    assert found["checkpoint: values"] > 0


@pytest.mark.slow
def test_afterwards_the_search_finds_nothing(canary):
    named = Terms.of({*canary.record.terms, *TERMS.texts})
    assert list(search(canary.graph.lake, canary.graph.settings, named, [canary.state])) == []


@pytest.mark.slow
def test_afterwards_everything_of_others_is_there(canary):
    rows = canary.graph.rows("SELECT count(*) AS instances, count(DISTINCT StudyInstanceUID) AS studies FROM instance")
    assert rows == [{"instances": 9, "studies": 5}]
    assert canary.graph.rows("SELECT count(*) AS n FROM clinical") == [{"n": 4}]


@pytest.mark.slow
def test_afterwards_the_books_balance_and_all_rules_hold(canary):
    found = verify(canary.graph.lake, canary.graph.settings)
    assert [one for one in found.findings if not one.holds] == []
    rows = canary.graph.rows("SELECT * FROM batches WHERE seen <> ingested + quarantined + ignored + deleted")
    assert rows == []


@pytest.mark.slow
def test_a_row_stays_in_the_books_that_says_nothing_but_what_became_of_the_object(canary):
    rows = canary.graph.rows(
        "SELECT uri, member, etag, size, outcome, code FROM raw_files JOIN validated_batch USING (batch_id, object_id) "
        "JOIN batches USING (batch_id) WHERE status = 'closed' AND code = 'ERASED' AND container_id IS NULL"
    )
    assert {row["outcome"] for row in rows} == {"ingested", "ignored"}
    assert all(row["uri"].startswith(ERASED) and not row["etag"] and not row["size"] for row in rows)
    old = {*canary.record.objects}
    assert not old & {row["object_id"] for row in canary.graph.rows("SELECT object_id FROM raw_files")}


@pytest.mark.slow
def test_the_plan_says_what_the_erasure_takes(canary):
    planned = canary.planned
    assert planned["flat_metadata"] == 5
    assert planned["clinical"] == 2
    for place in ("raw_files", "omop_identifier", "staged files", "NDJSON files", "lines of claims and returns"):
        assert planned[place] > 0, place


@pytest.mark.slow
def test_the_table_of_erasures_says_what_was_erased_when_and_by_whom(canary):
    (row,) = canary.graph.rows("SELECT * FROM erasure")
    assert (row["scope"], row["erased_by"], row["objects"]) == ("patient", "a steward", len(canary.record.objects))


@pytest.mark.slow
def test_no_table_can_be_read_as_it_was(canary):
    for name in TABLES:
        log = Path(canary.graph.settings.lake, name, "_delta_log")
        assert len([path for path in log.iterdir() if path.suffix in (".json", ".parquet")]) == 2, name


@pytest.mark.slow
def test_ids_of_omop_that_were_the_canarys_are_given_to_nobody_else(canary, tmp_path):
    before = {row["id"] for row in _rows(canary.copy(tmp_path / "lake"), "omop_identifier")}
    after = _rows(canary.graph.lake, "omop_identifier")
    assert {row["id"] for row in after} == before
    assert any(row["natural_key"].startswith("erased-") for row in after)


def _rows(lake: Lake, name: str) -> list[dict]:
    return contents(lake, [name])[name]


@pytest.mark.slow
def test_files_that_still_lie_at_the_source_are_not_claimed_again(canary):
    assert canary.graph.claim() == []


@pytest.mark.slow
def test_the_paused_batch_goes_on_without_the_canary(canary):
    (batch,) = [row["batch_id"] for row in canary.graph.rows("SELECT batch_id FROM batches WHERE status = 'paused'")]
    graph = replace(
        canary.graph,
        settings=canary.graph.settings.model_copy(
            update={
                "gate": canary.graph.settings.gate.model_copy(update={"quarantined_share": 1.0, "none_ingested": 99})
            }
        ),
    )
    assert graph.run(batch).success, graph.books(batch).reason
    books = graph.books(batch)
    assert (books.status, books.seen, books.quarantined, books.ignored) == ("closed", 13, 12, 1)
    assert list(search(graph.lake, graph.settings, TERMS)) == []


@pytest.mark.slow
def test_what_arrives_again_is_refused(canary):
    landing = LandingFolder(Path(canary.graph.settings.sources[0].root))
    landing.put("new/1.dcm", dicom(STUDY, 1, 1, SOPInstanceUID=uid(77), **SAYS))
    landing.put("new/2.dcm", dicom(STUDY, 1, 7, PatientID=None, PatientName=None))
    landing.put("new/others.dcm", dicom(6, 1, 1))
    landing.put("new/records.csv", f"PatientID;diagnosis\nP0001;R91.8\n{PATIENT};again\n")
    (batch,) = canary.graph.ingest()
    assert canary.graph.books(batch).status == "closed"
    rows = canary.graph.rows(f"SELECT kind, outcome, code FROM validated_batch WHERE batch_id = '{batch}' ORDER BY ALL")
    assert [(row["kind"], row["outcome"], row["code"]) for row in rows] == [
        ("clinical", "ingested", None), ("dicom", "ignored", "ERASED"), ("dicom", "ignored", "ERASED"),
        ("dicom", "ingested", None),
    ]  # fmt: skip
    records = canary.graph.rows(
        f"SELECT code, record FROM ingestion_errors WHERE batch_id = '{batch}' AND stage = 'record'"
    )
    assert [row["code"] for row in records] == ["ERASED"]
    assert canary.graph.rows(f"SELECT PatientID FROM clinical WHERE PatientID = '{PATIENT}'") == []


def test_every_table_of_the_registry_has_its_rule():
    for name, one in TABLES.items():
        assert (row_rules.rule(one) is None) == (name in row_rules.HOLDS_NOTHING), name


def test_a_table_that_names_nobody_must_be_said_to_hold_nothing():
    column = TABLES["batches"].column("reason")
    with pytest.raises(LookupError, match="names neither object, study, record nor patient"):
        row_rules.rule(Table("later", "row", ("reason",), (column,), "A later table.", "reason"))


def test_a_table_with_a_patient_falls_under_the_rule_of_its_columns():
    columns = tuple(TABLES["clinical"].column(name) for name in ("PatientID", "IssuerOfPatientID"))
    assert "erased_patients" in str(row_rules.rule(Table("later", "row", ("PatientID",), columns, "", "PatientID")))


def test_nothing_is_erased_while_a_batch_is_under_way(small):
    (batch,) = [row["batch_id"] for row in small.rows("SELECT batch_id FROM batches")]
    lake, target = small.lake, Target(Scope.STUDY, uid(1))
    before = contents(lake)
    with locks.held(lake.files, f"batch-{batch}", 0), pytest.raises(ErasureRefused, match="is being run"):
        removal.begin(lake, target, find(lake, target, "me"))
    assert not is_under_way(lake.files)
    assert contents(lake) == before


def test_no_batch_is_run_while_an_erasure_is_under_way(small):
    (batch,) = [row["batch_id"] for row in small.rows("SELECT batch_id FROM batches")]
    lake, target = small.lake, Target(Scope.STUDY, uid(1))
    removal.begin(lake, target, find(lake, target, "me"))
    with RunContext(small.settings) as work, pytest.raises(BatchBusy, match="erase --resume"):
        work.batch(batch, wait_seconds=0)


@pytest.mark.slow
def test_of_a_study_of_which_something_stays_the_rest_is_made_anew(small):
    erased(small, Target(Scope.INSTANCE, uid(1, 1, 1)))
    assert small.rows("SELECT series_count, instance_count FROM study ORDER BY StudyInstanceUID") == [
        {"series_count": 1, "instance_count": 1},
        {"series_count": 1, "instance_count": 1},
    ]
    assert [one for one in verify(small.lake, small.settings).findings if not one.holds] == []


@pytest.mark.slow
def test_a_study_that_is_of_one_patient_only_when_another_is_erased_gets_a_person_of_its_own(stepped, landing):
    landing.put("1.dcm", dicom(1, 1, 1, PatientID="ONE"))
    landing.put("2.dcm", dicom(1, 1, 2, PatientID="TWO"))
    stepped.ingest()
    persons = (
        "SELECT person_id, person_from FROM image_occurrence JOIN image_occurrence_origin USING (image_occurrence_id)"
    )
    (before,) = stepped.rows(persons)
    erased(stepped, Target(Scope.PATIENT, "ONE"))
    (after,) = stepped.rows(persons)
    assert (before["person_from"], after["person_from"]) == ("conflict", "surrogate")
    assert after["person_id"] != before["person_id"]
    assert [one for one in verify(stepped.lake, stepped.settings).findings if not one.holds] == []


def test_what_the_lake_does_not_hold_is_refused_and_nothing_changes(small):
    before = contents(small.lake)
    with pytest.raises(ErasureRefused, match="holds no such patient"):
        find(small.lake, Target(Scope.PATIENT, "NOBODY"), "me")
    assert contents(small.lake) == before


@pytest.mark.slow
def test_a_lake_that_was_open_before_an_erasure_loses_no_commit_after_it(small):
    before, target = small.lake, Target(Scope.STUDY, uid(1))
    rows = table(before, "study")
    erased(small, target)
    with before.committing("study"):
        before.replace("study", rows["study_key"].to_pylist()[:1], rows.slice(0, 1))
    assert len(table(small.lake, "study")) >= 1
    assert small.lake.table("study").version() == before.table("study").version()
    assert set(table(small.lake, "study")["study_key"].to_pylist()) >= set(rows["study_key"].to_pylist()[:1])


class Killed(BaseException):
    """As a kill does, it passes everything that catches errors."""


KILLED = {
    "it is kept by what it is recognised": (LakeFiles, "put", "_erasures/digests"),
    "objects have lost their names, and their outcomes have not": (Lake, "replace", "raw_files"),
    "reasons are entered": (Lake, "replace", "ingestion_errors"),
    "headers of a first batch have gone": (Lake, "replace", "flat_metadata"),
    "clinical records of a first batch have gone": (Lake, "replace", "clinical"),
    "instances are made anew, and series are not": (Lake, "replace", "instance"),
    "ids of OMOP are retired": (Lake, "replace", "omop_identifier"),
    "a first claim is without names": (LakeFiles, "put_parquet", "_claims"),
    "staged rows of the batch that waits have gone": (Staging, "complete_as_it_is", Part.ERRORS),
    "the erasure is entered": (Lake, "replace", "erasure"),
    "a table forgets, and its files are there": (Lake, "open_anew", "flat_metadata"),
    "a first old file is deleted": (LakeFiles, "remove_whole", "flat_metadata"),
}
"""Moments at which an erasure is killed: behind the first call of a method for a table, a file or a part."""

CHANGING = [*dict.fromkeys((owner, method) for owner, method, _ in KILLED.values()), (LakeFiles, "delete"),
            (LakeFiles, "remove"), (Staging, "remove")]  # fmt: skip


IN_TURN = ([*KILLED][::2], [*KILLED][1::2])
"""An erasure is killed, resumed and killed again: at moments that are far enough from each other."""


def kill_behind(patch: pytest.MonkeyPatch, moment: str) -> None:
    """Nothing of the lake changes any more behind a moment, whatever is cleaned up on the way out."""
    at, dead = KILLED[moment], []

    def killing(owner: type, method: str) -> Any:
        kept = getattr(owner, method)

        def call(self, name="", *arguments, **options):
            if dead:
                raise Killed
            result = kept(self, *([name] if name else []), *arguments, **options)
            if (owner, method) == at[:2] and str(name).startswith(at[2]):
                dead.append(moment)
                raise Killed
            return result

        return call

    for owner, method in CHANGING:
        patch.setattr(owner, method, killing(owner, method))


@pytest.mark.slow
@pytest.mark.parametrize("moments", IN_TURN, ids=["one half", "the other"])
def test_an_erasure_that_was_killed_is_resumed_and_ends_the_same(canary, tmp_path, monkeypatch, moments):
    lake = canary.copy(tmp_path / "lake")
    settings = canary.graph.settings.model_copy(update={"lake": str(tmp_path / "lake")})
    for moment in moments:
        with monkeypatch.context() as patch:
            kill_behind(patch, moment)
            with pytest.raises(Killed):
                removal.carry_out(lake, settings, canary.record)
        lake = Lake(lake.uri, make=False)
    with RunContext(settings) as work, work.claiming(1):
        again = contents(work.lake)
    assert not (tmp_path / "lake" / PATH).exists()
    named = Terms.of({*canary.record.terms, *TERMS.texts})
    assert list(search(Lake(str(tmp_path / "lake")), settings, named)) == []
    assert again == canary.after
