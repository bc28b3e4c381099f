"""What is gone at a source: noticed, reported, and followed where that is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import dagster as dg
import pytest

from dicom_assets.batch.claim_rounds import claim_everywhere
from dicom_assets.batch.reread import Choice, choose
from dicom_assets.batch.source_audits import audits
from dicom_assets.batch.verification.verify import verify
from dicom_assets.batch.withdrawals import audit, follow
from dicom_assets.defs.jobs import register
from dicom_assets.landing.looks import SourceEmptied
from dicom_assets_tests.support.corrections import correction, table
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.lakes import Graph, settings_for
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import Stepped


class Source:
    """A landing folder whose deletions are followed, and its lake."""

    def __init__(self, root: Path, instance: dg.DagsterInstance) -> None:
        (root / "landing").mkdir()
        self.landing = LandingFolder(root / "landing")
        corrections = {"files": ["corrections/**"]}
        self.graph = Stepped(
            settings_for(root / "lake", self.landing.root, corrections=corrections), instance, judges=False
        )

    def audit(self):
        with self.graph.work() as work:
            return audit(work.lake, work.looks, self.graph.settings, self.graph.settings.sources[0])

    def follow(self, *, in_the_graph: bool = False) -> list[str]:
        """Audits, claims what is gone and runs its batches. in_the_graph: the real one, with its checks."""
        found = self.audit()
        with self.graph.work() as work:
            claims = follow(work.lake, work.log, self.graph.settings, found)
        batches = [claim.batch_id for claim in claims]
        register(self.graph.instance, batches)
        for batch in batches:
            run = Graph.run if in_the_graph else Stepped.run
            assert run(self.graph, batch).success, self.graph.books(batch).reason
        return batches

    def instances(self) -> set[str]:
        return {row["SOPInstanceUID"] for row in self.graph.rows("SELECT SOPInstanceUID FROM instance")}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Iterator[Source]:
    """Two studies, a copy of one instance, a zip, and a file that others stand beside; some of it gone since."""
    with dg.DagsterInstance.ephemeral() as instance:
        one = Source(tmp_path_factory.mktemp("source"), instance)
        one.landing.put_series(1, 1, 6)
        one.landing.put("copy/of-1.dcm", dicom(1, 1, 1), age_seconds=1_000_000)
        one.landing.put("alone.dcm", dicom(2, 1, 1))
        one.landing.put_zip("some.zip", {"a.dcm": dicom(3, 1, 1), "b.dcm": dicom(3, 1, 2)})
        one.graph.ingest()
        yield one


def test_where_nothing_is_gone_nothing_is_found(source):
    assert (source.audit().files, source.follow()) == (0, [])


@pytest.fixture(scope="module")
def followed(source) -> Source:
    """A file with a copy elsewhere, one without, and a zip are gone, and that was followed."""
    for name in ("study1/series1/0001.dcm", "alone.dcm", "some.zip"):
        (source.landing.root / name).rename(source.landing.root.parent / name.replace("/", "-"))
    source.found = source.audit()
    source.batches = source.follow(in_the_graph=True)
    return source


def test_what_is_gone_is_found_file_by_file_and_member_by_member(followed):
    assert (followed.found.files, len(followed.found.gone)) == (3, 4)
    rows = followed.graph.rows("SELECT count(*) AS n FROM source_audit")
    assert rows == [{"n": 4}]


def test_what_is_gone_leaves_the_current_tables_and_a_copy_elsewhere_stays(followed):
    assert followed.instances() == {uid(1, 1, number) for number in range(1, 7)}
    assert followed.graph.rows("SELECT uri LIKE '%copy%' AS is_copy FROM instance WHERE SOPInstanceUID = "
                               f"'{uid(1, 1, 1)}'") == [{"is_copy": True}]  # fmt: skip
    assert followed.graph.rows("SELECT count(*) AS n FROM imaging_study WHERE is_deleted") == [{"n": 2}]


def test_a_delete_has_its_row_in_the_books(followed):
    (batch,) = followed.batches
    books = followed.graph.books(batch)
    assert (books.status, books.seen, books.deleted, books.ignored, books.balance) == ("closed", 5, 4, 1, 0)
    rows = followed.graph.rows(f"SELECT DISTINCT operation FROM flat_metadata WHERE batch_id = '{batch}'")
    assert rows == [{"operation": "delete"}]
    assert [one for one in verify(followed.graph.lake, followed.graph.settings).findings if not one.holds] == []


def test_every_check_of_the_batch_holds(followed):
    (batch,) = followed.batches
    assert [name for name, one in followed.graph.checks(batch).items() if not one.passed] == []


def test_what_is_followed_is_not_found_again(followed):
    assert followed.audit().files == 0


def test_what_is_gone_is_not_read_again(followed):
    with followed.graph.work() as work:
        chosen = choose(work, Choice(source="landing"))
    assert dict(chosen.left) == {"they are gone at their source, which the lake has followed": 4}
    assert all(Path(unquote(uri.removeprefix("file://"))).exists() for uri in chosen.objects["uri"].to_pylist())


def test_what_is_gone_stays_gone_when_there_are_corrections(followed):
    followed.landing.put("corrections/a.csv", table(correction("study", uid(1), PatientID="P9")))
    followed.graph.ingest()
    assert followed.instances() == {uid(1, 1, number) for number in range(1, 7)}
    assert [one for one in verify(followed.graph.lake, followed.graph.settings).findings if not one.holds] == []


def test_what_a_pattern_leaves_out_is_not_gone(followed):
    graph = followed.graph
    narrow = graph.settings.sources[0].model_copy(update={"exclude": ("study1/**",)})
    settings = graph.settings.model_copy(update={"sources": (narrow,)})
    with graph.work() as work:
        assert audit(work.lake, work.looks, settings, narrow).files == 0


def test_a_source_that_looks_emptied_is_never_followed(followed):
    root = followed.landing.root
    root.rename(root.with_name("away"))
    root.mkdir()
    try:
        with pytest.raises(SourceEmptied):
            followed.audit()
    finally:
        root.rmdir()
        root.with_name("away").rename(root)
    followed.audit()  # and believes it again


def test_a_source_is_audited_as_its_settings_want_it(followed):
    with followed.graph.work() as work:
        assert list(audits(work)) == []
        (one,) = audits(work, "landing")
    assert (one.deletions, one.files, one.is_settled) == ("ignore", 0, True)


@pytest.mark.slow
def test_a_file_that_comes_back_is_current_again(followed):
    for name in ("alone.dcm", "some.zip"):
        (followed.landing.root.parent / name).rename(followed.landing.root / name)
    with followed.graph.work() as work:
        claims = [claim.batch_id for one in claim_everywhere(work) for claim in one.claims]
    register(followed.graph.instance, claims)
    for batch in claims:
        assert followed.graph.run(batch).success, followed.graph.books(batch).reason
    assert followed.instances() >= {uid(2, 1, 1), uid(3, 1, 1), uid(3, 1, 2)}
    assert [one for one in verify(followed.graph.lake, followed.graph.settings).findings if not one.holds] == []


@pytest.mark.slow
def test_members_that_something_has_replaced_are_gone_and_what_lies_there_stays(tmp_path):
    with dg.DagsterInstance.ephemeral() as instance:
        one = Source(tmp_path, instance)
        for name in ("smaller", "file", "broken"):
            study = len(name)
            one.landing.put_zip(f"{name}.zip", {f"{number}.dcm": dicom(study, 1, number) for number in (1, 2)})
        one.graph.ingest()
        one.landing.put_zip("smaller.zip", {"2.dcm": dicom(7, 1, 2)}, age_seconds=1_000)
        one.landing.put("file.zip", dicom(4, 1, 3), age_seconds=1_000)
        one.landing.put("broken.zip", (one.landing.root / "broken.zip").read_bytes()[:-30], age_seconds=1_000)
        one.graph.ingest()
        assert len(one.instances()) == 7
        one.follow()
        whole = {uid(7, 1, 2), uid(4, 1, 3), uid(6, 1, 1), uid(6, 1, 2)}
        assert one.instances() == whole
        assert [found for found in verify(one.graph.lake, one.graph.settings).findings if not found.holds] == []
        assert (one.graph.ingest(), one.follow()) == ([], [])
        assert one.instances() == whole
