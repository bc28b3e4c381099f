"""A batch step by step without Dagster: what the assets of the graph call, in their order, with the blocking rules.

Belongs here: a quick way to the tables for tests that are about them. Does not belong here: the graph itself (`lakes`);
that the assets call these steps is shown by tests that run it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from dicom_assets.batch.checks.checks import CheckResult
from dicom_assets.batch.checks.rules import ALL_RULES, judged
from dicom_assets.batch.clinical import publish_clinical
from dicom_assets.batch.context import BatchWork, Work
from dicom_assets.batch.publish import publish_hierarchy, publish_rows
from dicom_assets.batch.standards import (
    publish_coverage,
    publish_diagnostic_report,
    publish_identifiers,
    publish_imaging_study,
    publish_occurrences,
)
from dicom_assets.lake.hierarchy import REBUILDS
from dicom_assets.lake.staging import Part
from dicom_assets_tests.support.inline_engine import InlineEngine
from dicom_assets_tests.support.lakes import Graph

Step = tuple[Sequence[str], Callable[[], object]]
"""Tables and what makes them."""


def step_through(graph: Graph) -> list[str]:
    """Claims what is new and takes every batch through all steps; the batches. Every blocking rule holds."""
    batches = graph.claim()
    for name in batches:
        with Work(graph.settings, shared_engine=InlineEngine()) as work:
            publish(work.batch(name))
    return batches


def publish(batch: BatchWork) -> None:
    """One batch through all steps; every blocking rule holds."""
    assert failures(batch) == {}


def failures(batch: BatchWork) -> dict[str, CheckResult]:
    """Takes a batch step by step until blocking rules of a step do not hold, as a run does; these, by `table.rule`."""
    for tables, make in steps(batch):
        make()
        context = judged(batch)
        failed = {}
        for rule in ALL_RULES:
            if rule.blocking and rule.table in tables:
                with batch.lake.settled():
                    result = rule.rule(context)
                if not result.passed:
                    failed[f"{rule.table}.{rule.name}"] = result
        if failed:
            return failed
    return {}


def steps(batch: BatchWork) -> Iterator[Step]:
    """The steps of a batch in the order of the flow."""
    lake, staging, settings = batch.lake, batch.staging, batch.work.settings
    yield ["raw_files"], lambda: batch.begin("run")
    yield ["validated_batch"], lambda: batch.judge("run")
    yield ["flat_metadata"], batch.publish_flat
    yield ["clinical"], lambda: publish_clinical(lake, staging, "run", settings.clinical.accepted_identity_changes)
    for name in REBUILDS:
        yield [name], partial(publish_hierarchy, lake, staging, name)
    yield ["imaging_study"], lambda: publish_imaging_study(lake, staging, settings)
    yield ["diagnostic_report"], lambda: publish_diagnostic_report(lake, staging)
    yield ["omop_identifier"], lambda: publish_identifiers(lake, staging, settings)
    yield ["image_occurrence"], lambda: publish_occurrences(lake, staging, settings, "image_occurrence")
    yield ["image_occurrence_origin"], lambda: publish_occurrences(lake, staging, settings, "image_occurrence_origin")
    yield ["mapping_coverage"], lambda: publish_coverage(lake)
    yield ["ingestion_errors"], lambda: publish_rows(lake, staging, Part.ERRORS)
    yield ["cleanup"], lambda: batch.close("run")
