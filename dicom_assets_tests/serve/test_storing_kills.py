"""A server that is killed while it stores leaves what was whole, and nothing of what was not."""

from __future__ import annotations

import socket
import time
from urllib.parse import urlsplit

import psutil
import pytest

from dicom_assets_tests.serve.client_lake import client_lake
from dicom_assets_tests.serve.storing_service import RELATED, body, pixels
from dicom_assets_tests.support.commands import wait_for
from dicom_assets_tests.support.dicoms import dicom

pytestmark = pytest.mark.slow


def test_a_kill_in_the_middle_of_an_object_leaves_the_whole_ones_alone(tmp_path):
    with client_lake(tmp_path) as here:
        before = {path for path in here.landing.rglob("*") if path.is_file()}

        def new():
            return [path for path in here.landing.rglob("*") if path.is_file() and path not in before]

        whole, half = dicom(1), pixels(2, 8_000_000)
        sent = body(whole, half)
        at = urlsplit(here.url)
        head = f"POST {at.path}/studies HTTP/1.1\r\nHost: {at.netloc}\r\nContent-Type: {RELATED}\r\n"
        with socket.create_connection((at.hostname, at.port)) as client:
            client.sendall(f"{head}Content-Length: {len(sent)}\r\n\r\n".encode() + sent[:5_000_000])
            wait_for("the first object to be stored", lambda: len(new()) == 1)
            time.sleep(1)
            (server,) = [one for one in psutil.Process().children() if "serve" in one.cmdline()]
            server.kill()
            server.wait(20)
        assert [path.read_bytes() for path in new()] == [whole]
