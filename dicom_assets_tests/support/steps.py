"""A batch step by step without Dagster: the list that the graph's assets are made from, with the blocking rules.

Belongs here: a quick way to the tables for tests that are about them. Does not belong here: the graph itself (`lakes`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from dicom_assets.batch.checks.contract import CheckResult
from dicom_assets.batch.checks.rules import ALL_RULES, judged
from dicom_assets.batch.context import OpenBatch, RunContext
from dicom_assets.batch.steps import Run, each_table
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import Graph

Step = tuple[Sequence[str], Callable[[], object]]
"""Tables and what makes them."""


def step_through(graph: Graph) -> list[str]:
    """Claims what is new and takes every batch through all steps; the batches. Every blocking rule holds."""
    batches = graph.claim()
    for name in batches:
        with RunContext(graph.settings, shared_engine=InlineEngine()) as work:
            publish(work.batch(name))
    return batches


def publish(batch: OpenBatch) -> None:
    """One batch through all steps; every blocking rule holds."""
    assert failures(batch) == {}


def failures(batch: OpenBatch) -> dict[str, CheckResult]:
    """Takes a batch step by step until blocking rules of a step do not hold, as a run does; these, by `table.rule`."""
    for tables, make in steps(batch):
        make()
        context = judged(batch)
        failed = {}
        for rule in ALL_RULES:
            if rule.blocking and rule.table in tables:
                with batch.lake.look_once():
                    result = rule.rule(context)
                if not result.passed:
                    failed[f"{rule.table}.{rule.name}"] = result
        if failed:
            return failed
    return {}


def steps(batch: OpenBatch) -> Iterator[Step]:
    """The steps of a batch in the order of the flow."""
    for name, make in each_table():
        yield [name], partial(make, batch, Run("run"))
