"""Running `ingest_batch` for one batch; the job `claim_new_files`, which claims by hand.

Does not belong here: what the job of a batch makes (`assets.batch`), jobs of other assets, which stand beside these.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from dicom_assets.batch.claim_rounds import claim_everywhere
from dicom_assets.defs.asset_keys import name_of
from dicom_assets.defs.partitions import BATCH, REGISTER_AT_ONCE
from dicom_assets.defs.reporting import clear_failures, fail_clearly
from dicom_assets.defs.resources import RunContextParam
from dicom_assets.settings import Settings

SHOWN_AS = "__repository__@dicom_assets"
"""Under which code location Dagster's pages show runs that were begun here; its name stands in `workspace.yaml`."""

INGEST_BATCH = "ingest_batch"
"""Name of the job that runs a batch, from its manifest to closed books."""
BEGINNING, CLOSING = "raw_files", "cleanup"
"""The first asset of a batch, and the one that closes its books."""


def runs_batch(run: dg.DagsterRun) -> bool:
    """Whether a run is of a whole batch: by its job, or by its assets, as the page of all assets asks for it."""
    return run.job_name == INGEST_BATCH or {BEGINNING, CLOSING} <= set(map(name_of, run.asset_selection or ()))


def register(instance: dg.DagsterInstance, keys: list[str]) -> list[str]:
    """Makes the batches known to Dagster that are not yet; which."""
    known = set(instance.get_dynamic_partitions(BATCH.name or ""))
    fresh = [key for key in keys if key not in known]
    for start in range(0, len(fresh), REGISTER_AT_ONCE):
        instance.add_dynamic_partitions(BATCH.name or "", fresh[start : start + REGISTER_AT_ONCE])
    return fresh


QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""Run configuration of runs in this process: what happens is told by us; every event is in Dagster's log."""


def run_batch(
    job: dg.JobDefinition,
    instance: dg.DagsterInstance,
    batch: str,
    run_id: str | None = None,
    ops: Mapping[str, Any] | None = None,
) -> dg.ExecuteInProcessResult:
    """Runs `ingest_batch` for one batch in this process; raises nothing that a step raised. ops: their run config."""
    tags = {".dagster/repository": SHOWN_AS}
    config = {**QUIET, "ops": dict(ops)} if ops else QUIET
    return job.execute_in_process(config, instance, partition_key=batch, run_id=run_id, raise_on_error=False, tags=tags)


@dg.op(description="Claims what is new in every source and registers the batches.")
@fail_clearly
def claim(context: dg.OpExecutionContext, work: RunContextParam) -> None:
    """What the sensor does, by hand."""
    with clear_failures():
        rounds = claim_everywhere(work)
        register(context.instance, work.unclosed())
    for sentence in work.looks.emptied.values():
        context.log.warning(sentence)
    context.log.info(
        "%d batches claimed, %d objects still wait", sum(len(r.claims) for r in rounds), sum(r.waiting for r in rounds)
    )


@dg.job(description="Claims new objects by hand; runs nothing.", executor_def=dg.in_process_executor)
def claim_new_files() -> None:
    """Claims by hand."""
    claim()


def definitions(_: Settings) -> dg.Definitions:
    """The job."""
    return dg.Definitions(jobs=[claim_new_files])
