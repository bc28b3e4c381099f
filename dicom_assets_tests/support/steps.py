"""A batch step by step without Dagster: what the assets of the graph call, in their order, with the blocking rules.

Belongs here: a quick way to the tables for tests that are about them. Does not belong here: the graph itself (`lakes`);
that the assets call these steps is shown by tests that run it.
"""

from __future__ import annotations

from dicom_assets.batch.checks import RULES, CheckContext
from dicom_assets.batch.clinical import publish_clinical
from dicom_assets.batch.engine import InlineEngine
from dicom_assets.batch.publish import publish_hierarchy, publish_rows
from dicom_assets.batch.staging import Part
from dicom_assets.batch.standard_checks import STANDARD_RULES
from dicom_assets.batch.standards import (
    publish_coverage,
    publish_diagnostic_report,
    publish_identifiers,
    publish_imaging_study,
    publish_occurrences,
)
from dicom_assets.batch.work import BatchWork, Work
from dicom_assets.lake.hierarchy import REBUILDS
from dicom_assets_tests.support.lakes import Graph

NOT_BEFORE_CLOSING = {"books_are_closed", "staging_is_empty"}


def step_through(graph: Graph) -> list[str]:
    """Claims what is new and takes every batch through all steps; the batches. Every blocking rule holds."""
    batches = graph.claim()
    for name in batches:
        with Work(graph.settings, shared_engine=InlineEngine()) as work:
            publish(work.batch(name))
    return batches


def publish(batch: BatchWork) -> None:
    """One batch through all steps."""
    lake, staging, settings = batch.lake, batch.staging, batch.work.settings
    batch.begin("run")
    batch.judge("run")
    batch.publish_flat()
    publish_clinical(lake, staging, "run", settings.clinical.accepted_identity_changes)
    for name in REBUILDS:
        publish_hierarchy(lake, staging, name)
    publish_imaging_study(lake, staging, settings)
    publish_diagnostic_report(lake, staging)
    publish_identifiers(lake, staging, settings)
    for name in ("image_occurrence", "image_occurrence_origin"):
        publish_occurrences(lake, staging, settings, name)
    publish_coverage(lake)
    publish_rows(lake, staging, Part.ERRORS)
    context = CheckContext(lake, staging, settings.gate, settings.omop)
    for rule in (*RULES, *STANDARD_RULES):
        if rule.blocking and rule.name not in NOT_BEFORE_CLOSING:
            result = rule.rule(context)
            assert result.passed, (rule.table, rule.name, result)
    batch.close("run")
