"""A self-test in this process: the running system is played by whatever happens while it waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner

from dicom_assets.batch.books import Status, all_books
from dicom_assets.batch.claim_rounds import claim_everywhere
from dicom_assets.batch.context import RunContext
from dicom_assets.batch.erasure import removal
from dicom_assets.batch.erasure.record import is_under_way
from dicom_assets.batch.selftest import clearance, diary, rehearsal
from dicom_assets.batch.selftest.clearance import NotCleared
from dicom_assets.batch.selftest.reference_set import EXPECTED, REFERENCE, files, names_of_test, objects, paths
from dicom_assets.batch.selftest.rehearsal import Line, Rehearsal, clean
from dicom_assets.batch.verification.verify import verify
from dicom_assets.cli.main import app
from dicom_assets.dicom.selftest_uids import is_of_selftest
from dicom_assets.landing.looks import Looks
from dicom_assets.landing.refusals import refusals
from dicom_assets.settings import Settings, SettingsError
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import Graph, contents, settings_for
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.states import States
from dicom_assets_tests.support.steps import publish

KEPT = (
    "flat_metadata", "instance", "series", "study", "imaging_study", "image_occurrence", "clinical", "diagnostic_report"
)  # fmt: skip
"""Tables that are to be as if nothing had been."""


@pytest.fixture
def graph(states: States) -> Graph:
    """A lake with a series of somebody's, and the landing folder that it came from."""
    found, _, _ = states.begin(with_a_series, claiming={"quiet_seconds": 0})
    return found


def with_a_series(graph: Graph, landing: LandingFolder) -> None:
    """A series of two, taken in."""
    landing.put_series(1, 1, 2)
    system(graph)(0)


@dataclass(frozen=True)
class Two:
    """Two self-tests at once: one that passed while another was under way, which was killed when all had arrived.

    before, files: what tables and landing folder held before both. cleaned: what `clean` told meanwhile.
    """

    graph: Graph
    before: dict[str, list[dict[str, Any]]]
    files: list[str]
    passed: Rehearsal
    killed: Rehearsal
    cleaned: list[Line]


@pytest.fixture
def two(states: States) -> Two:
    """A lake with a series of somebody's, and with what one of two self-tests left."""
    return states.begin(with_two_tests, claiming={"quiet_seconds": 0})[2]


def with_two_tests(graph: Graph, landing: LandingFolder) -> Two:
    with_a_series(graph, landing)
    passed = started(graph, system(graph))
    told: list[Line] = []

    def wait(_: float) -> None:
        assert clean(graph.settings, told.append)  # leaves what is under way
        assert passed.run(), passed.lines

    killed = started(graph, wait)
    two = Two(graph, contents(graph.lake, KEPT), files_of(graph), passed, killed, told)
    assert killed.run(keep=True), killed.lines
    return two


class made:
    """A lake that has taken in what lies at its source."""

    def __init__(self, settings: Settings) -> None:
        self._instance = dg.DagsterInstance.ephemeral()
        self._graph = Graph(settings, self._instance)

    def __enter__(self) -> Graph:
        system(self._graph)(0)
        return self._graph

    def __exit__(self, *_: object) -> None:
        self._instance.dispose()


def system(graph: Graph, publishing: bool = True) -> Callable[[float], None]:
    """What a running system does while somebody waits: claims, and runs; or claims alone."""

    def wait(_: float) -> None:
        with RunContext(graph.settings, shared_engine=InlineEngine()) as work, work.claiming(0):
            claim_everywhere(work)
            left = work.unclosed()
        for batch in left if publishing else ():
            with RunContext(graph.settings, shared_engine=InlineEngine()) as work:
                publish(work.batch(batch), judges=False)  # the lake is looked at whole in the end

    return wait


def started(graph: Graph, wait: Callable[[float], None], **more: Any) -> Rehearsal:
    return Rehearsal(graph.settings, graph.settings.sources[0], wait=wait, **more)


def claimed_and_no_more(graph: Graph) -> Rehearsal:
    """One whose files are claimed as soon as they have arrived, and which waits for nothing after that."""

    def told(line: Line) -> None:
        if line.name == "arrived":
            system(graph, publishing=False)(0)

    return started(graph, lambda _: None, timeout=0.0, told=told)


def line(run: Rehearsal, name: str) -> Line:
    return next(one for one in run.lines if one.name == name)


def files_of(graph: Graph) -> list[str]:
    root = Path(graph.settings.sources[0].root)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def nothing_is_left(graph: Graph, files: list[str]) -> None:
    """The lake is sound, holds somebody's series alone, and has nothing new."""
    assert files_of(graph) == files
    assert not is_under_way(graph.lake.files)
    assert not refusals(graph.lake.files)
    assert [one["n"] for one in graph.rows("SELECT count(*) AS n FROM flat_metadata")] == [2]
    assert graph.rows("SELECT * FROM clinical") == []
    system(graph)(0)
    assert {one.status for one in all_books(graph.lake)} == {"closed"}
    assert all(one.balance == 0 for one in all_books(graph.lake))
    assert [one for one in verify(graph.lake, graph.settings).findings if not one.holds] == []
    assert not any(one.cleaned_at is None for one in diary.entries(graph.lake.files))


def test_no_two_sets_share_a_uid_and_all_are_known_as_tests() -> None:
    uids = {uid for token in ("00000001", "ffffffff") for uid in names_of_test(token, "ct").studies}
    assert len(uids) == 18
    assert all(is_of_selftest(f"{uid}.1.1") and len(f"{uid}.1.1") <= 64 for uid in uids)
    assert not any(is_of_selftest(uid) for uid in (*REFERENCE.studies, None))
    assert len(list(objects(names_of_test("0000000a", "ct")))) == 96
    assert paths() == [path for path, _ in files(REFERENCE)]


@pytest.mark.slow
class TestAWholeRun:
    def test_of_two_at_once_each_finds_what_is_expected_and_neither_takes_out_the_other(self, two: Two) -> None:
        for run in (two.killed, two.passed):
            assert [one.name for one in run.lines[:5]] == ["arrived", "claimed", "read", "published", "closed"]
            assert {one.name: one.found for one in run.lines if one.name in EXPECTED} == EXPECTED
            assert (line(run, "arrived").found, line(run, "books").found) == (69, 2 * 101), "both are in one batch"
        assert two.cleaned == []
        assert (line(two.passed, "removed").ok, len(files_of(two.graph)) > len(two.files)) == (True, True)

    def test_what_was_moved_is_taken_out_as_well(self, tmp_path: Path) -> None:
        (tmp_path / "landing").mkdir()
        source = {"name": "ct", "root": str(tmp_path / "landing"), "mode": "organize"}
        settings = Settings.model_validate(
            {"lake": str(tmp_path / "lake"), "sources": [source], "claiming": {"quiet_seconds": 0}}
        )
        with made(settings) as graph:
            run = started(graph, system(graph))
            assert run.run(), run.lines
            assert [path for path in (tmp_path / "landing").rglob("*") if path.is_file()] == []

    def test_a_landing_zone_that_held_nothing_else_does_not_look_emptied(self, tmp_path: Path) -> None:
        (tmp_path / "landing").mkdir()
        with made(settings_for(tmp_path / "lake", tmp_path / "landing", claiming={"quiet_seconds": 0})) as graph:
            run = claimed_and_no_more(graph)
            assert not run.run()
            assert (line(run, "claimed").ok, line(run, "read").ok, line(run, "removed").ok) == (True, False, True)
            system(graph, publishing=False)(0)
            assert not Looks(graph.lake.files).is_emptied("landing")


class TestWhatDoesNotCome:
    @pytest.mark.slow
    def test_nobody_claims_and_what_is_known_of_the_system_is_told(self, graph: Graph) -> None:
        files = files_of(graph)
        run = started(graph, lambda _: None, timeout=0.0, why=lambda source: f"The sensor of {source.name} sleeps.")
        assert not run.run()
        assert line(run, "claimed").detail == "no sensor claimed the files within 0 s. The sensor of landing sleeps."
        nothing_is_left(graph, files)
        assert len(all_books(graph.lake)) == 1

    @pytest.mark.slow
    def test_a_batch_that_pauses_is_told_with_its_reason(self, graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
        files = files_of(graph)

        def pausing(_: float) -> None:
            system(graph, publishing=False)(0)
            with RunContext(graph.settings) as work:
                for batch in work.unclosed():
                    work.batch(batch).stop(Status.PAUSED, "a rule of the house", "run")

        monkeypatch.setattr(rehearsal, "CLEAR_SECONDS", 0.0)
        run = started(graph, pausing, timeout=60.0)
        assert not run.run()
        assert "is paused: a rule of the house" in line(run, "read").detail
        nothing_is_left(graph, files)

    def test_patterns_that_leave_the_set_out_are_said_before_anything_is_written(self, graph: Graph) -> None:
        source = graph.settings.sources[0].model_copy(update={"include": ("**/*.dcm",)})
        with pytest.raises(SettingsError, match="leave out 5 files"):
            Rehearsal(graph.settings, source).run()
        assert list(diary.entries(graph.lake.files)) == []


@pytest.mark.slow
class TestEnds:
    def test_an_interrupt_takes_out_what_there_is(self, graph: Graph) -> None:
        files = files_of(graph)

        def interrupted(_: float) -> None:
            raise KeyboardInterrupt

        run = started(graph, interrupted)
        with pytest.raises(KeyboardInterrupt):
            run.run()
        assert line(run, "removed").ok
        nothing_is_left(graph, files)

    def test_kills_while_it_is_taken_out_are_made_good(self, two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
        """Before its files are deleted, and when rows of it are."""
        graph = two.graph

        def killed(*_: Any, **__: Any) -> None:
            raise SystemExit

        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(clearance, "_files", killed)
            clean(graph.settings, lambda _: None)
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(removal.out_of_files, "take_out", killed)
            clean(graph.settings, lambda _: None)
        assert is_under_way(graph.lake.files)
        system(graph)(0)  # the next claim finishes it
        assert clean(graph.settings, lambda _: None)
        nothing_is_left(graph, two.files)

    def test_while_a_batch_is_at_work_it_waits_and_says_so_in_the_end(
        self, graph: Graph, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rehearsal, "CLEAR_SECONDS", 0.0)
        with RunContext(graph.settings) as work:
            work.batch(all_books(graph.lake)[0].batch_id)
            with pytest.raises(NotCleared, match="--clean"):
                claimed_and_no_more(graph).run()
        assert not is_under_way(graph.lake.files)
        assert clean(graph.settings, lambda _: None)


class TestCommand:
    def run(self, graph: Graph, *arguments: str) -> Any:
        root = graph.settings.sources[0].root
        return CliRunner().invoke(app, [*arguments, "--landing", root, "--lake", graph.settings.lake])

    @pytest.mark.slow
    def test_one_that_was_killed_is_told_of_by_status_and_cleaned_up_later(self, two: Two) -> None:
        graph = two.graph
        status = CliRunner().invoke(app, ["status", "--lake", graph.settings.lake])
        assert "was broken off" in status.stderr
        cleaned = self.run(graph, "selftest", "--clean")
        assert (cleaned.exit_code, cleaned.stdout.count("\n")) == (0, 1), cleaned.output
        assert "files at the source: 69" in cleaned.stdout
        assert contents(graph.lake, KEPT) == two.before
        nothing_is_left(graph, two.files)
        assert len(all_books(graph.lake)) == 2
        assert "Nothing is left" in self.run(graph, "selftest", "--clean").stdout
        status = CliRunner().invoke(app, ["status", "--lake", graph.settings.lake])
        assert "Batches of self-tests, whose objects were of nobody: 1" in status.stderr
        assert status.exit_code == 0

    def test_it_ends_with_1_when_nothing_comes(self, graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DAGSTER_HOME", str(Path(graph.settings.lake).with_name("home")))
        done = self.run(graph, "selftest", "--timeout", "1")
        assert done.exit_code == 1, done.output
        assert "no sensor claimed the files within 1 s. Is `dagster dev` running?" in done.stdout
        assert "FAILED" in done.stdout

    def test_a_lake_that_is_not_there_is_wrong_input(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        arguments = ["selftest", "--landing", str(tmp_path / "in"), "--lake", str(tmp_path / "none")]
        assert CliRunner().invoke(app, arguments).exit_code == 2
        assert not (tmp_path / "none").exists()
