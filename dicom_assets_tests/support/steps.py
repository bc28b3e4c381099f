"""A batch step by step without Dagster: the list that the graph's assets are made from, with the blocking rules.

A run of the graph over some files takes 3.4 s of processor time, its steps alone 2. Belongs here: this quick way to the
tables for tests that are about them. Does not belong here: the graph itself (`lakes`).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from itertools import dropwhile
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dicom_assets.batch import closing, first_delivery
from dicom_assets.batch.books import Status
from dicom_assets.batch.checks.contract import CheckResult, judge
from dicom_assets.batch.checks.rules import ALL_RULES, judged
from dicom_assets.batch.context import OpenBatch, RunContext
from dicom_assets.batch.steps import Run, each_table
from dicom_assets.settings import Settings
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import Graph

Step = tuple[Sequence[str], Callable[[], object]]
"""Tables and what makes them."""


PAUSING = ("gate", "house_rules")
"""Rules that do not hold for what arrived, and not for what was done with it."""

FURTHER = frozenset(
    {"series_geometry", "conflict", "imaging_study", "diagnostic_report", "omop_identifier", "image_occurrence"}
    | {"image_occurrence_origin", "mapping_coverage", "duplicate"}
)
"""What is made from hierarchy and records, and what no books close over: a third of what such a batch costs."""

_JUDGES = ContextVar("judges", default=True)
"""Whether the batch that this thread takes through its steps is judged; see `Stepped`."""

_NO_FURTHER = ContextVar("no_further", default=False)
"""Whether batches of this thread that are not judged leave out FURTHER; see `no_further`."""


@contextmanager
def judging(judges: bool) -> Iterator[None]:
    """Whether books that close within ask the rules that compare tables, in this thread."""
    token = _JUDGES.set(judges)
    try:
        yield
    finally:
        _JUDGES.reset(token)


@contextmanager
def no_further() -> Iterator[None]:
    """Batches that are not judged go through the steps without FURTHER: for tests that look at none of it.

    Not where a lake is looked at as a whole, by `verify` or by comparing all of its tables.
    """
    token = _NO_FURTHER.set(True)
    try:
        yield
    finally:
        _NO_FURTHER.reset(token)


def leaves_out() -> frozenset[str]:
    """Tables that batches which are not judged are without, at this moment."""
    return FURTHER if _NO_FURTHER.get() else frozenset()


def close_by_counts(patch: pytest.MonkeyPatch) -> None:
    """Has books of a batch that is not judged close over its own rows: rules that compare tables are not asked."""
    compared = closing._of_others
    patch.setattr(closing, "_of_others", lambda context: compared(context) if _JUDGES.get() else ())


def step_through(graph: Graph, *, judges: bool = True) -> list[str]:
    """Claims what is new and takes every batch through all steps; the batches. Every blocking rule holds.

    judges: see `Stepped`.
    """
    with RunContext(graph.settings, shared_engine=InlineEngine()) as work:
        batches = graph.claim(work)
        for name in batches:
            publish(work.batch(name), judges=judges)
    return batches


def publish(batch: OpenBatch, *, judges: bool = True) -> None:
    """One batch through all steps; every blocking rule holds. judges: see `Stepped`."""
    assert failures(batch, judges=judges) == {}


def failures(
    batch: OpenBatch, run: str = "run", begin: str | None = None, *, judges: bool = True
) -> dict[str, CheckResult]:
    """Takes a batch step by step until blocking rules of a step do not hold, as a run does; these, by `table.rule`.

    begin: the table of the first step, where those before it are done. judges: see `Stepped`.
    """
    left_out = frozenset() if judges else leaves_out()
    for tables, make in dropwhile(lambda step: begin is not None and begin not in step[0], steps(batch, run)):
        if left_out.issuperset(tables):
            continue
        with judging(judges), batch.lake.look_once():
            make()
        context = judged(batch)
        failed = {}
        for rule in ALL_RULES:
            if rule.blocking and rule.table in tables and (judges or rule.name in PAUSING):
                result = judge(context, rule.rule)
                if result.stops:
                    failed[f"{rule.table}.{rule.name}"] = result
        if failed:
            return failed
    return {}


def steps(batch: OpenBatch, run: str = "run") -> Iterator[Step]:
    """The steps of a batch in the order of the flow."""
    for name, make in each_table():
        yield [name], partial(make, batch, Run(run))


_DESCRIPTIONS = {f"{rule.table}.{rule.name}": rule.description for rule in ALL_RULES}


@dataclass(frozen=True)
class Ran:
    """What is known of a run without Dagster."""

    success: bool
    run_id: str
    all_events: tuple[()] = ()


def run_steps(batch: OpenBatch, run: str, *, judges: bool = True) -> Ran:
    """Takes a batch through all steps; a blocking rule that does not hold pauses it. judges: see `Stepped`."""
    failed = failures(batch, run, judges=judges)
    for name in sorted(failed, key=lambda name: name != "validated_batch.gate")[:1]:
        result = failed[name]
        told = f"{_DESCRIPTIONS[name]}: expected {result.expected}, actual {result.actual}"
        batch.stop(Status.PAUSED, f"{name}: {result.explanation or told}", run)
    return Ran(not failed, run)


def without_graph(patch: pytest.MonkeyPatch, module: ModuleType) -> None:
    """Has `defs.runner` or `defs.mending` take batches through their steps instead of running the graph.

    An error of a step is raised, where the graph would end the run.
    """

    def build(settings: Settings, work: RunContext) -> SimpleNamespace:
        return SimpleNamespace(resolve_job_def=lambda name: work)

    def run(work: RunContext, instance: object, batch: str, run_id: str | None = None) -> Ran:
        return run_steps(work.batch(batch), run_id or str(uuid.uuid4()), judges=False)

    for place in (module, first_delivery):
        patch.setattr(place, "RunContext", partial(RunContext, shared_engine=InlineEngine()))
    patch.setattr(module, "build_defs", build)
    patch.setattr(module, "run_batch", run)


@dataclass
class Stepped(Graph):
    """A lake as `Graph` has it, whose batches go through the steps without Dagster around them.

    For tests that are not about the graph: what a batch brings, and what becomes of it when it is run again. A blocking
    rule that does not hold pauses the batch and ends the run, where the graph goes on with what does not need it; an
    error of a step is raised. A part of the graph, or a run with a configuration, is the real graph's.

    judges: whether every blocking rule is asked, also by the books before they close, which is more than half of what a
    small batch costs. Otherwise those of PAUSING are: for lakes that are looked at as a whole (`verify`), and where
    another test of the same story asks them all.
    """

    judges: bool = True

    def run(  # type: ignore[override]
        self, batch_id: str, config: Mapping[str, Any] | None = None, select: Sequence[str] | None = None
    ) -> Any:
        """Takes one batch through all steps."""
        if config or select:
            return super().run(batch_id, config, select)
        with RunContext(self.settings, shared_engine=InlineEngine()) as work:
            return self._step(work, batch_id)

    def ingest(self) -> list[str]:
        """Claims and runs what is new; the batches, in their order. The lake is opened once, as `ingest` does it."""
        with RunContext(self.settings, shared_engine=InlineEngine()) as work:
            batches = self.claim(work)
            for batch in batches:
                self._step(work, batch)
        return batches

    def _step(self, work: RunContext, batch_id: str) -> Any:
        self.results[batch_id] = run_steps(work.batch(batch_id), str(uuid.uuid4()), judges=self.judges)
        return self.results[batch_id]


class WithoutDagster:
    """Base of test classes that are not about the graph: their `graph` is `Stepped`."""

    @pytest.fixture
    def graph(self, stepped: Stepped) -> Stepped:
        """The lake of the test."""
        return stepped
