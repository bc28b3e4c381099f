"""Steps side by side: those that wait for nothing run together, and a failure means what it means to Dagster."""

import os
import signal
import threading
import uuid
from contextlib import contextmanager

import dagster as dg
import pytest

from dicom_assets.defs.executor import execute_here, side_by_side
from dicom_assets.defs.graph import build_defs

PARTS = dg.StaticPartitionsDefinition(["only"])
SECONDS = 20.0


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def run(instance, *assets, checks=()):
    definitions = dg.Definitions(
        assets=assets,
        asset_checks=checks,
        jobs=[dg.define_asset_job("all", selection="*", executor_def=side_by_side)],
    )
    return execute_here(definitions.resolve_job_def("all"), instance, "only", str(uuid.uuid4()), {})


def asset(name, body, deps=(), **options):
    @dg.asset(name=name, deps=list(deps), partitions_def=PARTS, **options)
    def made():
        body()

    return made


def nothing():
    return


def steps(result, kind):
    return {event.step_key for event in result.all_events if event.event_type_value == kind}


def test_steps_that_do_not_wait_for_each_other_run_at_the_same_time(instance):
    here, there = threading.Event(), threading.Event()

    def first():
        here.set()
        assert there.wait(SECONDS)

    def second():
        there.set()
        assert here.wait(SECONDS)

    assert run(instance, asset("a", first), asset("b", second)).success


def test_a_step_waits_for_those_that_it_depends_on(instance):
    done = []
    chain = [
        asset("a", lambda: done.append("a")),
        asset("b", lambda: done.append("b"), ["a"]),
        asset("c", lambda: done.append("c"), ["a"]),
        asset("d", lambda: done.append("d"), ["b", "c"]),
    ]
    assert run(instance, *chain).success
    assert (done[0], sorted(done[1:3]), done[3]) == ("a", ["b", "c"], "d")


def test_a_step_beside_which_nothing_can_run_is_run_by_the_thread_that_was_called(instance):
    threads = []
    assert run(
        instance,
        asset("a", lambda: threads.append(threading.current_thread())),
        asset("b", lambda: threads.append(threading.current_thread()), ["a"]),
    ).success
    assert threads == [threading.current_thread()] * 2


def test_what_depends_on_a_failed_step_is_not_run_and_everything_else_is(instance):
    def fails():
        raise dg.Failure("a sentence")

    result = run(
        instance, asset("a", fails), asset("b", nothing), asset("c", nothing, ["a"]), asset("d", nothing, ["b"])
    )
    assert not result.success
    assert steps(result, "STEP_FAILURE") == {"a"}
    assert steps(result, "STEP_SUCCESS") == {"b", "d"}
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert failure.step_failure_data.user_failure_data.description == "a sentence"


def test_a_step_that_failed_for_a_reason_that_passes_is_tried_again(instance):
    tries = []

    def fails_once():
        tries.append(1)
        if len(tries) == 1:
            raise dg.Failure("for now")

    policy = dg.RetryPolicy(max_retries=1)
    result = run(instance, asset("a", fails_once, retry_policy=policy), asset("b", nothing), asset("c", nothing, ["a"]))
    assert result.success
    assert len(tries) == 2
    assert steps(result, "STEP_UP_FOR_RETRY") == {"a"}
    assert steps(result, "STEP_SUCCESS") == {"a", "b", "c"}


def test_a_step_is_tried_again_while_another_is_at_work(instance):
    tries, again = [], threading.Event()

    def fails_once():
        tries.append(1)
        if len(tries) == 1:
            raise dg.Failure("for now")
        again.set()

    def waits():
        assert again.wait(SECONDS)

    policy = dg.RetryPolicy(max_retries=1, delay=0.1)
    assert run(instance, asset("a", fails_once, retry_policy=policy), asset("b", waits)).success


def test_a_blocking_check_that_fails_keeps_back_what_comes_behind_it(instance):
    @dg.asset_check(asset="a", blocking=True)
    def holds():
        return dg.AssetCheckResult(passed=False)

    result = run(instance, asset("a", nothing), asset("b", nothing), asset("c", nothing, ["a"]), checks=[holds])
    assert not result.success
    assert "c" not in steps(result, "STEP_START")
    assert "b" in steps(result, "STEP_SUCCESS")


def test_an_interrupt_breaks_the_run_off_after_the_steps_that_are_at_work(instance):
    ended = []

    def interrupts():
        os.kill(os.getpid(), signal.SIGINT)
        ended.append("a")

    def goes_on():
        threading.Event().wait(0.3)
        ended.append("b")

    result = run(instance, asset("a", interrupts), asset("b", goes_on), asset("c", nothing, ["a", "b"]))
    assert not result.success
    assert sorted(ended) == ["a", "b"]
    assert "c" not in steps(result, "STEP_START")


def test_batches_are_run_this_way_whoever_starts_them():
    assert build_defs().resolve_job_def("ingest_batch").executor_def is side_by_side


@pytest.mark.parametrize("broken", ["beginning", "end"])
def test_what_is_printed_cannot_be_kept_and_the_run_goes_on(instance, monkeypatch, broken):
    @contextmanager
    def capture(key):
        if broken == "beginning":
            raise OSError("no room")
        yield dg._core.storage.compute_log_manager.CapturedLogContext(key)
        raise OSError("no room")

    monkeypatch.setattr(instance.compute_log_manager, "capture_logs", capture)
    result = run(instance, asset("a", nothing), asset("b", nothing, ["a"]))
    assert result.success
    assert steps(result, "STEP_SUCCESS") == {"a", "b"}
