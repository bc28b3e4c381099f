"""Nobody waits for ever: answers that do not begin, clients that take or give nothing, clients that have gone."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import anyio
import pytest
from starlette.responses import StreamingResponse

from dicom_assets.serve.exchange import begin
from dicom_assets.serve.patience import ABORT, Gone, Patience
from dicom_assets.serve.problems import Refusal


class Connection:
    """One request as a server of ASGI hands it over. takes: seconds for each message; leaves: after so many seconds."""

    def __init__(self, method: str = "GET", takes: float = 0.0, leaves: float | None = None) -> None:
        self.sent: list[dict[str, Any]] = []
        self.aborted = False
        self._takes, self._leaves = takes, leaves
        self.scope = {"type": "http", "method": method, "headers": [], "path": "/", "extensions": {ABORT: self.abort}}
        begin(self.scope)
        self._first = True

    def abort(self) -> None:
        self.aborted = True

    async def receive(self) -> dict[str, Any]:
        if self._first:
            self._first = False
            return {"type": "http.request", "body": b"", "more_body": self.scope["method"] == "POST"}
        await (anyio.sleep_forever() if self._leaves is None else anyio.sleep(self._leaves))
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        await anyio.sleep(self._takes)
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(one.get("body", b"") for one in self.sent)


def run(app: Any, connection: Connection, answer: float = 5.0, stall: float = 5.0) -> None:
    patience = Patience(app, answer, stall)
    asyncio.run(patience(connection.scope, connection.receive, connection.send))


async def endless():
    while True:
        yield b"piece"


def test_an_answer_that_does_not_begin_is_given_up():
    ended = []

    async def slow(scope, receive, send):
        try:
            await anyio.sleep(60)
        finally:
            ended.append(True)

    with pytest.raises(Refusal) as refused:
        run(slow, Connection(), answer=0.05)
    assert (refused.value.status, ended) == (503, [True])


def test_an_answer_that_has_begun_may_take_its_time():
    async def pieces():
        for _ in range(4):
            await anyio.sleep(0.05)
            yield b"piece"

    connection = Connection()
    run(StreamingResponse(pieces()), connection, answer=0.1)
    assert connection.body == b"piece" * 4


@pytest.mark.parametrize("has_begun", [False, True])
def test_who_breaks_off_leaves_nothing_behind(has_begun: bool):
    ended = []

    async def waiting(scope, receive, send):
        try:
            if has_begun:
                await send({"type": "http.response.start", "status": 200, "headers": []})
            await anyio.sleep(60)
        finally:
            ended.append(True)

    before = time.monotonic()
    with pytest.raises(Gone):
        run(waiting, Connection(leaves=0.05))
    assert ended == [True]
    assert time.monotonic() - before < 5


def test_a_client_that_takes_nothing_is_cut_off():
    connection = Connection(takes=60)
    with pytest.raises(Gone):
        run(StreamingResponse(endless()), connection, stall=0.05)
    assert connection.aborted


def test_a_body_that_stops_coming_is_given_up():
    async def waiting(scope, receive, send):
        await receive()
        await receive()

    with pytest.raises(Refusal) as refused:
        run(waiting, Connection("POST"), stall=0.05)
    assert refused.value.status == 408


def test_head_ends_with_the_head():
    connection = Connection("HEAD")
    run(StreamingResponse(endless(), headers={"X": "y"}), connection)
    assert [one["type"] for one in connection.sent] == ["http.response.start", "http.response.body"]
    assert (b"x", b"y") in connection.sent[0]["headers"]
    assert connection.body == b""
