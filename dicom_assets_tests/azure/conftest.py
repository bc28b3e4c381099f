"""Fixtures of the tests that talk to Azurite, the emulator of the session: a container for each test, faults."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from azure.storage.queue import QueueClient

from dicom_assets_tests.azure import azurite


@pytest.fixture
def container(emulator: dict[str, str]) -> azurite.Container:
    """An empty container."""
    return azurite.new_container()


@pytest.fixture
def queue(emulator: dict[str, str]) -> QueueClient:
    """An empty queue."""
    return azurite.new_queue()


@pytest.fixture
def faults(emulator: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[azurite.Proxy]:
    """A proxy before the blob service that refuses what the test says."""
    with azurite.proxy(emulator["AZURITE_BLOB_STORAGE_URL"]) as proxy:
        monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", proxy.url)
        yield proxy


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says in one line what the skipped tests want."""
    if azurite.executable() is None:
        terminalreporter.write_line(f"Tests of Azure were skipped. {azurite.HOW}.")
