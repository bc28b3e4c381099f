"""What a check could not look at is said, and pauses nothing; and what is taken into the sample."""

from __future__ import annotations

import io
import zipfile

import pytest

from dicom_assets.batch.checks.contract import CheckResult
from dicom_assets.batch.checks.reopening import chosen
from dicom_assets.batch.checks.rules import ALL_RULES, judged
from dicom_assets.batch.checks.sample_checks import sample
from dicom_assets_tests.dicom import raw
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import Graph, settings_for
from dicom_assets_tests.support.landings import LandingFolder, zipped
from dicom_assets_tests.support.steps import steps


def object_id(graph: Graph, member: str | None = None) -> str:
    """The object_id of the one own object, or of a member."""
    own = "container_id IS NULL" if member is None else f"member = '{member}'"
    (row,) = graph.rows(f"SELECT object_id FROM raw_files WHERE {own}")
    return row["object_id"]


def bzip2_inside() -> bytes:
    """An archive whose nested one is packed in a way that the comparison does not unpack."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("inner.zip", zipped({"1.dcm": dicom()}), zipfile.ZIP_BZIP2)
    return sink.getvalue()


@pytest.mark.slow
def test_an_archive_that_the_other_library_cannot_look_into_is_named_and_pauses_nothing(graph, landing):
    landing.put("a.zip", bzip2_inside())
    (batch,) = graph.ingest()
    check = graph.checks(batch)["raw_files.archives_are_compared"]
    assert (check.passed, check.blocking, check.severity.value) == (False, False, "WARN")
    assert check.metadata["differing"].value == [object_id(graph)]
    assert graph.checks(batch)["raw_files.members_equal_directories"].metadata["expected"].value == 0
    assert graph.books(batch).status == "closed"


def looked_at(graph: Graph, table: str, name: str) -> CheckResult:
    """What a rule says of a batch as soon as its table is made; it blocks nothing, and those that do hold."""
    (rule,) = [one for one in ALL_RULES if (one.table, one.name) == (table, name)]
    assert not rule.blocking
    (batch_id,) = graph.claim()
    with graph.work() as work:
        work.shared_engine = InlineEngine()
        batch = work.batch(batch_id)
        for tables, make in steps(batch):
            make()
            if table in tables:
                break
        context = judged(batch)
        blocking = [one for one in ALL_RULES if one.blocking and one.table == table]
        assert [one.name for one in blocking if not one.rule(context).passed] == []
        return rule.rule(context)


@pytest.mark.parametrize("limits", [{"archives": 0}, {"archive_members": 1}], ids=str)
def test_an_archive_beyond_a_bound_is_named(tmp_path, landing, instance, limits):
    graph = Graph(settings_for(tmp_path / "lake", landing.root, checks=limits), instance)
    landing.put_zip("a.zip", {"1.dcm": dicom(), "2.dcm": dicom(instance=2)})
    found = looked_at(graph, "raw_files", "archives_are_compared")
    assert (found.passed, found.differing) == (False, [object_id(graph)])


def test_a_table_that_the_two_readers_take_apart_in_different_ways_is_named(graph, landing):
    rows = "".join(f"P{number};sound\n" for number in range(60))
    landing.put("a.csv", f'PatientID;text\n{rows}P1;"one\nP2;two" three\nP3;x\n')
    found = looked_at(graph, "validated_batch", "files_are_counted_again")
    assert (found.passed, found.differing) == (False, [object_id(graph)])


def test_a_file_beyond_the_bytes_of_a_batch_is_named(tmp_path, landing, instance):
    graph = Graph(settings_for(tmp_path / "lake", landing.root, checks={"clinical_bytes": 10}), instance)
    landing.put("a.csv", "PatientID;diagnosis\nP1;R91\n")
    found = looked_at(graph, "validated_batch", "files_are_counted_again")
    assert (found.passed, found.differing) == (False, [object_id(graph)])


class TestTheSample:
    @pytest.fixture
    def full(self, landing: LandingFolder) -> LandingFolder:
        landing.put_series(1, 1, 20)
        landing.put_zip("a.zip", {f"{n}.dcm": dicom(2, 1, n) for n in range(1, 21)})
        return landing

    def sampled(self, graph: Graph, until: str = "flat_metadata", gone: str | None = None) -> list[str]:
        (batch_id,) = graph.claim()
        with graph.work() as work:
            batch = work.batch(batch_id)
            for tables, make in steps(batch):
                make()
                if until in tables:
                    break
            for path in sorted((work.stores()[0].root).rglob(gone)) if gone else ():
                path.unlink()
            found = sample(judged(batch))
        assert found.differing == []
        return found.compared

    def test_it_has_five_objects_by_default_files_and_members_among_them(self, graph, full):
        found = self.sampled(graph)
        assert len(found) == 5
        rows = graph.rows("SELECT object_id, member IS NULL AS own FROM raw_files")
        assert {row["own"] for row in rows if row["object_id"] in found} == {True, False}

    def test_another_object_takes_the_place_of_one_that_is_gone(self, graph, full):
        found = self.sampled(graph, gone="*.dcm")
        rows = graph.rows("SELECT object_id FROM raw_files WHERE member IS NOT NULL")
        assert len(found) == 5
        assert set(found) <= {row["object_id"] for row in rows}

    def test_what_pydicom_reads_otherwise_is_no_difference(self, graph, landing):
        """A UN value is little endian in every transfer syntax (PS3.5 6.2.2), and NUL ends a value."""
        landing.put("un.dcm", raw.dicom(raw.element(0x00280010, "UN", b"\4\0", little=False), syntax=raw.BIG))
        landing.put("nul.dcm", dicom(StudyInstanceUID="1.2.3\0junk"))
        assert len(self.sampled(graph)) == 2
        rows = graph.rows('SELECT "Rows" FROM flat_metadata WHERE "Rows" IS NOT NULL')
        assert rows == [{"Rows": 4}]

    def test_it_can_be_switched_off(self, tmp_path, instance, full):
        graph = Graph(settings_for(tmp_path / "lake", full.root, checks={"sample_objects": 0}), instance)
        assert self.sampled(graph) == []

    def test_which_objects_are_taken_follows_from_the_batch(self):
        ids = [f"{number:020x}" for number in range(100)]
        assert chosen("a", ids, 5) == chosen("a", ids[::-1], 5) != chosen("b", ids, 5)
