"""The command `serve`, as a process: how it begins, what it bears, how it ends."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from typer.testing import CliRunner

from dicom_assets.cli.main import app
from dicom_assets.settings import Settings
from dicom_assets_tests.serve.asking import ENVIRONMENT, TOKEN
from dicom_assets_tests.serve.serving import Server, arguments, serving
from dicom_assets_tests.support.commands import clean_environment, wait_for
from dicom_assets_tests.support.dicoms import uid

pytestmark = pytest.mark.slow

TOKENS = '[[serve.tokens]]\nname = "all"\nvariable = "ALL"\n'


def run(settings: Settings, folder: Path, *more: str) -> tuple[int, str]:
    """The command to its end."""
    done = subprocess.run(
        arguments(settings, *more), cwd=folder, env=clean_environment(), capture_output=True, text=True, timeout=120
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def refused(settings: Settings, *more: str) -> str:
    """What the command says that does not begin: it ends before anything answers, so that this process can run it."""
    done = CliRunner().invoke(app, ["serve", "--lake", settings.lake, *more])
    assert (done.exit_code, done.stdout) == (2, ""), done.exception
    return done.stderr


class TestBeginning:
    def test_a_port_in_use_is_said(self, searchable: Settings, tmp_path: Path):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            code, said = run(searchable, tmp_path, "--port", str(taken.getsockname()[1]))
        assert code == 2
        assert "in use by another program. Give another --port" in said

    def test_a_lake_that_is_not_there_is_said(self, searchable: Settings, tmp_path: Path):
        said = refused(searchable.model_copy(update={"lake": str(tmp_path / "none")}))
        assert "There is no lake at" in said
        assert not (tmp_path / "none").exists()

    def test_another_host_is_refused_and_how_it_is_opened_is_said(self, searchable: Settings):
        said = refused(searchable, "--host", "0.0.0.0", "--port", "0")
        assert "would see every patient. Set [[serve.tokens]] or [serve.proxy]" in said
        assert len(said.splitlines()) == 1

    def test_a_name_that_is_none_is_said(self, searchable: Settings):
        assert "There is no address of the name" in refused(searchable, "--host", "no such host.invalid", "--port", "0")


@pytest.fixture(scope="module")
def server(searchable: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with narrow bounds."""
    bounds = "[serve]\nhead_seconds = 1.0\nhead_bytes = 4096\nstall_seconds = 1.5\n"
    with serving(searchable, tmp_path_factory.mktemp("server"), toml=bounds) as one:
        yield one


class TestOneServer:
    def test_answers_where_it_says(self, server):
        assert server.get("/healthz").json() == {"status": "ok"}
        assert server.get("/metrics").text.endswith("# EOF\n")

    def test_a_head_without_end_is_cut_off(self, server):
        opened = server.connect(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
        began = time.monotonic()
        for _ in range(30):
            try:
                opened.sendall(b"X: y\r\n")
            except OSError:
                break
            time.sleep(0.2)
        assert time.monotonic() - began < 5

    def test_who_connects_and_says_nothing_is_cut_off(self, server):
        opened = server.connect()
        opened.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            assert opened.recv(10) == b""

    def test_a_head_that_is_too_long_is_refused(self, server):
        opened = server.connect(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 200_000)
        opened.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert opened.recv(100).startswith(b"HTTP/1.1 431 ")

    @pytest.mark.parametrize(
        "sent",
        [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"GET\r\n\r\n", b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n"],
    )
    def test_what_is_no_http_is_refused(self, server, sent: bytes):
        opened = server.connect(sent)
        opened.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert opened.recv(100)[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 404", b"")

    def test_it_says_nothing_of_patients(self, server):
        server.get(f"/dicom-web/studies/{uid(1)}/metadata?PatientName=Doe")
        assert uid(1) not in server.said
        assert "Doe" not in server.said
        assert "Traceback" not in server.said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly_with_clients_connected(searchable: Settings, tmp_path: Path, number: int):
    with serving(searchable, tmp_path / "server", toml="[serve]\nclosing_seconds = 1\n") as server:
        server.connect(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").recv(10)
        server.connect(b"GET /dicom-web/stu")
        with httpx.Client() as kept:
            kept.get(server.url + "/healthz")
            assert server.end(number, 20) == 0
        assert "Traceback" not in server.said
        assert "fault" not in server.said


def test_several_processes_answer_and_end_together(searchable: Settings, tmp_path: Path):
    with serving(
        searchable, tmp_path / "server", "--workers", "2", "--host", "0.0.0.0", toml=TOKENS, environment=ENVIRONMENT
    ) as server:
        mine = {"Authorization": f"Bearer {TOKEN}"}
        assert server.get("/dicom-web/nothing").status_code == 401
        for _ in range(20):
            assert server.get("/openapi.json", headers=mine).status_code == 200
        time.sleep(1.2)
        for _ in range(4):
            server.get("/healthz")

        def counted() -> bool:
            text = server.get("/metrics", headers=mine).text
            return 'route="/openapi.json",method="GET",status="200"} 20\n' in text

        wait_for("the numbers of both", counted, 20)
        processes = server.all
        assert len([one for one in processes if "spawn_main" in " ".join(one.cmdline())]) == 2
        assert server.end() == 0
        _, alive = psutil.wait_procs(processes, 10)
        assert alive == []
        assert "Traceback" not in server.said


def test_processes_end_with_the_one_that_started_them(searchable: Settings, tmp_path: Path):
    with serving(searchable, tmp_path / "server", "--workers", "2") as server:
        assert server.get("/healthz").status_code == 200
        processes = server.all
        server.process.kill()
        _, alive = psutil.wait_procs(processes, 20)
        assert alive == []
