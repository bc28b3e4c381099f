"""What was overwritten is not current: of one uri, or of one member of an archive, only the last claim takes part."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple
from unittest import mock

import dagster as dg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dicom_assets.batch.checks.contract import CheckContext
from dicom_assets.batch.checks.parity_checks import hierarchy_equals_metadata
from dicom_assets.batch.checks.version_checks import overwrites_are_entered
from dicom_assets.batch.claim_rounds import claim_everywhere
from dicom_assets.batch.erasure.target import Scope, Target
from dicom_assets.batch.publish import publish_flat, publish_hierarchy, publish_rows
from dicom_assets.batch.recovery import drop_files
from dicom_assets.batch.verification.verify import verify
from dicom_assets.lake import hierarchy, overwritten
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.staging import RAW_STAGED, Part, Staging
from dicom_assets.landing.claims import MANIFEST, ClaimLog, claim_new
from dicom_assets.landing.uri_index import UriIndex
from dicom_assets.schema.registry import FLAT_METADATA, VALIDATED_BATCH
from dicom_assets.settings import Settings
from dicom_assets_tests.support.canaries import erased
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.lakes import Graph, contents, settings_for
from dicom_assets_tests.support.landings import DAY, LandingFolder
from dicom_assets_tests.support.steps import Stepped
from dicom_assets_tests.support.versions import LEVELS, NOON, Version, flat_rows


@pytest.fixture
def graph(stepped: Stepped) -> Stepped:
    """These tests are about what is in the tables; those of each kind that ask every rule say so."""
    stepped.judges = False
    return stepped


def ingested(graph: Graph) -> str:
    """Ingests what is new as one batch, which closes; which."""
    (batch,) = graph.ingest()
    assert graph.books(batch).status == "closed", graph.books(batch).reason
    return batch


def one(graph: Stepped, landing: LandingFolder) -> str:
    """A file of study 1, ingested; its batch."""
    landing.put("a.dcm", dicom(1, 1, 1))
    return ingested(graph)


def replaced(graph: Stepped, landing: LandingFolder) -> None:
    """A file that was replaced by one of study 2, both ingested. The first one lies beside the folder."""
    one(graph, landing)
    shutil.copy2(landing.root / "a.dcm", landing.root.parent / "away")
    landing.put("a.dcm", dicom(2, 1, 1), age_seconds=DAY / 2)
    ingested(graph)


def current(graph: Graph) -> dict[str, str]:
    """By SOPInstanceUID of every current instance, its PatientID; instance and study agree."""
    found = {row["SOPInstanceUID"]: row["PatientID"] for row in graph.rows("FROM instance")}
    studies = {row["StudyInstanceUID"] for row in graph.rows("FROM study")}
    assert studies == {row["StudyInstanceUID"] for row in graph.rows("FROM instance")}
    return found


def visits(graph: Graph) -> list[str]:
    """What the current records of tables say."""
    return [row["v"] for row in graph.rows("SELECT record_values ->> 'Visit' AS v FROM clinical ORDER BY 1")]


@dataclass(frozen=True)
class Deliveries:
    """What is replaced by something else, each case in a folder of its own, and the batches that all of them share."""

    graph: Stepped
    landing: LandingFolder
    batches: tuple[str, str, str]

    def current(self, folder: str) -> dict[str, str]:
        """By SOPInstanceUID of every current instance of a folder, its PatientID; the lake's studies have instances."""
        here = {row["SOPInstanceUID"] for row in self.graph.rows(f"FROM instance WHERE uri LIKE '%/{folder}/%'")}
        return {key: patient for key, patient in current(self.graph).items() if key in here}


@pytest.fixture(scope="module")
def deliveries(tmp_path_factory: pytest.TempPathFactory, empty_lake: Path) -> Iterator[Deliveries]:
    """Three batches: what is replaced, what replaces it, and what does so once more. Each case has its own studies."""
    folder = tmp_path_factory.mktemp("deliveries")
    landing = LandingFolder(folder / "landing")
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Stepped(settings_for(shutil.copytree(empty_lake, folder / "lake"), landing.root), instance)
        landing.put("no_table/t.csv", "PatientID,Visit\nP1,old\n")
        landing.put("another_patient/a.dcm", dicom(11, 1, 1))
        landing.put("another_patient/b.dcm", dicom(11, 1, 2))
        landing.put("the_only_one/a.dcm", dicom(21, 1, 1))
        landing.put("older_time/a.dcm", dicom(31, 1, 1))
        landing.put("quarantined/a.dcm", dicom(41, 1, 1))
        landing.put_series(43, 1, 12, folder="quarantined")
        landing.put("copy/a.dcm", dicom(51, 1, 1), age_seconds=2 * DAY)
        landing.put("copy/copy.dcm", dicom(51, 1, 1), age_seconds=3 * DAY)
        landing.put("as_before/a.dcm", dicom(61, 1, 1))
        landing.put_zip("archive/a.zip", {"1.dcm": dicom(71, 1, 1), "2.dcm": dicom(71, 1, 2)})
        landing.put("file_to_archive/a.dcm", dicom(81, 1, 1))
        graph.judges = False
        first = ingested(graph)
        graph.judges = True

        landing.put("no_table/t.csv", dicom(1, 1, 1), age_seconds=DAY / 2)
        landing.put("another_patient/a.dcm", dicom(12, 1, 1), age_seconds=DAY / 2)
        landing.put("the_only_one/a.dcm", dicom(22, 1, 1), age_seconds=DAY / 2)
        landing.put("older_time/a.dcm", dicom(31, 1, 1, PatientName="Old^Time"), age_seconds=9 * DAY)
        landing.put("quarantined/a.dcm", dicom(41, 1, 1)[:300], age_seconds=DAY / 2)
        landing.put("copy/a.dcm", dicom(52, 1, 1))
        landing.put("as_before/a.dcm", dicom(62, 1, 1), age_seconds=DAY / 2)
        landing.put_zip("archive/a.zip", {"1.dcm": dicom(72, 1, 1)}, age_seconds=DAY / 2)
        landing.put_zip("file_to_archive/a.dcm", {"1.dcm": dicom(82, 1, 1)}, age_seconds=DAY / 2)
        second = ingested(graph)

        landing.put("as_before/a.dcm", dicom(61, 1, 1), age_seconds=DAY / 3)
        yield Deliveries(graph, landing, (first, second, ingested(graph)))


class TestATableThatIsReplaced:
    """Its records go as a whole, as instances do; records with a key of their own keep their own order."""

    @pytest.mark.slow
    def test_by_one_with_an_older_time_leaves_the_one_that_was_claimed_last(self, graph, landing):
        graph.judges = True
        landing.put("t.csv", "PatientID,Visit\nP1,old 1\nP2,old 2\n", age_seconds=DAY)
        landing.put("other.csv", "PatientID,Visit\nP1,other\n")
        first = ingested(graph)
        landing.put("t.csv", "PatientID,Visit\nP1,new\n", age_seconds=3 * DAY)
        second = ingested(graph)
        assert visits(graph) == ["new", "other"]
        for batch in (first, second):
            graph.run(batch)
            assert graph.books(batch).status == "closed", graph.books(batch).reason
            assert visits(graph) == ["new", "other"]

    @pytest.mark.slow
    def test_by_something_that_is_no_table_leaves_nothing(self, deliveries):
        graph = deliveries.graph
        assert visits(graph) == []
        assert graph.books(deliveries.batches[0]).clinical_records == 1
        assert [one for one in verify(graph.lake, graph.settings).findings if not one.holds] == []

    @pytest.mark.slow
    def test_by_something_that_is_no_table_leaves_nothing_when_its_batch_is_run_again(self, deliveries, tmp_path):
        kept = deliveries.graph
        copy = shutil.copytree(kept.settings.lake, tmp_path / "lake")
        graph = Stepped(settings_for(copy, deliveries.landing.root), kept.instance)
        first = deliveries.batches[0]
        graph.run(first)
        assert (graph.books(first).status, visits(graph)) == ("closed", [])
        assert current(graph) == current(kept)


class TestAFileThatIsReplaced:
    @pytest.mark.slow
    def test_by_another_patients_image_leaves_the_older_study_without_it(self, deliveries):
        first, second, _ = deliveries.batches
        assert deliveries.current("another_patient") == {uid(11, 1, 2): "P0011", uid(12, 1, 1): "P0012"}
        (study,) = deliveries.graph.rows(f"FROM study WHERE StudyInstanceUID = '{uid(11)}'")
        assert study["instance_count"] == 1
        versions = deliveries.graph.rows(
            "SELECT batch_id, replaced_in, replaced_by IS NOT NULL AS gone FROM flat_metadata_versions "
            "WHERE uri LIKE '%/another_patient/%' ORDER BY batch_id, SOPInstanceUID"
        )
        assert [(row["batch_id"], row["replaced_in"], row["gone"]) for row in versions] == [
            (first, second, True),
            (first, None, False),
            (second, None, False),
        ]

    @pytest.mark.slow
    def test_as_the_only_one_of_its_study_takes_the_study_with_it(self, deliveries):
        graph = deliveries.graph
        assert deliveries.current("the_only_one") == {uid(22, 1, 1): "P0022"}
        of_both = f"StudyInstanceUID IN ('{uid(21)}', '{uid(22)}')"
        resources = graph.rows(
            f"SELECT StudyInstanceUID AS uid, is_deleted FROM imaging_study WHERE {of_both} ORDER BY uid"
        )
        assert resources == [{"uid": uid(21), "is_deleted": True}, {"uid": uid(22), "is_deleted": False}]
        origins = graph.rows(f"SELECT StudyInstanceUID AS uid FROM image_occurrence_origin WHERE {of_both}")
        assert origins == [{"uid": uid(22)}]

    @pytest.mark.slow
    def test_by_one_with_an_older_time_is_replaced_all_the_same(self, deliveries):
        rows = deliveries.graph.rows("FROM instance WHERE uri LIKE '%/older_time/%'")
        assert [row["PatientName"] for row in rows] == ["Old^Time"]

    def test_by_text_is_gone(self, states):
        graph, landing, _ = states.begin(one)
        landing.put("a.dcm", "no image any more\n", age_seconds=DAY / 2)
        ingested(graph)
        assert current(graph) == {}

    def test_by_what_is_erased_stays_gone_when_that_batch_is_run_again(self, states):
        graph, _, _ = states.begin(replaced)
        erased(graph, Target(Scope.STUDY, uid(2)))
        (batch,) = (row["batch_id"] for row in graph.rows("SELECT max(batch_id) AS batch_id FROM batches"))
        graph.run(batch)
        assert current(graph) == {}
        assert [one for one in verify(graph.lake, graph.settings).findings if not one.holds] == []

    @pytest.mark.slow
    def test_by_what_is_quarantined_is_gone_too(self, deliveries):
        assert set(deliveries.current("quarantined")) == {uid(43, 1, number) for number in range(1, 13)}

    @pytest.mark.slow
    def test_stays_current_where_it_lies_under_another_uri_as_well(self, deliveries):
        assert set(deliveries.current("copy")) == {uid(51, 1, 1), uid(52, 1, 1)}
        (row,) = deliveries.graph.rows(f"FROM instance WHERE SOPInstanceUID = '{uid(51, 1, 1)}'")
        assert row["uri"].endswith("copy.dcm")

    @pytest.mark.slow
    def test_by_the_image_that_it_was_before_is_current_again(self, deliveries):
        assert deliveries.current("as_before") == {uid(61, 1, 1): "P0061"}


class TestAnObjectThatComesBackAsAnOlderVersionOfItself:
    """Restored with the time that it had: under its old name, which was claimed already."""

    def claimed(self, graph: Graph) -> list[str]:
        """Claims as a tick does; which batches."""
        with graph.work() as work:
            done = [claim for one in claim_everywhere(work) for claim in one.claims]
        graph.instance.add_dynamic_partitions("batch", [claim.batch_id for claim in done])
        return [claim.batch_id for claim in done]

    def ingested(self, graph: Graph) -> None:
        (batch,) = self.claimed(graph)
        assert graph.run(batch).success
        assert graph.books(batch).status == "closed"
        assert self.claimed(graph) == []

    @pytest.mark.slow
    def test_is_current_again_each_time(self, states):
        graph, landing, _ = states.begin(replaced)
        first, away = landing.root / "a.dcm", landing.root.parent / "away"
        landing.put("other.dcm", dicom(3, 1, 1))
        os.rename(first, away.with_name("newer"))
        shutil.copy2(away, first)
        self.ingested(graph)
        assert current(graph) == {uid(1, 1, 1): "P0001", uid(3, 1, 1): "P0003"}
        os.rename(away.with_name("newer"), first)
        self.ingested(graph)
        assert current(graph) == {uid(2, 1, 1): "P0002", uid(3, 1, 1): "P0003"}

    @pytest.mark.slow
    def test_is_claimed_once_however_long_its_batch_takes(self, states):
        graph, landing, _ = states.begin(replaced)
        shutil.copy2(landing.root.parent / "away", landing.root / "a.dcm")
        (batch,) = self.claimed(graph)
        assert self.claimed(graph) == self.claimed(graph) == []
        assert graph.run(batch).success
        assert self.claimed(graph) == []
        assert current(graph) == {uid(1, 1, 1): "P0001"}


class TestAnArchiveThatIsReplaced:
    @pytest.mark.slow
    def test_loses_the_members_that_have_the_names_of_new_ones(self, deliveries):
        assert deliveries.current("archive") == {uid(71, 1, 2): "P0071", uid(72, 1, 1): "P0072"}

    @pytest.mark.slow
    def test_takes_the_place_of_a_file(self, deliveries):
        assert deliveries.current("file_to_archive") == {uid(82, 1, 1): "P0082"}


class TestTheOrderOfBatches:
    @pytest.mark.slow
    @pytest.mark.usefixtures("as_far_as_hierarchy")
    def test_a_later_claim_that_is_published_first_stays_the_current_one(self, graph, landing):
        landing.put("a.dcm", dicom(1, 1, 1))
        (first,) = graph.claim()
        landing.put("a.dcm", dicom(2, 1, 1), age_seconds=9 * DAY)
        (second,) = graph.claim()
        # The bytes of the first claim are gone, so that it is read from a folder in which they are not.
        graph.run(second)
        assert current(graph) == {uid(2, 1, 1): "P0002"}
        graph.run(first)
        assert current(graph) == {uid(2, 1, 1): "P0002"}
        graph.run(second)
        assert current(graph) == {uid(2, 1, 1): "P0002"}

    def test_claims_of_one_microsecond_have_an_order(self, graph, landing):
        now = datetime.now(UTC)
        times = []
        for study in (1, 2):
            landing.put("a.dcm", dicom(study, 1, 1), age_seconds=DAY / study)
            with graph.work() as work:
                (store,) = work.stores()
                (claim,) = claim_new(store, work.log, graph.settings.claiming, now).claims
                times.append(claim.claimed_at)
        assert times[0] < times[1]


GONE = 0
"""What was claimed and was not there when it was read."""


class Write(NamedTuple):
    """One version of what lies at a place: an instance, nothing that is DICOM, or GONE. minute: its time."""

    place: str
    instance: int | None
    minute: int


def writes() -> st.SearchStrategy[list[list[Write]]]:
    """Claims one after the other, in each of them at most one version of each of three places."""
    one = st.builds(
        Write,
        place=st.sampled_from(["a", "b", "z!1"]),
        instance=st.sampled_from([None, GONE, 1, 2, 3]),
        minute=st.integers(0, 3),
    )
    claim = st.lists(one, min_size=1, max_size=3, unique_by=lambda write: write.place)
    return st.lists(claim, min_size=2, max_size=4)


def _claimed(lake: Lake, log: ClaimLog, writes: list[Write], number: int) -> tuple[str, dict[Part, pa.Table]]:
    """Claims some versions: the batch, and what is staged of it."""
    ids = [f"{number:04d}{place:016d}" for place in range(len(writes))]
    manifest = pa.Table.from_pylist(
        [
            {
                "object_id": one,
                "source": "landing",
                "uri": f"file:///{write.place[0]}",
                "etag": f"{number}",
                "size": 1,
                "modified_at": NOON + timedelta(minutes=write.minute),
                "claimed_at": NOON,
            }
            for one, write in zip(ids, writes, strict=True)
        ],
        schema=pa.schema([field for field in MANIFEST if field.name != "batch_id"]),
    )
    claim = log.append(manifest, number)
    assert claim is not None
    raw = [
        row
        | {"batch_id": claim.batch_id, "claimed_at": claim.claimed_at, "kind": "other"}
        | ({"member": "1"} if "!" in write.place else {})
        for row, write in zip(manifest.to_pylist(), writes, strict=True)
    ]
    versions = [
        Version(1 + write.instance % 2, 1, write.instance, write.minute, 0, False, None, "P", place, number)
        for place, write in enumerate(writes)
        if write.instance
    ]
    rows = flat_rows(versions).to_pylist()
    kept = [row for row, write in zip(raw, writes, strict=True) if write.instance]
    for row, own in zip(rows, kept, strict=True):
        row |= {name: own.get(name) for name in ("batch_id", "object_id", "uri", "member")}
        row["ingested_at"] = claim.claimed_at
    ledger = [
        {
            "batch_id": claim.batch_id,
            "object_id": one,
            "outcome": "ignored" if not write.instance else "ingested",
            "code": {None: "NOT_DICOM", GONE: "OBJECT_GONE"}.get(write.instance),
            "kind": "other",
            "judged_at": NOON,
        }
        for one, write in zip(ids, writes, strict=True)
    ]
    return claim.batch_id, {
        Part.RAW: pa.Table.from_pylist(raw, schema=RAW_STAGED),
        Part.LEDGER: pa.Table.from_pylist(ledger, schema=VALIDATED_BATCH.schema),
        Part.FLAT: pa.Table.from_pylist(rows, schema=FLAT_METADATA.schema),
    }


@pytest.mark.slow
@given(writes(), st.randoms(use_true_random=False))
@settings(
    max_examples=3,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
def test_the_result_depends_on_the_order_in_which_a_uri_changed_and_on_no_other(empty_lake, claims, chance: Random):
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(shutil.copytree(empty_lake, f"{folder}/lake"), make=False)
        log = ClaimLog(lake.files)
        batches = [_claimed(lake, log, claim, number) for number, claim in enumerate(claims)]
        order = [*chance.sample(batches, len(batches)), *chance.sample(batches, 1)]
        for batch, parts in order:
            staging = Staging(lake.files, batch)
            staging.remove()
            for part, rows in parts.items():
                staging.stage(part, rows)
            publish_rows(lake, staging, Part.RAW)
            publish_rows(lake, staging, Part.LEDGER)
            publish_flat(lake, staging, before=partial(UriIndex(lake.files, log).before, batch))
            for level in LEVELS:
                publish_hierarchy(lake, staging, level)
            for level in LEVELS:
                assert hierarchy_equals_metadata(level, CheckContext(lake, staging)).passed
            assert overwrites_are_entered(CheckContext(lake, staging)).passed
        found = contents(lake, LEVELS)
    assert {row["SOPInstanceUID"]: row["object_id"] for row in found["instance"]} == _expected(claims)
    assert {row["StudyInstanceUID"] for row in found["study"]} == {row["StudyInstanceUID"] for row in found["instance"]}
    assert sum(row["instance_count"] for row in found["study"]) == len(found["instance"])


def _expected(claims: list[list[Write]]) -> dict[str, str]:
    """By SOPInstanceUID the object that is current: of each place the last version, of these the newest."""
    last: dict[str, tuple[Write, str]] = {}
    for number, claim in enumerate(claims):
        for place, write in enumerate(claim):
            if write.instance != GONE:
                last[write.place] = (write, f"{number:04d}{place:016d}")
    newest: dict[str, tuple[int, str]] = {}
    for write, object_id in last.values():
        if write.instance is not None:
            key = uid(1 + write.instance % 2, 1, write.instance)
            newest[key] = max(newest.get(key, (-1, "")), (write.minute, object_id))
    return {key: object_id for key, (_, object_id) in newest.items()}


class TestWhatTheRulesFind:
    def test_overwrites_that_nobody_entered(self, states):
        graph, landing, _ = states.begin(one)
        landing.put("a.dcm", dicom(1, 1, 2), age_seconds=DAY / 2)
        (batch,) = graph.claim()
        graph.judges = True
        with mock.patch.object(overwritten, "enter", return_value=0):
            graph.run(batch)
        books = graph.books(batch)
        assert (books.status, str(books.reason).split(":")[0]) == ("paused", "flat_metadata.overwrites_are_entered")

    def test_overwrites_that_the_hierarchy_does_not_heed(self, states):
        graph, landing, _ = states.begin(one)
        landing.put("a.dcm", dicom(1, 1, 2), age_seconds=DAY / 2)
        (batch,) = graph.claim()
        graph.judges = True
        heedless = hierarchy.INSTANCE_SQL.replace("AND NOT is_overwritten", "")
        with mock.patch.object(hierarchy, "INSTANCE_SQL", heedless):
            graph.run(batch)
        books = graph.books(batch)
        assert (books.status, str(books.reason).split(":")[0]) == ("paused", "instance.equals_flat_metadata")


@pytest.mark.slow
@pytest.mark.usefixtures("as_far_as_hierarchy")
def test_what_was_moved_out_of_the_way_is_not_overwritten_by_what_comes_there_next(tmp_path, landing):
    """In mode organize the bytes of the first file lie elsewhere when the second one arrives, also when it is rerun."""
    source = {"name": "landing", "root": str(landing.root), "mode": "organize"}
    values = {"lake": str(tmp_path / "lake"), "sources": [source], "reading": {"workers": 1}}
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Stepped(Settings.model_validate(values), instance, judges=False)
        batches = []
        for study in (1, 2):
            landing.put("in/a.dcm", dicom(study, 1, 1), age_seconds=DAY / study)
            batches.append(ingested(graph))
        assert set(current(graph)) == {uid(1, 1, 1), uid(2, 1, 1)}
        for batch in batches:
            assert graph.run(batch).success
            assert set(current(graph)) == {uid(1, 1, 1), uid(2, 1, 1)}


@pytest.mark.slow
def test_the_older_batch_is_run_again_before_the_newer_one_of_which_raw_files_has_lost_all(states):
    graph, _, _ = states.begin(replaced)
    graph.judges = True
    for name in ("batches", "raw_files"):
        drop_files(graph.lake, name, graph.lake.extents(name).paths.tolist())
    for claim in ClaimLog(graph.lake.files).claims():
        graph.run(claim.batch_id)
        assert graph.books(claim.batch_id).status == "closed", graph.books(claim.batch_id).reason
