"""Steps of a run side by side, in threads of one process: what Dagster's own executors do not offer.

Belongs here: which step of a run is begun when, and running a job that way in this process. Does not belong here: what
a step does, and what its events mean (Dagster's own functions are called for both).

Most of what a step of ours takes is spent in DuckDB, Arrow, delta-rs and the disk, which let other threads run
meanwhile; a process for each step, as Dagster's multiprocess executor starts them, would import everything anew. A step
beside which no other one can run is run by the thread that runs everything, as Dagster does it in process, so that a
long reading can be interrupted.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.errors import raise_execution_interrupts
from dagster._core.events import DagsterEvent, EngineEventData
from dagster._core.execution.api import ExecuteRunWithPlanIterable
from dagster._core.execution.compute_logs import create_compute_log_file_key
from dagster._core.execution.context.system import (
    PlanExecutionContext,
    PlanOrchestrationContext,
    StepExecutionContext,
)
from dagster._core.execution.context_creation_job import PlanExecutionContextManager
from dagster._core.execution.execute_in_process import core_execute_in_process, merge_run_tags
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.execute_plan import (
    _handle_compute_log_setup_error,
    _handle_compute_log_teardown_error,
    dagster_event_sequence_for_step,
)
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.base import Executor

STEPS_AT_ONCE = 2
"""How many steps of a run are at work at most: what they have in memory adds up."""


@dataclass(frozen=True)
class _Ended:
    """What a thread says when a step has come to its end; error: what the step raised."""

    step: str
    error: BaseException | None


@dataclass(frozen=True)
class SideBySide(Executor):
    """Runs the steps of a run in this process, those that do not wait for each other at the same time."""

    retries: RetryMode = RetryMode.ENABLED

    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        """Runs the plan; the events of its steps as they come."""
        data = EngineEventData.in_process(os.getpid(), execution_plan.step_keys_to_execute)
        yield DagsterEvent.engine_event(plan_context, "Executing steps side by side", event_specific_data=data)
        yield from ExecuteRunWithPlanIterable(
            execution_plan=plan_context.execution_plan,
            iterator=_steps,
            execution_context_manager=PlanExecutionContextManager(
                job=plan_context.job,
                retry_mode=plan_context.retry_mode,
                execution_plan=plan_context.execution_plan,
                run_config=plan_context.run_config,
                dagster_run=plan_context.dagster_run,
                instance=plan_context.instance,
                raise_on_error=plan_context.raise_on_error,
                output_capture=plan_context.output_capture,
                step_dependency_config=self.step_dependency_config,
            ),
        )


def _steps(job_context: PlanExecutionContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
    """The events of all steps of a plan. Steps that are at work when it is broken off come to their end."""
    context, plan = job_context, execution_plan
    said: SimpleQueue[DagsterEvent | _Ended] = SimpleQueue()

    def run(step: StepExecutionContext) -> None:
        error: BaseException | None = None
        try:
            for event in dagster_event_sequence_for_step(step):
                said.put(event)
        except BaseException as raised:  # noqa: BLE001 - handed to the thread that runs everything, which raises it
            error = raised
        said.put(_Ended(step.step.key, error))

    with (
        InstanceConcurrencyContext(context.instance, context.dagster_run) as slots,
        plan.start(
            retry_mode=context.retry_mode,
            max_concurrent=STEPS_AT_ONCE,
            instance_concurrency_context=slots,
            step_dependency_config=context.step_dependency_config,
        ) as active,
        ThreadPoolExecutor(STEPS_AT_ONCE, thread_name_prefix="step") as pool,
        ExitStack() as captured,
    ):
        yield from _captured(context, plan, captured)
        running = 0
        while running or not active.is_complete:
            ready = active.get_steps_to_execute()
            yield from active.concurrency_event_iterator(context)
            contexts = [context.for_step(step, active.get_known_state()) for step in ready]
            if not running and len(contexts) == 1:
                yield from _alone(contexts[0], active)
                active.verify_complete(context, contexts[0].step.key)
                yield from active.plan_events_iterator(context)
                continue
            for step in contexts:
                pool.submit(run, step)
            running += len(contexts)
            if not running:
                active.sleep_til_ready()
                continue
            # A step that is to be tried again is ready before its thread has ended, so ends alone let others begin.
            until_retry: float = active.sleep_interval()  # type: ignore[no-untyped-call]
            while isinstance(event := _next(said, until_retry), DagsterEvent):
                yield event
                active.handle_event(event)
            if event is None:
                continue
            running -= 1
            if event.error is not None:
                raise event.error
            active.verify_complete(context, event.step)
            yield from active.plan_events_iterator(context)
        yield from _released(context, captured)


def _captured(context: PlanExecutionContext, plan: ExecutionPlan, captured: ExitStack) -> Iterator[DagsterEvent]:
    """Begins to keep what the process prints, for Dagster to show, until `captured` ends."""
    logs = context.instance.compute_log_manager
    key = logs.build_log_key_for_run(context.run_id, create_compute_log_file_key())  # type: ignore[no-untyped-call]
    try:
        kept = captured.enter_context(logs.capture_logs(key))
    except Exception:  # noqa: BLE001 - Dagster's own handling: the run says so and goes on
        yield from _handle_compute_log_setup_error(context, sys.exc_info())
    else:
        yield DagsterEvent.capture_logs(context, plan.step_keys_to_execute, key, kept)


def _released(context: PlanExecutionContext, captured: ExitStack) -> Iterator[DagsterEvent]:
    """Ends keeping what is printed: a store that refuses it is no reason for a batch to fail."""
    try:
        captured.close()
    except Exception:  # noqa: BLE001 - as above
        yield from _handle_compute_log_teardown_error(context, sys.exc_info())


def _next(said: SimpleQueue[DagsterEvent | _Ended], seconds: float) -> DagsterEvent | _Ended | None:
    """What a thread says next; None when so many seconds have passed, after which a step is to be tried again."""
    try:
        with raise_execution_interrupts():
            return said.get(timeout=max(seconds, 0.01) if seconds else None)
    except Empty:
        return None


def _alone(step: StepExecutionContext, active: ActiveExecution) -> Iterator[DagsterEvent]:
    for event in dagster_event_sequence_for_step(step):
        yield event
        active.handle_event(event)


@dg.executor(name="side_by_side")
def side_by_side(_: dg.InitExecutorContext) -> Executor:
    """Steps that do not wait for each other at the same time, in one process."""
    return SideBySide()


def execute_here(
    job: dg.JobDefinition, instance: dg.DagsterInstance, partition_key: str, run_id: str, run_config: Mapping[str, Any]
) -> dg.ExecuteInProcessResult:
    """Runs a partition of a job in this process, by the job's own executor, and raises nothing that a step raised.

    `JobDefinition.execute_in_process` does the same with Dagster's executor in place of the job's.
    """
    return core_execute_in_process(
        job=InMemoryJob(job),
        instance=instance,
        run_config=run_config,
        run_tags=merge_run_tags(job, partition_key, None, (), instance, run_config),
        run_id=run_id,
        output_capturing_enabled=False,
        raise_on_error=False,
    )
