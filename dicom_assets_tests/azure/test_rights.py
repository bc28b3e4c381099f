"""`source test` at containers and queues: each right of a signature, wrong keys, wrong hosts, nothing left behind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import ContainerSasPermissions, generate_container_sas
from azure.storage.queue import QueueClient, QueueSasPermissions, generate_queue_sas

from dicom_assets.batch.reach.rights import try_places
from dicom_assets.batch.reach.trial import Result, Step
from dicom_assets.settings import Settings
from dicom_assets.storage.azure import EMULATOR, credential
from dicom_assets_tests.azure.azurite import Container
from dicom_assets_tests.support.commands import free_port

pytestmark = pytest.mark.slow
SAS = "AZURE_STORAGE_SAS_TOKEN_DEVSTOREACCOUNT1"
NAME = "Musterfrau/Musterfrau.dcm"


@pytest.fixture
def filled(container: Container) -> Container:
    container.put(NAME, b"x" * 200)
    return container


def tried(root: str, lake: str | Path, **more: Any) -> list[Step]:
    source = {"name": "ct", "root": root, **more}
    return try_places(Settings.model_validate({"lake": str(lake), "sources": [source]}), "ct")


def results(steps: list[Step], subject: str = "source ct") -> dict[str, Result]:
    return {step.name: step.result for step in steps if step.subject == subject}


def detail(steps: list[Step], name: str, subject: str = "source ct") -> str:
    return next(step.detail for step in steps if (step.subject, step.name) == (subject, name))


def allow(monkeypatch: pytest.MonkeyPatch, container: Container, rights: str) -> None:
    """Signs the emulator's account with a signature of these rights alone."""
    monkeypatch.delenv(SAS, raising=False)
    signature = generate_container_sas(
        EMULATOR,
        str(container.client.container_name),
        credential(EMULATOR).secret or "",
        permission=ContainerSasPermissions.from_string(rights),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )
    monkeypatch.setenv(SAS, signature)


def test_a_key_may_everything_and_nothing_is_left_behind(filled: Container, tmp_path: Path) -> None:
    steps = tried(filled.url, f"{filled.url}/lake", mode="organize")
    assert results(steps) == dict.fromkeys(("reach", "list", "read", "write", "delete"), Result.OK)
    assert results(steps, "lake") == dict.fromkeys(("reach", "list", "read", "write", "lock", "delete"), Result.OK)
    assert filled.names() == [NAME]
    assert not any("Musterfrau" in step.detail for step in steps)


@pytest.mark.parametrize(
    ("rights", "failing", "role"),
    [
        ("rwdc", "list", "Contributor"),
        ("lwdc", "read", "Contributor"),
        ("rld", "write", "Contributor"),
        ("rlwc", "delete", "Contributor"),
    ],
)
def test_the_right_that_a_signature_lacks_is_named_with_the_role(
    filled: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rights: str, failing: str, role: str
) -> None:
    allow(monkeypatch, filled, rights)
    steps = tried(filled.url, tmp_path / "lake", mode="organize")
    failed = [name for name, result in results(steps).items() if result is Result.FAILS]
    assert failed == [failing]
    where = f"container {filled.client.container_name} of account {EMULATOR}"
    assert f"does not allow to {failing}" in detail(steps, failing)
    assert f"role Storage Blob Data {role} on the {where}" in detail(steps, failing)


def test_a_source_that_is_read_in_place_needs_the_reader_alone(
    filled: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(monkeypatch, filled, "rl")
    assert set(results(tried(filled.url, tmp_path / "lake")).values()) == {Result.OK}
    allow(monkeypatch, filled, "r")
    assert "role Storage Blob Data Reader on the container" in detail(tried(filled.url, tmp_path / "lake"), "list")


def test_a_wrong_key_is_told_from_a_missing_role(
    filled: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY_DEVSTOREACCOUNT1", "d3Jvbmc=")
    steps = tried(filled.url, tmp_path / "lake")
    assert results(steps)["reach"] is Result.OK
    assert "account key is refused" in detail(steps, "list")
    assert "d3Jvbmc" not in detail(steps, "list")


def test_a_wrong_host_is_told_and_the_rest_is_not_tried(
    filled: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", f"http://127.0.0.1:{free_port()}")
    steps = tried(filled.url, tmp_path / "lake")
    assert "nobody listens" in detail(steps, "reach")
    assert results(steps)["list"] is Result.NOT_TRIED


def test_a_container_that_is_not_there_is_told(emulator: dict[str, str], tmp_path: Path) -> None:
    assert "is not there" in detail(tried(f"az://{EMULATOR}/nowhere", tmp_path / "lake"), "list")


def test_a_queue_is_looked_into_and_no_message_is_taken(
    filled: Container, queue: QueueClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.send_message("one")
    steps = tried(filled.url, tmp_path / "lake", queue=queue.queue_name)
    assert results(steps)["queue: take"] is Result.OK
    assert next(iter(queue.receive_messages())).dequeue_count == 1
    signature = generate_queue_sas(
        EMULATOR,
        str(queue.queue_name),
        credential(EMULATOR).secret or "",
        permission=QueueSasPermissions(read=True),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )
    monkeypatch.setenv(SAS, signature)
    steps = tried(filled.url, tmp_path / "lake", queue=queue.queue_name)
    assert results(steps)["queue: peek"] is Result.OK
    assert "role Storage Queue Data Message Processor on the queue" in detail(steps, "queue: take")


def test_an_inventory_without_a_report_is_told(filled: Container, tmp_path: Path) -> None:
    steps = tried(filled.url, tmp_path / "lake", inventory=f"{filled.url}/inventory")
    assert results(steps)["inventory"] is Result.FAILS
    assert "no complete report" in detail(steps, "inventory")
