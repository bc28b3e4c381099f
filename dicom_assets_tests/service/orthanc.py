"""A real Orthanc for tests, in a network namespace of its own.

Orthanc listens on every interface whatever it is told, so it runs where there is nothing but loopback, together with
the tests that talk to it: `run_cases` starts pytest in a namespace, and the fixtures of the cases start Orthanc there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from dicom_assets_tests.support.children import ended_behind

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
URL = "http://127.0.0.1:8042"
INSIDE = "DICOM_ASSETS_TESTS_IN_NAMESPACE"


def why_not() -> str | None:
    """Why there is no Orthanc here, in a sentence; None when there is one."""
    if shutil.which("Orthanc") is None or not PLUGIN.exists():
        return "Orthanc is not installed: apt-get install orthanc orthanc-dicomweb"
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return "network namespaces need util-linux and iproute2"
    if subprocess.run([*_unshare(), "true"], capture_output=True, timeout=30).returncode != 0:
        return "network namespaces cannot be made here"
    return None


def _unshare() -> list[str]:
    return ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]


def run_cases(*modules: str | Path, timeout: float = 500) -> subprocess.CompletedProcess[str]:
    """Runs pytest on modules of cases in a new namespace with loopback up. modules: below `dicom_assets_tests`."""
    paths = [str(Path(__file__).parents[1] / module) for module in modules]
    pytest = [sys.executable, "-W", "ignore", "-m", "pytest", "-p", "no:cacheprovider", "-rfE", *paths]
    return subprocess.run(
        _inside(pytest),
        capture_output=True,
        text=True,
        timeout=timeout,
        env=_environment(),
        cwd=Path(__file__).parents[2],
    )


def run_inside(command: Sequence[str]) -> int:
    """Runs a command in a new namespace with loopback up; its exit code."""
    return subprocess.run(_inside(command), env=_environment()).returncode


def _inside(command: Sequence[str]) -> list[str]:
    return [*_unshare(), "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if "proxy" not in k.lower()} | {INSIDE: "1"}


@contextmanager
def running(
    folder: Path, servers: Mapping[str, Sequence[str]] | None = None, users: Mapping[str, str] | None = None
) -> Iterator[str]:
    """An empty Orthanc with its DICOMweb plugin, until the block ends; its URL. Only inside a namespace.

    servers: DICOMweb servers that it is a client of, by name. users: who may use it, with passwords; everybody without.
    """
    if os.environ.get(INSIDE) != "1":
        raise RuntimeError("Orthanc runs in a network namespace only")
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "orthanc.json"
    settings = {
        "Name": "test",
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": 8042,
        "DicomServerEnabled": False,
        "AuthenticationEnabled": users is not None,
        "RegisteredUsers": dict(users or {}),
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "Servers": dict(servers or {})},
    }
    config.write_text(json.dumps(settings))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(["Orthanc", str(config)], stdout=log, stderr=log)
    with ended_behind(process):
        _wait(process)
        yield URL


def _wait(process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        if process.poll() is not None:
            raise RuntimeError(f"Orthanc ended with {process.returncode}")
        try:
            httpx.get(f"{URL}/system", timeout=1)
            return
        except httpx.TransportError:
            time.sleep(0.1)
    raise RuntimeError("Orthanc did not answer within 30 s")
