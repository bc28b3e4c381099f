"""An object whose header has a hundred megabytes: it is answered, or it is said why not, and others go on."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import httpx
import psutil
import pytest
from pydicom import dcmread

from dicom_assets_tests.serve.retrievable import path
from dicom_assets_tests.serve.serving import Server, serving
from dicom_assets_tests.support.dicoms import dicom, uid
from dicom_assets_tests.support.lakes import Graph, settings_for
from dicom_assets_tests.support.landings import LandingFolder
from dicom_assets_tests.support.steps import step_through

pytestmark = pytest.mark.slow

VALUE, VALUES = 2**20, 100
"""Bytes of a text that is kept in the header, and how many of them there are."""
LARGE, SMALL = 1, 2
MOST_MB = 1_000
"""Of memory: the header, what it is made into, and what is on its way to the client, three times 100 MB."""
PLAIN = {"Accept-Encoding": "identity", "Accept": "*/*"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server over a lake with such an object and a common one."""
    root = tmp_path_factory.mktemp("large-header")
    landing = LandingFolder(root / "landing")
    landing.put("large.dcm", large())
    landing.put("small.dcm", dicom(SMALL))
    reading = {"max_header_bytes": 2 * VALUE * VALUES}  # which is 64 MiB, unless somebody wants more
    settings = settings_for(root / "lake", landing.root, reading=reading)
    with dg.DagsterInstance.ephemeral() as instance:
        step_through(Graph(settings, instance), judges=False)
    with serving(settings, root / "server") as one:
        yield one


def large() -> bytes:
    dataset = dcmread(io.BytesIO(dicom(LARGE)))
    block = dataset.private_block(0x0019, "ACME", create=True)
    for number in range(VALUES):
        block.add_new(number + 1, "UT", f"{number:06d}".ljust(VALUE, "x"))
    sink = io.BytesIO()
    dataset.save_as(sink)
    return sink.getvalue()


def is_whole(answer: httpx.Response) -> bool:
    body = answer.content
    return (
        len(body) > VALUE * VALUES
        and body.startswith(b"[{") and body.endswith(b"}]")
        and all(body.count(key) == 1 for key in (b'"00081190":', b'"0020000D":'))
    )  # fmt: skip


def test_its_metadata_are_given_whole_within_bounds_of_memory(server: Server):
    answer = server.get(path(LARGE) + "/metadata", headers=PLAIN)
    assert answer.status_code == 200 and is_whole(answer)
    status = Path(f"/proc/{server.process.pid}/status").read_text(encoding="ascii")
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1_000
    assert peak < MOST_MB, peak


def test_several_who_ask_for_it_at_once_get_it_or_are_told_to_come_back(server: Server):
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(server.get(path(LARGE) + "/metadata", headers=PLAIN))

    clients = [threading.Thread(target=ask) for _ in range(3)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    assert len(answers) == len(clients)  # none was broken off
    for answer in answers:
        told = answer.status_code == 503 and answer.headers["retry-after"]
        assert told or (answer.status_code == 200 and is_whole(answer))
    assert server.get(path(SMALL) + "/metadata").json()[0]["0020000D"]["Value"] == [uid(SMALL)]


def test_a_search_that_looks_into_it_is_answered_or_refused_and_no_fault(server: Server):
    answer = server.get(f"{path(LARGE)}/instances?includefield=00081195")
    assert answer.status_code in (200, 503), answer.text
    assert server.get(f"{path(SMALL)}/instances").status_code == 200
    assert "fault" not in server.said
    assert psutil.Process(server.process.pid).is_running()
