"""Asset by asset: a step made alone publishes what is staged, or refuses with a sentence and changes nothing."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dicom_assets.batch import steps
from dicom_assets.batch.checks.contract import CheckContext
from dicom_assets.batch.checks.parity_checks import RULES
from dicom_assets.batch.checks.standard_checks import STANDARD_RULES
from dicom_assets.batch.checks.version_checks import VERSION_RULES
from dicom_assets.batch.context import BatchClosed, RunContext
from dicom_assets.batch.series_geometry import publish_geometry
from dicom_assets.batch.steps import Run, each_table
from dicom_assets.lake.delta import Lake
from dicom_assets.lake.staging import Part, Staging, StagingMissing
from dicom_assets.settings import UserError
from dicom_assets_tests.support.dicoms import dicom
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import TABLES_OF_A_BATCH, Graph, commits, contents, settings_for
from dicom_assets_tests.support.landings import LandingFolder, put_mixed

NAMES = [*TABLES_OF_A_BATCH]
REPORT = (
    '{"resourceType":"DiagnosticReport","id":"r1","status":"final","code":{"text":"CT"},'
    '"subject":{"reference":"Patient/p1"}}\n'
)
RULES_OF_ALL = (*RULES, *VERSION_RULES, *STANDARD_RULES)
MAY_BE_MADE_AGAIN = {"mapping_coverage", "cleanup"}
"""What needs nothing staged: the one counts the whole lake, the other finds that nothing is to be done."""
BROUGHT_OTHERWISE = {"correction", "patient_link", "omop_identifier"}
"""What this batch brings nothing of, and ids, which occurrences give out too."""
EMPTIED = (
    ("raw_files", "validated_batch", "ingestion_errors", "series_geometry", "conflict", "imaging_study", "duplicate"),
    ("diagnostic_report", "image_occurrence", "study"),
    ("flat_metadata", "clinical", "image_occurrence_origin"),
    ("instance", "series"),
)
"""Tables that a batch brings something of, together where none is told for another one's sake."""
TOLD_AS = {"image_occurrence": "image_occurrence_origin"}
IN_THE_GRAPH = {"series", "cleanup"}
"""What is made by real runs of the graph; the others by what these call."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A landing folder, and lakes by what became of the batch in them.

    `claimed`: nothing yet; `read`: it was read and nothing of it published; `made`: all but its books; `closed`.
    """
    folder = tmp_path_factory.mktemp("single")
    (folder / "landing").mkdir()
    landing = LandingFolder(folder / "landing")
    put_mixed(landing)
    landing.put("study2/series1/0001.dcm", dicom(2, 1, 1, Rows=4, Columns=4))
    landing.put("copy.dcm", dicom(2, 1, 1, Rows=4, Columns=4))
    landing.put("study2/series1/0002.dcm", dicom(2, 1, 2, Rows=4, Columns=4, StudyDescription="another"))
    landing.put("clinical/reports.ndjson", REPORT)
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Graph(settings_for(folder / "closed", landing.root), instance)
        (batch,) = graph.claim()
        for name in ("claimed", "read"):
            shutil.copytree(folder / "closed", folder / name)
        assert graph.run(batch).success
        other = Graph(settings_for(folder / "read", landing.root), instance)
        assert other.run(batch, select=["raw_files", "validated_batch"]).success
        shutil.copytree(folder / "read", folder / "made")
        made = Graph(settings_for(folder / "made", landing.root), instance)
        assert made.run(batch, select=NAMES[2:-1]).success
    (folder / "batch").write_text(batch)
    return folder


@pytest.fixture(scope="module")
def closed(folder) -> dict[str, list[dict[str, Any]]]:
    """What is in the tables of the closed batch."""
    return contents(Lake(str(folder / "closed"), make=False))


@pytest.fixture(scope="module")
def knowing(folder) -> Iterator[dg.DagsterInstance]:
    """A Dagster that knows the batch."""
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("batch", [(folder / "batch").read_text()])
        yield instance


@pytest.fixture
def graph_of(folder, knowing, tmp_path) -> Callable[[str], tuple[Graph, str]]:
    """Gives the real graph over a copy of one of the lakes, and the batch."""

    def graph(state: str) -> tuple[Graph, str]:
        shutil.copytree(folder / state, tmp_path / "lake")
        return Graph(settings_for(tmp_path / "lake", folder / "landing"), knowing), (folder / "batch").read_text()

    return graph


def failure(result: dg.ExecuteInProcessResult) -> str:
    """What the step that failed says."""
    (event,) = [event for event in result.all_events if event.is_step_failure]
    return event.step_failure_data.user_failure_data.description


def make_alone(graph: Graph, batch: str, name: str) -> str | None:
    """Makes one asset as a run of it alone does, without Dagster around it; the sentence with which it refuses."""
    with RunContext(graph.settings, shared_engine=InlineEngine()) as work, work.lake.look_once():
        try:
            dict(each_table())[name](work.batch(batch), Run("run", reaches_end=False))
        except UserError as refusal:
            return str(refusal)
    return None


@pytest.mark.parametrize("name", NAMES)
def test_an_asset_of_a_closed_batch_that_is_made_alone_leaves_every_table_as_it_was(graph_of, folder, closed, name):
    graph, batch = graph_of("closed")
    if name in IN_THE_GRAPH:
        result = graph.run(batch, select=[name])
        refusal = None if result.success else failure(result)
    else:
        refusal = make_alone(graph, batch, name)
    if name in MAY_BE_MADE_AGAIN:
        assert contents(graph.lake) == closed
        assert refusal is None
    else:
        assert commits(Path(graph.settings.lake)) == commits(folder / "closed")
        assert f"Run the whole job: dagster job backfill -j ingest_batch --partitions {batch}" in refusal


@pytest.mark.parametrize("rule", RULES_OF_ALL, ids=lambda rule: f"{rule.table}.{rule.name}")
def test_a_rule_of_a_closed_batch_holds_or_says_that_nothing_is_staged(folder, rule):
    """Else looking at it again would pause the batch."""
    lake, batch = Lake(str(folder / "closed"), make=False), (folder / "batch").read_text()
    with suppress(StagingMissing):
        assert rule.rule(CheckContext(lake, Staging(lake.files, batch))).passed


@pytest.mark.slow
def test_the_whole_job_of_a_closed_batch_may_be_run_again(graph_of, closed):
    graph, batch = graph_of("closed")
    assert graph.run(batch).success
    assert contents(graph.lake) == closed


def test_each_table_that_a_batch_brings_something_of_is_emptied_once():
    emptied = [name for names in EMPTIED for name in names]
    assert sorted(emptied) == sorted({*NAMES} - MAY_BE_MADE_AGAIN - BROUGHT_OTHERWISE)


@pytest.mark.parametrize("names", EMPTIED, ids=" ".join)
def test_books_do_not_close_while_a_table_lacks_what_the_batch_brings(graph_of, folder, names):
    graph, batch = graph_of("made")
    for name in names:
        shutil.rmtree(Path(graph.settings.lake) / name)
        shutil.copytree(folder / "claimed" / name, Path(graph.settings.lake) / name)
    refusal = make_alone(graph, batch, "cleanup")
    assert "Run the whole job" in refusal
    told = {*re.findall(r" (\w+) \S+ instead of", refusal)}
    assert {TOLD_AS.get(name, name) for name in names} <= told
    assert graph.books(batch).status != "closed"
    assert Staging(graph.lake.files, batch).left()


def test_geometry_is_made_beside_conflicts_and_one_of_them_that_fails_keeps_the_batch_from_closing(
    graph_of, monkeypatch
):
    graph, batch = graph_of("made")
    version, both = graph.lake.extents("series_geometry").version, threading.Barrier(2)

    def geometry(*args: Any) -> int:
        both.wait(30)
        return publish_geometry(*args)

    def conflicts(*args: Any) -> int:
        both.wait(30)
        raise BatchClosed("No conflicts today.")

    monkeypatch.setattr(steps, "publish_geometry", geometry)
    monkeypatch.setattr(steps, "publish_conflicts", conflicts)
    result = graph.run(batch, select=["series_geometry", "conflict", "cleanup"])
    assert (result.success, failure(result)) == (False, "No conflicts today.")
    assert graph.lake.extents("series_geometry").version > version
    assert graph.books(batch).status != "closed"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["series", "omop_identifier"])
def test_books_do_not_close_while_an_asset_was_not_made(graph_of, name):
    """Everything is made but for one asset; what cannot be made without that is not either."""
    graph, batch = graph_of("read")
    graph.run(batch, select=[other for other in NAMES[2:-1] if other != name])
    result = graph.run(batch, select=["cleanup"])
    if name == "omop_identifier":  # occurrences give ids out too
        assert result.success
        return
    assert "Run the whole job" in failure(result)
    assert graph.books(batch).status != "closed"
    assert Staging(graph.lake.files, batch).left()


def test_cleanup_alone_does_not_close_over_rows_that_are_gone(graph_of):
    graph, batch = graph_of("closed")
    lake = Lake(graph.settings.lake)
    lake.replace("flat_metadata", [batch], lake.table("flat_metadata").to_pyarrow_table().slice(0, 0))
    closed_at = graph.books(batch).closed_at
    assert "flat_metadata 0 instead of 9" in failure(graph.run(batch, select=["cleanup"]))
    assert graph.books(batch).closed_at == closed_at


def test_what_was_staged_in_part_is_not_published(graph_of):
    graph, batch = graph_of("read")
    staging = Staging(graph.lake.files, batch)
    staging.put(Part.FLAT, 0, staging.read(Part.FLAT).slice(1))
    for name in staging.names(Part.FLAT)[1:]:
        (graph.lake.files.local_root / name).unlink()
    assert "rows of flat_metadata were staged" in failure(graph.run(batch, select=["flat_metadata"]))
    assert graph.rows("FROM flat_metadata") == []
