"""A question to the lake takes so long at most, and none outlives who asked it."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import anyio
import duckdb
import pytest

from dicom_assets.serve.problems import Refusal
from dicom_assets.serve.questions import AT_ONCE, BODIES_AT_ONCE, Questions, Stopped
from dicom_assets.serve.streaming import finish

ENDLESS = "SELECT count(*) FROM range(100_000_000_000) AS a(x) WHERE hash(x) = 1"


class Asked:
    """An endless query, and whether its thread is there."""

    def __init__(self, questions: Questions) -> None:
        self.questions = questions
        self.began = threading.Event()
        self.ended = threading.Event()

    def __call__(self) -> None:
        try:
            with self.questions.using(duckdb.connect()) as connection:
                self.began.set()
                while True:  # a question may ask several times: an interrupt between two ends it as well
                    connection.execute(ENDLESS)
        finally:
            self.ended.set()


def test_a_question_that_takes_too_long_is_stopped_with_a_sentence():
    questions = Questions(seconds=0.2)
    asked = Asked(questions)
    with pytest.raises(Refusal) as refused:
        anyio.run(questions.ask, asked)
    assert refused.value.status == 503
    assert "0.2 seconds" in refused.value.sentence
    assert asked.ended.is_set()


def test_a_question_that_waits_too_long_for_its_turn_is_told_so():
    async def ask() -> Refusal:
        questions, go_on = Questions(seconds=0.3), threading.Event()
        async with anyio.create_task_group() as group:
            for _ in range(AT_ONCE):
                group.start_soon(_quietly, questions.ask, lambda: go_on.wait(1))
            await anyio.sleep(0.05)
            with pytest.raises(Refusal) as refused:
                await questions.ask(lambda: None)
            go_on.set()
        return refused.value

    assert anyio.run(ask).headers["Retry-After"]


def test_a_search_waits_for_nobody_who_asks_for_a_body_and_what_is_over_is_closed_without_a_turn():
    async def ask() -> tuple[int, bool]:
        questions, go_on, closed = Questions(seconds=20), threading.Event(), threading.Event()
        async with anyio.create_task_group() as group:
            for _ in range(AT_ONCE + BODIES_AT_ONCE):
                group.start_soon(_quietly, questions.ask_for_body, lambda: go_on.wait(20))
            await anyio.sleep(0.05)
            with anyio.fail_after(10):
                answer = await questions.ask(lambda: 7)
                await finish(closed.set)
            go_on.set()
        return answer, closed.is_set()

    assert anyio.run(ask) == (7, True)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has the priority of its process")
def test_what_makes_a_body_gives_way_to_searches_and_nothing_else_does():
    async def ask() -> list[int]:
        questions = Questions()
        kinds = (questions.ask, questions.ask_for_body, questions.ask)
        return [await one(lambda: os.getpriority(os.PRIO_PROCESS, 0)) for one in kinds]

    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert anyio.run(ask) == [own, min(own + 5, 19), own]


async def _quietly(ask: Callable[..., Awaitable[Any]], question: Callable[[], Any]) -> None:
    with suppress(Refusal):
        await ask(question)


def test_whoever_is_cancelled_leaves_no_query_behind():
    async def ask() -> Asked:
        questions = Questions()
        asked = Asked(questions)
        async with anyio.create_task_group() as group:
            group.start_soon(questions.ask, asked)
            await anyio.to_thread.run_sync(asked.began.wait)
            group.cancel_scope.cancel()
        return asked

    began = time.monotonic()
    assert anyio.run(ask).ended.is_set()
    assert time.monotonic() - began < 5


def test_a_connection_that_is_opened_after_that_is_refused():
    questions = Questions(seconds=0.1)
    refused = threading.Event()

    def question() -> None:
        time.sleep(0.3)
        try:
            with questions.using(duckdb.connect()):
                pass
        except Stopped:
            refused.set()

    with pytest.raises(Refusal):
        anyio.run(questions.ask, question)
    assert refused.is_set()


def test_an_answer_and_an_error_come_through():
    questions = Questions()
    assert anyio.run(questions.ask, lambda: 7) == 7
    with pytest.raises(Refusal, match="no such"):
        anyio.run(questions.ask, _refuse)


def _refuse() -> None:
    raise Refusal(404, "There is no such thing.")


def test_a_connection_may_stay_open_from_one_question_to_the_next():
    questions = Questions()

    def rows() -> Iterator[int]:
        with questions.using(duckdb.connect()) as connection:
            connection.execute("SELECT x FROM range(3_000_000) AS a(x)")
            while found := connection.fetchone():
                yield int(found[0])

    async def ask() -> int:
        found = rows()
        return sum([await questions.ask(lambda: next(found)) for _ in range(3)])

    assert anyio.run(ask) == 3
