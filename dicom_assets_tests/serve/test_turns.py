"""Turns go from client to client: whoever asks often waits behind themselves, not in front of others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator

import httpx
import pytest
import uvicorn

from dicom_assets.serve import server, turns
from dicom_assets.serve.access import Access
from dicom_assets.serve.audit_log import Audit
from dicom_assets.serve.exchange import begin
from dicom_assets.serve.gate import Gate
from dicom_assets.serve.limits import Limits
from dicom_assets.serve.turns import CLIENT, CONNECTION, Beginnings, Client, Turns
from dicom_assets.serve_settings import AuditSettings, ServeSettings
from dicom_assets.settings import Settings

KNOWN, OTHER = Client("known", is_connection=True), Client("other", is_connection=True)


class Queue:
    """Clients at some turns, and the order in which they got theirs. Nobody gives one back by themselves."""

    def __init__(self, own: Turns) -> None:
        self.turns, self.got = own, list[str]()
        self._tasks = list[tuple[asyncio.Task[None], asyncio.Event]]()

    async def come(self, client: str | Client) -> asyncio.Task[None]:
        done = asyncio.Event()
        own = Client(client) if isinstance(client, str) else client

        async def wait() -> None:
            CLIENT.set(own)
            async with self.turns.turn():
                self.got.append(own.name)
                await done.wait()

        task = asyncio.create_task(wait())
        self._tasks.append((task, done))
        await asyncio.sleep(0)
        return task

    async def go(self, number: int) -> None:
        """The one that came as this one, from 0, gives its turn back."""
        task, done = self._tasks[number]
        done.set()
        await task
        await asyncio.sleep(0)


def run(play: Callable[[], Awaitable[None]]) -> None:
    async def within() -> None:
        await play()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    asyncio.run(within())


def test_who_asks_two_hundred_times_leaves_a_turn_for_somebody_else(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(turns, "SHORT_SECONDS", 60)  # that two hundred take to come, on whatever machine

    async def play() -> None:
        queue = Queue(Turns(8, short=2))
        for _ in range(200):
            await queue.come("many")
        await queue.come("other")
        assert queue.got == ["many", "other"]

    run(play)


def test_clients_that_wait_get_their_turns_in_rotation():
    async def play() -> None:
        queue = Queue(Turns(8, short=2))
        for client in ("a", "b", *["many"] * 3, "c"):
            await queue.come(client)
        for number in range(4):
            await queue.go(number)
        assert queue.got == ["a", "b", "many", "c", "many", "many"]

    run(play)


def test_a_turn_that_lasts_makes_room_for_others_but_not_for_more_than_there_are(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(turns, "SHORT_SECONDS", 0.01)

    async def play() -> None:
        queue = Queue(Turns(3, short=1))
        for _ in range(5):
            await queue.come("one")
        assert len(queue.got) == 1
        await asyncio.sleep(0.3)
        assert len(queue.got) == 3
        await queue.go(0)
        assert len(queue.got) == 4

    run(play)


def test_who_has_gone_takes_no_turn_and_gives_back_the_one_they_had():
    async def play() -> None:
        queue = Queue(Turns(1))
        await queue.come("first")
        gone, late = await queue.come("gone"), await queue.come("late")
        gone.cancel()
        await queue.come("next")
        await queue.go(0)
        assert queue.got == ["first", "late"]
        late.cancel()
        await asyncio.sleep(0.01)
        assert queue.got == ["first", "late", "next"]

    run(play)


async def begin_all(queue: Queue, *clients: str | Client) -> None:
    for client in clients:
        await queue.come(client)


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """New connections begin when others leave time, and not because some time has passed."""
    monkeypatch.setattr(turns, "BEGINNING_SECONDS", 60)


@pytest.mark.usefixtures("one_by_one")
def test_requests_of_new_connections_begin_one_after_the_other_and_those_of_known_ones_at_once():
    async def play() -> None:
        queue = Queue(Beginnings())
        await begin_all(queue, *["many"] * 200, "new", KNOWN, OTHER)
        assert queue.got == ["many", "known", "other"]
        await queue.go(0)  # the first of the many: known ones are about to begin still
        await queue.go(201)
        assert len(queue.got) == 3
        await queue.go(202)
        await asyncio.sleep(0.1)
        assert queue.got[3:] == ["many"]
        await queue.go(1)
        assert queue.got[4:] == ["new"]

    run(play)


@pytest.mark.usefixtures("one_by_one")
def test_a_new_connection_does_not_begin_between_an_answer_of_a_known_one_and_its_next_request(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(turns, "PAUSE_SECONDS", 0.3)

    async def play() -> None:
        queue = Queue(Beginnings())
        await queue.come("new")
        await queue.go(0)
        await begin_all(queue, KNOWN, "new")
        await queue.go(1)
        await queue.come(KNOWN)
        assert queue.got == ["new", "known", "known"]
        await queue.go(3)
        await asyncio.sleep(0.1)
        assert len(queue.got) == 3
        await asyncio.sleep(0.5)
        assert queue.got[3:] == ["new"]

    run(play)


def test_a_new_connection_waits_only_so_long_however_many_known_ones_ask(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(turns, "BEGINNING_SECONDS", 0.05)

    async def play() -> None:
        queue = Queue(Beginnings())
        await begin_all(queue, KNOWN, "new", "new", "new")
        assert queue.got == ["known", "new"]
        for _ in range(50):  # of known ones there are always some that are about to begin
            await queue.come(KNOWN)
            await asyncio.sleep(0.01)
        assert queue.got.count("new") == 3

    run(play)


@pytest.mark.usefixtures("one_by_one")
def test_a_request_that_waits_for_bytes_lets_the_next_one_begin():
    async def play() -> None:
        beginnings = Beginnings()
        queue = Queue(beginnings)
        async with beginnings.turn() as has_begun:
            await queue.come("next")
            assert queue.got == []
            has_begun()
            has_begun()
            await asyncio.sleep(0)
            assert queue.got == ["next"]
        await queue.come("third")
        assert queue.got == ["next"]

    run(play)


@pytest.fixture
def address() -> Iterator[str]:
    """A server that answers with the name of the client that a connection is."""

    async def app(scope, receive, send) -> None:
        client = scope["extensions"][CONNECTION]
        body = client.name.encode() if client is not None else b""
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    opened = server.listen("127.0.0.1", 0)
    one = uvicorn.Server(server._Config(Settings(lake="nowhere"), app))
    thread = threading.Thread(target=one.run, kwargs={"sockets": [opened]})
    thread.start()
    try:
        yield server.address_of("127.0.0.1", opened)
    finally:
        one.should_exit = True
        thread.join(30)


def test_a_connection_has_a_name_of_its_own_once_it_has_taken_an_answer(address: str):
    with httpx.Client() as one, httpx.Client() as other:
        names = [[client.get(address).text for _ in range(3)] for client in (one, other)]
    assert [mine[0] for mine in names] == ["", ""]
    assert [len(set(mine[1:])) for mine in names] == [1, 1]
    assert names[0][1] != names[1][1] != ""


def test_all_that_comes_from_one_address_is_one_client_but_a_connection_that_has_a_name():
    settings, asked = ServeSettings(audit=AuditSettings(file="")), list[Client]()

    async def app(*_: object) -> None:
        asked.append(CLIENT.get())

    async def patients(_: list[str]) -> dict[str, list[str]]:
        return {}

    gate = Gate(app, settings, Access(settings, "127.0.0.1", {}), Limits(settings), Audit(settings, None, patients))
    for port, client in ((1, None), (2, None), (2, KNOWN)):
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/x",
            "query_string": b"",
            "headers": [(b"host", b"localhost")],
        }
        scope |= {"client": ("127.0.0.1", port), "extensions": {CONNECTION: client}}
        begin(scope)
        asyncio.run(gate(scope, None, None))
    assert asked == [Client("address 127.0.0.1"), Client("address 127.0.0.1"), KNOWN]
