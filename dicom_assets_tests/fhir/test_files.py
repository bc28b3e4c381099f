"""The NDJSON files of imaging studies: each batch has its own, and a check compares them with the table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from dicom_assets.batch.checks.contract import CheckContext
from dicom_assets.batch.checks.standard_checks import files_equal_resources
from dicom_assets.batch.standards import write_ndjson_again
from dicom_assets.fhir import imaging_study
from dicom_assets.lake.staging import Staging
from dicom_assets.schema.registry import IMAGING_STUDY
from dicom_assets.storage.files import LakeFiles
from dicom_assets_tests.support.lakes import Graph, settings_for
from dicom_assets_tests.support.landings import LandingFolder


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[Graph]:
    (tmp_path / "landing").mkdir()
    landing = LandingFolder(tmp_path / "landing")
    for study in range(1, 7):
        landing.put_series(study, 1, 1)
    with dg.DagsterInstance.ephemeral() as instance:
        yield Graph(settings_for(tmp_path / "lake", landing.root, claiming={"batch_objects": 2}), instance)


def files(graph: Graph) -> dict[Path, list[str]]:
    """By NDJSON file the ids in it."""
    found = sorted((Path(graph.settings.lake) / "Process").rglob("*.ndjson"))
    return {path: [json.loads(line)["id"] for line in path.read_text().splitlines()] for path in found}


def test_batches_of_one_round_of_claims_leave_a_line_for_every_study(graph):
    batches = graph.ingest()
    assert len(batches) == 3
    found = files(graph)
    ids = [one for lines in found.values() for one in lines]
    assert sorted(ids) == sorted(row["id"] for row in graph.rows("FROM imaging_study"))
    assert len(ids) == 6
    assert all(sum(batch in path.name for path in found) == 1 for batch in batches)


@pytest.mark.slow
def test_a_batch_that_is_run_again_replaces_its_own_files(graph, monkeypatch):
    monkeypatch.setattr(imaging_study, "RESOURCES_PER_FILE", 1)
    first, *_ = graph.ingest()
    assert len(files(graph)) == 6
    monkeypatch.setattr(imaging_study, "RESOURCES_PER_FILE", 10)
    assert graph.run(first).success
    found = files(graph)
    assert sorted(map(len, found.values())) == [1, 1, 1, 1, 2]
    assert len({one for lines in found.values() for one in lines}) == 6


@pytest.mark.slow
def test_files_are_made_again_from_the_table_and_go_with_the_last_study(graph):
    first, *_ = graph.ingest()
    before = {path: path.read_bytes() for path in files(graph)}
    own = {path for path in before if first in path.name}
    for path in own:
        path.unlink()
    assert write_ndjson_again(graph.lake, first) == len(own) == 1
    assert {path: path.read_bytes() for path in files(graph)} == before
    keys = graph.rows(f"SELECT study_key FROM batch_study WHERE batch_id = '{first}'")
    none = IMAGING_STUDY.schema.empty_table()
    with graph.lake.committing(IMAGING_STUDY.name):
        graph.lake.replace(IMAGING_STUDY.name, [row["study_key"] for row in keys], none)
    assert write_ndjson_again(graph.lake, first) == 0
    assert files(graph).keys() == before.keys() - own


@pytest.mark.slow
@pytest.mark.parametrize("loses", ["a file", "a line", "the id"])
def test_a_writer_that_loses_something_is_found(graph, monkeypatch, loses):
    kept = LakeFiles.put

    def losing(self: LakeFiles, path: str, data: bytes, **how: bool) -> bool:
        if path.endswith(".ndjson"):
            if loses == "a file":
                return True
            lines = data.splitlines(keepends=True)
            data = b"".join(lines[1:] if loses == "a line" else [lines[0], *lines[:-1]])
        return kept(self, path, data, **how)

    monkeypatch.setattr(LakeFiles, "put", losing)
    batch = graph.claim()[0]
    graph.run(batch)
    assert graph.books(batch).status == "paused"
    assert not graph.checks(batch)["imaging_study.files_equal_rows"].passed
    monkeypatch.undo()
    assert graph.run(batch).success
    assert graph.checks(batch)["imaging_study.files_equal_rows"].passed


def test_names_that_batches_share_are_found(graph, monkeypatch):
    first, second, _ = graph.claim()
    names = ["raw_files", "validated_batch", "flat_metadata", "instance", "series", "study", "imaging_study"]
    graph.run(first, select=names)
    context = CheckContext(graph.lake, Staging(graph.lake.files, first))
    assert files_equal_resources(context).passed
    (path,) = files(graph)
    path.rename(path.with_name(path.name.replace(first, second)))
    assert not files_equal_resources(context).passed
