"""The NDJSON files of imaging studies: each batch has its own, and a check compares them with the table."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from dicom_assets.batch.checks.contract import CheckContext
from dicom_assets.batch.checks.rules import ALL_RULES
from dicom_assets.batch.checks.standard_checks import files_equal_resources
from dicom_assets.batch.context import RunContext
from dicom_assets.batch.standards import write_ndjson_again
from dicom_assets.fhir import imaging_study
from dicom_assets.lake.staging import Staging
from dicom_assets.schema.registry import IMAGING_STUDY
from dicom_assets.storage.files import LakeFiles
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import Graph, settings_for
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import Stepped, steps


def graph_of(folder: Path, instance: dg.DagsterInstance, studies: int) -> Stepped:
    """A new lake whose batches hold two studies each."""
    landing = LandingFolder(folder / "landing")
    landing.root.mkdir()
    for study in range(1, studies + 1):
        landing.put_series(study, 1, 1)
    return Stepped(settings_for(folder / "lake", landing.root, claiming={"batch_objects": 2}), instance, judges=False)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stepped]:
    """Three batches of two studies each, which were written when a file held one resource."""
    with dg.DagsterInstance.ephemeral() as instance:
        made = graph_of(tmp_path_factory.mktemp("published"), instance, 6)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(imaging_study, "RESOURCES_PER_FILE", 1)
            made.ingest()
        yield made


@pytest.fixture
def copied(published: Stepped, tmp_path: Path) -> Stepped:
    """The same lake, to be changed."""
    shutil.copytree(published.settings.lake, tmp_path / "lake")
    settings = published.settings.model_copy(update={"lake": str(tmp_path / "lake")})
    return Stepped(settings, published.instance, dict(published.results))


@pytest.fixture(scope="module")
def halfway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stepped, str]]:
    """A batch that has come to its imaging studies, the first of two."""
    with dg.DagsterInstance.ephemeral() as instance:
        made = graph_of(tmp_path_factory.mktemp("halfway"), instance, 4)
        first, _ = made.claim()
        with RunContext(made.settings, shared_engine=InlineEngine()) as work:
            for (name,), make in steps(work.batch(first)):
                make()
                if name == IMAGING_STUDY.name:
                    break
        yield made, first


def files(graph: Graph) -> dict[Path, list[str]]:
    """By NDJSON file the ids in it."""
    found = sorted((Path(graph.settings.lake) / "Process").rglob("*.ndjson"))
    return {path: [json.loads(line)["id"] for line in path.read_text().splitlines()] for path in found}


@pytest.mark.slow
def test_batches_of_one_round_of_claims_leave_a_line_for_every_study(published: Stepped):
    batches = list(published.results)
    assert len(batches) == 3
    found = files(published)
    ids = [one for lines in found.values() for one in lines]
    assert sorted(ids) == sorted(row["id"] for row in published.rows("FROM imaging_study"))
    assert len(ids) == 6
    assert all(sum(batch in path.name for path in found) == 2 for batch in batches)


@pytest.mark.slow
def test_a_batch_that_is_run_again_replaces_its_own_files(copied: Stepped, monkeypatch: pytest.MonkeyPatch):
    first, *_ = copied.results
    assert sorted(map(len, files(copied).values())) == [1] * 6
    monkeypatch.setattr(imaging_study, "RESOURCES_PER_FILE", 10)
    assert copied.run(first).success
    found = files(copied)
    assert sorted(map(len, found.values())) == [1, 1, 1, 1, 2]
    assert len({one for lines in found.values() for one in lines}) == 6


@pytest.mark.slow
def test_files_are_made_again_from_the_table_and_go_with_the_last_study(
    copied: Stepped, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(imaging_study, "RESOURCES_PER_FILE", 1)
    first, *_ = copied.results
    before = {path: path.read_bytes() for path in files(copied)}
    own = {path for path in before if first in path.name}
    for path in own:
        path.unlink()
    assert write_ndjson_again(copied.lake, first) == len(own) == 2
    assert {path: path.read_bytes() for path in files(copied)} == before
    keys = copied.rows(f"SELECT study_key FROM batch_study WHERE batch_id = '{first}'")
    none = IMAGING_STUDY.schema.empty_table()
    with copied.lake.committing(IMAGING_STUDY.name):
        copied.lake.replace(IMAGING_STUDY.name, [row["study_key"] for row in keys], none)
    assert write_ndjson_again(copied.lake, first) == 0
    assert files(copied).keys() == before.keys() - own


def holds_after_writing(graph: Stepped, batch: str) -> bool:
    """Takes the step of the imaging studies once more; whether what the rule says of its files blocks nothing."""
    (rule,) = [one for one in ALL_RULES if (one.table, one.name) == (IMAGING_STUDY.name, "files_equal_rows")]
    assert rule.blocking
    for path in files(graph):
        path.unlink()
    with RunContext(graph.settings, shared_engine=InlineEngine()) as work:
        made = {name: make for (name,), make in steps(work.batch(batch))}
        made[IMAGING_STUDY.name]()
    return rule.rule(CheckContext(graph.lake, Staging(graph.lake.files, batch))).passed


@pytest.mark.parametrize("loses", ["a file", "a line", "the id"])
def test_a_writer_that_loses_something_is_found(
    halfway: tuple[Stepped, str], monkeypatch: pytest.MonkeyPatch, loses: str
):
    kept = LakeFiles.put

    def losing(self: LakeFiles, path: str, data: bytes, **how: bool) -> bool:
        if path.endswith(".ndjson"):
            if loses == "a file":
                return True
            lines = data.splitlines(keepends=True)
            data = b"".join(lines[1:] if loses == "a line" else [lines[0], *lines[:-1]])
        return kept(self, path, data, **how)

    monkeypatch.setattr(LakeFiles, "put", losing)
    assert not holds_after_writing(*halfway)
    monkeypatch.undo()
    assert holds_after_writing(*halfway)


def test_names_that_batches_share_are_found(halfway: tuple[Stepped, str]):
    graph, first = halfway
    (second,) = {*claimed(graph)} - {first}  # in the order of their names when both were claimed in one second
    assert holds_after_writing(graph, first)
    (path,) = files(graph)
    path.rename(path.with_name(path.name.replace(first, second)))
    context = CheckContext(graph.lake, Staging(graph.lake.files, first))
    assert not files_equal_resources(context).passed


def claimed(graph: Stepped) -> list[str]:
    """Every batch of a lake."""
    with graph.work() as work:
        return [claim.batch_id for claim in work.log.claims()]
