"""Two hundred clients that break off, a lake that is away for a while, clients that take nothing: others go on."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import dagster as dg
import httpx
import pytest

from dicom_assets.serve.turns import BEGINNING_SECONDS
from dicom_assets.settings import Settings
from dicom_assets_tests.serve.serving import Server, serving, settles
from dicom_assets_tests.support.commands import wait_for
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.lakes import Graph, settings_for
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import step_through

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at other processes as Linux does"),
]

CLIENTS = 200
IDLE = 40
"""Threads that wait for the next question; they end by themselves."""
ROUNDED = 3
"""Requests that begin just before or behind a search by the milliseconds of the log, and the one that always may."""
LONGEST_SECONDS = 20
"""That somebody else's search may take while hundreds ask at once, on a busy machine; what it takes is printed."""
PIXELS = {"Rows": 1_024, "Columns": 1_024, "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15,
          "SamplesPerPixel": 1, "PixelRepresentation": 0, "PhotometricInterpretation": "MONOCHROME2",
          "PixelData": bytes(2 * 2**20)}  # fmt: skip
STUDY = f"/dicom-web/studies/{uid(1)}"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A lake with a study of eight megabytes."""
    root = tmp_path_factory.mktemp("large")
    landing = LandingFolder(root / "landing")
    for number in range(1, 5):
        landing.put(f"{number}.dcm", dicom(1, 1, number, **PIXELS))
    settings = settings_for(root / "lake", landing.root)
    with dg.DagsterInstance.ephemeral() as instance:
        step_through(Graph(settings, instance), judges=False)
    return settings


@pytest.fixture(scope="module")
def server(large: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server over it, which has answered each kind of thing once, and goes on through all that is done to it."""
    folder = tmp_path_factory.mktemp("robust") / "server"
    with serving(large, folder, toml="[serve]\nstall_seconds = 2.0\nhead_seconds = 4.0\n") as one:
        for path in ("", "/metadata", "/series", "/rendered"):
            assert one.get(STUDY + path, headers={"Accept": "*/*"}).status_code == 200
        yield one


@dataclass
class Searches:
    """What searches took that somebody asked for, each by the clock and by the server's processor time meanwhile.

    requests: ids that their answers had.
    """

    seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)
    requests: set[str] = field(default_factory=set)

    @property
    def p95(self) -> float:
        return statistics.quantiles(self.seconds, n=20)[-1]

    @property
    def processor_p95(self) -> float:
        return statistics.quantiles(self.processor_seconds, n=20)[-1]


def search(server: Server, times: int, going_on: Callable[[], bool] = lambda: False) -> Searches:
    """Searches one after the other: so many, and as long as something goes on.

    The client keeps its connection, as browsers do.
    """
    found = Searches()
    clock = (~server.process.pid << 3) | 2  # of a process and all of its threads: clock_getcpuclockid(3) on Linux
    with httpx.Client(base_url=server.url, timeout=60) as other:
        while len(found.seconds) < times or going_on():
            began, processor = time.perf_counter(), time.clock_gettime(clock)
            answer = other.get("/dicom-web/studies")
            assert answer.status_code == 200
            found.requests.add(answer.headers["x-request-id"])
            found.seconds.append(time.perf_counter() - began)
            found.processor_seconds.append(time.clock_gettime(clock) - processor)
    return found


def begun_beside(server: Server, searches: Searches) -> list[tuple[float, int]]:
    """Of searches, from their turn to their end: seconds that each took, and how many other requests began in these.

    Of a connection's first search, which is one of many itself, nothing is said.
    """
    lines = [json.loads(line) for line in server.said.splitlines() if line.startswith('{"log":"access"')]
    begun: dict[str, tuple[float, float]] = {}
    for one in lines:
        if one["waited_ms"] is not None:
            end = datetime.fromisoformat(one["at"]).timestamp()
            begun[one["request"]] = end - (one["ms"] - one["waited_ms"]) / 1_000, end
    others = [begin for request, (begin, _) in begun.items() if request not in searches.requests]
    assert len(others) > CLIENTS / 4  # of those that ask whole questions; some have gone before it was their turn
    mine = sorted(begun[request] for request in searches.requests)[1:]
    return [(end - begin, sum(begin <= other <= end for other in others)) for begin, end in mine]


def test_two_hundred_clients_that_break_off_leave_nothing_behind_and_others_are_answered_meanwhile(server: Server):
    search(server, 5)
    alone = search(server, 40)
    wait_for("rest", lambda: server.held() == 0, 20)
    threads = server.threads()
    paths = [STUDY, STUDY + "/metadata", "/dicom-web/instances", STUDY + "/rendered", "/dicom-web/studies?limit=1"]
    # In a process that leaves the processor to others: what they take of the server counts, not of the machine.
    command = [sys.executable, "-m", "dicom_assets_tests.serve.breaking", str(server.port), str(CLIENTS), *paths]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as breaking:
        assert breaking.stdout is not None and breaking.stdout.readline() == b"begins\n"
        meanwhile = search(server, 10, lambda: breaking.poll() is None)
    took = settles(lambda: server.held() == 0 and server.threads() <= threads + IDLE, 5)
    (at_once,) = re.findall(r"^dicom_assets_requests_at_once (\d+)$", server.get("/metrics").text, re.MULTILINE)
    assert at_once == "1"  # the one that asks
    again = search(server, 40)
    for name, one in (("alone", alone), ("meanwhile", meanwhile), ("again", again)):
        print(f"p95 {name} {one.p95 * 1_000:.0f} ms ({one.processor_p95 * 1_000:.1f} of the server's processor time)")
    print(f"{len(meanwhile.seconds)} searches meanwhile; settled in {took:.1f} s")
    beside = begun_beside(server, meanwhile)
    most = max(number - seconds / BEGINNING_SECONDS for seconds, number in beside)
    print(f"{most:.1f} requests more began beside a search than one in {BEGINNING_SECONDS} s")
    assert most <= ROUNDED
    assert max(meanwhile.seconds) < LONGEST_SECONDS
    assert "fault" not in server.said
    assert statistics.median(again.seconds) < 3 * statistics.median(alone.seconds) + 0.05


def test_a_client_that_takes_nothing_is_cut_off_while_others_go_on(server: Server):
    for _ in range(20):
        server.connect(f"GET {STUDY} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n".encode())
    assert server.get("/dicom-web/studies").status_code == 200
    wait_for("them to be cut off", lambda: server.held() == 0, 30)
    wait_for("their lines", lambda: server.said.count('"broken":true') >= 20, 30)
    assert "fault" not in server.said


def test_a_lake_that_is_away_for_a_while_is_said_and_comes_back(server: Server, large: Settings):
    lake, away = Path(large.lake), Path(large.lake + ".away")
    lake.rename(away)
    try:
        wait_for("health to say it", lambda: server.get("/healthz").status_code == 503, 30)
        for path in ("/dicom-web/studies", STUDY + "/metadata", STUDY):
            answer = server.get(path, headers={"Accept": "*/*"})
            assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
            assert str(lake) not in answer.text
    finally:
        away.rename(lake)
    wait_for("health to be well", lambda: server.get("/healthz").status_code == 200, 30)
    for path in ("/dicom-web/studies", STUDY + "/metadata", STUDY):
        assert server.get(path, headers={"Accept": "*/*"}).status_code == 200
    assert "Traceback" not in server.said
