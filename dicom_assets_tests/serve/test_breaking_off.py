"""Clients that break off, and what an answer holds at a time: nothing outlives its client, nothing large is held."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import psutil
import pytest

from dicom_assets.landing import local
from dicom_assets.serve.bytes_of import OpenInstance
from dicom_assets.serve.places import listed, located
from dicom_assets.serve.served import ServedLake
from dicom_assets_tests.serve.retrievable import LARGE, LARGE_FRAME, PIXELS, Lake, path
from dicom_assets_tests.serve.serving import Server, serving, settles
from dicom_assets_tests.support.dicoms import uid

AT_ONCE = 40


def test_a_native_frame_is_one_read_of_its_very_bytes_however_large_the_object_is(
    retrievable: Lake, monkeypatch: pytest.MonkeyPatch
):
    client = retrievable.client()
    reads: list[tuple[int, int]] = []
    plain = local.LocalObject.read

    def read(self: local.LocalObject, offset: int, length: int) -> bytes:
        reads.append((offset, length))
        return plain(self, offset, length)

    monkeypatch.setattr(local.LocalObject, "read", read)
    answer = client.get(path(LARGE, 1, 1) + "/frames/3", headers={"Accept": "application/octet-stream"})
    ((offset, length),) = reads
    assert length == LARGE_FRAME == len(answer.content)
    assert retrievable.files[LARGE, 1, 1][offset : offset + length] == answer.content


def test_an_object_is_read_a_piece_at_a_time(retrievable: Lake, monkeypatch: pytest.MonkeyPatch):
    client = retrievable.client()
    longest = 0
    plain = local.LocalObject.read

    def read(self: local.LocalObject, offset: int, length: int) -> bytes:
        nonlocal longest
        longest = max(longest, length)
        return plain(self, offset, length)

    monkeypatch.setattr(local.LocalObject, "read", read)
    for accept in ("application/dicom", "application/zip", 'multipart/related; type="application/dicom"'):
        assert len(client.get(path(LARGE), headers={"Accept": accept}).content) > 4 * LARGE_FRAME
    assert longest <= 1 << 20


def test_an_object_is_closed_once_however_many_threads_close_it(retrievable: Lake, monkeypatch: pytest.MonkeyPatch):
    """The number of a file that is closed twice may be another object's by then, whose bytes would be sent instead."""
    served = ServedLake(retrievable.settings)
    snapshot = served.snapshot()
    uids = {"study": uid(LARGE)}
    (found, *_) = located(snapshot, listed(snapshot, uids), uids)
    instance = OpenInstance(served, found).open()
    closed: list[int] = []
    plain = os.close

    def close(descriptor: int) -> None:
        closed.append(descriptor)
        time.sleep(0.05)
        if closed.count(descriptor) == 1:
            plain(descriptor)

    monkeypatch.setattr(local.os, "close", close)
    threads = [threading.Thread(target=instance.close) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(closed) == 1


def held(server: Server) -> tuple[int, int, int]:
    """Connections, threads, and files of the landing folder that are open."""
    process = psutil.Process(server.process.pid)  # those that draw have neither, and end with who waits for them
    connections = [one for one in process.net_connections() if one.status == "ESTABLISHED"]
    files = [one for one in process.open_files() if "landing" in one.path]
    return len(connections), process.num_threads(), len(files)


@pytest.mark.slow
def test_nothing_outlives_clients_that_break_off_in_the_middle(retrievable: Lake, tmp_path: Path):
    """Metadata, objects, zips, frames: of each some clients that take the first bytes and go, or go at once."""
    asked = (
        (path(LARGE), "application/zip"),
        (path(LARGE, 1, 1), "application/dicom"),
        (path(LARGE, 1, 1) + "/frames/1,2,3,4", "*/*"),
        (path(LARGE, 1, 1) + "/bulkdata/7FE00010", "*/*"),
        (path(LARGE, 1, 1) + "/rendered", "image/png"),
        (path(1) + "/metadata", "*/*"),
    )
    with serving(retrievable.settings, tmp_path / "serving") as server:
        for what, accept in asked:
            assert server.get(what, headers={"Accept": accept}).status_code == 200
        settles(lambda: held(server)[0] == 0, 20)
        before = held(server)
        for number in range(AT_ONCE):
            what, accept = asked[number % len(asked)]
            head = f"GET {what} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAccept: {accept}\r\n\r\n"
            client = server.connect(head.encode())
            if number % 2:
                client.recv(1_000)
        time.sleep(1)
        assert held(server)[0] > before[0]
        for client in server.sockets:
            client.close()
        seconds = settles(lambda: held(server)[::2] == before[::2], 30)
        assert seconds < 5 or os.getloadavg()[0] > 2 * (os.cpu_count() or 1), seconds
        # Threads wait ten seconds for more to do, and end when others are asked for; none of them is busy.
        settles(lambda: frame(server) and held(server)[1] <= before[1] + 2, 30)


def frame(server: Server) -> bool:
    """Whether a frame is answered as it should be."""
    answer = server.get(path(1, 1, 1) + "/frames/1", headers={"Accept": "application/octet-stream"})
    return answer.content == PIXELS[0].astype("<u2").tobytes()
